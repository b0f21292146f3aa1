# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import pgbouncer, probes
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result

POOLS = "database,user,cl_active,cl_waiting,maxwait,maxwait_us\nshop,shop,3,{},{},500000\n"
DATABASES = "name,paused,disabled\nshop,{},{}\n"
STATE = "key,value\npaused,{}\n"
UNKNOWN = Result(2, "", "ERROR:  invalid command 'SHOW STATE'")


class Pooler:
    def __init__(self, waiting=0, paused=0, disabled=0, state=UNKNOWN):
        self.answers = {
            "SHOW POOLS": Result(0, POOLS.format(waiting, waiting), ""),
            "SHOW DATABASES": Result(0, DATABASES.format(paused, disabled), ""),
            "SHOW STATE": state,
        }

    def run(self, argv, data=None, timeout=600.0, env=None):
        return self.answers[argv[-1]]


def look(pooler):
    return pgbouncer.make("/run/x/.s.PGSQL.6432", pooler).look()


def test_a_pooler_is_well_while_nobody_waits():
    result = look(Pooler())
    assert result.ok
    assert result.detail == "3 client(s), none waits"


@pytest.mark.parametrize(
    ("pooler", "says"),
    [
        (Pooler(waiting=2), "2 client(s) wait for a session, the first for 2.5 s"),
        (Pooler(paused=1), "database shop is paused"),
        (Pooler(disabled=1), "database shop is disabled"),
        (Pooler(state=Result(0, STATE.format("yes"), "")), "the pooler is paused"),
    ],
)
def test_what_keeps_clients_waiting_is_named(pooler, says):
    result = look(pooler)
    assert not result.ok
    assert says in result.detail


def test_a_pooler_that_is_gone_is_told_from_one_that_is_odd():
    pooler = Pooler()
    pooler.answers["SHOW POOLS"] = Result(
        2, "", 'psql: error: connection to server on socket "x" failed: No such file or directory'
    )
    assert look(pooler).refused
    pooler.answers["SHOW POOLS"] = Result(2, "", "ERROR:  odd")
    assert not look(pooler).refused


@pytest.mark.parametrize("target", ["", "6432", "/run/x", "run/.s.PGSQL.6432", "/run/.s.PGSQL.x"])
def test_a_target_is_the_path_of_a_socket(target):
    with pytest.raises(probes.BadTarget, match="is not the socket of a pooler"):
        pgbouncer.make(target, Pooler())
