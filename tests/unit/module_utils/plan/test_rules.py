# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule has an inventory that breaks it and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan import sizing
from ansible_collections.slipway.server.plugins.module_utils.plan.checks import RULES
from ansible_collections.slipway.server.plugins.module_utils.plan.model import Check, Plan
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import Raw

from tests.unit.module_utils.plan.inventories import PASSWORD, facts, fleet, planned, problems, single, spotik

KNOWN = facts(8192, 4, nofile_hard=524288, disk_free_mb=40000, disk_total_mb=50000, pgbouncer="1.24.1", postgresql="17.11")


def plan(raw: Raw, **more: Any) -> Plan:
    """The plan where everything is known of every host."""
    return planned(raw, **{host: more.get(host, KNOWN) for host in raw.groups["all"]})


def app(**changes: Any) -> dict[str, Any]:
    return {**spotik(), **changes}


def db1(**variables: Any) -> Raw:
    return fleet(db1=variables)


def postgresql(**settings: Any) -> Raw:
    return db1(postgresql_settings=settings)


def with_group(raw: Raw, group: str, *hosts: str) -> Raw:
    raw.groups[group] = list(hosts)  # type: ignore[index]
    if group == "replica":
        for host in ("db1", *hosts):
            raw.hostvars[host]["postgresql_replication_password"] = PASSWORD  # type: ignore[index]
    return raw


def published_to_all() -> Raw:
    raw = with_group(fleet(), "edge", "web2")
    raw.hostvars["web1"]["ufw_container_rules"] = [{"port": 3000, "from": ["any"]}]  # type: ignore[index]
    return raw


CASES: list[tuple[str, Raw, str, str]] = [
    ("host-memory", fleet(app(processes=64, memory=None)), "web1", "slipway_apps.spotik.processes"),
    ("postgresql-cache", postgresql(effective_cache_size="12GB"), "db1", "effective_cache_size"),
    ("postgresql-work", postgresql(work_mem="1GB"), "db1", "work_mem"),
    (
        "connections",
        db1(pgbouncer_databases=[{"name": "other", "pool_size": 1, "reserve_pool": 90, "max_db_connections": 1}]),
        "db1",
        "max_connections",
    ),
    (
        "pool-share",
        db1(pgbouncer_databases=[{"name": "spotik_production", "max_db_connections": 10000}]),
        "db1",
        "pgbouncer_databases max_db_connections",
    ),
    ("client-sessions", db1(pgbouncer_settings={"max_client_conn": 40}), "db1", "pgbouncer_settings max_client_conn"),
    ("app-pool", fleet(app(env={"DB_POOL": "2"})), "web1", "slipway_apps.spotik.env.DB_POOL"),
    ("descriptors", db1(pgbouncer_settings={"max_client_conn": 5000}, pgbouncer_nofile=4096), "db1", "pgbouncer_nofile"),
    ("listen-backlog", fleet(web1={"kernel_sysctl": {"net.core.somaxconn": 128}}), "web1", "net.core.somaxconn"),
    ("pooler-wait", db1(pgbouncer_settings={"query_wait_timeout": 5}), "db1", "query_wait_timeout"),
    ("timeouts", fleet(app(read_timeout=20)), "db1", "read_timeout"),
    ("wal-disk", postgresql(max_wal_size="40GB"), "db1", "max_wal_size"),
    ("backup-promise", db1(slipway_rpo=60), "db1", "archive_timeout"),
    ("overcommit", fleet(web1={"kernel_sysctl": {"vm.overcommit_memory": 2}}), "web1", "vm.overcommit_memory"),
    ("huge-pages", db1(kernel_sysctl={"vm.nr_hugepages": 4000}), "db1", "vm.nr_hugepages"),
    ("versions", postgresql(io_method="io_uring"), "db1", "postgresql_settings io_method"),
    ("published-ports", published_to_all(), "web1", "ufw_container_rules"),
    (
        "standby",
        with_group(fleet(web2={"postgresql_settings": {"max_worker_processes": 4}}), "replica", "web2"),
        "web2",
        "max_worker_processes",
    ),
    ("settings", postgresql(wal_keep_segments=64), "db1", "postgresql_settings wal_keep_segments"),
    ("forwarding", fleet(web1={"kernel_sysctl": {"net.ipv4.ip_forward": 0}}), "web1", "net.ipv4.ip_forward"),
]


