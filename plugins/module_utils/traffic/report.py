# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of one transaction: what its hosts told while it ran, put together to one course of events.

Pure: lines go in, a `Run` comes out, `render` makes it a page and `document` plain data. Lines are those of progress.py:
`{"at", "host", "state", "text", …}` with `share`, `verdict`, `gate` and others where they apply, and one
`{"series": [{"second", "slot", "requests", "errors", "mean_ms", "p95_ms"}, …]}`. What is missing or odd is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

Line = Mapping[str, Any]
ENDS = ("CONFIRMED", "ROLLED_BACK", "FAILED")
POINTS = 360
MOST_EVENTS = 2000
OUTCOMES = {"CONFIRMED": "confirmed", "ROLLED_BACK": "rolled back", "FAILED": "failed"}


@dataclass(frozen=True)
class Event:
    """Something that happened: `at` in seconds since the epoch, `share` of the traffic for the new release in percent."""

    at: float
    host: str
    state: str
    text: str
    share: Optional[float] = None
    verdict: Optional[Mapping[str, Any]] = None
    gate: Optional[Mapping[str, Any]] = None


@dataclass(frozen=True)
class Point:
    """One slot's traffic from `second` (since the epoch) on for `Run.step` seconds, all edges together; times in milliseconds."""

    second: float
    slot: str
    requests: int
    errors: int
    mean_ms: Optional[float]
    p95_ms: Optional[float]


@dataclass(frozen=True)
class Run:
    """One transaction. `share` is its course: (seconds since the epoch, percent), the mean of all edges."""

    app: str
    txn: str
    release: Optional[str]
    source: Optional[str]
    target: Optional[str]
    outcome: str
    reason: str
    owner: str
    hosts: tuple[str, ...]
    started: float
    ended: float
    step: float
    events: tuple[Event, ...]
    points: tuple[Point, ...]
    share: tuple[tuple[float, float], ...]
    timings: Mapping[str, Mapping[str, float]]
    switch_ms: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(self.ended - self.started, 0.0)

    def total(self, slot: Optional[str]) -> tuple[int, int]:
        """Requests and errors of one slot while it ran."""
        mine = [point for point in self.points if point.slot == slot]
        return sum(point.requests for point in mine), sum(point.errors for point in mine)

    def mean(self, slot: Optional[str]) -> Optional[float]:
        """Mean of the time its answers took."""
        return _mean((point.mean_ms, point.requests) for point in self.points if point.slot == slot)


