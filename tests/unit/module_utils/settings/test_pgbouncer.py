# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import pgbouncer as p

SHOP = {"name": "shop", "host": "/var/run/postgresql", "port": 5432, "pool_size": 5}


def test_one_file_holds_databases_users_and_settings():
    files = p.render(p.Wanted("1.24.1", {"max_client_conn": 500, "listen_backlog": 200}, [SHOP], ("127.0.0.1", "10.0.0.5")))
    assert "[databases]\nshop = host=/var/run/postgresql port=5432 pool_size=5\n\n[pgbouncer]\n" in files["main"]
    assert "listen_addr = 127.0.0.1,10.0.0.5\nlisten_backlog = 200\n" in files["main"]
    assert "max_client_conn = 500\n" in files["main"]
    assert "pool_mode = transaction\n" in files["main"]
    assert files["users"] == files["hba"] == ""


def test_users_have_settings_in_one_file_and_passwords_in_the_other():
    users = [
        {"name": "shop", "password": 'a"b', "max_user_connections": 5},
        {"name": "blog", "password": "SCRAM-SHA-256$4096:x$y:z"},
        {"name": "job", "pool_mode": "session", "password": None},
    ]
    wanted = p.Wanted("1.24.1", users=users, auth_password="secret")
    files = p.render(wanted)
    assert "[users]\nshop = max_user_connections=5\njob = pool_mode=session\n\n[pgbouncer]\n" in files["main"]
    assert files["users"] == '"shop" "a""b"\n"blog" "SCRAM-SHA-256$4096:x$y:z"\n"pgbouncer_auth" "secret"\n'
    assert "secret" not in files["main"]
    assert 'a"b' not in files["main"]
    assert "secret" not in repr(wanted)
    assert 'a"b' not in repr(wanted)


def test_tls_may_be_required_of_other_hosts_only():
    tls = {"certificate": "/c.pem", "key": "/k.pem"}
    remote = p.Wanted("1.18.0", tls=p.Tls(**tls))
    assert p.problems(remote) == []
    assert p.settings(remote)["auth_type"] == "hba"
    assert p.settings(remote)["client_tls_sslmode"] == "allow"
    rules = p.render(remote)["hba"].splitlines()
    assert "host all all 127.0.0.0/8 scram-sha-256" in rules
    assert "hostssl all all 0.0.0.0/0 scram-sha-256" in rules
    everyone = p.Wanted("1.18.0", tls=p.Tls(**tls, required="all"))
    assert p.settings(everyone)["client_tls_sslmode"] == "require"
    assert p.settings(everyone)["auth_type"] == "scram-sha-256"
    assert p.render(everyone)["hba"] == ""


@pytest.mark.parametrize(
    ("host", "mode"),
    [
        ("db.example", "require"),
        ("10.0.0.1,10.0.0.2", "require"),
        ("/run/x", None),
        ("127.0.0.1", None),
        ("::1", None),
        ("", None),
    ],
)
def test_a_server_on_another_host_is_reached_with_tls(host, mode):
    assert p.settings(p.Wanted("1.24.1", {}, [{"name": "shop", "host": host}])).get("server_tls_sslmode") == mode


def test_a_further_pooler_has_files_of_its_own():
    wanted = p.Wanted("1.24.1", port=6433, instance="reports")
    found = p.settings(wanted)
    assert (wanted.unit, wanted.folder) == ("pgbouncer@reports.service", "/etc/pgbouncer/reports")
    assert found["auth_file"] == "/etc/pgbouncer/reports/userlist.txt"
    assert found["pidfile"] == "/var/run/postgresql/pgbouncer-reports.pid"
    assert found["logfile"] == ""
    assert "ExecStart=/usr/sbin/pgbouncer /etc/pgbouncer/%i/pgbouncer.ini\n" in p.instance_unit("postgres")


def test_a_trial_listens_nowhere_and_knows_no_password():
    wanted = p.Wanted("1.24.1", {}, [SHOP], ("127.0.0.1", "10.0.0.5"), auth_password="secret", tls=p.Tls("/c.pem", "/k.pem"))
    files = p.trial(wanted, "/tmp/x")
    for line in (
        "listen_addr = ",
        "unix_socket_dir = /tmp/x",
        "pidfile = /tmp/x/pid",
        "auth_hba_file = /tmp/x/hba",
        "logfile = ",
    ):
        assert f"\n{line}\n" in files["pgbouncer.ini"]
    assert "/etc/pgbouncer" not in files["pgbouncer.ini"]
    assert "secret" not in "".join(files.values())
    assert "hostssl" in files["hba"]


