# SPDX-License-Identifier: GPL-3.0-or-later
"""Random fleets: what the plan proposes by itself never violates a check, never changes, and never shrinks with more memory."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan import sizing
from ansible_collections.slipway.server.plugins.module_utils.plan.build import build
from ansible_collections.slipway.server.plugins.module_utils.plan.model import Facts, Plan
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import Raw, parse
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.module_utils.plan.inventories import DIGEST, PASSWORD, SECRET

COMMAND = "/usr/bin/puma -C config/puma.rb"


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Raw, dict[str, Facts]]:
    """Any co-location of groups, several apps, and hosts large enough for what they are told to carry."""
    count = draw(st.integers(1, 5))
    hosts = [f"h{number}" for number in range(count)]
    some = st.lists(st.sampled_from(hosts), min_size=1, max_size=count, unique=True)
    groups = {"all": hosts, "edge": draw(some), "app": draw(some), "database": draw(some)}
    apps: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 3))):
        placed = draw(st.lists(st.sampled_from(groups["app"]), min_size=1, max_size=len(groups["app"]), unique=True))
        runtime = draw(st.sampled_from(["docker", "systemd"]))
        entry: dict[str, Any] = {
            "domain": f"a{number}.fleet.lan",
            "release": "v1",
            "releases": {"v1": {"image": "reg.lan/a@" + DIGEST, "archive": "a.tar.gz"}},
            "backends": {
                "main": {
                    "runtime": runtime,
                    "port": 3000 + 100 * number,
                    "hosts": placed,
                    "replicas": draw(st.integers(1, 4)),
                    **({"command": COMMAND} if runtime == "systemd" else {}),
                }
            },
            "threads": draw(st.integers(1, 16)),
            "secrets": {"JWT_SECRET": SECRET},
        }
        if draw(st.booleans()):
            entry["processes"] = draw(st.integers(1, 8))
        if draw(st.booleans()):
            entry["memory"] = draw(st.sampled_from(["256M", "512M", "1G"]))
        if draw(st.booleans()):
            entry["database"] = {
                "name": f"d{number}",
                "user": f"u{number}",
                "password": PASSWORD,
                "pooled": draw(st.booleans()),
                "host": draw(st.sampled_from(groups["database"])),
            }
        apps[f"a{number}"] = entry
    hostvars = {host: {"slipway_address": f"10.0.0.{number + 1}"} for number, host in enumerate(hosts)}
    facts = {
        host: Facts(
            memory_mb=draw(st.integers(700, 262144)),
            cores=draw(st.integers(1, 64)),
            rotational=draw(st.booleans()),
            container=draw(st.booleans()),
            nofile_hard=draw(st.sampled_from([0, 20000, 524288, 1048576])),
            disk_total_mb=draw(st.sampled_from([0, 20480, 1048576])),
            postgresql=draw(st.sampled_from(["", "14.9", "15.18", "17.11", "18.1"])),
            pgbouncer=draw(st.sampled_from(["", "1.18.0", "1.24.1"])),
        )
        for host in hosts
    }
    return Raw(apps=apps, groups=groups, hostvars=hostvars), facts


def plan_of(raw: Raw, facts: dict[str, Facts]) -> Plan:
    inventory, problems = parse(raw, facts)
    assert problems == []
    return build(inventory, facts)


def too_few_descriptors(variables: dict[str, Any], facts: Facts) -> bool:
    """A pooler whose clients are more than the host allows any process: as with memory, no proposal can mend that."""
    if "pgbouncer_nofile" not in variables or not facts.nofile_hard:
        return False
    pools = [entry["pool_size"] for entry in variables["pgbouncer_databases"]]
    clients = int(variables["pgbouncer_settings"]["max_client_conn"])
    return sizing.pooler_descriptors(clients, pools) > facts.nofile_hard


@settings(max_examples=200)
@given(fleets())
def test_no_violation_in_what_the_plan_proposes(fleet: tuple[Raw, dict[str, Facts]]) -> None:
    raw, facts = fleet
    plan = plan_of(raw, facts)
    too_small = {check.host for check in plan.violations() if check.number == 1}
    too_small |= {host for host, variables in plan.hosts.items() if too_few_descriptors(variables, facts[host])}
    assert [check.line() for check in plan.violations() if check.host not in too_small] == []


@settings(max_examples=50)
@given(fleets())
def test_same_answer_twice_and_quick(fleet: tuple[Raw, dict[str, Facts]]) -> None:
    spent, answers = [], []
    for _again in range(3):
        started = time.process_time()
        answers.append(plan_of(*fleet))
        spent.append(time.process_time() - started)
    assert answers[0] == answers[1] == answers[2]
    assert min(spent) < 0.05


def megabytes(text: str) -> int:
    return int(text[:-2])


@settings(max_examples=200)
@given(fleets(), st.integers(1, 65536))
def test_more_memory_never_gives_less(fleet: tuple[Raw, dict[str, Facts]], more: int) -> None:
    raw, facts = fleet
    grown = {host: Facts(**{**vars(one), "memory_mb": one.memory_mb + more}) for host, one in facts.items()}
    before, after = plan_of(raw, facts), plan_of(raw, grown)
    for host in facts:
        small, large = before.hosts[host], after.hosts[host]
        for name in ("nginx_worker_connections", "nginx_nofile", "pgbouncer_nofile", "kernel_nofile"):
            assert large.get(name, 0) >= small.get(name, 0)
        for name in ("shared_buffers", "effective_cache_size", "maintenance_work_mem", "autovacuum_work_mem"):
            if name in small.get("postgresql_settings", {}):
                assert megabytes(large["postgresql_settings"][name]) >= megabytes(small["postgresql_settings"][name])
        for app, small_app in small["app_apps"].items():
            values = [int(one["environment"]["values"].get("WEB_CONCURRENCY", 0)) for one in (small_app, large["app_apps"][app])]
            assert values[0] <= values[1]


@pytest.mark.parametrize("cores", [1, 2, 8, 16, 64, 128])
def test_the_edge_never_takes_more_than_the_memory_that_came(cores: int) -> None:
    def left(memory: int) -> int:
        return memory - sizing.system_mb(memory) - sizing.nginx_mb(cores, sizing.worker_connections(memory))

    amounts = [left(memory) for memory in range(700, 9000)]
    # Where nothing is left anyway, the host is too small for its cores.
    assert all(before <= after or before <= 0 for before, after in zip(amounts, amounts[1:]))


@given(st.integers(256, 1 << 20), st.integers(1, 128), st.integers(1, 500), st.integers(20, 2000))
def test_work_mem_grows_with_memory(memory: int, cores: int, active: int, connections: int) -> None:
    small = sizing.work_mem_kb(memory, memory // 4, memory // 16, connections, active, cores, halve=True)
    large = sizing.work_mem_kb(2 * memory, memory // 2, memory // 8, connections, active, cores, halve=True)
    assert 64 <= small <= large


@given(st.floats(1, 1e7))
def test_power_of_two(least: float) -> None:
    size = sizing.power_of_two(least)
    assert size >= least
    assert size // 2 < least
