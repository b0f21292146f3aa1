# SPDX-License-Identifier: GPL-3.0-or-later
"""The process is killed at every step; what it leaves must serve a healthy slot, and recovery must make sense of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.slipway.server.plugins.module_utils.traffic import recovery
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.rollback import Request as Back
from ansible_collections.slipway.server.plugins.module_utils.traffic.rollback import Rollback
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request

from tests.unit.module_utils.traffic.world import Killed, World

pytestmark = pytest.mark.slow

GREEN = Request("green", "v2", "t1", "tester")


def adopt(world: World) -> None:
    Cutover(world.host, world.app).switch(Request("blue", "v1"))


def cut(world: World) -> None:
    Cutover(world.host, world.app).switch(GREEN)


def confirm(world: World) -> None:
    Cutover(world.host, world.app).confirm("t1")


def back(world: World) -> None:
    Rollback(world.host, world.app).run(Back(reason="broken"))


def cut_sick(world: World) -> None:
    """Green falls ill the moment it has the traffic."""
    looked = world.sensors._through

    def through(slot: str, release: object) -> object:
        world.sensors.well["green"] = world.serving != "green"
        return looked(slot, None)

    world.sensors._through = through  # type: ignore[method-assign, assignment]
    with pytest.raises(SlipwayError):
        cut(world)


def worlds(root: Path, prepare: list[Callable[[World], None]], act: Callable[[World], None]) -> Iterator[World]:
    """A world for every step of `act` at which it was killed, right before and right after."""
    for after in (False, True):
        at = 0
        while True:
            at += 1
            world = World(root / f"{act.__name__}-{after}-{at}")
            adopt(world)
            for step in prepare:
                step(world)
            world.blow(at, after)
            try:
                act(world)
            except Killed:
                world.restart()
                yield world
            else:
                break
        assert at > 5


def healthy(world: World) -> bool:
    return world.sensors.well.get(world.serving, True)


def settled(world: World) -> None:
    """Nothing is open, nothing is armed, the journal agrees, and looking again changes nothing."""
    assert world.host.journal(world.app).pending() is None
    assert "slipway-shop-deadman" not in world.runner.timers
    again = recovery.recover(world.host, world.app)
    assert (again.action, again.active) == ("nothing", world.serving)
    assert world.serving in ("blue", "green")


def fire(world: World) -> recovery.Recovered:
    """The dead man's time is over."""
    world.clock.advance(61)
    world.runner.timers.pop("slipway-shop-deadman", None)
    return recovery.recover(world.host, world.app, fired=True)


def test_killed_cutover_is_taken_back_by_the_dead_man(tmp_path: Path) -> None:
    outcomes = set()
    for world in worlds(tmp_path, [], cut):
        assert world.serving == "blue" or "slipway-shop-deadman" in world.runner.timers
        outcomes.add(fire(world).action)
        assert world.serving == "blue"
        settled(world)
        assert world.host.records("shop").bad() == []
        world.host.records("shop")
        cut(world)
        confirm(world)
        assert world.serving == "green"
        settled(world)
    assert outcomes == {"nothing", "ended", "reverted"}


def test_killed_cutover_then_reboot(tmp_path: Path) -> None:
    waited = 0
    for world in worlds(tmp_path, [], cut):
        world.reboot()
        found = recovery.recover(world.host, world.app)
        if found.action == "waiting":
            waited += 1
            assert "slipway-shop-deadman" in world.runner.timers
            assert world.serving == "green"
            fire(world)
        assert world.serving == "blue"
        settled(world)
    assert waited > 5


def test_killed_cutover_run_again_with_the_same_name(tmp_path: Path) -> None:
    for world in worlds(tmp_path, [], cut):
        cut(world)
        assert world.serving == "green"
        assert "slipway-shop-deadman" in world.runner.timers
        confirm(world)
        settled(world)
        traffic = world.host.records("shop").traffic()
        assert (traffic.active, traffic.previous, dict(traffic.releases)) == ("green", "blue", {"blue": "v1", "green": "v2"})


def test_killed_while_taking_back(tmp_path: Path) -> None:
    for world in worlds(tmp_path, [], cut_sick):
        world.sensors.well["green"] = False
        fire(world)
        assert world.serving == "blue"
        settled(world)


def test_killed_confirmation(tmp_path: Path) -> None:
    served = set()
    for world in worlds(tmp_path, [cut], confirm):
        decided = world.host.journal(world.app).last()
        assert decided is not None
        assert not decided.open or "slipway-shop-deadman" in world.runner.timers
        fire(world)
        assert world.serving == ("green" if decided.has("done confirm") else "blue")
        served.add(world.serving)
        settled(world)
        if world.serving == "green":
            assert world.host.records("shop").traffic().active == "green"
            assert world.history().count("confirmed") == 1
    assert served == {"blue", "green"}


def test_killed_rollback(tmp_path: Path) -> None:
    for world in worlds(tmp_path, [cut, confirm], back):
        last = world.host.journal(world.app).last()
        assert last is not None
        meant = last.kind == "rollback" and last.has("intent switch")
        recovery.recover(world.host, world.app)
        assert world.serving == ("blue" if meant else "green")
        settled(world)
        if meant:
            assert world.host.records("shop").bad() == ["v2"]
            assert world.history().count("rolled_back") == 1


def test_killed_recovery_is_recovered(tmp_path: Path) -> None:
    """Twice unlucky: killed right after the switch, and again at every step of the recovery."""
    for world in worlds(tmp_path, [cut], fire_once):
        world.restart()
        recovery.recover(world.host, world.app, fired=True)
        assert world.serving == "blue"
        settled(world)
        assert world.history().count("rolled_back") == 1


def fire_once(world: World) -> None:
    fire(world)
