# SPDX-License-Identifier: GPL-3.0-or-later
"""What a way of moving traffic costs its clients: a pure function from their log and the moves to figures."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.client.records import Record
from tests.client.report import UNHURRIED, failed, percentile

BEFORE, AFTER = 0.5, 1.5
"""Seconds around a move that count as during it."""
SWITCH_GOAL, FIRST_GOAL, ROLLBACK_GOAL, PLAYBOOK_GOAL = 1.0, 10.0, 0.3, 5.0
"""Milliseconds, milliseconds, seconds, seconds."""
CUTOVERS_GOAL, REQUESTS_GOAL = 100, 100_000


@dataclass(frozen=True)
class Move:
    """Traffic moves to `to`, a release, between `at` and `done` (seconds since 1970); `total_ms` is everything around it.

    `cpu`: seconds that the command took of a core, where it is a command.
    """

    to: str
    at: float
    done: float
    total_ms: float
    cpu: float = 0.0

    @property
    def switch_ms(self) -> float:
        return (self.done - self.at) * 1000


@dataclass(frozen=True)
class Figures:
    """Of one way. Times in milliseconds, as lists one for each move; `slow` are the requests of 4 s."""

    moves: int
    requests: int
    failed: int
    failures: dict[str, int]
    slow: int
    slow_lost: int
    websockets_cut: int
    noticed: int
    p99_before: float | None
    p99_during: float | None
    switch_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    first_ms: list[float | None] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(records: Iterable[Record], moves: Sequence[Move]) -> Figures:
    """Of a way whose clients wrote `records` while `moves` happened. Before the first move nothing was moved for a while."""
    records = list(records)
    requests = [r for r in records if "kind" in r and "status" in r and r["method"] != "ECHO"]
    events = Counter(r["event"] for r in records if "event" in r)
    hurried = [r for r in requests if r["kind"] not in UNHURRIED and not failed(r)]
    quiet = moves[0].at - BEFORE if moves else float("inf")
    during = [r["ms"] for r in hurried if any(m.at - BEFORE <= r["t"] < m.done + AFTER for m in moves)]
    slow = [r for r in requests if r["kind"] == "slow"]
    bad = [r for r in requests if failed(r)]
    return Figures(
        moves=len(moves),
        requests=len(requests),
        failed=len(bad),
        failures=dict(Counter(f"{r['kind']} {r['method']}: {r['error'][:80]}" for r in bad).most_common(12)),
        slow=len(slow),
        slow_lost=sum(failed(r) for r in slow),
        websockets_cut=events["ws_cut"],
        noticed=events["idle_close"] + events["idle_reset"],
        p99_before=percentile([r["ms"] for r in hurried if r["t"] < quiet], 99),
        p99_during=percentile(during, 99),
        switch_ms=[round(move.switch_ms, 3) for move in moves],
        total_ms=[round(move.total_ms, 1) for move in moves],
        first_ms=firsts(requests, moves),
        late_ms=late(requests, moves),
    )


def firsts(requests: Iterable[Record], moves: Sequence[Move]) -> list[float | None]:
    """Milliseconds from the beginning of each move until the first request reached the new release; None if none did."""
    reached = sorted((r["received"], r.get("release")) for r in requests if "received" in r)
    found: list[float | None] = []
    for move, end in _spans(moves):
        times = [at for at, release in reached if move.at <= at < end and release == move.to]
        found.append(round((times[0] - move.at) * 1000, 2) if times else None)
    return found


def late(requests: Iterable[Record], moves: Sequence[Move]) -> list[float]:
    """Milliseconds after the end of each move at which the last new request reached the old release; 0 if none did."""
    reached = [(r["received"], r.get("release")) for r in requests if "received" in r and r["kind"] != "ws"]
    return [
        round(
            max((at - move.done for at, release in reached if move.done < at < end and release != move.to), default=0.0) * 1000, 2
        )
        for move, end in _spans(moves)
    ]


def _spans(moves: Sequence[Move]) -> list[tuple[Move, float]]:
    """Each move with the beginning of the next one."""
    return list(zip(moves, [move.at for move in moves[1:]] + [float("inf")], strict=True))


def spread(values: Iterable[float | None], digits: int = 1) -> str:
    """Median, 95th percentile and maximum."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return " / ".join(f"{value:.{digits}f}" for value in (statistics.median(known), percentile(known, 95) or 0, max(known)))


