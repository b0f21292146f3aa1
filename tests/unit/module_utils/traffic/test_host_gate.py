# SPDX-License-Identifier: GPL-3.0-or-later
"""A host as a whole: its services, what serves on it, and whether others serve, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic import doors, host_gate
from ansible_collections.slipway.server.plugins.module_utils.traffic.slots import Request, Slots

from tests.unit.module_utils.traffic.test_slots import described, engine_of, equip, start
from tests.unit.module_utils.traffic.world import World


@pytest.fixture
def serving(tmp_path: Path) -> World:
    """An app host whose slot blue has the traffic."""
    world = World(tmp_path, described({"kind": "docker", "container_port": 3000, "user": "1:1"}))
    equip(world)
    start(world)
    Slots(world.host, world.app).mark_active(Request("blue"))
    return world


def failing(world: World, unit: str = "", cluster: str = "") -> None:
    engine = engine_of(world)
    usual = engine._engine

    def answer(argv: list[str]):
        if "list-units" in argv and unit and argv[-1] == unit.split(".")[0] + ".service":
            return Result(0, f"{unit} loaded failed failed x\n", "")
        if argv[0] == "pg_lsclusters":
            return Result(0 if cluster else 127, cluster, "")
        return usual(argv)

    engine._engine = answer  # type: ignore[method-assign]


def test_what_serves_here_is_gated(serving: World) -> None:
    found = host_gate.judge(serving.host)
    assert found.problems == []
    assert found.gated == ["shop blue"]
    assert [(app.name, active) for app, active in host_gate.serving(serving.host)] == [("shop", "blue")]


def test_a_slot_that_is_not_well_is_named_with_its_last_answers(serving: World) -> None:
    serving.sensors.well["blue"] = False
    (problem,) = host_gate.judge(serving.host).problems
    assert "slot blue of shop" in problem
    assert "status 503" in problem


def test_failed_services_and_clusters_that_are_down_are_named(serving: World) -> None:
    failing(serving, "nginx.service", "17 main 5432 down postgres /var/lib /var/log\n17 two 5433 online,recovery postgres x y\n")
    assert host_gate.judge(serving.host).problems == ["nginx.service has failed", "PostgreSQL 17/main is down"]


def test_a_slot_that_never_ran_here_serves_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, described({"kind": "docker", "container_port": 3000, "user": "1:1"}))
    equip(world)
    assert host_gate.serving(world.host) == []


def test_requests_have_another_host_only_where_the_slot_has_other_members(serving: World) -> None:
    assert doors.served_elsewhere(serving.app, "blue")  # 10.0.0.2 has it, too
    assert not doors.served_elsewhere(serving.app, "legacy")
    assert doors.Place("10.0.0.1", 3010) in doors.places([serving.app])


def test_connections_get_their_time_to_end(serving: World) -> None:
    serving.machine.processes[7] = "1"
    serving.machine.open[3000] = {"10.0.0.9:1", "10.0.0.9:2"}
    before = serving.clock.monotonic()
    assert host_gate.drained(serving.host, host_gate.serving(serving.host), 5) == 2
    assert serving.clock.monotonic() - before >= 5
    serving.machine.open.clear()
    before = serving.clock.monotonic()
    assert host_gate.drained(serving.host, host_gate.serving(serving.host), 5) == 0
    assert serving.clock.monotonic() == before


def test_an_unfinished_deployment_is_named(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_gate.under_way(serving.host) == []
    journal = serving.host.journal(serving.app)

    class Pending:
        txn, owner = "t1", "release-engineer"

    monkeypatch.setattr(type(journal), "pending", lambda _self: Pending())
    (line,) = host_gate.under_way(serving.host)
    assert "transaction t1 of release-engineer" in line
    assert "slipway rollback shop" in line
