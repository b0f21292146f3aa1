# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan.checks import seconds, size_mb
from ansible_collections.slipway.server.plugins.module_utils.plan.model import Check, Facts

from tests.unit.module_utils.plan.inventories import facts, fleet, planned, single, spotik


def violated(raw: Any, **known: Facts) -> dict[int, list[Check]]:
    found: dict[int, list[Check]] = {}
    for check in planned(raw, **known).violations():
        found.setdefault(check.number, []).append(check)
    return found


def test_the_plan_itself_violates_nothing() -> None:
    assert violated(fleet()) == {}
    assert violated(single()) == {}


def test_the_seeds_own_numbers_on_its_own_minimum_are_refused() -> None:
    """Spotik guide: 8 GB, one host, 4 processes of 8 threads in 3 replicas, and its settings for a 16 GB database host."""
    app = spotik()
    app.update(processes=4, threads=8, memory=None)
    app["backends"] = {"main": {"runtime": "docker", "port": 3000, "replicas": 3}}
    app["env"]["DB_POOL"] = "20"
    settings = {
        "shared_buffers": "4GB",
        "effective_cache_size": "12GB",
        "maintenance_work_mem": "1GB",
        "wal_buffers": "16MB",
        "max_connections": 100,
        "autovacuum_work_mem": "-1",
    }
    found = violated(
        single(
            app,
            postgresql_settings=settings,
            pgbouncer_settings={"max_client_conn": 1000, "default_pool_size": 20},
            pgbouncer_nofile=1024,
        ),
        one=facts(8192, 4, pgbouncer="1.18.0", postgresql="15"),
    )
    assert sorted(found) == [1, 2, 3, 8]
    assert len(found[2]) == 2
    assert found[1][0].limit == "8192 MB"
    assert "app spotik 8400" in found[1][0].have
    assert found[2][0].have == "4096 MB"
    assert found[2][1].have == "12288 MB"
    assert found[8][0].have == "1030 (1000 clients + 10 + pools)"
    assert found[8][0].limit == "1024"
    for checks in found.values():
        assert all(check.host == "one" and check.variable and check.remedy for check in checks)


@pytest.mark.parametrize(
    ("host", "variables", "number"),
    [
        ("db1", {"postgresql_settings": {"shared_buffers": "900GB"}}, 2),
        ("db1", {"postgresql_settings": {"effective_cache_size": "12GB"}}, 2),
        ("db1", {"postgresql_settings": {"work_mem": "1GB"}}, 3),
        ("db1", {"postgresql_settings": {"max_connections": 10}}, 4),
        ("db1", {"postgresql_settings": {"reserved_connections": 8, "max_connections": 25}}, 4),
        ("db1", {"pgbouncer_databases": [{"name": "other", "pool_size": 90}]}, 4),
        ("db1", {"pgbouncer_databases": [{"name": "spotik_production", "max_db_connections": 10000}]}, 5),
        ("db1", {"pgbouncer_settings": {"max_client_conn": 40}}, 6),
        ("db1", {"pgbouncer_settings": {"max_client_conn": 5000}, "pgbouncer_nofile": 4096}, 8),
        ("web1", {"kernel_sysctl": {"net.core.somaxconn": 128}}, 9),
        ("web1", {"nginx_nofile": 1024}, 8),
        ("web1", {"kernel_nofile": 1048576}, 8),
        ("db1", {"pgbouncer_settings": {"query_wait_timeout": 5}}, 10),
        ("db1", {"postgresql_settings": {"max_wal_size": "40GB"}}, 12),
        ("web1", {"kernel_sysctl": {"vm.overcommit_memory": 2}}, 14),
        ("db1", {"kernel_sysctl": {"vm.nr_hugepages": 4000}}, 15),
        ("db1", {"pgbouncer_settings": {"max_prepared_statements": 100}}, 16),
    ],
)
def test_overrides_are_checked(host: str, variables: dict[str, Any], number: int) -> None:
    known = facts(8192, 4, nofile_hard=524288, disk_free_mb=40000, disk_total_mb=50000, pgbouncer="1.18.0", postgresql="15")
    found = violated(fleet(**{host: variables}), web1=known, web2=known, db1=known)
    assert number in found
    check = found[number][0]
    assert check.host == host
    assert check.have
    assert check.limit
    assert check.line().startswith(f"{host}: check {number} {check.id} (")


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"env": {"DB_POOL": "2"}}, 7),
        ({"read_timeout": 20}, 11),
        ({"processes": 64, "memory": None}, 1),
    ],
)
def test_apps_are_checked(change: dict[str, Any], number: int) -> None:
    app = spotik()
    app.update(change)
    assert number in violated(fleet(app))


def test_prepared_statements_on_an_old_pooler() -> None:
    app = spotik()
    app["database"]["prepared_statements"] = True
    assert set(violated(fleet(app), db1=facts(pgbouncer="1.18.0"))) == {16}
    assert violated(fleet(app), db1=facts(pgbouncer="1.24.1")) == {}


def test_old_postgresql() -> None:
    assert set(violated(fleet(), db1=facts(postgresql="13"))) == {16}


def test_published_ports_need_their_rules() -> None:
    raw = fleet()
    raw.groups["edge"] = ["web2"]
    assert violated(raw) == {}
    raw.hostvars["web1"]["ufw_container_rules"] = [{"port": 3000, "from": ["any"]}]  # type: ignore[index]
    found = violated(raw)
    assert set(found) == {17}
    assert "open to any" in found[17][0].have


def test_a_hard_limit_lowers_what_the_plan_asks() -> None:
    low = facts(nofile_hard=20000)
    assert planned(fleet(), web1=low, web2=low, db1=low).violations() == []
    assert planned(fleet(), web1=low).hosts["web1"]["docker_nofile"] == 16384
    assert planned(fleet(), web1=facts(nofile_hard=1048576)).hosts["web1"]["docker_nofile"] == 65536


@pytest.mark.parametrize(
    ("text", "unit_kb", "mb"),
    [
        ("4GB", 8, 4096.0),
        ("128", 8, 1.0),
        ("512kB", 1, 0.5),
        ("1 TB", 8, 1048576.0),
        ("16", 1024, 16.0),
        ("-1", 1, 0.0),
        ("lots", 8, 0.0),
    ],
)
def test_sizes(text: str, unit_kb: int, mb: float) -> None:
    assert size_mb(text, unit_kb) == mb


def test_durations() -> None:
    assert [seconds("5s"), seconds("500"), seconds("2min"), seconds("120", 1.0), seconds("x")] == [5.0, 0.5, 120.0, 120.0, 0.0]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("default_pool_sise", 3, "did you mean `default_pool_size`?"),
        ("auth_type", "md5", "md5 and plain are refused"),
        ("max_db_client_connections", 5, "leave it out"),
    ],
)
def test_a_setting_that_the_pooler_does_not_have_is_refused_by_the_plan(name: str, value: Any, said: str) -> None:
    found = violated(single(pgbouncer_settings={name: value, "max_client_conn": 500}), one=facts(8192, 4, pgbouncer="1.18.0"))
    assert [(check.variable, said in check.remedy) for check in found[19]] == [(f"pgbouncer_settings {name}", True)]


@pytest.mark.parametrize(("text", "fine"), [("1GB", True), ("64 MB", True), ("131072", True), ("1 gb", False), ("1G", False)])
def test_sizes_are_spelled_as_the_server_reads_them(text: str, fine: bool) -> None:
    found = violated(single(postgresql_settings={"temp_file_limit": "1GB", "wal_keep_size": text}), one=facts(8192, 4))
    assert (19 not in found) == fine
