# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes behind a slot: is it still the same one, what did it say last."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional, Protocol

from ..host.runner import Runner
from .model import ProbeResult, excerpt, milliseconds

LOG_LINES = 20


@dataclass(frozen=True)
class Identity:
    """What changes when a process dies or is started again; `alive` as of now, `state` in words.

    `waiting` says what an alive one still lacks to be up; it is empty when nothing is.
    """

    alive: bool
    state: str
    process: str
    restarts: int
    waiting: str = ""

    def lost(self, now: Identity) -> Optional[str]:
        """What happened between this identity and `now`, or None when it is the same living process."""
        if not now.alive:
            return f"died: {now.state}"
        if now.restarts > self.restarts:
            return f"was restarted {now.restarts - self.restarts} times: it does not stay up"
        # A start by hand sets the count back to zero.
        if now.process != self.process or now.restarts < self.restarts:
            return "was replaced by another process: it did not stay up"
        return None


class Process(Protocol):
    """A process that a service manager or container engine runs."""

    @property
    def name(self) -> str:
        """Unit or container."""
        ...

    def identity(self) -> Identity:
        """Who it is now."""
        ...

    def logs(self, lines: int = LOG_LINES) -> list[str]:
        """The last lines it wrote."""
        ...


@dataclass(frozen=True)
class UnitProcess:
    """The main process of a systemd unit; what it wrote before `since`, in seconds since the epoch, is of no interest."""

    runner: Runner
    unit: str
    since: float = 0.0

    @property
    def name(self) -> str:
        """The unit."""
        return self.unit

    def identity(self) -> Identity:
        """From `systemctl show`; a unit that does not exist is not alive."""
        names = "LoadState,ActiveState,SubState,Result,ExecMainStatus,MainPID,NRestarts,ExecMainStartTimestampMonotonic"
        shown = self.runner.run(["systemctl", "show", f"--property={names}", self.unit], timeout=15)
        values = dict(line.split("=", 1) for line in shown.out.splitlines() if "=" in line)
        active = values.get("ActiveState", "unknown")
        state = f"{active} ({values.get('SubState', '?')}), result {values.get('Result', '?')}"
        if values.get("LoadState") == "not-found":
            state = "no such unit"
        elif values.get("ExecMainStatus", "0") != "0":
            state += f", exit status {values['ExecMainStatus']}"
        process = f"{values.get('MainPID', '0')}@{values.get('ExecMainStartTimestampMonotonic', '0')}"
        alive = active in ("active", "activating", "reloading")
        waiting = "" if active == "active" and values.get("SubState") == "running" else f"not running: {state}"
        return Identity(alive, state, process, number(values.get("NRestarts")), waiting)

    def pid(self) -> Optional[int]:
        """Its number; None when it does not run."""
        return number(self.identity().process.partition("@")[0]) or None

    def logs(self, lines: int = LOG_LINES) -> list[str]:
        """From the journal: what the unit's processes wrote, not what systemd says about them."""
        # Backwards: with --since, systemd 252 takes --lines for the first ones.
        argv = ["journalctl", "--no-pager", "--output=cat", "--reverse", f"--lines={lines}", f"_SYSTEMD_UNIT={self.unit}"]
        if self.since:
            argv.append(f"--since=@{self.since:.3f}")
        return self.runner.run(argv, timeout=15).out.splitlines()[:lines][::-1]


@dataclass(frozen=True)
class ContainerProcess:
    """The main process of a container."""

    runner: Runner
    container: str

    @property
    def name(self) -> str:
        """The container."""
        return self.container

    def identity(self) -> Identity:
        """From `docker inspect`; a container that does not exist is not alive."""
        shown = self.runner.run(["docker", "inspect", "--type=container", self.container], timeout=30)
        if not shown.ok:
            return Identity(False, "no such container", "", 0)
        document = json.loads(shown.out)[0]
        state = document["State"]
        alive = state["Status"] == "running"
        words = str(state["Status"]) + ("" if alive else f", exit code {state['ExitCode']}")
        if state.get("OOMKilled"):
            words += ", killed because it used more memory than allowed"
        if state.get("Error"):
            words += f", {state['Error']}"
        restarts = int(document.get("RestartCount", 0))
        return Identity(alive, words, state["StartedAt"], restarts, _own_health(state))

    def logs(self, lines: int = LOG_LINES) -> list[str]:
        """From the engine, both streams."""
        shown = self.runner.run(["docker", "logs", "--tail", str(lines), self.container], timeout=30)
        return (shown.out.splitlines() + shown.err.splitlines())[-lines:]


def _own_health(state: Mapping[str, object]) -> str:
    """What the container's own health check lacks; empty when it is healthy or there is none."""
    health = state.get("Health")
    status = health.get("Status", "none") if isinstance(health, dict) else "none"
    if status in ("none", "healthy"):
        return ""
    tries = health.get("Log") if isinstance(health, dict) else None
    said = excerpt(str(tries[-1].get("Output", ""))) if tries else ""
    return f"its own health check says {status}" + (f": {said}" if said else "")


class ProcessProbe:
    """A unit or container that is up, and has been the same process since the first look at it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.first: Optional[Identity] = None

    @property
    def name(self) -> str:
        """The unit or container."""
        return self.process.name

    def look(self) -> ProbeResult:
        """Look once. Not alive yet is not well; not the same any more is never well again."""
        started = time.monotonic()
        now = self.process.identity()
        latency = milliseconds(started)
        if self.first is None and now.alive and not now.process.startswith("0@"):
            self.first = now
        lost = self.first.lost(now) if self.first else None
        if lost:
            return ProbeResult(False, lost, latency, final=True)
        wrong = now.waiting if now.alive else f"not running: {now.state}"
        return ProbeResult(not wrong, wrong or now.state, latency)


class Watcher:
    """Notices that a process died or was started again since it was made, or since it was as in `known`, by name."""

    def __init__(self, processes: Sequence[Process], known: Optional[Mapping[str, Identity]] = None) -> None:
        self.processes = processes
        known = known or {}
        self.before: dict[str, Identity] = {
            process.name: known[process.name] if process.name in known else process.identity() for process in processes
        }

    def died(self) -> Optional[str]:
        """What happened to the first process that is lost, or None.

        A process that is still being started has no fixed identity yet: it is taken again until it has one.
        """
        for process in self.processes:
            now = process.identity()
            before = self.before[process.name]
            lost = before.lost(now)
            if lost is not None and not (now.alive and now.restarts == before.restarts and before.process.startswith("0@")):
                return f"{process.name} {lost}"
            self.before[process.name] = now
        return None


def number(text: Optional[str]) -> int:
    """A count that a tool printed; 0 when it printed none."""
    return int(text) if text and text.isdigit() else 0
