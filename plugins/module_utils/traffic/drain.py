# SPDX-License-Identifier: GPL-3.0-or-later
"""Ending a slot without cutting anybody short.

No new requests come (that is the flags' business). Requests may end until `http` seconds have passed; what is open then
lives longer than a request: WebSockets, until `websockets` seconds have passed. The instances are stopped one after the
other over the last `pace` of these seconds, so that clients connect anew in a spread. A slot without any connection is
stopped at once. Everything here is decided from numbers; slots.py looks and acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Optional

from .config import DrainLimits
from .drivers import Place
from .journal import Deadline
from .machine import Machine

# nginx holds an idle connection for some seconds, so that looking this often sees every one twice.
LOOK = 1.5
SETTLE = 1.0
SHORTEST = 0.02


@dataclass(frozen=True)
class Drain:
    """A drain as kept with its slot.

    `peak`: most connections at once, idle ones apart. `remaining`: those open when their instance was stopped. `seconds`: once
    it has ended. `told`: the hooks of its beginning were run.
    """

    began: Deadline
    limits: DrainLimits = field(default_factory=DrainLimits)
    peak: int = 0
    remaining: int = 0
    seconds: Optional[float] = None
    told: bool = False

    def facts(self) -> dict[str, object]:
        """For results and history."""
        return {
            "peak": self.peak,
            "drained": self.peak - self.remaining,
            "remaining": self.remaining,
            "seconds": self.seconds,
        }

    def saved(self) -> dict[str, object]:
        """As kept on disk."""
        return asdict(self)


def load(document: object) -> Optional[Drain]:
    """From `saved`; None when it is something else, which an older or newer version may have written."""
    try:
        if not isinstance(document, Mapping):
            return None
        return Drain(
            Deadline(**document["began"]),
            DrainLimits(**document["limits"]),
            int(document["peak"]),
            int(document["remaining"]),
            None if document["seconds"] is None else float(document["seconds"]),
            document.get("told") is True,
        )
    except (KeyError, TypeError, ValueError):
        return None


def limits(document: object) -> Optional[DrainLimits]:
    """Those of a drain that was called off, as its slot keeps them; None when there are none."""
    try:
        return DrainLimits(**document) if isinstance(document, Mapping) else None
    except TypeError:
        return None


@dataclass(frozen=True)
class Step:
    """What to do now: stop the instance of index `stop`, or look again in `wait` seconds; neither when all is done."""

    said: str
    stop: Optional[int] = None
    wait: Optional[float] = None


def step(limits: DrainLimits, elapsed: float, connections: Sequence[Optional[int]]) -> Step:
    """The next step of a drain `elapsed` seconds old; `connections` of each instance, None where none runs any more."""
    running = [index for index, count in enumerate(connections) if count is not None]
    total = sum(count or 0 for count in connections)
    if not running:
        return Step("nothing runs any more")
    if elapsed < SETTLE:
        return Step(f"{total} connections", wait=_soon(SETTLE - elapsed))
    if total == 0:
        return Step("nobody is connected", stop=running[0])
    if elapsed < limits.http:
        kind = "connections, idle ones among them" if elapsed < limits.idle else "requests or WebSockets"
        return Step(f"{total} {kind}", wait=_soon(limits.http - elapsed))
    due = {index: limits.due(index, len(connections)) for index in running}
    first = min(running, key=lambda index: (due[index], index))
    closing = elapsed >= limits.due(0, len(connections))
    stop = next((index for index in running if due[index] <= elapsed or (closing and not connections[index])), None)
    if stop is not None:
        return Step(f"{connections[stop]} connections are closed", stop=stop)
    return Step(f"{total} long connections", wait=_soon(due[first] - elapsed))


def _soon(left: float) -> float:
    return max(min(LOOK, left), SHORTEST)


class Watch:
    """Tells traffic that comes to instances from connections that were there before.

    A connection seen by two looks in a row that was not there at first is traffic: nginx keeps its own for seconds, and a
    health check is gone sooner. In the memory of one process: after a restart, what is connected counts as known.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.known: Optional[frozenset[str]] = None
        self.row = 0
        self.processes: dict[str, tuple[int, str]] = {}

    def look(self, places: Sequence[Place]) -> list[Optional[frozenset[str]]]:
        """Who is connected to each of `places`; None where nothing runs."""
        return [self._peers(place) for place in places]

    def _peers(self, place: Place) -> Optional[frozenset[str]]:
        name = place.instance.name
        pid, start = self.processes.get(name, (0, ""))
        if not pid or self.machine.start_time(pid) != start:
            pid = place.pid() or 0
            self.processes[name] = (pid, str(self.machine.start_time(pid)))
        return self.machine.peers(place.port, pid) if pid else None

    def traffic(self, looked: Sequence[Optional[frozenset[str]]]) -> bool:
        """True when this look, after the one before, proves that new connections come."""
        now = frozenset(peer for peers in looked for peer in peers or ())
        if self.known is None:
            self.known = now
        fresh = now - self.known
        self.row = self.row + 1 if fresh else 0
        self.known = now if self.row >= 2 else self.known & now
        if self.row < 2:
            return False
        self.row = 0
        return True


def counts(looked: Sequence[Optional[frozenset[str]]]) -> list[Optional[int]]:
    """Connections of each instance."""
    return [None if peers is None else len(peers) for peers in looked]
