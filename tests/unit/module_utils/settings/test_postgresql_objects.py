# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import postgresql_objects as o
from ansible_collections.slipway.server.plugins.module_utils.settings import scram
from ansible_collections.slipway.server.plugins.module_utils.settings.psql import Psql, SqlError, identifier, literal

SECRET = scram.verifier("word", iterations=2)
WANTED = o.Wanted(
    roles=(o.Role("shop", connection_limit=20, settings={"statement_timeout": "30s"}, password="word"),),
    databases=(o.Database("shop_production", "shop", extensions=("pg_trgm",)),),
    pooler_user="pooler",
)


def state(**changes):
    """The server once WANTED is there, with some cells changed."""
    role = {
        "login": True,
        "replication": False,
        "connection_limit": 20,
        "secret": SECRET,
        "settings": ["statement_timeout=30000"],
    }
    database = {"owner": "shop", "encoding": "UTF8", "locale": "C.utf8", "public": False, "allowed": ["shop", "pooler"]}
    lookup = {"source": o.LOOKUP_BODY, "definer": True, "config": ["search_path=pg_catalog, pg_temp"], "owner": "postgres"}
    inside = {
        "database": "shop_production",
        "extensions": ["plpgsql", "pg_trgm"],
        "schema_owner": "postgres",
        "usage": ["postgres", "pooler"],
        "lookup": {**lookup, "granted": ["postgres", "pooler"], **changes.get("lookup", {})},
    }
    first = {
        "known": ["postgres", "shop", "pooler"],
        "available": ["pg_trgm"],
        "roles": {
            "shop": {**role, **changes.get("role", {})},
            "pooler": {"login": True, "replication": False, "connection_limit": -1, "secret": None},
        },
        "databases": {"shop_production": {**database, **changes.get("database", {})}},
        "parameters": [["statement_timeout", "integer", "user", "ms", "0", "2147483647", None]],
    }
    return o.parse_state([json.dumps(first), json.dumps({**inside, **changes.get("inside", {})})])


def after(wanted, seen):
    return [step.after for step in o.plan(wanted, seen)]


def test_nothing_to_do_when_all_is_there():
    assert o.conflicts(WANTED, state()) == []
    assert after(WANTED, state()) == []


def test_everything_is_new_on_an_empty_server():
    steps = o.plan(WANTED, o.State())
    assert [step.before for step in steps if step.before] == []
    assert steps[0].sql == 'CREATE ROLE "shop"'
    assert steps[1].sql.startswith('ALTER ROLE "shop" PASSWORD \'SCRAM-SHA-256$4096:')
    assert all("word'" not in step.sql for step in steps)
    assert [step.after for step in steps][-4:] == [
        "database shop_production: extension pg_trgm",
        "database shop_production: schema pgbouncer",
        "database shop_production: function pgbouncer.user_lookup",
        "database shop_production: only pooler may execute pgbouncer.user_lookup",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"role": {"secret": "md5x"}}, ["role shop: password (hidden, new)"]),
        ({"role": {"secret": scram.verifier("other", iterations=2)}}, ["role shop: password (hidden, new)"]),
        ({"role": {"login": False}}, ["role shop: login True"]),
        ({"role": {"connection_limit": -1}}, ["role shop: connection_limit 20"]),
        ({"role": {"settings": ["statement_timeout=31s"]}}, ["role shop: statement_timeout 30s"]),
        ({"database": {"owner": "postgres"}}, ["database shop_production: owner shop"]),
        ({"database": {"public": True}}, ["database shop_production: only its owner and granted roles may connect"]),
        ({"database": {"allowed": ["shop"]}}, ["database shop_production: pooler may connect"]),
        ({"inside": {"extensions": []}}, ["database shop_production: extension pg_trgm"]),
        ({"inside": {"schema_owner": "shop"}}, ["database shop_production: schema pgbouncer of postgres"]),
        (
            {"lookup": {"source": "SELECT 1"}},
            [
                "database shop_production: function pgbouncer.user_lookup",
                "database shop_production: only pooler may execute pgbouncer.user_lookup",
            ],
        ),
        (
            {"lookup": {"granted": ["postgres", "pooler", "-"]}},
            ["database shop_production: only pooler may execute pgbouncer.user_lookup"],
        ),
    ],
)
def test_one_difference_is_one_step(changes, expected):
    assert after(WANTED, state(**changes)) == expected


