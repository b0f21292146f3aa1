# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import limits as m

TABLE = "Limit                     Soft Limit           Hard Limit           Units     \n"


class Host(Runner):
    def __init__(self, nofile):
        self.nofile = nofile
        self.argv: list[str] = []

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.argv = list(argv)
        rows = f"Max open files            {self.nofile[0]:<20} {self.nofile[1]:<20} files     \n"
        return Result(0, TABLE + rows + "Max core file size        0                    0                    bytes\n", "")


def contents(settings):
    return {file.path: file.content for file in m.transaction(m.parse(settings)).files}


def test_services_user_managers_and_logins_get_the_same_number():
    found = contents({"nofile": 8192, "core": 0})
    assert "DefaultLimitNOFILE=8192:524288\n" in found[m.SYSTEM]
    assert "DefaultLimitCORE=0:0\n" in found[m.SYSTEM]
    assert found[m.USER] == found[m.SYSTEM]
    assert "* soft nofile 8192\n" in found[m.LOGIN]
    assert "root soft nofile 8192\n" in found[m.LOGIN]
    assert "hard nofile" not in found[m.LOGIN]
    assert "* hard core 0\n" in found[m.LOGIN]


def test_without_limits_the_files_go():
    assert set(contents({}).values()) == {None}


@pytest.mark.parametrize(
    ("given", "systemd", "login"),
    [
        ("1048576", "1048576:1048576", "* hard nofile 1048576"),
        ("1024:4096", "1024:4096", "* hard nofile 4096"),
        ("unlimited", "infinity:infinity", "* hard nofile unlimited"),
    ],
)
def test_hard_limits(given, systemd, login):
    (limit,) = m.parse({"nofile": given})
    assert limit.for_systemd() == systemd
    assert login in limit.for_logins()


def test_wrong_entries_are_named_together():
    with pytest.raises(m.LimitError) as error:
        m.parse({"files": 3, "nofile": "many", "nproc": "9:3"})
    for words in ("files: not one of", "nofile: 'many'", "nproc: the soft limit 9 is above the hard limit 3"):
        assert words in str(error.value)


def test_what_the_host_grants_passes():
    host = Host((8192, 20000))
    m.refuse_what_the_host_cuts(host, m.parse({"nofile": 8192, "core": 0}))
    assert "--property=LimitNOFILE=8192:524288" in host.argv


def test_what_the_host_cuts_is_refused():
    with pytest.raises(m.LimitError) as error:
        m.refuse_what_the_host_cuts(Host((20000, 20000)), m.parse({"nofile": 65536}))
    assert "the soft limit 65536 is declared, this host grants 20000" in str(error.value)
    with pytest.raises(m.LimitError, match="the hard limit 524288 is declared, this host grants 20000"):
        m.refuse_what_the_host_cuts(Host((8192, 20000)), m.parse({"nofile": "8192:524288"}))
