# SPDX-License-Identifier: GPL-3.0-or-later
"""A host made of a directory, a clock that only moves when somebody sleeps, and processes that do as they are told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from ansible_collections.slipway.server.plugins.module_utils.health.model import ProbeResult
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.traffic.config import App
from ansible_collections.slipway.server.plugins.module_utils.traffic.disk import Disk
from ansible_collections.slipway.server.plugins.module_utils.traffic.flags import active
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host
from ansible_collections.slipway.server.plugins.module_utils.traffic.jury import Ruling
from ansible_collections.slipway.server.plugins.module_utils.traffic.layout import Layout
from ansible_collections.slipway.server.plugins.module_utils.traffic.machine import Machine
from ansible_collections.slipway.server.plugins.module_utils.traffic.sensors import Chosen, Sensors

CONFIG: dict[str, Any] = {
    "schema": 1,
    "app": "shop",
    "domain": "shop.example",
    "edge": True,
    "host": "web1",
    "default_slot": "blue",
    "slot_order": ["blue", "green", "legacy"],
    "slots": {
        "blue": {"managed": True, "members": ["10.0.0.1:3000", "10.0.0.2:3000"], "instances": []},
        "green": {"managed": True, "members": ["10.0.0.1:3010", "10.0.0.2:3010"], "instances": []},
        "legacy": {"managed": False, "members": ["10.0.0.1:8000"], "instances": []},
    },
    "runtime": None,
    "gate": {
        "path": "/health",
        "successes": 2,
        "interval": 1,
        "min_healthy": 1,
        "deadline": 6,
        "version": {"path": "/version", "key": "release"},
    },
    "bake": 3,
    "standby": 900,
    "confirm_deadline": 60,
}


class Killed(BaseException):
    """The process ends here: nothing that follows in it happens."""


class Fuse:
    """Blows at the n-th step, before or after it, and stays blown."""

    def __init__(self, at: int = 10**9, after: bool = False) -> None:
        self.at = at
        self.after = after
        self.steps = 0
        self.blown = False

    def __call__(self, step: Callable[[], Any]) -> Any:
        if self.blown:
            raise Killed
        self.steps += 1
        if self.steps == self.at and not self.after:
            self.blown = True
            raise Killed
        value = step()
        if self.steps == self.at:
            self.blown = True
            raise Killed
        return value


class FakeClock(Clock):
    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.wall = start
        self.passed = 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.advance(max(seconds, 0.0))

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.passed += seconds


class FakeMachine(Machine):
    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.boot = "boot-1"
        self.processes: dict[int, str] = {100: "1", 1: "0"}
        self.started: dict[int, float] = {}
        self.open: dict[int, set[str]] = {}

    def boot_id(self) -> str:
        return self.boot

    def since_boot(self) -> float:
        return self.clock.passed

    def start_time(self, pid: int) -> Optional[str]:
        return self.processes.get(pid)

    def age(self, pid: int) -> float:
        return self.clock.passed - self.started.get(pid, -(10.0**9))

    def controller(self) -> Optional[str]:
        return "10.0.0.9"

    def pid(self) -> int:
        return 100

    def peers(self, port: int, pid: int) -> frozenset[str]:
        return frozenset(self.open.get(port, ()))


class FakeRunner(Runner):
    """systemd's timers, and whatever `answers` says about other commands."""

    def __init__(self, clock: FakeClock, fuse: Fuse) -> None:
        self.clock = clock
        self.fuse = fuse
        self.timers: dict[str, tuple[float, list[str]]] = {}
        self.calls: list[list[str]] = []
        self.answers: dict[str, Result] = {}
        self.can_arm = True

    def run(
        self,
        argv: Sequence[str],
        data: Optional[str] = None,
        timeout: float = 600.0,
        env: Optional[Mapping[str, str]] = None,
    ) -> Result:
        answer: Result = self.fuse(lambda: self._run(list(argv)))
        return answer

    def _run(self, argv: list[str]) -> Result:
        self.calls.append(argv)
        for start, answer in self.answers.items():
            if " ".join(argv).startswith(start):
                return answer
        if argv[0] == "systemd-run":
            if not self.can_arm:
                return Result(1, "", "no bus")
            unit = next(item.split("=", 1)[1] for item in argv if item.startswith("--unit="))
            seconds = next(item.split("=", 1)[1] for item in argv if item.startswith("--on-active="))
            command = [item for item in argv[1:] if not item.startswith("--") or item == "--deadline"]
            self.timers[unit] = (self.clock.passed + float(seconds.rstrip("s")), command)
        if argv[:2] == ["systemctl", "stop"]:
            for unit in argv[2:]:
                self.timers.pop(unit[: -len(".timer")] if unit.endswith(".timer") else unit, None)
        if argv[:2] == ["systemctl", "is-active"]:
            return Result(0 if argv[-1][: -len(".service")] in self.timers else 3, "", "")
        return Result(0, "", "")