def test_rights_of_others_on_the_lookup_are_taken():
    steps = o.plan(WANTED, state(lookup={"granted": ["postgres", "pooler", '"Odd One"']}))
    assert 'FROM "Odd One"' in steps[0].sql


def test_a_setting_goes_back_to_the_servers_value():
    wanted = o.Wanted(roles=(o.Role("shop", settings={"statement_timeout": "default"}),))
    assert [step.sql for step in o.plan(wanted, state())] == ['ALTER ROLE "shop" RESET "statement_timeout"']
    assert o.plan(wanted, state(role={"settings": None})) == []


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (
            o.Wanted(databases=(o.Database("shop_production", "shop", encoding="LATIN1"),)),
            "encoding is UTF8, declared LATIN1",
        ),
        (o.Wanted(databases=(o.Database("x", "nobody"),)), "no role `nobody` to own it"),
        (o.Wanted(databases=(o.Database("x", extensions=("postgis",)),)), "no extension `postgis`"),
        (o.Wanted(roles=(o.Role("shop", member_of=("crew",)),)), "no role `crew`"),
        (o.Wanted(roles=(o.Role("shop", settings={"statement_timeout": "-5s"}),)), "outside 0 to"),
        (o.Wanted(roles=(o.Role("shop", settings={"statement_timeot": "5s"}),)), "no setting `statement_timeot`"),
    ],
)
def test_conflicts_with_the_server(wanted, says):
    (problem,) = o.conflicts(wanted, state())
    assert says in problem


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (o.Wanted(roles=(o.Role("postgres"),)), "belongs to the server"),
        (o.Wanted(roles=(o.Role("a'b"),)), "use letters"),
        (o.Wanted(databases=(o.Database("x"), o.Database("x"))), "declared twice"),
    ],
)
def test_names_that_cannot_be(wanted, says):
    (problem,) = o.problems(wanted)
    assert says in problem


def test_secrets_are_not_in_reprs():
    assert "word" not in repr(WANTED)


def test_observation_goes_into_each_database():
    script = o.observation(WANTED)
    assert '\\set roles \'["shop", "pooler"]\'' in script
    assert "\\set database 'shop_production'" in script


class Failing(Runner):
    def run(self, argv, data=None, timeout=600.0, env=None):
        self.argv, self.data, self.env = argv, data, env
        return Result(3, "0\n1\n", f"psql:<stdin>:4: ERROR:  no room for '{SECRET}'")


def test_a_failure_names_its_step_and_hides_verifiers():
    runner = Failing()
    steps = [o.Step("postgres", "A", "", "first"), o.Step("shop", "B", "", "second"), o.Step("shop", "C", "", "third")]
    with pytest.raises(SqlError) as caught:
        o.apply(Psql(runner, "15"), steps)
    assert str(caught.value).startswith("second: psql")
    assert "1 of 3 changes before it are made" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert runner.data.endswith('\\echo 0\nA;\n\\connect "shop"\n\\echo 1\nB;\n\\echo 2\nC;\n')
    assert "log_statement=none" in runner.env["PGOPTIONS"]


def test_quoting():
    assert literal("it's \\") == "'it''s \\'"
    assert identifier('a"b') == '"a""b"'


def test_psql_reads_names_as_they_are():
    script = o.observation(o.Wanted(databases=(o.Database("we\"i\\rd's"),)))
    assert r"""\set databases '["we\\"i\\\\rd''s"]'""" in script
    assert r"""\set database 'we"i\\rd''s'""" in script