@pytest.mark.parametrize(("rule", "raw", "host", "variable"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_is_broken_alone(rule: str, raw: Raw, host: str, variable: str) -> None:
    found = plan(raw).violations()
    assert {check.id for check in found} == {rule}
    check = next(check for check in found if check.host == host)
    assert variable in check.variable
    assert check.have
    assert check.limit
    assert check.remedy
    assert check.line().startswith(f"{host}: check {check.number} {rule} (")


def test_every_rule_has_its_case() -> None:
    assert [case[0] for case in CASES] == [rule.id for rule in RULES]
    assert [rule.number for rule in RULES] == list(range(1, len(RULES) + 1))


def violated(raw: Raw, **more: Any) -> dict[str, list[Check]]:
    found: dict[str, list[Check]] = {}
    for check in plan(raw, **more).violations():
        found.setdefault(check.id, []).append(check)
    return found


QUEUE = {"purpose": "queue", "password": "q7Vw2mZr9Kc4Tb8N"}
MORE: list[tuple[str, Raw]] = [
    ("client-sessions", with_group(fleet(app(env={"REDIS_URL": "redis://x"}), db1={"redis_max_clients": 3}), "redis", "db1")),
    ("descriptors", fleet(web1={"kernel_sysctl": {"fs.nr_open": 30000}})),
    ("descriptors", fleet(web1={"kernel_sysctl": {"fs.file-max": 1000}})),
    ("pooler-wait", fleet(app(env={"DB_CHECKOUT_TIMEOUT": "300"}))),
    ("app-pool", fleet(app(env={"REDIS_POOL_SIZE": "3"}))),
    ("backup-promise", db1(slipway_pitr_days=14, slipway_backup_days=7)),
    ("overcommit", with_group(fleet(app(redis=QUEUE), db1={"kernel_sysctl": {"vm.overcommit_memory": 0}}), "redis", "db1")),
    ("listen-backlog", db1(pgbouncer_settings={"listen_backlog": 5000}, kernel_sysctl={"net.core.somaxconn": 4096})),
    ("settings", postgresql(timeout=5000)),
    ("settings", postgresql(shared_buffers="lots")),
    ("settings", postgresql(lock_timeout="soon")),
    ("settings", postgresql(max_connections="many")),
    ("settings", postgresql(port=5433)),
    ("settings", postgresql(work_memm="64MB")),
    ("settings", postgresql(wal_level="full")),
    ("settings", postgresql(statement_timeout="5GB")),
    ("settings", postgresql(hash_mem_multiplier=0.5)),
    ("settings", postgresql(server_version="17")),
    ("settings", db1(pgbouncer_settings={"pool_mode": "transactions"})),
    ("settings", db1(pgbouncer_settings={"server_idle_timeout": "10min"})),
    ("versions", postgresql(wal_compression="lz4")),
    ("wal-disk", with_group(postgresql(max_slot_wal_keep_size=-1), "replica", "web2")),
    ("standby", with_group(postgresql(max_wal_senders=2), "replica", "web2")),
]


@pytest.mark.parametrize(("rule", "raw"), MORE)
def test_further_ways_to_break_a_rule(rule: str, raw: Raw) -> None:
    old = facts(8192, 4, nofile_hard=524288, disk_free_mb=40000, disk_total_mb=50000, postgresql="14.9")
    found = violated(raw, db1=old) if rule == "versions" else violated(raw)
    assert rule in found


def test_a_removed_name_is_fine_where_the_server_still_has_it() -> None:
    old = facts(8192, 4, postgresql="15.18")
    raw = postgresql(old_snapshot_threshold=-1)
    assert "settings" not in violated(raw, db1=old)
    assert "settings" in violated(raw)


def test_settings_of_a_newer_server_are_left_to_it() -> None:
    newest = facts(8192, 4, postgresql="18.1", pgbouncer="1.25.0")
    found = violated(postgresql(io_method="io_uring", file_copy_method="clone", wal_compression="zstd"), db1=newest)
    assert "settings" not in found
    assert "versions" not in found


def test_what_people_write_is_readable() -> None:
    settings = {
        "Work_Mem": "64MB",
        "jit": False,
        "checkpoint_timeout": "15min",
        "pg_stat_statements.max": 1,
        "log_lock_waits": None,
        "default_transaction_isolation": "read committed",
        "ssl_max_protocol_version": "",
        "TimeZone": "UTC",
        "datestyle": "iso, mdy",
    }
    assert "settings" not in violated(postgresql(**settings, random_page_cost=1.1, vacuum_cost_delay="2ms", fsync="on"))


def test_promises_that_are_kept() -> None:
    settings = {"archive_mode": "on", "archive_command": "/usr/bin/true", "archive_timeout": "60s"}
    assert violated(db1(slipway_rpo=60, slipway_pitr_days=7, slipway_backup_days=7, postgresql_settings=settings)) == {}


def test_two_poolers_share_the_connections() -> None:
    """A second pooler on another database host: pools of the first are halved, and both count."""
    entry = spotik()
    entry["database"]["host"] = "db1"
    raw = with_group(fleet(entry), "database", "db1", "web2")
    alone = plan(raw).hosts["db1"]["pgbouncer_databases"][0]["pool_size"]
    raw.hostvars["web2"]["pgbouncer_databases"] = [  # type: ignore[index]
        {"name": "spotik_production", "host": "10.87.0.13", "port": 5432, "pool_size": 4, "reserve_pool": 1}
    ]
    both = plan(raw)
    assert both.hosts["db1"]["pgbouncer_databases"][0]["pool_size"] == alone // 2
    assert both.violations() == []
    raw.hostvars["web2"]["pgbouncer_databases"][0]["pool_size"] = 90  # type: ignore[index]
    found = violated(raw)
    assert "2 poolers" in found["connections"][0].rule
    assert found["connections"][0].host == "db1"


def test_a_replica_is_sized_to_take_over() -> None:
    raw = with_group(fleet(db1={"postgresql_settings": {"max_wal_senders": 20}}), "replica", "web2")
    found = plan(raw, web2=facts(16384, 8, postgresql="17.11", disk_total_mb=50000), db1=KNOWN)
    primary, replica = (found.hosts[host]["postgresql_settings"] for host in ("db1", "web2"))
    assert replica["max_connections"] == primary["max_connections"]
    assert primary["max_worker_processes"] == replica["max_worker_processes"] == "8"
    assert replica["max_wal_senders"] == "20"
    assert primary["max_slot_wal_keep_size"] == "4096MB"
    assert primary["wal_keep_size"] == replica["wal_keep_size"] == "1024MB"
    assert found.violations() == []


def test_settings_follow_the_detected_version() -> None:
    def settings(version: str) -> dict[str, str]:
        values: dict[str, str] = plan(fleet(), db1=facts(8192, 16, postgresql=version)).hosts["db1"]["postgresql_settings"]
        return values

    assert "wal_compression" not in settings("")
    assert settings("14.9")["wal_compression"] == "on"
    assert settings("15.18")["wal_compression"] == "lz4"
    assert "io_method" not in settings("17.11")
    assert (settings("18.1")["io_method"], settings("18.1")["io_workers"]) == ("worker", "4")


def test_huge_pages_on_large_dedicated_hosts() -> None:
    large = facts(65536, 16, postgresql="17.11")
    found = plan(fleet(), db1=large)
    settings = found.hosts["db1"]["postgresql_settings"]
    assert settings["shared_buffers"] == "15071MB"
    pages = sizing.huge_pages(15071, int(settings["max_connections"]))
    assert found.hosts["db1"]["kernel_sysctl"]["vm.nr_hugepages"] == pages
    assert 15071 < 2 * pages < 1.05 * 15071
    assert found.violations() == []
    for without in (plan(postgresql(huge_pages="off"), db1=large), plan(fleet())):
        assert "vm.nr_hugepages" not in without.hosts["db1"]["kernel_sysctl"]


def test_what_guides_get_wrong_is_refused_all_at_once() -> None:
    """Everything in one message, before any change."""
    entry = spotik()
    entry["database"]["prepared_statements"] = True
    raw = fleet(
        entry,
        db1={
            "postgresql_settings": {"shared_buffers": "900GB", "wal_keep_segments": 64, "timeout": 5000, "max_connections": 40},
            "pgbouncer_settings": {"max_client_conn": 5000, "default_pool_size": 90},
            "pgbouncer_nofile": 1024,
        },
    )
    bookworm = facts(8192, 4, postgresql="15.18", pgbouncer="1.18.0")
    lines = "\n".join(check.line() for check in plan(raw, db1=bookworm).violations())
    for words in (
        "921600 MB against",
        "`wal_keep_size` (16MB for each segment) replaced it in 13",
        "it is the lock wait of SQLite's adapter; use `statement_timeout` or `lock_timeout`",
        "5100 (5000 clients + 10 + pools) against 1024",
        "pools + reserve + direct sessions <= usable max_connections) violated: 115 against 37",
        "prepared statements of spotik need pgbouncer >= 1.21",
    ):
        assert words in lines


def test_another_adapters_timeout_names_the_right_key() -> None:
    entry = spotik()
    entry["database"]["timeout"] = 5000
    assert "Did you mean `statement_timeout`?" in problems(fleet(entry))[0].line()


def guide(memory: int) -> Plan:
    """The Spotik guide as an inventory: one host, three replicas of 4 x 8, settings and pooler as it says, Debian 12."""
    entry = app(processes=4, threads=8, memory=None, env={"DB_POOL": "20"})
    entry["backends"] = {"main": {"runtime": "docker", "port": 3000, "replicas": 3}}
    settings = {
        "shared_buffers": "4GB",
        "effective_cache_size": "12GB",
        "maintenance_work_mem": "1GB",
        "checkpoint_completion_target": 0.9,
        "wal_buffers": "16MB",
        "default_statistics_target": 100,
        "random_page_cost": 1.1,
        "effective_io_concurrency": 200,
        "max_connections": 100,
        "autovacuum_work_mem": -1,
    }
    pooler = {"max_client_conn": 1000, "default_pool_size": 20, "reserve_pool_size": 5}
    raw = single(entry, postgresql_settings=settings, pgbouncer_settings=pooler, pgbouncer_nofile=1024)
    return planned(raw, one=facts(memory, 4, postgresql="15.18", pgbouncer="1.18.0", nofile_hard=524288))


def test_the_guide_on_its_own_minimum_is_refused_with_the_reasons() -> None:
    found: dict[str, list[Check]] = {}
    for check in guide(8192).violations():
        found.setdefault(check.id, []).append(check)
    assert sorted(found) == ["descriptors", "host-memory", "postgresql-cache", "postgresql-work"]
    assert {check.have.split(" MB")[0] for check in found["postgresql-cache"]} == {"4096", "12288"}
    assert found["host-memory"][0].limit == "8192 MB"
    assert "350 MB are assumed for a process, and both slots run during a cutover" in found["host-memory"][0].remedy
    assert (found["descriptors"][0].have.split()[0], found["descriptors"][0].limit) == ("1030", "1024")
    assert all(check.host == "one" and check.variable and check.remedy for checks in found.values() for check in checks)


def test_the_guide_fits_a_host_of_64_gb_but_for_its_descriptors() -> None:
    assert {check.id for check in guide(65536).violations()} == {"descriptors"}
