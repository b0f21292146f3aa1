# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import postgresql as p
from hypothesis import given
from hypothesis import strategies as st

PARAMETERS = p.parse_parameters(
    [
        ["shared_buffers", "integer", "postmaster", "8kB", "16", "1073741823", None],
        ["work_mem", "integer", "user", "kB", "64", "2147483647", None],
        ["wal_keep_size", "integer", "sighup", "MB", "0", "2147483647", None],
        ["statement_timeout", "integer", "user", "ms", "0", "2147483647", None],
        ["random_page_cost", "real", "user", None, "0", "1.79769e+308", None],
        ["jit", "bool", "user", None, None, None, None],
        ["wal_compression", "enum", "superuser", None, None, None, ["pglz", "lz4", "on", "off"]],
        ["shared_preload_libraries", "string", "postmaster", None, None, None, None],
        ["block_size", "integer", "internal", None, "8192", "8192", None],
    ]
)
SERVER = p.Server("15", PARAMETERS, memory=8 * 2**30, libraries=frozenset({"pg_stat_statements"}))


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("1GB", "8kB", 131072),
        ("2 MB", "kB", 2048),
        ("90", "8kB", 90),
        ("1.5h", "min", 90),
        ("-1", "ms", -1),
        ("500us", "ms", 0.5),
    ],
)
def test_numbers_with_units(value, unit, expected):
    assert p.number(value, unit) == expected


@pytest.mark.parametrize(("value", "unit"), [("", "B"), ("2 gb", "kB"), ("5s", "B"), ("3MB", ""), ("4 x y", "kB"), ("off", "ms")])
def test_what_is_no_number(value, unit):
    with pytest.raises(ValueError, match=r"is not a number|no unit"):
        p.number(value, unit)


@given(st.integers(0, 10**6), st.sampled_from(sorted(p.MEMORY)))
def test_one_amount_is_equal_in_every_unit(amount, unit):
    parameter = p.Parameter("x", "integer", "user", "kB", "0", str(10**30))
    in_bytes = f"{amount * p.MEMORY[unit]}B"
    assert p.canonical(f"{amount}{unit}", parameter) == p.canonical(in_bytes, parameter)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("wal_keep_segments", "64", "`wal_keep_size`"),
        ("shared_bufers", "1GB", "did you mean `shared_buffers`"),
        ("timeout", "5000", "SQLite"),
        ("nonsense_beyond_repair", "1", "see the manual"),
        ("work_mem", "1kB", "outside 64 to 2147483647 kB"),
        ("work_mem", "many", "units: B, kB, MB, GB, TB"),
        ("jit", "maybe", "write on or off"),
        ("wal_compression", "lz5", "choose from pglz, lz4"),
        ("block_size", "8192", "leave it out"),
        ("listen_addresses", "*", "postgresql_listen"),
        ("shared_buffers", "900GB", "80% of this host's 8192 MB"),
        ("shared_preload_libraries", "pg_stat_statements, nowhere", "no library `nowhere`"),
    ],
)
def test_refusals_say_what_to_do(name, value, says):
    (problem,) = p.problems({name: value}, SERVER)
    assert problem.startswith(f"{name}: " if "nowhere" not in value else "shared_preload_libraries: ")
    assert says in problem


def test_all_refusals_at_once():
    assert len(p.problems({"work_mem": "1kB", "jit": "maybe", "checkpoint_segments": "9"}, SERVER)) == 3


def test_what_is_taken():
    declared = {
        "shared_buffers": 2**18,
        "work_mem": "6MB",
        "jit": False,
        "random_page_cost": 1.1,
        "wal_compression": True,
        "shared_preload_libraries": ["pg_stat_statements"],
        "auto_explain.log_min_duration": "1s",
        "statement_timeout": None,
    }
    settings = p.texts(declared)
    assert p.problems(settings, SERVER) == []
    assert p.render_settings(settings) == p.HEADER + (
        "auto_explain.log_min_duration = '1s'\njit = 'off'\nrandom_page_cost = '1.1'\nshared_buffers = '262144'\n"
        "shared_preload_libraries = 'pg_stat_statements'\nwal_compression = 'on'\nwork_mem = '6MB'\n"
    )


def test_quotes_in_values():
    assert p.render_settings({"a": "it's \\x"}).endswith("a = 'it''s \\\\x'\n")


def test_access_is_denied_without_a_rule():
    rules = [p.HbaRule("hostssl", ("shop",), ("shop", "All Odd"), "10.0.0.5", "scram-sha-256")]
    lines = [line.split() for line in p.render_hba(rules, "pooler").splitlines() if not line.startswith("#")]
    assert lines == [
        ["local", "all,replication", "postgres", "peer"],
        ["local", "all", "pooler", "peer", "map=slipway"],
        ["hostssl", "shop", 'shop,"All', 'Odd"', "10.0.0.5/32", "scram-sha-256"],
        ["local", "all", "all", "scram-sha-256"],
        ["host", "all", "all", "127.0.0.1/32", "scram-sha-256"],
        ["host", "all", "all", "::1/128", "scram-sha-256"],
    ]
    assert p.render_ident("", "postgres") == p.HEADER
    assert p.render_ident("pooler", "postgres").endswith("slipway postgres pooler\n")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (p.HbaRule("host", ("all",), ("all",), "", "scram-sha-256"), "needs an address"),
        (p.HbaRule("local", ("all",), ("all",), "10.0.0.1", "scram-sha-256"), "takes no address"),
        (p.HbaRule("host", ("all",), ("all",), "db1", "scram-sha-256"), "no address or network"),
        (p.HbaRule("host", ("all",), ("all",), "10.0.0.1", "peer"), "unix socket only"),
    ],
)
def test_rules_that_cannot_stand(rule, says):
    (problem,) = p.hba_problems([rule])
    assert says in problem


def test_checks_quote_what_is_declared():
    checks = p.checks({"log_line_prefix": "it's %m"}, 5433, ["localhost", "*"], ["shop"], ["o'hara"], "now")
    sql = checks[1]["argv"][-1]
    assert "it''s %m" in sql
    assert "o''hara" in sql
    assert [check.get("address") for check in checks[2:]] == ["127.0.0.1", "0.0.0.0"]


def test_peers_may_follow_each_other() -> None:
    text = p.render_hba(p.peer_rules(["10.0.0.2", "10.0.0.1", "10.0.0.2"], "replicator"), "")
    lines = [line.split() for line in text.splitlines() if line.startswith("hostssl")]
    assert [line[1:5] for line in lines] == [
        ["replication,postgres", "replicator", f"10.0.0.{number}/32", "scram-sha-256"] for number in (1, 2)
    ]


def test_names_with_capitals_are_found() -> None:
    found = p.parse_parameters([("TimeZone", "string", "user", None, None, None, None)])
    assert found["timezone"].name == "TimeZone"
