# SPDX-License-Identifier: GPL-3.0-or-later
"""A primary and its standby in the plan: who leads, what both get, where poolers are, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan import env
from ansible_collections.slipway.server.plugins.module_utils.plan import facts as seen
from ansible_collections.slipway.server.plugins.module_utils.plan.build import build
from ansible_collections.slipway.server.plugins.module_utils.plan.demands import demands
from ansible_collections.slipway.server.plugins.module_utils.plan.model import Cluster, Plan, Problem
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import Raw, parse
from ansible_collections.slipway.server.plugins.module_utils.plan.placeholders import Undefined

from tests.unit.module_utils.plan.inventories import PASSWORD, SECRET, facts, fleet, planned, problems, spotik

REPLICATION = "k2Jq9ZxW4mTr7Lb3"
ONE, TWO = "10.87.0.13", "10.87.0.14"


def pair(app: dict[str, Any] | None = None, primary: str | None = None, **hostvars: dict[str, Any]) -> Raw:
    """The demo with a standby db2; `primary` is slipway_primary of both."""
    both: dict[str, Any] = {"postgresql_replication_password": REPLICATION}
    if primary:
        both["slipway_primary"] = primary
    raw = fleet(app, **{"db1": {**both, **hostvars.get("db1", {})}})
    raw.groups.update(all=["web1", "web2", "db1", "db2"], replica=["db2"])  # type: ignore[attr-defined]
    raw.hostvars["db2"] = {"ansible_host": TWO, **both, **hostvars.get("db2", {})}  # type: ignore[index]
    return raw


def known(pooler: bool = False, **clusters: Cluster | None) -> Any:
    """Facts of all hosts, with the clusters on some of them."""
    found = {name: facts() for name in ("web1", "web2", "db1", "db2")}
    found["db1"] = replace(found["db1"], pooler=pooler)
    return {name: replace(one, cluster=clusters.get(name)) for name, one in found.items()}


def built(raw: Raw, **clusters: Cluster | None) -> Plan:
    inventory, found = parse(raw, known())
    assert found == []
    return build(inventory, known(**clusters))


@pytest.mark.parametrize(("primary", "leads", "follows"), [(None, "db1", "db2"), ("db1", "db1", "db2"), ("db2", "db2", "db1")])
def test_both_get_the_same_but_who_follows(primary: str | None, leads: str, follows: str) -> None:
    plan = planned(pair(primary=primary))
    first, second = plan.hosts[leads], plan.hosts[follows]
    addresses = {"db1": ONE, "db2": TWO}
    assert first["postgresql_standby_of"] == {}
    assert second["postgresql_standby_of"] == {"host": addresses[leads], "port": 5432, "sslmode": "require"}
    for values, own in ((first, leads), (second, follows)):
        assert sorted(values["postgresql_peers"]) == [ONE, TWO]
        assert values["postgresql_listen"] == ["localhost", addresses[own]]
    for name in ("postgresql_hba", "postgresql_databases", "postgresql_roles"):
        assert first[name] == second[name]
    assert first["postgresql_poolers"] == ["web1", "web2"]
    assert second["postgresql_poolers"] == []
    assert "pgbouncer_port" not in first
    assert plan.violations() == []


@pytest.mark.parametrize(("primary", "address"), [(None, ONE), ("db2", TWO)])
def test_a_pooler_on_each_host_of_the_app_leads_to_the_primary(primary: str | None, address: str) -> None:
    app = spotik()
    plan = planned(pair(app, primary))
    for name, local in (("web1", "10.87.0.11"), ("web2", "127.0.0.1")):
        values = plan.hosts[name]
        [entry] = values["pgbouncer_databases"]
        assert (entry["name"], entry["host"], entry["port"]) == ("spotik_production", address, 5432)
        assert values["pgbouncer_auth_user"] == ""
        assert env.pooler_users({"spotik": app}, values) == [{"name": "spotik", "password": PASSWORD}]
        assert [one["database"] for one in env.logins({"spotik": app}, values)] == ["spotik_production"]
        assert values["app_apps"]["spotik"]["environment"]["database"]["host"] == local  # containers need the host's own address
    one, two = (plan.hosts[name]["pgbouncer_databases"][0]["max_db_connections"] for name in ("web1", "web2"))
    leader = plan.hosts["db2" if primary else "db1"]
    assert one + two + 7 + 3 <= int(leader["postgresql_settings"]["max_connections"])


def test_the_firewall_lets_poolers_and_peers_in_on_both() -> None:
    plan = planned(pair())
    web = ["10.87.0.11", "10.87.0.12"]
    for name, other in (("db1", TWO), ("db2", ONE)):
        rules = {rule["comment"]: rule for rule in plan.hosts[name]["ufw_rules"]}
        assert (rules["postgresql"]["port"], rules["postgresql"]["from"]) == (5432, [*web, other])
        assert "pgbouncer" not in rules
    hba = [rule for rule in plan.hosts["db2"]["postgresql_hba"] if rule["type"] == "hostssl"]
    assert {rule["address"] for rule in hba} == {f"{address}/32" for address in web}
    # Containers reach the pooler of their host over its address; processes over the loopback.
    assert [rule["from"] for rule in plan.hosts["web1"]["ufw_rules"] if rule["comment"] == "pgbouncer"] == [["172.30.0.0/16"]]
    assert plan.hosts["web1"]["pgbouncer_listen"] == ["127.0.0.1", "10.87.0.11"]
    assert plan.hosts["web2"]["pgbouncer_listen"] == ["127.0.0.1"]


def test_a_pooler_from_before_the_standby_stays_reachable() -> None:
    inventory, _problems = parse(pair(), known())
    values = build(inventory, known(pooler=True)).hosts["db1"]
    assert [rule["port"] for rule in values["ufw_rules"] if rule["comment"].startswith("pgbouncer")] == [6432]
    assert values["postgresql_pooler_user"] == "pgbouncer_auth"
    assert build(inventory, known()).hosts["db1"]["postgresql_pooler_user"] == ""


def test_without_a_standby_the_pooler_is_beside_the_database() -> None:
    app = spotik()
    plan = planned(fleet(app))
    assert plan.hosts["db1"]["pgbouncer_auth_user"] == "pgbouncer_auth"
    assert plan.hosts["db1"]["postgresql_pooler_user"] == "pgbouncer_auth"
    assert env.pooler_users({"spotik": app}, plan.hosts["db1"]) == []
    assert env.pooler_users({"spotik": app}, {}) == []
    assert "pgbouncer_port" not in plan.hosts["web1"]
    assert "postgresql_peers" not in plan.hosts["db1"]


def test_tls_and_replace_may_be_declared() -> None:
    raw = pair(db2={"postgresql_standby_of": {"sslmode": "verify-full", "ca": "/etc/ca.pem"}})
    found = planned(raw).hosts["db2"]["postgresql_standby_of"]
    assert found == {"host": ONE, "port": 5432, "sslmode": "verify-full", "ca": "/etc/ca.pem"}


def test_who_holds_clients_is_known_without_facts() -> None:
    for primary, leads, follows in ((None, "db1", "db2"), ("db2", "db2", "db1")):
        inventory, found = parse(pair(primary=primary))
        assert found == []
        asked = demands(inventory, [])
        assert (asked["db1"]["address"], asked["db2"]["address"]) == (ONE, TWO)
        assert asked[leads]["poolers_of_restart"] == ["web1", "web2"]
        assert asked[follows]["poolers_of_restart"] == []
        assert asked[follows]["poolers_of_promotion"] == asked[leads]["poolers_of_promotion"] == ["web1", "web2"]
        assert "pgbouncer" in asked["web1"]["preflight_packages"]
        assert "pgbouncer" not in asked["db1"]["preflight_packages"]
        assert "postgresql" in asked["db2"]["preflight_packages"]
    alone, _problems = parse(fleet())
    assert demands(alone, [])["db1"]["poolers_of_restart"] == demands(alone, [])["db1"]["poolers_of_promotion"] == []


@pytest.mark.parametrize(
    ("one", "two", "says"),
    [
        ({}, {}, ""),
        ({"postgresql_replication_password": None}, {}, "db1: postgresql_replication_password: is missing"),
        ({}, {"postgresql_replication_password": "changeme"}, "db2: postgresql_replication_password: is missing"),
        ({}, {"postgresql_replication_password": SECRET}, "differs between db1 and db2"),
        ({"postgresql_replication_password": Undefined("'vault_x' is undefined")}, {}, "is undefined: 'vault_x'"),
        ({}, {"ansible_host": "db2.lan"}, "db2: slipway_address: is not set"),
        ({"slipway_primary": "db2"}, {}, ""),
        ({}, {"slipway_primary": "db2"}, "no host of the group `database` follows it. Set slipway_primary: db2 for the former"),
        ({"slipway_primary": "db2"}, {"slipway_primary": "db1"}, "names db1, but db1 itself names db2"),
        ({}, {"slipway_primary": "web1"}, "names no host of the group `database`"),
    ],
)
def test_what_a_pair_needs(one: dict[str, Any], two: dict[str, Any], says: str) -> None:
    lines = [problem.line() for problem in problems(pair(db1=one, db2=two))]
    assert says in "\n".join(lines)
    assert bool(lines) == bool(says)
    assert not any(REPLICATION in line or SECRET in line for line in lines)


def test_three_follow_the_one_that_is_named() -> None:
    raw = pair(primary="db2")
    raw.groups["all"].append("db3")  # type: ignore[attr-defined]
    raw.groups["replica"].append("db3")  # type: ignore[attr-defined]
    raw.hostvars["db3"] = {**raw.hostvars["db2"], "ansible_host": "10.87.0.15"}  # type: ignore[index]
    hosts = planned(raw).hosts
    assert [hosts[name]["postgresql_standby_of"].get("host") for name in ("db1", "db2", "db3")] == [TWO, None, TWO]


def test_one_pooler_cannot_have_a_name_twice() -> None:
    app, other = spotik(), spotik()
    app["database"]["host"], other["database"]["host"] = "db1", "web2"
    other["domain"], other["backends"]["containers"]["port"], other["backends"]["units"]["port"] = "b.lan", 3100, 3100
    raw = pair(app, db2={"slipway_primary": "db1"})
    raw.groups["database"].append("web2")  # type: ignore[attr-defined]
    raw.apps["other"] = other
    assert "cannot tell them apart" in "\n".join(problem.line() for problem in problems(raw))


PRIMARY, STANDBY = Cluster("7", 1, False), Cluster("7", 1, True)
PROMOTED, FRESH = Cluster("7", 2, False), Cluster("8", 1, False)


@pytest.mark.parametrize(
    ("named", "one", "two", "says"),
    [
        (None, None, None, ""),
        (None, FRESH, PRIMARY, ""),  # two packages' own clusters, nothing follows yet
        (None, PRIMARY, STANDBY, ""),
        (None, PRIMARY, PROMOTED, "db2 was promoted and takes writes, and db1 is left behind. Set slipway_primary: db2"),
        (None, Cluster("7", 2, True), PROMOTED, "db2 was promoted and takes writes, and db1 is a standby"),
        (None, None, PROMOTED, "db2 was promoted and takes writes, and db1 is not seen"),
        (None, STANDBY, STANDBY, "its server there is a standby. Set slipway_primary to the server that takes writes (db2)"),
        (None, None, STANDBY, "it has no database, and db2 has a copy of one. Promote it: playbooks/promote.yml -e standby=db2"),
        ("db2", Cluster("7", 2, True), PROMOTED, ""),
        ("db2", PRIMARY, PROMOTED, "db1 was the primary before and has not come back as its standby. Bring it back: playbooks"),
        ("db2", PRIMARY, STANDBY, "db1 was"),
    ],
)
def test_a_promotion_that_the_inventory_does_not_know_is_refused(
    named: str | None, one: Cluster | None, two: Cluster | None, says: str
) -> None:
    found: tuple[Problem, ...] = built(pair(primary=named), db1=one, db2=two).problems
    if named == "db2" and two == STANDBY:
        says = "is db2 in the inventory"
    assert says in "\n".join(problem.line() for problem in found)
    assert bool(found) == bool(says)


def test_the_cluster_is_a_fact() -> None:
    own = {"memory_mb": 900, "cores": 2, "pooler": True, "cluster": {"system": "7", "timeline": 2, "standby": True}}
    found = seen.read({"slipway_host": own})
    assert found
    assert (found.pooler, found.cluster) == (True, Cluster("7", 2, True))
