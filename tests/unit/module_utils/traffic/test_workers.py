# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers move from slot to slot: what is done in which order, and what is left when the process dies at any moment."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic import cli, status, workers
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.drivers import Artifact
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.removal import Removal
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request
from ansible_collections.slipway.server.plugins.module_utils.traffic.workers import (
    HANDED_OVER,
    RELEASED,
    STARTED,
    STOPPED,
    Disproved,
    Seen,
    Workers,
    steps,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.module_utils.traffic.world import CONFIG, FakeRunner, Killed, World

DIGEST = "reg.example:5000/shop@sha256:" + "a" * 64
RUNTIME = {"kind": "docker", "container_port": 3000, "env_file": "/env", "command": "run", "unit": "", "root": ""}


def described(elsewhere: bool = False) -> dict[str, Any]:
    """Two queue workers and a scheduler of blue and green in containers, and those of a legacy system as units."""
    config = copy.deepcopy(CONFIG)
    found = []
    for slot in ("blue", "green"):
        both: dict[str, Any] = {"slot": slot, "at": ["web1"], "runtime": RUNTIME, "environment": {"DB_POOL": "7"}}
        names = [f"slipway-shop-queue-{slot}-{number}" for number in (1, 2)]
        found.append({**both, "name": "queue", "instances": names, "quiet_signal": "TSTP", "min_healthy": 5, "at": ["web1"]})
        clock = {**both, "name": "clock", "singleton": True, "instances": [f"slipway-shop-clock-{slot}-1"], "min_healthy": 2}
        found.append({**clock, "at": ["web2"], "instances": []} if elsewhere else clock)
    old: dict[str, Any] = {"slot": "legacy", "at": ["web1"], "min_healthy": 1}
    found.append(
        {**old, "name": "queue", "unit": "old-queue.service", "instances": ["old-queue.service"], "quiet": "/bin/hush now"}
    )
    found.append({**old, "name": "clock", "singleton": True, "unit": "old-clock.timer", "instances": ["old-clock.timer"]})
    config["workers"] = found
    return config


class Engine(FakeRunner):
    """Containers and units; remembers how many singletons ran at most at the same time, and whether queues were ever empty."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock, world.fuse)
        self.world = world
        self.containers: dict[str, dict[str, Any]] = {}
        self.units: dict[str, bool] = {"old-queue.service": True, "old-clock.timer": True}
        self.enabled = set(self.units)
        self.dies: set[str] = set()
        self.clings: set[str] = set()
        self.quiet: set[str] = set()
        self.most_clocks = 0
        self.least_queues = 9

    def running(self, what: str) -> list[str]:
        names = [name for name, one in self.containers.items() if one["up"]] + [name for name, up in self.units.items() if up]
        return sorted(name for name in names if what in name and name not in self.quiet)

    def run(
        self,
        argv: Sequence[str],
        data: Optional[str] = None,
        timeout: float = 600.0,
        env: Optional[Mapping[str, str]] = None,
    ) -> Result:
        """Looking is no step: to be killed right before or after it makes no difference."""
        looks = argv[1:2] in (["show"], ["inspect"], ["ps"], ["list-units"], ["is-active"], ["logs"])
        return self._run(list(argv)) if looks and not self.fuse.blown else super().run(argv, data, timeout, env)

    def _run(self, argv: list[str]) -> Result:
        answer = self._engine(argv)
        self.most_clocks = max(self.most_clocks, len(self.running("clock")))
        self.least_queues = min(self.least_queues, len(self.running("queue")))
        if answer is None:
            return super()._run(argv)
        self.calls.append(argv)
        return answer

    def _engine(self, argv: list[str]) -> Optional[Result]:
        name = argv[-1]
        if argv[:2] == ["docker", "run"]:
            name = next(item.split("=", 1)[1] for item in argv if item.startswith("--name="))
            assert name not in self.containers
            self.containers[name] = {"argv": argv, "up": not any(name.startswith(one) for one in self.dies), "restart": "no"}
            return Result(0, "id", "")
        if argv[:3] == ["docker", "inspect", "--type=container"]:
            if name not in self.containers:
                return Result(1, "", "no such container")
            up = self.containers[name]["up"]
            state = {"Status": "running" if up else "exited", "ExitCode": 0 if up else 3, "StartedAt": "t"}
            return Result(0, json.dumps([{"State": state, "RestartCount": 0}]), "")
        if argv[:2] == ["docker", "stop"]:
            self.containers[name]["up"] = name in self.clings
            return Result(0, "", "")
        if argv[:2] == ["docker", "rm"]:
            if name in self.clings:
                return Result(0, "", "")
            self.containers.pop(name, None)
            self.quiet.discard(name)
            return Result(0, "", "")
        if argv[:2] == ["docker", "update"]:
            self.containers[name]["restart"] = argv[2].split("=")[1]
            return Result(0, "", "")
        if argv[:2] == ["docker", "kill"] or argv[0] == "/bin/hush":
            self.quiet.add(name if argv[0] == "docker" else "old-queue.service")
            return Result(0, "", "")
        if argv[:2] == ["docker", "logs"]:
            return Result(0, "boot with hush-hush\n", "crashed\n")
        if argv[:2] == ["docker", "ps"]:
            lines = [" ".join([one, *one.split("-")[2:4]]) for one in self.containers]
            return Result(0, "\n".join(lines), "")
        if argv[0] == "systemctl" and argv[1] in ("start", "stop", "enable", "disable") and name.startswith("old-"):
            if argv[1] in ("start", "stop"):
                self.units[name] = argv[1] == "start"
                self.quiet.discard(name)
            else:
                self.enabled.add(name) if argv[1] == "enable" else self.enabled.discard(name)
            return Result(0, "", "")
        if argv[:2] == ["systemctl", "show"] and "--value" in argv:
            return Result(0, name.replace("timer", "service") + "\n", "")
        if argv[:2] == ["systemctl", "show"]:
            up = self.units.get(name, False)
            state = f"ActiveState={'active' if up else 'inactive'}\nSubState=x\nMainPID={9 if up else 0}\nNRestarts=0\n"
            return Result(0, f"LoadState=loaded\n{state}", "")
        return None


def make(root: Path, elsewhere: bool = False) -> World:
    root.mkdir(parents=True, exist_ok=True)
    (root / "env").write_text("JWT_SECRET=hush-hush\n", encoding="utf-8")
    world = World(root, described(elsewhere))
    world.runner = world.host.runner = Engine(world)
    return world


@pytest.fixture(autouse=True)
def _in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "together", lambda calls: [call() for call in calls])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make(tmp_path)


def engine(world: World) -> Engine:
    assert isinstance(world.runner, Engine)
    return world.runner


def crew(world: World) -> Workers:
    return Workers(world.host, world.app)


def move(world: World, slot: str, phase: str = HANDED_OVER, **more: Any) -> dict[str, object]:
    crew(world).prepare(slot, Artifact("v1" if slot == "blue" else "v2", DIGEST)) if slot != "legacy" else None
    return crew(world).move(phase, slot, **more)


def everything(world: World) -> list[str]:
    return engine(world).running("queue") + engine(world).running("clock")


BLUE = ["slipway-shop-queue-blue-1", "slipway-shop-queue-blue-2", "slipway-shop-clock-blue-1"]
GREEN = [name.replace("blue", "green") for name in BLUE]
LEGACY = ["old-queue.service", "old-clock.timer"]


def test_there_and_back(world: World) -> None:
    done = move(world, "blue")
    assert done["steps"] == [
        f"start {BLUE[0]}, {BLUE[1]}",
        f"prove {BLUE[0]}, {BLUE[1]}",
        f"keep {BLUE[0]}, {BLUE[1]}",
        "stop old-clock.timer",
        f"start {BLUE[2]}",
        f"prove {BLUE[2]}",
        f"keep {BLUE[2]}",
        "quiet old-queue.service",
        "stop old-queue.service",
    ]
    assert everything(world) == BLUE
    assert engine(world).enabled == set()
    assert {one["restart"] for one in engine(world).containers.values()} == {"unless-stopped"}
    argv = engine(world).containers[BLUE[0]]["argv"]
    assert {"--env=DB_POOL=7", "--stop-signal=TERM", "--label=io.github.slipway-server.worker=queue"} <= set(argv)
    assert not any(item.startswith("--publish") for item in argv)
    assert move(world, "blue")["changed"] is False
    move(world, "green")
    assert everything(world) == GREEN
    move(world, "legacy")
    assert (everything(world), engine(world).enabled, engine(world).containers) == (LEGACY, set(LEGACY), {})
    assert (engine(world).most_clocks, engine(world).least_queues) == (1, 1)
    assert crew(world).duty().slot == "legacy"
    assert "slipway-shop-workers" not in world.runner.timers


def test_check_mode_says_it_and_touches_nothing(world: World) -> None:
    before = sorted(world.root.rglob("*"))
    assert crew(world).prepare("blue", Artifact("v1", DIGEST), write=False)["changed"] is True
    done = crew(world).move(HANDED_OVER, "blue", write=False)
    assert (done["changed"], sorted(world.root.rglob("*"))) == (True, before)
    assert everything(world) == LEGACY


def test_one_that_dies_takes_the_handover_back(world: World) -> None:
    move(world, "blue")
    for dying in ("slipway-shop-queue-green-2", "slipway-shop-clock-green"):
        engine(world).dies = {dying}
        with pytest.raises(Disproved) as failed:
            move(world, "green")
        assert everything(world) == BLUE
        assert sorted(engine(world).containers) == sorted(BLUE)
        text = str(failed.value)
        assert "died: exited, exit code 3" in text
        assert "crashed" in text
        assert "hush-hush" not in text
        assert "The workers of blue go on." in text
        assert failed.value.facts == {"disproved": True}
        assert (crew(world).duty().slot, crew(world).duty().target) == ("blue", None)
    assert engine(world).most_clocks == 1


def test_a_singleton_that_does_not_end_is_never_doubled(world: World) -> None:
    move(world, "blue")
    engine(world).clings = {BLUE[2]}
    with pytest.raises(SlipwayError, match=f"could not stop {BLUE[2]}: {BLUE[2]} did not end"):
        move(world, "green")
    assert engine(world).running("clock") == [BLUE[2]]
    engine(world).clings = set()
    assert cli.main(["workers", "shop"], world.host) == 0
    assert everything(world) == GREEN
    assert engine(world).most_clocks == 1


def test_phases_of_several_hosts(tmp_path: Path) -> None:
    world = make(tmp_path, elsewhere=True)
    move(world, "blue", STARTED)
    assert everything(world) == [LEGACY[0], *BLUE[:2], LEGACY[1]]
    assert move(world, "blue", RELEASED)["steps"] == ["stop old-clock.timer"]
    assert move(world, "blue", cleared=["web2"])["steps"] == ["quiet old-queue.service", "stop old-queue.service"]
    held = move(world, "legacy")
    assert held["held"] == ["old-clock.timer is not started: web2 did not say that its own has ended"]
    assert everything(world) == ["old-queue.service"]
    assert move(world, "legacy", cleared=["web2"])["held"] == []
    assert everything(world) == LEGACY


def test_quiet_ones_are_started_anew_when_they_have_their_duty_back(world: World) -> None:
    move(world, "blue")
    assert move(world, "green", RELEASED)["steps"] == []
    engine(world).clings = set(BLUE[:2])
    with pytest.raises(SlipwayError, match="did not end"):
        move(world, "green")
    assert everything(world) == GREEN
    assert set(BLUE[:2]) <= engine(world).quiet
    engine(world).clings = set()
    for name in BLUE[:2]:
        engine(world).containers[name]["up"] = True
    assert str(move(world, "blue")["steps"]).startswith(f"['stop {BLUE[0]}, {BLUE[1]}', 'start {BLUE[0]}, {BLUE[1]}'")
    assert everything(world) == BLUE


def test_stopped(world: World) -> None:
    move(world, "blue")
    assert move(world, "blue", STOPPED)["changed"] is True
    assert everything(world) == []
    assert crew(world).duty().slot is None


def test_what_is_outdated_or_not_described_any_more(world: World) -> None:
    move(world, "blue")
    (world.root / "env").write_text("JWT_SECRET=another\n", encoding="utf-8")
    assert crew(world).move(HANDED_OVER, "blue", write=False)["outdated"] is True
    move(world, "blue")
    assert crew(world).move(HANDED_OVER, "blue", write=False)["outdated"] is False
    world.config["workers"] = [one for one in world.config["workers"] if one["name"] != "queue"]
    world.layout.config("shop").write_text(json.dumps(world.config), encoding="utf-8")
    assert crew(world).move(HANDED_OVER, "blue")["steps"] == [f"quiet {BLUE[0]}, {BLUE[1]}", f"stop {BLUE[0]}, {BLUE[1]}"]


def test_an_edge_that_the_application_has_left_ends_them(world: World) -> None:
    move(world, "blue")
    world.config["workers"] = [{**one, "instances": [], "at": ["web2"]} for one in world.config["workers"]]
    world.layout.config("shop").write_text(json.dumps(world.config), encoding="utf-8")
    left = Removal(world.host, world.host.app("shop"))
    assert left.run("alice", write=False, keep_edge=True).ended == sorted(BLUE)
    assert everything(world) == BLUE
    assert left.run("alice", keep_edge=True).ended == sorted(BLUE)
    assert everything(world) == []
    assert left.run("alice", keep_edge=True).ended == []


def test_not_before_the_move_is_confirmed(world: World) -> None:
    cutover = Cutover(world.host, world.app)
    cutover.switch(Request("blue", "v1"))
    move(world, "blue")
    cutover.switch(Request("green", "v2", "t1"))
    with pytest.raises(SlipwayError, match="not confirmed yet, so its workers stay with blue"):
        move(world, "green")
    move(world, "green", STARTED)
    cutover.confirm("t1")
    move(world, "green")
    assert everything(world) == GREEN


def test_the_release_must_be_known(world: World) -> None:
    with pytest.raises(Disproved, match="release of slot blue of shop is not known here"):
        crew(world).move(HANDED_OVER, "blue")
    assert everything(world) == LEGACY


def test_without_ansible(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    move(world, "blue")
    move(world, "green")
    assert workers.hand_over(world.host, world.app, "blue") is True
    fires, command = world.runner.timers["slipway-shop-workers"]
    assert (round(fires - world.clock.passed, 1), command[1:]) == (0.1, ["workers", "shop"])
    assert everything(world) == GREEN
    text = "\n".join(status.lines(status.report(world.host, world.app)))
    assert "workers of green, moving to blue" in text
    assert f"{GREEN[2]}: well" in text
    assert cli.main(["workers", "shop"], world.host) == 0
    assert everything(world) == BLUE
    assert cli.main(["workers", "shop", "--to", "legacy", "--alone"], world.host) == 0
    assert "the workers of web1 belong to legacy" in capsys.readouterr().out
    assert cli.main(["workers", "shop"], world.host) == 0
    assert "no handover of workers was interrupted" in capsys.readouterr().out
    assert cli.main(["workers", "shop", "--to", "nowhere"], world.host) == 1


def test_a_rollback_by_hand_takes_the_workers_with_it(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    cutover = Cutover(world.host, world.app)
    cutover.switch(Request("blue", "v1"))
    move(world, "blue")
    cutover.switch(Request("green", "v2", "t1"))
    cutover.confirm("t1")
    move(world, "green")
    assert cli.main(["rollback", "shop"], world.host) == 0
    assert "Its workers follow by themselves." in capsys.readouterr().out
    assert cli.main(["workers", "shop"], world.host) == 0
    assert everything(world) == BLUE


def killed(root: Path, slots: Sequence[str]) -> Iterator[World]:
    """A world for every step of a handover to the last of `slots` at which it was killed, right before and right after."""
    for after in (False, True):
        at = 0
        while True:
            at += 1
            world = make(root / f"{after}-{at}")
            for slot in slots[:-1]:
                move(world, slot)
            world.blow(at, after)
            try:
                move(world, slots[-1])
            except Killed:
                world.restart()
                yield world
            else:
                break
        assert at > 20


@pytest.mark.slow
@pytest.mark.parametrize("slots", [("blue",), ("blue", "green"), ("blue", "legacy")])
def test_killed_anywhere_then_finished_by_the_host(tmp_path: Path, slots: Sequence[str]) -> None:
    wanted = {"blue": BLUE, "green": GREEN, "legacy": LEGACY}
    before = slots[-2] if len(slots) > 1 else "legacy"
    for number, world in enumerate(killed(tmp_path, slots)):
        begun = crew(world).duty().target == slots[-1]
        assert not begun or everything(world) == wanted[before] or "slipway-shop-workers" in world.runner.timers
        if number % 2 or "slipway-shop-workers" not in world.runner.timers:
            world.reboot()
            assert cli.main(["recover", "--all"], world.host) == 0
        assert cli.main(["workers", "shop"], world.host) == 0
        assert everything(world) == wanted[slots[-1] if begun else before] or crew(world).duty().slot == slots[-1]
        move(world, slots[-1])
        assert everything(world) == wanted[slots[-1]]
        assert (engine(world).most_clocks, engine(world).least_queues >= 1) == (1, True)
        assert move(world, slots[-1])["changed"] is False


def apply(seen: list[Seen], plan: Sequence[Any], until: int) -> list[Seen]:
    """What is seen after the first `until` steps of a plan; checks at every step that no two singletons run."""
    now: Mapping[str, Seen] = {one.name: one for one in seen}
    for step in plan[:until]:
        for name in step.names:
            one = now[name]
            alive = {"start": True, "stop": False}.get(step.action, one.alive)
            fit = {"start": True, "quiet": False}.get(step.action, one.fit)
            now = {**now, name: Seen(name, one.worker, one.slot, one.singleton, alive, fit, one.here)}
            assert sum(one.singleton and one.alive for one in now.values()) <= 1
    return list(now.values())


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=6, max_size=6),
    st.sampled_from(["blue", "green", "none"]),
    st.integers(0, 12),
)
def test_from_any_state_and_after_any_interruption(states: list[tuple[bool, bool]], clock: str, cut: int) -> None:
    seen = []
    for number, (alive, fit) in enumerate(states[:4]):
        slot = ("blue", "green")[number % 2]
        seen.append(Seen(f"queue-{slot}-{number}", "queue", slot, False, alive, fit))
    for number, slot in enumerate(("blue", "green")):
        seen.append(Seen(f"clock-{slot}", "clock", slot, True, slot == clock, states[4 + number][1]))
    half = apply(seen, steps(seen, "green"), cut)
    done = apply(half, steps(half, "green"), 99)
    assert {one.name for one in done if one.alive} == {one.name for one in seen if one.slot == "green"}
    assert all(one.fit for one in done if one.alive)
    assert steps(done, "green") == []
    held = steps(seen, "green", clear=False)
    assert not any(step.action == "start" and "clock-green" in step.names for step in held)
