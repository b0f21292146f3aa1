# SPDX-License-Identifier: GPL-3.0-or-later
"""Draining: what is decided from numbers, and a slot's way from standby to stopped, with what comes in between."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Callable, Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health.model import ProbeResult
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic import archive, drain, machine, recovery, retire, status
from ansible_collections.slipway.server.plugins.module_utils.traffic.cli import main
from ansible_collections.slipway.server.plugins.module_utils.traffic.config import DrainLimits
from ansible_collections.slipway.server.plugins.module_utils.traffic.drivers import Artifact
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.records import SlotState, Traffic
from ansible_collections.slipway.server.plugins.module_utils.traffic.retire import Retirement
from ansible_collections.slipway.server.plugins.module_utils.traffic.slots import Request, Slots
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.module_utils.traffic.test_slots import DIGEST, OTHER, described, engine_of, equip
from tests.unit.module_utils.traffic.world import Killed, World

LIMITS = DrainLimits(http=30, websockets=300, pace=60, keepalive=4)
DOCKER = {"kind": "docker", "container_port": 3000}


def kept(world: World, slot: str = "blue") -> SlotState:
    known = world.host.records("shop").slot(slot)
    assert known is not None
    return known


@pytest.fixture
def replicas(tmp_path: Path) -> World:
    """Three instances of each slot as units, v1 in blue and on standby, v2 in green and active; seen from no edge."""
    return prepared(tmp_path, edge=False)


def prepared(root: Path, edge: bool, **limits: float) -> World:
    config = copy.deepcopy(described({"kind": "systemd", "unit": "shop@{slot}-{n}.service", "root": "/opt/shop"}, edge))
    config["drain"] = limits
    for slot, port in (("blue", 3000), ("green", 3010)):
        config["slots"][slot]["instances"] = [
            {"name": f"shop@{slot}-{n}.service", "address": "10.0.0.1", "port": port + n - 1} for n in (1, 2, 3)
        ]
    world = World(root, config)
    equip(world)
    for release in ("v1", "v2"):
        path = root / f"opt/shop/releases/{release}"
        path.mkdir(parents=True)
        (path / archive.MARKER).write_text(json.dumps({"sha256": "0" * 64}), encoding="utf-8")
    slots = Slots(world.host, world.app)
    slots.start(Request("blue", Artifact("v1"), "green"))
    if edge:
        world.host.flags(world.app).switch("green")
    slots.start(Request("green", Artifact("v2"), "blue"))
    slots.mark_active(Request("green"))
    slots.standby(Request("blue"), 100)
    return world


def run(world: World, slot: str = "blue", seconds: float = 10_000, each: Optional[Callable[[float], None]] = None) -> list[str]:
    """Take steps until there are none, or `seconds` have passed; what was said, without repetitions."""
    retirement, said = Retirement(world.host, world.app, slot), []
    begun = world.clock.passed
    while world.clock.passed - begun < seconds:
        if each is not None:
            each(world.clock.passed - begun)
        text, again = retirement.step()
        said += [text] if text not in said[-1:] else []
        if again is None:
            break
        world.clock.advance(again)
    return said


def alive(world: World, slot: str = "blue") -> list[int]:
    return [number for number in (1, 2, 3) if engine_of(world).units.get(f"shop@{slot}-{number}.service")]


# What is decided from numbers


@pytest.mark.parametrize(
    ("elapsed", "connections", "stop", "wait"),
    [
        (0.0, [0, 0], None, 1.0),
        (1.0, [0, 0], 0, None),
        (1.0, [None, 0], 1, None),
        (0.0, [None, None], None, None),
        (2.0, [3, 0], None, 1.5),
        (29.5, [3, 0], None, 0.5),
        (30.0, [3, 0], None, 1.5),
        (239.9, [3, 0, 1], None, 1.5),
        (260.0, [3, 0, 1], 0, None),
        (260.0, [None, 0, 1], 1, None),
        (260.0, [None, None, 1], None, 1.5),
        (279.9, [None, 2, 1], None, pytest.approx(0.1)),
        (300.0, [None, None, 1], 2, None),
        (9999.0, [1, 1, 1], 0, None),
    ],
)
def test_step(elapsed: float, connections: list[Optional[int]], stop: Optional[int], wait: Optional[float]) -> None:
    step = drain.step(LIMITS, elapsed, connections)
    assert (step.stop, step.wait) == (stop, wait)


@given(
    st.builds(DrainLimits, *(st.floats(0, 1000) for _name in "abcd")),
    st.lists(st.none() | st.integers(0, 50), min_size=1, max_size=8),
    st.floats(0, 5000),
)
def test_every_step_leads_on(limits: DrainLimits, connections: list[Optional[int]], elapsed: float) -> None:
    step = drain.step(limits, elapsed, connections)
    running = [index for index, count in enumerate(connections) if count is not None]
    assert (step.stop is not None) + (step.wait is not None) == bool(running)
    if step.wait is not None:
        assert 0 < step.wait <= drain.LOOK
    if step.stop is not None:
        assert step.stop in running
        assert sum(count or 0 for count in connections) == 0 or elapsed >= limits.http
    if elapsed >= max(limits.end, 1) and running:
        assert step.stop is not None


@given(st.builds(DrainLimits, *(st.floats(0, 1000) for _name in "abcd")), st.integers(1, 9))
def test_instances_are_spread_over_the_pace(limits: DrainLimits, count: int) -> None:
    due = [limits.due(index, count) for index in range(count)]
    assert due == sorted(due)
    assert due[-1] == limits.end
    assert due[0] >= max(limits.http, limits.end - limits.pace) - 1e-6


def test_a_drain_survives_its_file() -> None:
    begun = drain.Drain(machine.Deadline(1.0, 2.0, "boot"), LIMITS, 7, 3, 1.5)
    assert drain.load(json.loads(json.dumps(begun.saved()))) == begun
    assert begun.facts() == {"peak": 7, "drained": 4, "remaining": 3, "seconds": 1.5}
    for other in (None, "x", {}, {"began": 1, "limits": {}, "peak": 0, "remaining": 0, "seconds": None}):
        assert drain.load(other) is None


def test_peers_are_read_from_the_kernel(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1\n"
        "   1: 0100007F:0BB8 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 2\n"
        "   2: 0100007F:D431 0100007F:0BB8 01 00000000:00000000 00:00000000 00000000     0        0 3\n"
        "   3: 0100007F:0BB8 0100007F:D432 06 00000000:00000000 00:00000000 00000000     0        0 4\n",
        encoding="ascii",
    )
    assert machine.established(table, 3000) == ["0100007F:D431"]
    assert machine.established(tmp_path / "missing", 3000) == []


def test_traffic_is_told_from_what_was_there_and_from_health_checks(replicas: World) -> None:
    watch = drain.Watch(replicas.machine)
    looks = [{"a", "b"}, {"a", "b"}, {"a", "check"}, {"a"}, {"a", "check2"}, set(), {"n1"}, {"n2"}, {"n2"}, {"n2", "n3"}]
    told = [watch.traffic([frozenset(look), None]) for look in looks]
    assert told == [False] * 7 + [True, False, False]


def test_the_age_of_a_process() -> None:
    with subprocess.Popen(["sleep", "9"]) as process:
        assert 0 <= machine.Machine().age(process.pid) < 5
        process.kill()
    assert machine.Machine().age(os.getpid()) > machine.Machine().age(process.pid) == 0.0


# A slot's way


def test_an_idle_slot_is_stopped_as_soon_as_its_time_is_over(replicas: World) -> None:
    fires, command = replicas.runner.timers["slipway-shop-retire-blue"]
    assert (fires - replicas.clock.passed, command[-3:]) == (pytest.approx(50), ["retire", "shop", "blue"])
    restarts = [item for item in replicas.runner.calls if "--property=Restart=on-failure" in item]
    assert [call[1] for call in restarts] == ["--unit=slipway-shop-retire-blue"]
    replicas.clock.advance(50)
    begun = replicas.clock.passed
    said = run(replicas)
    assert 50 <= replicas.clock.passed - begun < 54
    assert said[-1] == "slot blue stopped: 0 connections ended, 0 were closed"
    assert alive(replicas) == []
    assert alive(replicas, "green") == [1, 2, 3]
    assert replicas.history()[-2:] == ["draining", "stopped"]
    assert run(replicas) == ["slot blue is stopped, not standby: left alone"]


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_drain_and_its_end_have_their_hooks_once_and_not_within_the_lock(replicas: World, on_demand: bool) -> None:
    listed = [{"command": "note"}]
    config = {**replicas.config, "hooks": {"draining": listed, "retired": listed}}
    replicas.layout.config("shop").write_text(json.dumps(config), encoding="utf-8")
    ran: list[list[str]] = []
    answered = replicas.runner._run

    def note(argv: list[str]) -> Result:
        if "--pipe" not in argv:
            return answered(argv)
        with replicas.host.lock("shop").held("somebody else at work", 0.0):
            ran.append([word.partition("=")[2] for word in argv if word.startswith("--setenv=SLIPWAY_")])
        return Result(1, "", "Finished with result: exit-code")

    replicas.runner._run = note  # type: ignore[method-assign]
    replicas.machine.open = {3000: {"a"}}
    if on_demand:
        Slots(replicas.host, replicas.app).drain(Request("blue", active="green"), replicas.app.drain)
    run(replicas, seconds=120)
    run(replicas)  # another process goes on
    assert kept(replicas).state == "stopped"
    assert [{"SLIPWAY_STATE=draining", "SLIPWAY_FROM=blue"} <= set(words) for words in ran] == [True, False]
    assert {"SLIPWAY_STATE=retired", "SLIPWAY_RELEASE=v1", "SLIPWAY_TO=green"} <= set(ran[1])


def test_requests_end_then_websockets_are_closed_one_instance_after_the_other(replicas: World) -> None:
    replicas.clock.advance(100)
    replicas.machine.open = {3000: {"a", "r"}, 3001: {"b"}, 3002: {"c"}}
    left: list[tuple[float, list[int]]] = []
    begun = replicas.clock.passed

    def life(passed: float) -> None:
        if passed > 60:
            replicas.machine.open[3000].discard("r")
        if [numbers for _when, numbers in left[-1:]] != [alive(replicas)]:
            left.append((round(passed), alive(replicas)))

    said = run(replicas, each=life)
    stopped = [(when, numbers) for when, numbers in left if when >= 1]
    assert [numbers for _when, numbers in stopped] == [[2, 3], [3], []]
    # A quiet time of 50 s comes first, since nobody had looked before; then 260, 280 and 300 s of the drain.
    assert [when for when, _numbers in stopped] == [pytest.approx(50 + due, abs=3) for due in (260, 280, 300)]
    assert said[-1] == "slot blue stopped: 1 connections ended, 3 were closed"
    assert replicas.clock.passed - begun < 356
    assert kept(replicas).drain is not None
    last = replicas.host.records("shop").history()[-1]
    assert {key: last[key] for key in ("event", "peak", "drained", "remaining")} == {
        "event": "stopped",
        "peak": 4,
        "drained": 1,
        "remaining": 3,
    }
    assert status.report(replicas.host, replicas.app)["slots"]["blue"]["drain"]["peak"] == 4  # type: ignore[index]


def test_requests_from_an_edge_elsewhere_call_a_drain_off(replicas: World) -> None:
    replicas.clock.advance(100)
    replicas.machine.open = {3000: {"a"}}
    run(replicas, seconds=200)
    assert [state["event"] for state in replicas.host.records("shop").history()][-1] == "draining"
    assert status.report(replicas.host, replicas.app)["slots"]["blue"]["state"] == "draining"  # type: ignore[index]
    replicas.machine.open = {3001: {"b"}, 3000: {"a"}, 3002: {"c"}}
    said = run(replicas, seconds=4, each=lambda passed: replicas.machine.open[3001].add(f"n{passed}"))
    assert any("has traffic: it stays until none came for 50 s" in text for text in said)
    assert kept(replicas).drain is None
    assert replicas.history()[-1] == "drain_called_off"
    assert alive(replicas) == [1, 2, 3]
    replicas.machine.open.clear()
    assert run(replicas)[-1].startswith("slot blue stopped")


def test_a_drain_that_requests_called_off_begins_anew_with_its_own_times(replicas: World) -> None:
    slots, short = Slots(replicas.host, replicas.app), retire.limits(replicas.app, {"http": 2.0, "websockets": 8.0, "pace": 0.0})
    for state, wanted in (("standby", short), ("active", replicas.app.drain)):
        replicas.machine.open = {3000: {"a"}}
        slots.drain(Request("blue", active="green"), short)
        run(replicas, seconds=2)
        run(replicas, seconds=4, each=lambda passed: replicas.machine.open[3000].add(f"n{passed}"))
        assert replicas.history()[-1] == "drain_called_off"
        if state == "active":  # moved back on purpose, and away again
            slots.mark_active(Request("blue", active="blue"))
            slots.mark_active(Request("green", active="green"))
            slots.standby(Request("blue", active="green"), 100)
            replicas.clock.advance(100)
        run(replicas, seconds=60)
        assert drain.load(kept(replicas).drain).limits == wanted  # type: ignore[union-attr]
        assert kept(replicas).state == ("stopped" if state == "standby" else "standby")
        replicas.machine.open.clear()
        slots.start(Request("blue", Artifact("v1"), "green"))
    assert drain.limits({"older": 1}) is None


def test_requests_revive_instances_that_were_stopped_already(replicas: World) -> None:
    replicas.clock.advance(100)
    replicas.machine.open = {3000: {"a"}, 3001: {"b"}, 3002: {"c"}}
    run(replicas, seconds=50 + 270)
    assert alive(replicas) == [2, 3]
    run(replicas, seconds=4, each=lambda passed: replicas.machine.open[3001].add(f"n{passed}"))
    assert alive(replicas) == [1, 2, 3]
    assert "shop@blue-1.service" in engine_of(replicas).enabled


def test_steady_traffic_never_lets_it_go(replicas: World) -> None:
    replicas.clock.advance(100)

    def serve(passed: float) -> None:
        replicas.machine.open[3000] = {f"k{passed // 20}"}

    said = run(replicas, seconds=3600, each=serve)
    assert "stopped" not in said[-1]
    assert "draining" not in replicas.history()


def test_a_rollback_on_the_edge_ends_the_drain_and_the_slot_serves(tmp_path: Path) -> None:
    world = prepared(tmp_path, edge=True)
    world.clock.advance(100)
    world.machine.open = {3000: {"a"}, 3001: {"b"}, 3002: {"c"}}
    run(world, seconds=50 + 265)
    assert alive(world) == [2, 3]
    world.host.flags(world.app).switch("blue")
    assert run(world)[-1] == "slot blue has the traffic again: left alone"
    assert alive(world) == [1, 2, 3]
    assert (kept(world).state, kept(world).drain, kept(world).retire_at) == ("active", None, None)
    assert world.history()[-1] == "drain_called_off"


def test_a_rollback_starts_again_what_a_drain_has_stopped(tmp_path: Path) -> None:
    world = prepared(tmp_path, edge=True)
    world.machine.open = {3000: {"a"}, 3001: {"b"}, 3002: {"c"}}
    world.host.records("shop").save_traffic(Traffic("green", "blue", {"blue": "v1", "green": "v2"}))
    run(world, seconds=100 + 265)
    assert alive(world) == [2, 3]
    looked = world.sensors._judge
    world.sensors._judge = lambda slot, release: looked(slot, release) if alive(world) == [1, 2, 3] else ProbeResult(False, "")  # type: ignore[method-assign]
    assert main(["rollback", "shop"], world.host) == 0
    assert (world.serving, alive(world)) == ("blue", [1, 2, 3])
    assert world.runner.timers["slipway-shop-settle"][1][1:] == ["settle", "shop", "blue", "green"]
    assert "slot blue has the traffic again: left alone" in run(world)
    assert main(["settle", "shop", "--active", "blue", "--standby", "green"], world.host) == 0
    assert (kept(world).state, kept(world, "green").state) == ("active", "standby")


def test_marking_it_active_ends_the_drain_too(replicas: World) -> None:
    replicas.clock.advance(100)
    replicas.machine.open = {3000: {"a"}, 3001: {"b"}, 3002: {"c"}}
    run(replicas, seconds=50 + 265)
    assert Slots(replicas.host, replicas.app).mark_active(Request("blue", active="blue"))["changed"] is True
    assert alive(replicas) == [1, 2, 3]
    assert run(replicas) == ["slot blue is active, not standby: left alone"]


def test_starting_a_release_in_a_draining_slot_ends_the_drain(replicas: World) -> None:
    replicas.clock.advance(100)
    replicas.machine.open = {3000: {"a"}}
    run(replicas, seconds=60)
    done = Slots(replicas.host, replicas.app).start(Request("blue", Artifact("v1"), "green"))
    assert (done["state"], kept(replicas).drain, kept(replicas).state) == ("staged", None, "staged")


@pytest.mark.parametrize("after", [False, True])
def test_killed_or_restarted_anywhere_the_drain_goes_on(tmp_path: Path, after: bool) -> None:
    for at in range(1, 60):
        world = prepared(tmp_path / str(at), edge=False, http=6, websockets=30, pace=12)
        world.clock.advance(100)
        world.machine.open = {3000: {"a"}, 3001: {"b"}, 3002: {"c"}}
        fuse = world.blow(at, after)
        begun = world.clock.passed
        with contextlib.suppress(Killed):
            run(world)
        ended = not fuse.blown
        if at % 2 and not ended:
            world.reboot()
            world.machine.open.clear()
            recovery.rearm_retirements(world.host, world.app)
            assert kept(world).state == "stopped" or "slipway-shop-retire-blue" in world.runner.timers
        world.restart()
        run(world)
        assert (alive(world), kept(world).state) == ([], "stopped"), at
        assert alive(world, "green") == [1, 2, 3]
        assert world.clock.passed - begun < 2 * 90
        if ended:
            return
    raise AssertionError("the fuse was never long enough")


@pytest.mark.parametrize(("up", "lives", "ends"), [(3.0, 60.0, 4), (1e9, 60.0, 31), (1e9, 0.7, 31), (0.0, 60.0, 1)])
def test_after_a_restart_an_instance_is_told_to_end_once_it_can_hear(
    replicas: World, up: float, lives: float, ends: float
) -> None:
    """It is up `up` seconds after the host, or never; and starts again every `lives` seconds."""
    replicas.machine.open = {3000: {"a"}}
    Slots(replicas.host, replicas.app).drain(Request("blue"), replicas.app.drain)
    run(replicas, seconds=5)
    replicas.reboot()
    replicas.machine.open.clear()
    recovery.rearm_retirements(replicas.host, replicas.app)
    begun = replicas.clock.passed
    heard: list[tuple[float, list[int]]] = []

    def life(passed: float) -> None:
        replicas.machine.started[9] = begun + passed // lives * lives
        replicas.sensors.well["blue"] = passed >= up
        heard.append((passed, alive(replicas)))

    said = run(replicas, each=life)
    assert said[-1].startswith("slot blue stopped")
    assert ends - 1 <= next(passed for passed, numbers in heard if numbers != [1, 2, 3]) <= ends
    assert replicas.clock.passed - begun < ends + 1


def test_clock_jumps_do_not_shorten_a_drain(replicas: World) -> None:
    replicas.clock.advance(100)
    replicas.machine.open = {3000: {"a"}}
    run(replicas, seconds=60)
    replicas.clock.wall += 3600
    run(replicas, seconds=100)
    assert 1 in alive(replicas)


def test_drain_on_demand(replicas: World, capsys: pytest.CaptureFixture[str]) -> None:
    slots, app = Slots(replicas.host, replicas.app), replicas.app
    replicas.machine.open = {3000: {"a"}}
    assert slots.drain(Request("blue"), app.drain, write=False)["remaining"] == 1
    assert kept(replicas).drain is None
    with pytest.raises(SlipwayError, match="has the traffic on web1"):
        slots.drain(Request("green"), app.drain)
    short = retire.limits(app, {"http": 2.0, "websockets": 10.0, "pace": None})
    assert (short.http, short.websockets, short.pace) == (2.0, 10.0, 60.0)
    done = slots.drain(Request("blue", owner="me"), short)
    assert (done["changed"], done["state"]) == (True, "draining")
    fires, _command = replicas.runner.timers["slipway-shop-retire-blue"]
    assert fires - replicas.clock.passed == pytest.approx(0.1)
    run(replicas)
    found = retire.attend(replicas.host, app, "blue")
    assert (found["state"], found["release"], found["peak"], found["drained"], found["remaining"]) == ("stopped", "v1", 1, 0, 1)
    assert found["seconds"] == pytest.approx(4.7, abs=0.3)  # the first of three instances, 2 * 8 / 3 s before the end
    assert slots.drain(Request("blue"), short)["changed"] is False
    with pytest.raises(SlipwayError, match="no negative time"):
        retire.limits(app, {"http": -1.0})
    slots.mark_active(Request("green"))
    with pytest.raises(SlipwayError, match="was called off: the slot is active"):
        retire.attend(replicas.host, app, "green")
    replicas.machine.open.clear()
    slots.start(Request("blue", Artifact("v1"), "green"))
    assert main(["retire", "shop", "blue", "--now"], replicas.host) == 0
    assert "slot blue stopped" in capsys.readouterr().out
    slots.start(Request("blue", Artifact("v1"), "green"))
    replicas.machine.open = {3000: {"a"}}
    begun = replicas.clock.passed
    assert main(["retire", "shop", "blue", "--now", "--within", "4"], replicas.host) == 0
    assert "1 were closed" in capsys.readouterr().out
    assert replicas.clock.passed - begun < 8


def test_stop_lets_requests_end_first(replicas: World) -> None:
    slots = Slots(replicas.host, replicas.app)
    replicas.machine.open = {3000: {"a"}}
    begun = replicas.clock.passed
    assert slots.stop(Request("blue"))["changed"] is True
    assert replicas.clock.passed - begun == pytest.approx(30, abs=2)
    assert alive(replicas) == []
    replicas.machine.open.clear()
    slots.start(Request("blue", Artifact("v1"), "green"))
    begun = replicas.clock.passed
    slots.stop(Request("blue"))
    assert replicas.clock.passed == begun


def test_containers_are_looked_at_in_their_own_network(tmp_path: Path) -> None:
    world = World(tmp_path, described(DOCKER))
    equip(world)
    slots = Slots(world.host, world.app)
    slots.start(Request("blue", Artifact("v1", DIGEST)))
    slots.start(Request("green", Artifact("v2", OTHER)))
    slots.mark_active(Request("green"))
    slots.standby(Request("blue"), 10)
    world.clock.advance(10)
    world.machine.processes[7] = "then"
    asked = []
    world.machine.peers = lambda port, pid: asked.append((port, pid)) or frozenset()  # type: ignore[method-assign,func-returns-value]
    inspected = len(engine_of(world).calls)
    assert run(world)[-1].startswith("slot blue stopped")
    assert set(asked) == {(3000, 7)}
    inspected = sum(call[1] == "inspect" for call in engine_of(world).calls[inspected:])
    assert inspected < len(asked) + 4
    assert list(engine_of(world).containers) == ["slipway-shop-green-1"]


def test_edge_notices_that_a_standby_slot_serves_again(tmp_path: Path) -> None:
    world = World(tmp_path, described(DOCKER, edge=True))
    equip(world)
    slots = Slots(world.host, world.app)
    assert slots.start(Request("blue", Artifact("v1", DIGEST)))["state"] == "active"
    slots.start(Request("green", Artifact("v2", OTHER)))
    world.host.flags(world.app).switch("green")
    slots.standby(Request("blue"), 60)
    world.host.flags(world.app).switch("blue")
    assert run(world) == ["slot blue has the traffic again: left alone"]
    assert slots.stop(Request("green"))["changed"] is True
    assert slots.stop(Request("green"))["changed"] is False
