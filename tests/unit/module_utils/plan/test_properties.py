# SPDX-License-Identifier: GPL-3.0-or-later
"""Random fleets: what the plan proposes by itself never violates a check, never changes, and never shrinks with more memory."""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan import sizing
from ansible_collections.slipway.server.plugins.module_utils.plan.build import build
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import parse
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.module_utils.plan.fleets import faults, fleet, greedy, plan_of, refused

SEEDS = int(os.environ.get("SLIPWAY_FLEETS", "300"))
"""`make test` asks for 10,000, which take longer than all other unit tests."""
RANDOM = st.randoms(use_true_random=False)


@pytest.mark.slow
def test_thousands_of_fleets_without_a_violation() -> None:
    """What the plan proposes holds; hosts that are too small are refused, and only when the least is too much for them."""
    hosts = small = 0
    for seed in range(SEEDS):
        raw, facts = fleet(Random(seed))
        inventory, problems = parse(raw, facts)
        plan = build(inventory, facts)
        assert problems == []
        assert [check.line() for check in faults(plan)] == [], f"seed {seed}"
        assert greedy(plan, inventory, facts) == [], f"seed {seed}"
        hosts += len(facts)
        small += len(refused(plan))
    # Both kinds are there in numbers, or the test would prove nothing.
    assert 0.1 * hosts < small < 0.5 * hosts


@given(RANDOM)
def test_no_violation_in_what_the_plan_proposes(random: Random) -> None:
    assert [check.line() for check in faults(plan_of(*fleet(random)))] == []


@given(RANDOM)
def test_same_answer_twice(random: Random) -> None:
    raw, facts = fleet(random)
    assert plan_of(raw, facts) == plan_of(raw, dict(reversed(facts.items())))


def megabytes(text: str) -> int:
    return int(text[:-2])


def shrunk(random: Random) -> list[str]:
    """What becomes smaller when every host gets more memory."""
    raw, facts = fleet(random)
    more = random.randint(1, 65536)
    before = plan_of(raw, facts)
    after = plan_of(raw, {host: replace(one, memory_mb=one.memory_mb + more) for host, one in facts.items()})
    found = []
    for host in facts:
        small, large = before.hosts[host], after.hosts[host]
        numbers = ("nginx_worker_connections", "nginx_nofile", "pgbouncer_nofile", "kernel_nofile", "redis_maxmemory_mb")
        found += [name for name in numbers if large.get(name, 0) < small.get(name, 0)]
        old, new = small.get("postgresql_settings", {}), large.get("postgresql_settings", {})
        for name in ("shared_buffers", "effective_cache_size", "maintenance_work_mem", "autovacuum_work_mem"):
            if name in old and megabytes(new[name]) < megabytes(old[name]):
                found.append(name)
        for app, entry in small["app_apps"].items():
            old_count, new_count = (
                int(one["environment"]["values"].get("WEB_CONCURRENCY", 0)) for one in (entry, large["app_apps"][app])
            )
            found += [app] if new_count < old_count else []
    return found


@given(RANDOM)
def test_more_memory_never_gives_less(random: Random) -> None:
    assert shrunk(random) == []


@pytest.mark.slow
def test_more_memory_never_gives_less_in_hundreds_of_fleets() -> None:
    assert [seed for seed in range(min(SEEDS, 1000)) if shrunk(Random(seed))] == []


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
