# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic in steps: judged, taken back, and killed at every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.traffic import recovery
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.jury import Ruling
from ansible_collections.slipway.server.plugins.module_utils.traffic.rollback import Request as Back
from ansible_collections.slipway.server.plugins.module_utils.traffic.rollback import Rollback
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request

from tests.unit.module_utils.traffic.world import CONFIG, Killed, World

CANARY = {**CONFIG, "canary": {"steps": [5, 50], "dwell": 10, "patience": 30}}


@pytest.fixture
def careful(tmp_path: Path) -> World:
    return World(tmp_path, CANARY)


def switch(world: World, **more: Any) -> dict[str, object]:
    return Cutover(world.host, world.app).switch(Request("green", "v2", "t1", "tester", **more))


def shares(world: World) -> dict[str, int]:
    return world.host.flags(world.app).shares()


def told(world: World) -> list[str]:
    lines, _offset = world.host.progress(world.app, "t1").lines()
    return [f"{line['state']} {line.get('share', '')}".strip() for line in lines if line.get("state") not in ("STAGED", None)]


def test_step_by_step_then_all(careful: World) -> None:
    begun = careful.clock.passed
    held = switch(careful)
    assert (held["outcome"], shares(careful), careful.jury.shares) == ("switched", {"green": 100}, [5, 50, 100])
    assert 23 <= careful.clock.passed - begun < 40
    assert careful.host.flags(careful.app).present() == ["green", "spare.blue"]
    assert told(careful) == ["PLANNED 0", "HEALTHY", "GATED", "CANARY 5", "CANARY 50", "SWITCHED 100", "BAKING 100"]
    Cutover(careful.host, careful.app).confirm("t1")
    assert told(careful)[-1] == "CONFIRMED 100"
    assert careful.host.flags(careful.app).spare() == "blue"
    assert careful.runner.timers == {}


def test_a_verdict_takes_it_back(careful: World) -> None:
    careful.jury.rulings[5] = Ruling("10 % errors against 1 %", news=True, trouble=True, guilty=True)
    with pytest.raises(SlipwayError, match=r"back on blue .* in canary 1/2 at 5 %, 10 % errors.*marked bad") as failure:
        switch(careful)
    assert failure.value.facts["outcome"] == "rolled_back"
    assert (shares(careful), careful.host.flags(careful.app).present()) == ({"blue": 100}, [])
    assert careful.host.records("shop").bad() == ["v2"]
    assert careful.jury.shares == [5]
    assert told(careful)[-2:] == ["ROLLING_BACK", "ROLLED_BACK 0"]


def test_no_verdict_is_waited_for(careful: World) -> None:
    careful.jury.rulings[5] = Ruling("too few requests", news=True, done=True)
    begun = careful.clock.passed
    switch(careful)
    assert careful.clock.passed - begun >= 30 + 10 + 3


def test_a_candidate_that_falls_ill_in_the_canary(careful: World) -> None:
    careful.jury.open = lambda share: careful.sensors.well.update(green=share < 50) or careful.jury.shares.append(share)  # type: ignore[method-assign, func-returns-value]
    with pytest.raises(SlipwayError, match=r"in canary 2/2 at 50 %, .* failed 3 times in a row"):
        switch(careful)
    assert shares(careful) == {"blue": 100}


def test_the_dead_man_follows_the_run(careful: World) -> None:
    """He wakes at the first deadline; a run that has moved it goes on, one that died is taken back."""
    careful.jury.rulings[50] = Ruling(trouble=False)
    seen: list[tuple[str, float]] = []

    def opened(share: int) -> None:
        careful.jury.shares.append(share)
        if share == 50:
            careful.clock.advance(25)
            found = recovery.recover(careful.host, careful.app, fired=True)
            seen.append((found.action, found.left))
            raise Killed

    careful.jury.open = opened  # type: ignore[method-assign]
    with pytest.raises(Killed):
        switch(careful)
    assert seen[0][0] == "waiting"
    assert seen[0][1] == pytest.approx(35, abs=1)
    assert shares(careful) == {"blue": 50, "green": 50}
    careful.clock.advance(36)
    found = recovery.recover(careful.host, careful.app, fired=True)
    assert (found.action, found.message, shares(careful)) == (
        "ended",
        "traffic stays on blue: interrupted with 50 % on green",
        {"blue": 100},
    )
    assert careful.history() == ["rolled_back"]


def test_an_operator_ends_a_canary(careful: World) -> None:
    done: list[dict[str, object]] = []

    def opened(share: int) -> None:
        careful.jury.shares.append(share)
        done.append(Rollback(careful.host, careful.app).run(Back()))

    careful.jury.open = opened  # type: ignore[method-assign]
    with pytest.raises(SlipwayError, match="was taken over while moving to green"):
        switch(careful)
    assert done[0]["outcome"] == "rolled_back"
    assert shares(careful) == {"blue": 100}


@pytest.mark.slow
def test_killed_at_every_step_of_a_canary(tmp_path: Path) -> None:
    for after in (False, True):
        at, seen = 0, set()
        while True:
            at += 1
            world = World(tmp_path / f"{after}-{at}", CANARY)
            world.blow(at, after)
            try:
                switch(world)
            except Killed:
                world.restart()
            else:
                break
            moved = sum(share for slot, share in shares(world).items() if slot == "green")
            seen.add(moved)
            assert not moved or "slipway-shop-deadman" in world.runner.timers
            world.clock.advance(61)
            recovery.recover(world.host, world.app, fired=True)
            assert shares(world) == {"blue": 100}
            assert not [name for name in world.host.flags(world.app).present() if name != "spare.blue"]
            switch(world)
            Cutover(world.host, world.app).confirm("t1")
            assert (shares(world), world.host.journal(world.app).pending()) == ({"green": 100}, None)
        assert {0, 5, 50, 100} <= seen


def test_destructive_migrations_leave_no_way_back(careful: World) -> None:
    careful.jury.rulings[100] = Ruling("all requests fail", trouble=True, guilty=True)
    with pytest.raises(SlipwayError, match=r"stays on green although it failed.*slipway rollback shop --force") as failure:
        switch(careful, migrations="contract")
    assert failure.value.facts["outcome"] == "failed"
    assert (careful.jury.shares, shares(careful), careful.runner.timers) == ([100], {"green": 100}, {})
    assert careful.host.flags(careful.app).spare() is None
    assert careful.history() == ["failed"]
    with pytest.raises(SlipwayError, match="migrations of v2 are destructive"):
        Rollback(careful.host, careful.app).run(Back())
    assert Rollback(careful.host, careful.app).run(Back(force=True))["to"] == "blue"


def test_a_candidate_does_not_stand_in_before_it_is_proven(careful: World) -> None:
    switch(careful)
    Cutover(careful.host, careful.app).confirm("t1")
    ready = Cutover(careful.host, careful.app).prepare(Request("blue"))
    assert (ready["changed"], careful.host.flags(careful.app).spare()) == (True, None)
    with pytest.raises(SlipwayError, match="slot green of shop has the traffic on web1"):
        Cutover(careful.host, careful.app).prepare(Request("green"))
