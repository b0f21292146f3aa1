# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of a report: share of the traffic, requests, errors and latency of both slots over one axis of time, as SVG."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

from .report import Event, Point, Run

WIDTH, LEFT, RIGHT = 1000.0, 62.0, 14.0
TOP, GAP, BOTTOM = 34.0, 40.0, 30.0
TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
MARKED = ("HEALTHY", "GATED", "CANARY", "SWITCHED", "BAKING", "CONFIRMED", "ROLLING_BACK", "ROLLED_BACK", "FAILED")
BAD = ("ROLLING_BACK", "ROLLED_BACK", "FAILED")


@dataclass(frozen=True)
class Mark:
    """An event that the picture shows, by its number."""

    number: int
    event: Event


def marks(run: Run) -> list[Mark]:
    """What is marked: each state and each step of the canary where it began first, and each host that goes back."""
    found: list[Event] = []
    seen: set[tuple[str, object]] = set()
    for event in run.events:
        key = (event.state, event.share if event.state == "CANARY" else event.host if event.state in BAD else None)
        if event.state in MARKED and key not in seen:
            seen.add(key)
            found.append(event)
    return [Mark(number, event) for number, event in enumerate(found, start=1)]


def clock(seconds: float) -> str:
    """A length of time on the axis: 0:05, 12:30, 1:02:03."""
    whole = round(seconds)
    sign, whole = ("-", -whole) if whole < 0 else ("", whole)
    hours, rest = divmod(whole, 3600)
    return f"{sign}{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{sign}{rest // 60}:{rest % 60:02d}"


