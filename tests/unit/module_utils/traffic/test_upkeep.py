# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic import status, upkeep
from ansible_collections.slipway.server.plugins.module_utils.traffic.cli import main
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.records import Traffic
from ansible_collections.slipway.server.plugins.module_utils.traffic.slots import Request, Slots

from .test_slots import DIGEST, OTHER, docked, engine_of, start
from .world import World

BLUE, GREEN = "slipway-shop-blue-1", "slipway-shop-green-1"


@pytest.fixture
def dock(tmp_path: Path) -> World:
    """An edge that runs blue, which has the traffic, and green on standby."""
    world = docked(tmp_path, edge=True)
    start(world, "green", "v2", OTHER)
    start(world, "blue", "v1", DIGEST, first=True)
    world.host.records("shop").save_traffic(Traffic("blue", None, {"blue": "v1", "green": "v2"}))
    Slots(world.host, world.app).settle(Request("blue"), "green")
    return world


def trouble(world: World) -> Optional[str]:
    return status.report(world.host, world.app)["trouble"]  # type: ignore[return-value]


def test_what_runs_as_recorded_is_left_alone(dock: World) -> None:
    before = dict(engine_of(dock).containers)
    assert trouble(dock) is None
    assert main(["recover", "shop"], dock.host) == 0
    assert engine_of(dock).containers == before


def test_the_slot_with_the_traffic_is_started_again_from_its_record(dock: World) -> None:
    engine = engine_of(dock)
    del engine.containers[BLUE]
    engine.images.clear()
    assert trouble(dock) == f"{BLUE} of slot blue, which has the traffic, does not run. Run: slipway recover shop"
    assert main(["status", "--check", "--all"], dock.host) == 1
    assert main(["recover", "shop"], dock.host) == 0
    assert (engine.containers[BLUE]["image"], engine.containers[BLUE]["restart"]) == (DIGEST, "unless-stopped")
    assert (DIGEST in engine.images, trouble(dock)) == (True, None)


def test_an_image_that_cannot_be_had_any_more_is_told(dock: World) -> None:
    engine = engine_of(dock)
    del engine.containers[BLUE]
    engine.images.clear()
    engine.pull = Result(1, "", "manifest unknown")
    with pytest.raises(SlipwayError, match=r"web1 could not pull .* it does not know this digest"):
        upkeep.revive_active(dock.host, dock.app)


def test_at_boot_nothing_is_started_twice(dock: World) -> None:
    del engine_of(dock).containers[BLUE]
    assert main(["recover", "--all"], dock.host) == 0
    assert BLUE not in engine_of(dock).containers


def test_a_standby_slot_that_is_gone_is_no_trouble(dock: World) -> None:
    del engine_of(dock).containers[GREEN]
    assert (trouble(dock), upkeep.revive_active(dock.host, dock.app)) == (None, [])


def test_a_slot_whose_record_is_lost_is_put_on_standby(dock: World) -> None:
    dock.layout.slot("shop", "green").unlink()
    dock.host.retire_timer("shop", "green").cancel()
    told = " ! slot green runs, but its record is lost, so that it would never end. Run: slipway recover shop."
    assert told in status.lines(status.report(dock.host, dock.app))
    assert trouble(dock) is None
    assert main(["recover", "shop"], dock.host) == 0
    known = dock.host.records("shop").slot("green")
    assert known is not None
    assert (known.state, known.retire_at is not None, dock.host.retire_timer("shop", "green").armed()) == ("standby", True, True)
    assert status.report(dock.host, dock.app)["strays"] == []


def test_an_edge_that_has_forgotten_all_ends_nothing(dock: World) -> None:
    for path in (dock.layout.slot("shop", "green"), dock.layout.slot("shop", "blue"), dock.layout.traffic("shop")):
        path.unlink()
    assert upkeep.adopt(dock.host, dock.app) == []


def test_the_slot_with_the_traffic_is_never_put_on_standby(dock: World) -> None:
    dock.layout.slot("shop", "blue").unlink()
    assert (upkeep.adopt(dock.host, dock.app), dock.host.records("shop").slot("blue")) == ([], None)


def test_where_nobody_knows_who_has_the_traffic_nothing_ends(tmp_path: Path) -> None:
    world = docked(tmp_path)
    start(world, "green", "v2", OTHER)
    world.layout.slot("shop", "green").unlink()
    assert upkeep.adopt(world.host, world.app) == []