@dataclass(frozen=True)
class Took:
    """Seconds of a command that takes traffic back: by the clock, and of a core, which does not depend on what else runs."""

    wall: float
    cpu: float


def goals(ways: dict[str, Figures], rollbacks: Sequence[Took], playbooks: Sequence[Took], whole: bool) -> list[tuple[str, bool]]:
    """What our way has to reach, and whether it does; `whole` asks for the full count."""
    flag, found = ways.get("flag"), []
    if flag:
        lost = flag.failed + flag.websockets_cut
        text = f"{lost} of {flag.requests} requests and WebSockets lost in {flag.moves} cutovers, goal none"
        enough = flag.moves >= CUTOVERS_GOAL and flag.requests >= REQUESTS_GOAL
        found.append((text + (f" of {REQUESTS_GOAL} in {CUTOVERS_GOAL}" if whole else ""), not lost and (enough or not whole)))
        worst = max(flag.switch_ms)
        middle, high = statistics.median(flag.switch_ms), percentile(flag.switch_ms, 99) or 0
        found.append(
            (f"switch: median {middle:.3f}, p99 {high:.3f}, max {worst:.3f} ms, goal {SWITCH_GOAL:g}", high <= SWITCH_GOAL)
        )
        known = [value for value in flag.first_ms if value is not None]
        first = statistics.median(known) if known else float("inf")
        text = f"first request on the new slot after: median / p95 / max {spread(flag.first_ms)} ms, goal {FIRST_GOAL:g}"
        found.append((text + " (median)", first <= FIRST_GOAL and len(known) == len(flag.first_ms)))
    for name, values, goal in (
        ("slipway rollback on the host", rollbacks, ROLLBACK_GOAL),
        ("rollback.yml on two hosts", playbooks, PLAYBOOK_GOAL),
    ):
        if values:
            walls, cpu = [each.wall for each in values], statistics.median(each.cpu for each in values)
            text = f"{name}: median / p95 / max {spread(walls, 2)} s ({cpu:.2f} s of a core), goal {goal:g}"
            found.append((text + " (median)", statistics.median(walls) <= goal))
    return found


NAMES = {"flag": "slipway (flag)", "haproxy": "HAProxy runtime", "reload": "nginx reload", "restart": "stop, then start"}


def table(ways: dict[str, Figures]) -> str:
    """The ways beside each other as a Markdown table."""
    shown = list(ways.values())
    rows: list[tuple[str, list[str]]] = [
        ("cutovers", [str(f.moves) for f in shown]),
        ("requests", [str(f.requests) for f in shown]),
        ("**failed requests**", [f"**{f.failed}**" for f in shown]),
        ("failed per cutover", [f"{f.failed / max(f.moves, 1):.1f}" for f in shown]),
        ("p99 before, ms", [_ms(f.p99_before) for f in shown]),
        ("p99 during, ms", [_ms(f.p99_during) for f in shown]),
        ("switch, ms", [spread(f.switch_ms, 2) for f in shown]),
        ("first request on the new slot, ms after", [spread(f.first_ms) for f in shown]),
        ("last request on the old slot, ms after the switch returned", [spread(f.late_ms) for f in shown]),
        ("with all proofs, ms", [spread(f.total_ms, 0) for f in shown]),
        ("WebSockets cut", [str(f.websockets_cut) for f in shown]),
        ("requests of 4 s lost", [f"{f.slow_lost} of {f.slow}" for f in shown]),
        ("closed connections noticed in time", [str(f.noticed) for f in shown]),
    ]
    lines = ["| | " + " | ".join(NAMES.get(name, name) for name in ways) + " |", "|---" * (len(shown) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows)])


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
