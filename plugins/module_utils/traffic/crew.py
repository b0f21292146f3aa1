# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs one worker process: a container, an instance of a template unit, or a unit or timer of somebody else."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ..health import secrets
from ..health.process import Identity, Process, UnitProcess
from .config import App, Instance, Runtime, Worker
from .docker import LABEL, ContainerPlace, DockerDriver, environment_of
from .drivers import Artifact, Driver
from .errors import SlipwayError
from .host import Host
from .units import ExternalPlace, UnitDriver, UnitPlace

LOOK = 0.5
GONE = ("inactive", "failed", "no such")


class Place(Protocol):
    """Where one worker process runs on this host. All may raise SlipwayError or CommandFailed."""

    @property
    def worker(self) -> Worker:
        """Whose process it is."""
        ...

    @property
    def instance(self) -> Instance:
        """Its name."""
        ...

    def fingerprint(self, artifact: Artifact, /) -> str:
        """Changes with anything that needs a new start."""
        ...

    def process(self) -> Process:
        """What runs there."""
        ...

    def start(self, artifact: Artifact, /) -> None:
        """Start it, in place of what ran there; it must not come back by itself yet when it dies."""
        ...

    def keep(self) -> None:
        """From now on it comes back after a crash and a reboot."""
        ...

    def quiet(self) -> None:
        """Let it take no new jobs; nothing happens when nobody said how."""
        ...

    def stop(self) -> None:
        """Let it finish and end, and leave nothing that would bring it back."""
        ...

    def secrets(self) -> set[str]:
        """Strings that must not be shown."""
        ...


@dataclass(frozen=True)
class ContainerWorker(ContainerPlace):
    """A container of a worker."""

    worker: Worker

    def labels(self) -> dict[str, str]:
        """With the worker's name, by which it is found again."""
        return {**super().labels(), "worker": self.worker.name}

    def environment(self) -> dict[str, str]:
        """The worker's own."""
        return dict(self.worker.environment)

    def options(self) -> list[str]:
        """No port; the signal that ends it."""
        return [f"--stop-signal={self.worker.stop_signal}"]

    def quiet(self) -> None:
        """By signal to its first process."""
        if self.worker.quiet_signal:
            self.host.runner.run(["docker", "kill", f"--signal={self.worker.quiet_signal}", self.instance.name], timeout=30)

    def secrets(self) -> set[str]:
        """Values of the environment file."""
        return secrets.values(environment_of(self.host, self.runtime))


@dataclass(frozen=True)
class UnitWorker(UnitPlace):
    """An instance of a worker's template unit."""

    worker: Worker

    @property
    def env_file(self) -> Path:
        """What this one gets beside the environment of all."""
        name = f"{self.app.name}-{self.worker.name}@{self.slot}-{self.instance.number}.env"
        return self.host.layout.root / "etc/slipway/env" / name

    def environment(self, artifact: Artifact) -> str:
        """Its content: names and numbers only."""
        values = {
            **self.worker.environment,
            "SLIPWAY_APP": self.app.name,
            "SLIPWAY_SLOT": self.slot,
            "SLIPWAY_RELEASE": artifact.release,
        }
        return "".join(f"{key}={value}\n" for key, value in values.items())

    def quiet(self) -> None:
        """By signal to its main process."""
        if self.worker.quiet_signal:
            _signal(self.host, self.unit, self.worker.quiet_signal)

    def secrets(self) -> set[str]:
        """Values of the environment file of now, and of when it was started."""
        return secrets.values(environment_of(self.host, self.runtime)) | self.kept_secrets()


@dataclass(frozen=True)
class TimerProcess:
    """A timer and the service it starts: alive while either is."""

    timer: UnitProcess
    service: UnitProcess

    @property
    def name(self) -> str:
        """The timer."""
        return self.timer.name

    def identity(self) -> Identity:
        """The timer's own, unless only its service is left."""
        found, last = self.timer.identity(), self.service.identity()
        return last if over(found) else found

    def logs(self, lines: int = 20) -> list[str]:
        """What the service wrote."""
        return self.service.logs(lines)


