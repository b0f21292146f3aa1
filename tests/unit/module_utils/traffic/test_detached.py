# SPDX-License-Identifier: GPL-3.0-or-later
"""A cutover in a unit of its own, and whoever follows it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic.detached import Detached
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import Busy, SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request
from ansible_collections.slipway.server.plugins.module_utils.traffic.under_way import let_end

from tests.unit.module_utils.traffic.world import World

GREEN = Request("green", "v2", "t1", "tester", migrations="expand")
SHOW = "systemctl show"


def under_way(world: World, txn: str = "") -> None:
    state = f"ActiveState=active\nDescription=Move shop to green: {txn}\n" if txn else "ActiveState=inactive\nDescription=x\n"
    world.runner.answers[SHOW] = Result(0, state, "")


@pytest.fixture
def run(world: World) -> Detached:
    under_way(world)
    world.runner.answers["systemd-run --unit=slipway-shop-move"] = Result(0, "", "")
    return Detached(world.host, world.app)


def started(world: World) -> list[list[str]]:
    return [call for call in world.runner.calls if "--unit=slipway-shop-move" in call]


def test_it_is_started_followed_and_ends(world: World, run: Detached) -> None:
    run.start(GREEN)
    assert started(world)[0][-4:] == ["/usr/local/sbin/slipway", "move", "shop", "--txn=t1"]
    under_way(world, "t1")
    run.start(GREEN)
    assert len(started(world)) == 1
    quiet = run.follow("t1", 0)
    assert (quiet.ended, quiet.lines, quiet.offset) == (False, [], 0)
    done = run.run("t1")
    assert (done["outcome"], world.serving) == ("switched", "green")
    first = run.follow("t1", 0)
    assert first.ended
    states = [str(line["state"]) for line in first.lines]
    assert states.count("STAGED") == 3
    assert [state for state in states if state != "STAGED"] == ["PLANNED", "HEALTHY", "GATED", "SWITCHED", "BAKING"]
    assert first.facts["outcome"] == "switched"
    assert run.follow("t1", first.offset).lines == []
    journal = world.host.journal(world.app).last()
    assert journal is not None
    assert journal.facts["migrations"] == "expand"


def test_a_second_run_finds_what_the_first_has_done(world: World, run: Detached) -> None:
    run.start(GREEN)
    run.run("t1")
    run.start(GREEN)
    assert len(started(world)) == 1
    assert run.follow("t1", 0).facts["outcome"] == "switched"


def test_its_failure_is_told(world: World, run: Detached) -> None:
    run.start(GREEN)
    world.sensors.well["green"] = False
    with pytest.raises(SlipwayError):
        run.run("t1")
    with pytest.raises(SlipwayError, match="did not pass the gate") as failure:
        run.follow("t1", 0)
    assert failure.value.facts["outcome"] == "aborted"
    lines: Any = failure.value.facts["progress"]
    assert [line["state"] for line in lines if line["state"] != "STAGED"] == ["PLANNED", "FAILED"]


def test_a_run_that_was_killed_is_noticed(world: World, run: Detached) -> None:
    run.start(GREEN)
    with pytest.raises(SlipwayError, match=r"died before it could tell how it ended. Traffic is on blue now"):
        run.follow("t1", 0)


def test_another_run_is_not_disturbed(world: World, run: Detached) -> None:
    under_way(world, "t0")
    with pytest.raises(Busy, match="transaction t0 moves shop on web1 right now"):
        run.start(GREEN)


def test_who_comes_again_waits_for_the_end_of_the_run(world: World, run: Detached, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, clock = world.host.lock("shop"), world.clock
    begun = clock.passed
    under_way(world, "t1")
    let_end(world.host, world.app, "t1")
    assert clock.passed == begun, "nobody holds the lock"
    with lock.held("t1 moving shop"):
        let_end(world.host, world.app, "t2")
        assert clock.passed == begun, "the run of another transaction is not waited for"
        let_end(world.host, world.app, "t1")
        assert clock.passed > begun + world.app.confirm_deadline, "no longer than its steps may last"
        sleep = clock.sleep
        monkeypatch.setattr(clock, "sleep", lambda seconds: (sleep(seconds), under_way(world)))
        begun = clock.passed
        let_end(world.host, world.app, "t1")
        assert clock.passed - begun == 1, "as soon as it has ended"
    assert not lock.taken()


@pytest.mark.parametrize("txn", ["../../etc/passwd", "", "a b", ".hidden"])
def test_a_name_is_no_path(run: Detached, txn: str) -> None:
    with pytest.raises(SlipwayError, match="is no name for a transaction"):
        run.start(Request("green", "v2", txn))


def test_what_cannot_begin_is_refused_at_once(world: World, run: Detached) -> None:
    with pytest.raises(SlipwayError, match="has no slot 'purple'"):
        run.start(Request("purple", "v2", "t1"))
    assert not started(world)


def test_lines_of_a_torn_file(world: World, run: Detached) -> None:
    progress: Any = world.host.progress(world.app, "t1")
    progress.say("PLANNED", "one")
    with progress.path.open("a") as stream:
        stream.write('no json\n{"state": "torn')
    lines, offset = progress.lines()
    assert ([line["text"] for line in lines], offset) == (["one"], 2)


def test_a_run_that_is_killed_is_recovered_from_at_once(run: Detached, world: World) -> None:
    run.start(GREEN)
    [argv] = started(world)
    told = next(word for word in argv if word.startswith("--property=ExecStopPost="))
    assert "success|exit-code) ;;" in told
    assert "exec /usr/local/sbin/slipway recover shop ;;" in told