def number(value: object) -> Optional[float]:
    """`value` when it is a finite number."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None  # type: ignore[arg-type]


def proved(results: Mapping[str, Optional[Mapping[str, Any]]], told: Mapping[str, Sequence[Line]]) -> dict[str, Sequence[Line]]:
    """`told`, with a line before it of each host that was to start the release, from the results of module slot there.

    Where all of them could and no edge told anything, nothing moved: then there is nothing to report.
    """
    lines: dict[str, Sequence[Line]] = {}
    for host, result in results.items():
        if isinstance(result, Mapping) and number(result.get("at")) is not None:
            bad = bool(result.get("failed"))
            well = f"{result.get('release')} runs in slot {result.get('slot')} of {host} and is well there"
            text = str(result.get("msg", "")).partition("\n")[0] if bad else well
            facts = {key: result.get(key) for key in ("at", "gate")}
            lines[host] = [{**facts, "state": "FAILED" if bad else "STAGED", "text": text}]
    if not told and all(line["state"] != "FAILED" for of_host in lines.values() for line in of_host):
        return {}
    return {host: [*lines.get(host, ()), *told.get(host, ())] for host in {**lines, **told}}


def build(app: str, txn: str, told: Mapping[str, Sequence[Line]], owner: str = "", release: str = "") -> Optional[Run]:
    """The run that the lines of each host tell of; None when none of them tells anything."""
    events, cells, facts = [], [], {}
    switched = {}
    for host, lines in sorted(told.items()):
        for line in lines:
            if not isinstance(line, Mapping):
                continue
            if isinstance(line.get("series"), Sequence) and not isinstance(line.get("series"), str):
                cells += [cell for cell in line["series"] if isinstance(cell, Mapping)]
            event = _event(host, line)
            if event is None:
                continue
            events.append(event)
            facts.update({key: line[key] for key in ("source", "target", "release", "owner") if line.get(key)})
            if number(line.get("switch_ms")) is not None:
                switched[event.host] = float(line["switch_ms"])
    if not events:
        return None
    events = sorted(events, key=lambda event: event.at)[:MOST_EVENTS]
    end = _end(events)
    step, points = _points(cells)
    return Run(
        app,
        txn,
        str(facts.get("release") or release or "") or None,
        facts.get("source"),
        facts.get("target"),
        OUTCOMES.get(end.state, "not ended") if end else "not ended",
        end.text if end else "No host told how it ended.",
        owner or str(facts.get("owner", "")),
        tuple(dict.fromkeys(event.host for event in events)),
        events[0].at,
        events[-1].at,
        step,
        tuple(events),
        tuple(points),
        tuple(_share(events)),
        _timings(events),
        switched,
    )


def _event(host: str, line: Line) -> Optional[Event]:
    at, state = number(line.get("at")), line.get("state")
    if at is None or not isinstance(state, str):
        return None
    verdict, gate = line.get("verdict"), line.get("gate")
    return Event(
        at,
        str(line.get("host") or host),
        state,
        str(line.get("text", "")),
        number(line.get("share")),
        verdict if isinstance(verdict, Mapping) and verdict else None,
        gate if isinstance(gate, Mapping) and gate else None,
    )


def _end(events: Sequence[Event]) -> Optional[Event]:
    """How it ended: what went wrong on one host counts more than what went well on others."""
    last: dict[str, Event] = {event.host: event for event in events if event.state in ENDS}
    ends = sorted(last.values(), key=lambda event: ("FAILED", "ROLLED_BACK", "CONFIRMED").index(event.state))
    return ends[0] if ends else None


def _points(cells: Sequence[Mapping[str, Any]]) -> tuple[float, list[Point]]:
    """All hosts' seconds as at most POINTS stretches for each slot; p95 is the worst one within."""
    seconds = [found for found in (number(cell.get("second")) for cell in cells) if found is not None]
    if not seconds:
        return 1.0, []
    step = float(max(math.ceil((max(seconds) - min(seconds) + 1) / POINTS), 1))
    merged: dict[tuple[float, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        second = number(cell.get("second"))
        if second is not None and cell.get("slot"):
            merged.setdefault((second // step * step, str(cell["slot"])), []).append(cell)
    return step, [
        Point(
            second,
            slot,
            sum(int(number(cell.get("requests")) or 0) for cell in group),
            sum(int(number(cell.get("errors")) or 0) for cell in group),
            _mean((number(cell.get("mean_ms")), number(cell.get("requests")) or 0) for cell in group),
            max((found for found in (number(cell.get("p95_ms")) for cell in group) if found is not None), default=None),
        )
        for (second, slot), group in sorted(merged.items())
    ]


def _mean(pairs: Iterable[tuple[Optional[float], float]]) -> Optional[float]:
    known = [(value, weight) for value, weight in pairs if value is not None and weight > 0]
    weights = sum(weight for _value, weight in known)
    return sum(value * weight for value, weight in known) / weights if weights else None


def _share(events: Sequence[Event]) -> list[tuple[float, float]]:
    """Steps of the traffic's share."""
    hosts = {event.host for event in events if event.share is not None}
    now = dict.fromkeys(hosts, 0.0)
    found: list[tuple[float, float]] = []
    for event in events:
        if event.share is None:
            continue
        now[event.host] = min(max(event.share, 0.0), 100.0)
        mean = sum(now.values()) / len(now)
        if not found or found[-1][1] != mean:
            found.append((event.at, mean))
    return found


def _timings(events: Sequence[Event]) -> dict[str, dict[str, float]]:
    """By state and host, when it was first reached, in seconds since the beginning."""
    found: dict[str, dict[str, float]] = {}
    for event in events:
        found.setdefault(event.state, {}).setdefault(event.host, round(event.at - events[0].at, 3))
    return found


def document(run: Run) -> dict[str, object]:
    """The same as plain data, for programs."""
    return {"schema": 1, **asdict(run), "seconds": round(run.seconds, 3)}


def render(run: Run) -> str:
    """One page that needs nothing else: no script, no style sheet, no font, no picture from elsewhere."""
    from .report_page import page

    return page(run)