def test_a_pool_counts_for_each_pair_of_database_and_user():
    shop, blog = {"name": "shop", "pool_size": 5}, {"name": "blog", "user": "blog"}
    base = 100 + 10
    # The user that looks others up has a pool in each database, too.
    assert p.descriptors(p.Wanted("1.24.1", {}, [shop])) == base + 5 * 2
    assert p.descriptors(p.Wanted("1.24.1", {}, [shop], auth_user="")) == base + 5
    users = [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    assert p.descriptors(p.Wanted("1.24.1", {}, [shop, blog], users=users)) == base + 5 * 4 + 20
    assert p.descriptors(p.Wanted("1.24.1", {"reserve_pool_size": 2}, [shop])) == base + 7 * 2
    assert p.descriptors(p.Wanted("1.24.1", {}, [{**shop, "max_db_connections": 6}], users=users)) == base + 6
    assert p.descriptors(p.Wanted("1.24.1", {"max_client_conn": 1000, "max_db_connections": 9}, [shop], users=users)) == 1010 + 9


def test_a_limit_that_the_host_would_cut_is_refused_with_both_numbers():
    wanted = p.Wanted("1.24.1", {"max_client_conn": 19000}, [SHOP], nofile=32768)
    (problem,) = p.problems(wanted, ceiling=20000)
    assert "32768 descriptors are declared, this host grants a service 20000 at most" in problem
    assert "19020 are needed" in problem
    assert p.problems(wanted, ceiling=0) == []
    assert "LimitNOFILE=4096:20000\n" in p.drop_in(p.Wanted(""), ceiling=20000)
    assert "LimitNOFILE=4096:4096\n" in p.drop_in(p.Wanted(""))


def test_an_address_may_come_late():
    text = p.drop_in(p.Wanted("", listen=("127.0.0.1", "10.0.0.5", "*")))
    assert "ip -oneline address show to 10.0.0.5 | grep -q ." in text
    assert text.count("ExecStartPre=") == 2


def test_a_running_pooler_knows_its_own_settings_best():
    wanted = p.Wanted("2.0", {"new_in_2": 1})
    assert p.problems(wanted, frozenset({"new_in_2"})) == []
    assert "no such setting" in p.problems(wanted)[0]
    (problem,) = p.problems(p.Wanted("1.24.1", {"max_prepared_statements": 5}), frozenset({"max_client_conn"}))
    assert "needs pgbouncer 1.21, this host has 1.24.1" in problem


def test_everything_is_refused_at_once():
    settings = {"pool_mode": "transactions", "auth_type": "md5", "default_pool_sizes": 1, "max_prepared_statements": 5}
    databases = [{"name": "a", "auth_dbname": "x", "pool_mode": "sessions"}, {"name": "b"}, {"name": "b"}]
    users = [{"name": "u", "query_timeout": 5}]
    found = "\n".join(p.problems(p.Wanted("1.18.0", settings, databases, users=users)))
    for says in (
        "settings.pool_mode: is no way to pool",
        "md5 and plain are refused",
        "did you mean `default_pool_size`",
        "databases[0].pool_mode",
        "databases[0].auth_dbname: needs pgbouncer 1.19",
        "databases[1]: needs a name of its own",
        "databases[2]: needs a name of its own",
        "users[0].query_timeout: needs pgbouncer 1.24",
        "prepared_statements: false",
    ):
        assert says in found
    assert len(found.splitlines()) == 9


def test_the_newer_name_of_the_reserve_is_written_as_all_versions_know_it():
    wanted = p.Wanted("1.18.0", {}, [{"name": "a", "reserve_pool_size": 2}])
    assert p.problems(wanted) == []
    assert "a = reserve_pool=2\n" in p.render(wanted)["main"]


def test_what_waits_for_a_restart_is_not_read_back():
    wanted = p.Wanted("1.24.1", {"listen_backlog": 200})
    kinds = [check["kind"] for check in p.checks(wanted)]
    assert "limit" in kinds
    assert "listen" in kinds
    later = p.checks(wanted, (), frozenset({"nofile", "listen_backlog", "listen_addr"}))
    assert {"limit", "listen"}.isdisjoint(check["kind"] for check in later)
    (table,) = [check["table"] for check in later if "table" in check]
    assert {"listen_backlog", "listen_addr"}.isdisjoint(table)


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
        ({"max_client_conn": 5000}, [SHOP], "4096 descriptors are fewer than the 5020"),
        ({"server_check_query": "a\nb"}, [], "line break"),
        ({"server_reset_query": "DISCARD ALL"}, [], "is not used in transaction mode"),
        ({"client_tls_sslmode": "require"}, [], "needs client_tls_cert_file and client_tls_key_file"),
        ({"server_tls_sslmode": "verify-full"}, [], "needs server_tls_ca_file"),
        ({}, [{"host": "x"}], "needs a name of its own"),
        ({}, [{"name": "pgbouncer"}], "admin console"),
        ({}, [{"name": "a", "pool_sizes": 3}], "did you mean `pool_size`"),
    ],
)
def test_refusals_say_what_to_do(settings, databases, says):
    (problem,) = p.problems(p.Wanted("1.24.1", settings, databases))
    assert says in problem


@pytest.mark.parametrize(
    ("settings", "databases"),
    [
        ({"server_reset_query": "DISCARD ALL", "pool_mode": "session"}, []),
        ({"server_reset_query": "DISCARD ALL"}, [{"name": "legacy", "pool_mode": "session"}]),
        ({"server_reset_query": "DISCARD ALL", "server_reset_query_always": 1}, []),
        ({"server_reset_query": ""}, []),
    ],
)
def test_a_reset_query_that_is_used_is_taken(settings, databases):
    assert p.problems(p.Wanted("1.18.0", settings, databases)) == []


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