class FusedDisk(Disk):
    """Each change is one step of the fuse."""

    def __init__(self, fuse: Fuse) -> None:
        self.fuse = fuse
        self.full = False

    def _change(self, step: Callable[[], Any]) -> Any:
        if self.full:
            raise OSError(28, "No space left on device")
        return self.fuse(step)

    def write(self, path: Path, text: str, mode: int = 0o644) -> None:
        self._change(lambda: Disk.write(self, path, text, mode))

    def create_flag(self, path: Path, aside: Optional[Path] = None) -> None:
        step = self.fuse if aside is not None and aside.exists() else self._change
        step(lambda: Disk.create_flag(self, path, aside))

    def remove_flag(self, path: Path, aside: Optional[Path] = None) -> None:
        self.fuse(lambda: Disk.remove_flag(self, path, aside))

    def settle(self, directory: Path) -> None:
        self.fuse(lambda: Disk.settle(self, directory))

    def create_exclusive(self, path: Path, text: str) -> bool:
        return bool(self._change(lambda: Disk.create_exclusive(self, path, text)))

    def append(self, path: Path, line: str) -> None:
        if not self.fuse.blown and self.fuse.steps + 1 == self.fuse.at and not self.fuse.after:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(line[: len(line) // 2])
        self._change(lambda: Disk.append(self, path, line))

    def note(self, path: Path, line: str) -> None:
        self._change(lambda: Disk.note(self, path, line))

    def rename(self, path: Path, to: Path) -> None:
        self.fuse(lambda: Disk.rename(self, path, to))

    def remove(self, path: Path) -> bool:
        return bool(self.fuse(lambda: Disk.remove(self, path)))


@dataclass
class FakeProbe:
    name: str
    fuse: Fuse
    answer: Callable[[], ProbeResult]

    def look(self) -> ProbeResult:
        result: ProbeResult = self.fuse(self.answer)
        return result


@dataclass
class FakeSensors(Sensors):
    """`well` says which slots answer; nginx serves what the flags say, unless it `sees` something else."""

    fuse: Fuse
    flags: Path
    order: Sequence[str]
    well: dict[str, bool] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    nginx: bool = True
    sees: str = ""
    served: list[str] = field(default_factory=list)

    def _judge(self, slot: str, release: Optional[str]) -> ProbeResult:
        if not self.well.get(slot, True):
            return ProbeResult(False, "status 503")
        if release is not None and self.running.get(slot, release) != release:
            return ProbeResult(False, f"JSON release is {self.running[slot]!r}, not {release!r}")
        return ProbeResult(True, "status 200", 1.0, status=200)

    def members(self, slot: Any, release: Optional[str], limit: Optional[float] = None) -> Sequence[Any]:
        return [FakeProbe(address, self.fuse, lambda: self._judge(slot.name, release)) for address in slot.members[:1]]

    def instance(self, slot: Any, instance: Any, release: Optional[str]) -> Any:
        return FakeProbe(instance.name, self.fuse, lambda: self._judge(slot.name, release))

    def serving(self) -> str:
        present = [path.name for path in self.flags.iterdir()] if self.flags.is_dir() else []
        return active(self.order, present)

    def _through(self, slot: str, release: Optional[str]) -> ProbeResult:
        if not self.nginx:
            return ProbeResult(False, "connection refused: nothing listens there", refused=True)
        now = self.serving()
        self.served.append(now)
        if now != slot:
            return ProbeResult(False, f"header X-Slipway-Slot is {now!r}")
        return self._judge(now, release)

    def chosen(self, app: App) -> Chosen:
        return Chosen(self.sees or self.serving()) if self.nginx else Chosen(None, "connection refused: nothing listens there")

    def through_edge(self, app: App, slot: Any, release: Optional[str], limit: Optional[float] = None) -> Any:
        return FakeProbe("nginx", self.fuse, lambda: self._through(slot.name, release))


@dataclass
class FakeJury:
    """Rules as `rulings` says, by the share of the step; what it does not know is done when due."""

    rulings: dict[int, Ruling] = field(default_factory=dict)
    shares: list[int] = field(default_factory=list)
    verdicts: list[dict[str, object]] = field(default_factory=list)

    def open(self, share: int) -> None:
        self.shares.append(share)

    def hear(self, due: bool, last: bool) -> Ruling:
        ruling = self.rulings.get(self.shares[-1])
        if ruling is not None and (due or ruling.trouble) and not (ruling.done and not last):
            return ruling
        return Ruling(done=due and ruling is None)


class World:
    """One host; `process` gives a fresh process on it, optionally with a fuse."""

    def __init__(self, root: Path, config: Optional[dict[str, Any]] = None) -> None:
        self.root = root
        self.config = config or CONFIG
        self.layout = Layout(root)
        self.layout.apps.mkdir(parents=True, exist_ok=True)
        self.layout.config("shop").write_text(json.dumps(self.config), encoding="utf-8")
        self.clock = FakeClock()
        self.machine = FakeMachine(self.clock)
        self.fuse = Fuse()
        self.runner = FakeRunner(self.clock, self.fuse)
        self.disk = FusedDisk(self.fuse)
        order = self.config["slot_order"]
        self.sensors = FakeSensors(self.fuse, self.layout.flags("shop"), order, running={"blue": "v1", "green": "v2"})
        self.jury = FakeJury()
        self.host = Host(self.layout, self.runner, self.clock, self.disk, self.machine, self.sensors)
        self.host.jury = lambda app, source, target: self.jury  # type: ignore[method-assign]

    def blow(self, at: int, after: bool = False) -> Fuse:
        """From now on, the process dies at step `at`."""
        self.light(Fuse(at, after))
        return self.fuse

    def restart(self) -> None:
        """A new process on the same host."""
        self.light(Fuse())

    def light(self, fuse: Fuse) -> None:
        self.fuse = self.runner.fuse = self.disk.fuse = self.sensors.fuse = fuse

    def reboot(self) -> None:
        """The host restarts: timers are gone, what is on disk stays."""
        self.restart()
        self.runner.timers.clear()
        self.machine.boot += "+"
        self.clock.advance(20)

    @property
    def app(self) -> App:
        return self.host.app("shop")

    @property
    def serving(self) -> str:
        return self.sensors.serving()

    def history(self) -> list[str]:
        return [str(entry["event"]) for entry in self.host.records("shop").history(100)]