@dataclass(frozen=True)
class ForeignWorker(ExternalPlace):
    """A service or timer that somebody else installed."""

    worker: Worker

    def process(self) -> Process:  # type: ignore[override]
        """The unit's, or those of a timer and what it starts."""
        own = UnitProcess(self.host.runner, self.unit)
        if not self.unit.endswith(".timer"):
            return own
        shown = self.host.runner.run(["systemctl", "show", "--property=Unit", "--value", self.unit], timeout=15)
        service = shown.out.strip() or re.sub(r"timer$", "service", self.unit)
        return TimerProcess(own, UnitProcess(self.host.runner, service))

    def quiet(self) -> None:
        """By its command or signal."""
        if self.worker.quiet:
            self.host.runner.must(shlex.split(self.worker.quiet), timeout=60)
        elif self.worker.quiet_signal:
            _signal(self.host, self.unit, self.worker.quiet_signal)

    def stop(self) -> None:
        """Stop and disable the unit; what a timer started may finish first."""
        process, patience = self.process(), self.worker.stop_timeout
        self.host.runner.run(["systemctl", "disable", "--quiet", self.unit], timeout=60)
        self.host.runner.run(["systemctl", "stop", self.unit], timeout=patience + 60)
        if isinstance(process, TimerProcess):
            waited = 0.0
            while waited < patience and not over(process.service.identity()):
                self.host.clock.sleep(LOOK)
                waited += LOOK
            self.host.runner.run(["systemctl", "stop", process.service.unit], timeout=patience + 60)

    def secrets(self) -> set[str]:
        """None known."""
        return set()


def _signal(host: Host, unit: str, signal: str) -> None:
    host.runner.run(["systemctl", "kill", "--kill-who=main", f"--signal={signal}", unit], timeout=30)


def over(identity: Identity) -> bool:
    """True when nothing of a process is left, not even something that is still ending."""
    return identity.state.startswith(GONE)


def place(host: Host, app: App, worker: Worker, number: int) -> Place:
    """The `number`-th process of a worker on this host."""
    instance = Instance(worker.instances[number - 1], "", 0, number)
    if worker.unit is not None:
        return ForeignWorker(host, worker.unit, instance, worker)
    if worker.runtime is None:
        raise SlipwayError(f"{app.host} does not run worker {worker.name} of {app.name}.")
    if worker.runtime.kind == "docker":
        return ContainerWorker(host, app, worker.runtime, worker.slot, instance, worker)
    return UnitWorker(host, app, worker.runtime, worker.slot, instance, worker)


def driver(host: Host, app: App, worker: Worker) -> Driver:
    """What fetches the release of a worker; raises SlipwayError for a unit of somebody else."""
    if worker.runtime is None:
        raise SlipwayError(f"worker {worker.name} of slot {worker.slot} has no release of its own.")
    kind = DockerDriver if worker.runtime.kind == "docker" else UnitDriver
    return kind(host, app, worker.runtime, app.slot(worker.slot))


def strays(host: Host, app: App) -> list[Place]:
    """Workers of the application that run here although its description puts none of them here (any more)."""
    described = {name for worker in app.workers for name in worker.instances}
    singletons = {worker.name for worker in app.workers if worker.singleton}
    found: list[Place] = []
    for name, worker, slot in [*_containers(host, app), *_units(host, app)]:
        if name in described:
            continue
        lost = Worker(worker, slot, worker in singletons, instances=(name,))
        unit = name.endswith(".service")
        lost = replace(lost, unit=name) if unit else replace(lost, runtime=Runtime("docker", stop_timeout=lost.stop_timeout))
        found.append(place(host, app, lost, 1))
    return found


def _containers(host: Host, app: App) -> list[tuple[str, ...]]:
    """Name, worker and slot of every container of a worker, by the labels it was started with."""
    columns = ["{{.Names}}", *(f'{{{{.Label "{LABEL}.{label}"}}}}' for label in ("worker", "slot"))]
    filters = [f"--filter=label={LABEL}.app={app.name}", f"--filter=label={LABEL}.worker"]
    shown = host.runner.run(["docker", "ps", "--all", *filters, f"--format={' '.join(columns)}"], timeout=30)
    return [tuple(line.split()) for line in shown.out.splitlines()] if shown.ok else []


def _units(host: Host, app: App) -> list[tuple[str, ...]]:
    """The same of every instance of a described worker's template unit."""
    names = sorted({worker.name for worker in app.workers if worker.unit is None})
    if not names:
        return []
    patterns = [f"{app.name}-{name}@*.service" for name in names]
    shown = host.runner.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", *patterns], timeout=15)
    unit = re.compile(rf"({re.escape(app.name)}-({'|'.join(map(re.escape, names))})@([a-z]+)-\d+\.service)\s.*")
    return [match.groups() for match in map(unit.fullmatch, shown.out.splitlines()) if match]
