# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import pgbouncer as p

SHOP = {"name": "shop", "host": "/var/run/postgresql", "port": 5432, "pool_size": 5}


def test_a_reload_takes_one_file_and_a_restart_the_other():
    files = p.render(p.Wanted("1.24.1", {"max_client_conn": 500, "listen_backlog": 200}, [SHOP], ("127.0.0.1", "10.0.0.5")))
    assert "shop = host=/var/run/postgresql port=5432 pool_size=5\n" in files["main"]
    assert "max_client_conn = 500\n" in files["main"]
    assert "pool_mode = transaction\n" in files["main"]
    assert files["main"].endswith("%include /etc/pgbouncer/slipway-fixed.ini\n")
    assert "listen_addr = 127.0.0.1,10.0.0.5\nlisten_backlog = 200\n" in files["fixed"]
    assert "listen" not in files["main"]
    # A second section of the same name would reset what the first one said.
    assert "[pgbouncer]" not in files["fixed"]
    assert files["users"] == ""


def test_prepared_statements_by_version():
    assert p.settings(p.Wanted("1.24.1"))["max_prepared_statements"] == "200"
    assert "max_prepared_statements" not in p.settings(p.Wanted("1.18.0"))
    assert p.problems(p.Wanted("1.18.0", {"max_prepared_statements": 0})) == []
    (problem,) = p.problems(p.Wanted("1.18.0", {"max_prepared_statements": 100}))
    assert "needs pgbouncer 1.21, this host has 1.18.0" in problem


@pytest.mark.parametrize(
    ("settings", "databases", "says"),
    [
        ({"max_client_con": 1}, [], "did you mean `max_client_conn`"),
        ({"auth_type": "trust"}, [], "it is scram-sha-256"),
        ({"listen_port": 1}, [], "pgbouncer_port"),
        ({"max_client_conn": 5000}, [SHOP], "4096 descriptors are fewer than the 5015"),
        ({"server_check_query": "a\nb"}, [], "line break"),
        ({}, [{"host": "x"}], "needs a name of its own"),
        ({}, [{"name": "pgbouncer"}], "admin console"),
        ({}, [{"name": "a", "pool_sizes": 3}], "did you mean `pool_size`"),
    ],
)
def test_refusals_say_what_to_do(settings, databases, says):
    (problem,) = p.problems(p.Wanted("1.24.1", settings, databases))
    assert says in problem


def test_secrets_and_odd_names_are_quoted():
    files = p.render(
        p.Wanted("1.24.1", {}, [{"name": "odd name", "connect_query": "SELECT 'x'"}, {"name": "*"}], auth_password='a"b')
    )
    assert "\"odd name\" = connect_query='SELECT ''x'''\n" in files["main"]
    assert "* = \n" in files["main"]
    assert files["users"] == '"pgbouncer_auth" "a""b"\n'


def test_secrets_reach_checks_by_standard_input_only():
    wanted = p.Wanted("", {"verbose": True}, [SHOP], ("*",))
    *_others, login = p.checks(wanted, [{"database": "shop", "user": "shop", "password": "secret"}])
    assert login["input"] == "secret\n"
    assert "secret" not in " ".join(login["argv"])
    assert login["argv"][4:] == ["127.0.0.1", "6432", "shop", "shop"]


def test_checks_know_no_version():
    tables = [check["table"] for check in p.checks(p.Wanted("", {"verbose": True}, [SHOP])) if "table" in check]
    assert "max_prepared_statements" not in tables[0]
    assert tables[0]["verbose"] == {"value": "1"}
    assert tables[1] == {"shop": {"host": "/var/run/postgresql", "pool_size": "5"}}