def nice(most: float) -> float:
    """The least round number that is not below `most`."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(factor * power for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if factor * power >= most * 0.999)


def short(value: float) -> str:
    """A number on an axis."""
    if value >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if value < 10 else f"{value:g}"


@dataclass(frozen=True)
class Strip:
    """One of the charts below each other: where it is, and what its upper end means."""

    title: str
    unit: str
    y: float
    height: float
    most: float

    def at(self, value: float) -> float:
        """Vertical place of `value`."""
        return self.y + self.height * (1.0 - min(max(value, 0.0), self.most) / self.most)

    def frame(self) -> list[str]:
        """Title, lines and numbers of the scale."""
        parts = [f'<text class="strip" x="{LEFT:g}" y="{self.y - 9:.1f}">{html.escape(self.title)}</text>']
        for fraction in (0.0, 0.5, 1.0):
            y = self.y + self.height * (1.0 - fraction)
            label = short(self.most * fraction) + (f" {self.unit}" if self.unit and fraction == 1.0 else "")
            parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="scale" x="{LEFT - 8:g}" y="{y + 4:.1f}">{html.escape(label)}</text>')
        return parts


class Picture:
    """All strips of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        seconds = [point.second for point in run.points]
        self.begin = min([run.started, *seconds])
        self.end = max([run.ended, *(second + run.step for second in seconds), self.begin + 1.0])
        self.slots = [name for name in (run.source, run.target) if name]
        self.slots += [name for name in dict.fromkeys(point.slot for point in run.points) if name not in self.slots]

    def x(self, at: float) -> float:
        """Horizontal place of a time."""
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - self.begin) / (self.end - self.begin)

    def kind(self, slot: str) -> str:
        """The class that colours a slot."""
        return "new" if slot == self.run.target else "old" if slot == self.run.source else "other"

    def svg(self) -> str:
        """The picture."""
        run, rate = self.run, 1.0 / self.run.step
        top = max((point.requests * rate for point in run.points), default=0.0)
        worst = max((point.errors * rate for point in run.points), default=0.0)
        slow = max((value or 0.0 for point in run.points for value in (point.mean_ms, point.p95_ms)), default=0.0)
        wanted = [
            ("Traffic on the new release", "%", 84.0, 100.0),
            ("Requests per second", "", 130.0, nice(top)),
            ("Errors per second", "", 74.0, max(nice(worst), 1.0)),
            ("Latency", "ms", 130.0, nice(slow)),
        ]
        strips, y = [], TOP + GAP
        for title, unit, height, most in wanted if run.points else wanted[:1]:
            strips.append(Strip(title, unit, y, height, most))
            y += height + GAP
        bottom = y - GAP
        body = [*self._marks(TOP, bottom), *(part for strip in strips for part in strip.frame()), *self._axis(bottom)]
        body += self._share(strips[0])
        if run.points:
            _share, requests, errors, latency = strips
            for slot in self.slots:
                body.append(self._line(requests, slot, "line", lambda point: point.requests * rate))
                body += self._bars(errors, slot, rate)
                body.append(self._line(latency, slot, "line thin", lambda point: point.p95_ms))
                body.append(self._line(latency, slot, "line", lambda point: point.mean_ms))
        else:
            text = "No requests were recorded while it ran."
            body.append(f'<text class="none" x="{WIDTH / 2:g}" y="{strips[0].y + strips[0].height / 2 + 4:.1f}">{text}</text>')
        label = "Share of the traffic, requests, errors and latency of both slots over time"
        height = bottom + BOTTOM
        return f'<svg viewBox="0 0 {WIDTH:g} {height:.0f}" role="img" aria-label="{label}">{"".join(body)}</svg>'

    def _axis(self, bottom: float) -> list[str]:
        span = self.end - self.begin
        tick = next((tick for tick in TICKS if span / tick <= 12), math.ceil(span / 12 / 3600) * 3600)
        first = math.ceil((self.begin - self.run.started) / tick)
        parts = []
        for number in range(first, math.floor((self.end - self.run.started) / tick) + 1):
            x = self.x(self.run.started + number * tick)
            parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{bottom + 5:.1f}"/>')
            parts.append(f'<text class="time" x="{x:.1f}" y="{bottom + 19:.1f}">{clock(number * tick)}</text>')
        return parts

    def _marks(self, top: float, bottom: float) -> list[str]:
        """Numbered lines through all strips; numbers that would cover each other move aside."""
        parts, free = [], -math.inf
        for mark in marks(self.run):
            x = self.x(mark.event.at)
            label = min(max(x, free), WIDTH - RIGHT)
            free = label + 21
            kind = "mark bad" if mark.event.state in BAD else "mark"
            title = html.escape(f"{mark.event.state.replace('_', ' ').lower()}: {mark.event.text}")
            parts.append(
                f'<g class="{kind}"><title>{title}</title>'
                f'<path d="M{label:.1f} {top - 10:.1f}L{x:.1f} {top + 6:.1f}V{bottom:.1f}"/>'
                f'<circle cx="{label:.1f}" cy="{top - 18:.1f}" r="9.5"/>'
                f'<text x="{label:.1f}" y="{top - 14:.1f}">{mark.number}</text></g>'
            )
        return parts

    def _share(self, strip: Strip) -> list[str]:
        path, last = [f"M{self.x(self.begin):.1f} {strip.at(0):.1f}"], 0.0
        for at, percent in self.run.share:
            path.append(f"H{self.x(at):.1f}V{strip.at(percent):.1f}")
            last = percent
        line = "".join([*path, f"H{self.x(self.end):.1f}"])
        area = f"{line}V{strip.at(0):.1f}H{self.x(self.begin):.1f}Z"
        text = [f'<path class="area new" d="{area}"/><path class="line new" d="{line}"/>']
        for (at, percent), (until, _next) in zip(self.run.share, (*self.run.share[1:], (self.end, last))):
            if percent and self.x(until) - self.x(at) > 34:
                y = strip.at(percent) + (16 if percent > 40 else -6)
                text.append(f'<text class="percent" x="{self.x(at) + 6:.1f}" y="{y:.1f}">{percent:g} %</text>')
        return text

    def _groups(self, slot: str) -> list[list[Point]]:
        """The points of a slot, parted where nothing came for longer than a step."""
        groups: list[list[Point]] = []
        for point in self.run.points:
            if point.slot != slot or not point.requests:
                continue
            if groups and point.second - groups[-1][-1].second <= self.run.step * 1.5:
                groups[-1].append(point)
            else:
                groups.append([point])
        return groups

    def _line(self, strip: Strip, slot: str, classes: str, value: Callable[[Point], Optional[float]]) -> str:
        path = []
        for group in self._groups(slot):
            known = [(self.x(point.second + self.run.step / 2), value(point)) for point in group]
            places = [(x, strip.at(found)) for x, found in known if found is not None]
            if len(places) == 1:
                places.append((places[0][0] + 1.5, places[0][1]))
            path += [f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(places)]
        return f'<path class="{classes} {self.kind(slot)}" d="{"".join(path)}"/>' if path else ""

    def _bars(self, strip: Strip, slot: str, rate: float) -> list[str]:
        width = max(self.x(self.begin + self.run.step) - self.x(self.begin), 1.5) * 0.42
        shift = width if self.kind(slot) == "new" else 0.0
        return [
            f'<rect class="bar {self.kind(slot)}" x="{self.x(point.second) + shift:.1f}" y="{strip.at(point.errors * rate):.1f}" '
            f'width="{width:.1f}" height="{max(strip.at(0) - strip.at(point.errors * rate), 1.0):.1f}"/>'
            for point in self.run.points
            if point.slot == slot and point.errors
        ]


def picture(run: Run) -> str:
    """The picture of `run`."""
    return Picture(run).svg()


def legend(run: Run, names: Sequence[tuple[str, str]]) -> str:
    """What the colours mean; `names` are (class, text)."""
    items = "".join(f'<li class="{kind}"><i></i>{html.escape(text)}</li>' for kind, text in names)
    return f'<ul class="legend">{items}<li class="dash"><i></i>slowest 5 % (p95)</li></ul>' if run.points else ""
