# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: from many looks to one verdict.

`step` is pure. `run` feeds it with looks at every target in rounds; a round counts when every target is well.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Callable, Optional

from ..host.clock import Clock
from .model import Probe, ProbeResult

KEPT = 10
PATIENCE = 1.0
"""Longest time in seconds without a look at the process behind."""
EAGER = 0.2
"""Seconds between looks at a target on which nothing listens yet, during the first interval."""


@dataclass(frozen=True)
class GateRules:
    """When a target is proven healthy; times in seconds.

    `successes` rounds in a row, the first and the last of them at least `min_healthy` apart, before `deadline`. The
    deadline runs from the first good round, at the latest from the end of `start_period`, which a slow start may take.
    """

    successes: int = 3
    interval: float = 1.0
    min_healthy: float = 5.0
    deadline: float = 60.0
    start_period: float = 0.0


class Verdict(Enum):
    """What a gate says after a round."""

    WAITING = "waiting"
    HEALTHY = "healthy"
    FAILED = "failed"


@dataclass(frozen=True)
class Attempt:
    """One look at one target; `at` in seconds since the gate began."""

    at: float
    target: str
    ok: bool
    detail: str
    latency_ms: float

    def __str__(self) -> str:
        """One line."""
        return f"{self.at:6.1f} s  {self.target}  {'ok' if self.ok else 'FAILED'}: {self.detail}"


@dataclass(frozen=True)
class GateState:
    """Where a gate stands: rounds in a row that were well, when that row began, since when it looks, the first good round."""

    started: float
    rounds: int = 0
    consecutive: int = 0
    streak_from: Optional[float] = None
    first: Optional[float] = None

    def ends(self, rules: GateRules) -> float:
        """The monotonic time at which the deadline is over."""
        latest = self.started + rules.start_period
        return (latest if self.first is None else min(self.first, latest)) + rules.deadline


@dataclass(frozen=True)
class GateReport:
    """How a gate ended. Latencies in milliseconds over the looks that were well; `first_healthy` in seconds.

    `warmup`: the answers to the warm-up requests, which did not count.
    """

    healthy: bool
    reason: str
    rounds: int
    consecutive: int
    seconds: float
    first_healthy: Optional[float]
    last: tuple[Attempt, ...]
    latency: dict[str, float]
    warmup: tuple[Attempt, ...] = ()

    def lines(self) -> list[str]:
        """The last answers, one a line, oldest first; before them what went wrong in the warm-up."""
        cold = [f"warm-up {look}" for look in self.warmup if not look.ok]
        return [*cold, *(str(look) for look in self.last)]

    def texts(self) -> dict[str, list[str]]:
        """The parts of the result that quote what was answered, and so may hold a secret."""
        return {"last_answers": self.lines(), "warmup": [str(look) for look in self.warmup]}

    def as_dict(self) -> dict[str, object]:
        """For a module's result."""
        return {
            "healthy": self.healthy,
            "reason": self.reason,
            "attempts": self.rounds,
            "consecutive": self.consecutive,
            "seconds": round(self.seconds, 3),
            "first_healthy_after": None if self.first_healthy is None else round(self.first_healthy, 3),
            "latency_ms": self.latency,
            **self.texts(),
        }


def step(rules: GateRules, state: GateState, well: bool, now: float) -> tuple[GateState, Verdict]:
    """The state and verdict after one more round, which ended at monotonic time `now` and was `well` or not."""
    if well:
        since = now if state.streak_from is None else state.streak_from
        first = now if state.first is None else state.first
        state = replace(state, rounds=state.rounds + 1, consecutive=state.consecutive + 1, streak_from=since, first=first)
        if state.consecutive >= rules.successes and now - since >= rules.min_healthy:
            return state, Verdict.HEALTHY
    else:
        state = replace(state, rounds=state.rounds + 1, consecutive=0, streak_from=None)
    return state, Verdict.FAILED if now >= state.ends(rules) else Verdict.WAITING


def look_at_all(probes: Sequence[Probe]) -> list[ProbeResult]:
    """One look at every target at the same time, in the order of `probes`."""
    if len(probes) == 1:
        return [probes[0].look()]
    results: list[ProbeResult] = [ProbeResult(False, "the probe itself failed")] * len(probes)

    def look(index: int) -> None:
        results[index] = probes[index].look()

    threads = [threading.Thread(target=look, args=(index,), daemon=True) for index in range(len(probes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def run(
    probes: Sequence[Probe],
    rules: GateRules,
    clock: Clock,
    died: Callable[[], Optional[str]] = lambda: None,
    warmup: Sequence[Probe] = (),
    told: Callable[[str], None] = lambda _line: None,
) -> GateReport:
    """Look until the verdict is there, at most as long as `rules` allow and the last round takes.

    `died` says what happened to the process, or None while it lives: a death ends the gate at once. After the first good
    round each of `warmup` is looked at once, whatever comes of it, and the counting begins. `told` hears one line a round.
    """
    state = GateState(clock.monotonic())
    attempts: list[Attempt] = []
    latencies: list[float] = []
    warmed: Optional[tuple[Attempt, ...]] = None if warmup else ()
    while True:
        begun = clock.monotonic()
        results = look_at_all(probes)
        for probe, result in zip(probes, results):
            attempts.append(_attempt(begun - state.started, probe, result))
            latencies.extend([result.latency_ms] if result.ok else [])
        now = clock.monotonic()
        well = all(result.ok for result in results)
        death = died() or next((f"{probe.name} {look.detail}" for probe, look in zip(probes, results) if look.final), None)
        state, verdict = step(rules, state, well and death is None, now)
        told(death or _line(rules, state, probes, results))
        if warmed is None and well and death is None:
            warmed = _warm(warmup, state, rules, clock)
            latencies.clear()
            state, verdict, death = replace(state, consecutive=0, streak_from=None), Verdict.WAITING, died()
        if death is None and verdict is Verdict.WAITING:
            death = _pause(_next_look(rules, state, begun, any(result.refused for result in results)), clock, died)
            if death is None:
                continue
        return GateReport(
            death is None and verdict is Verdict.HEALTHY,
            death or _reason(rules, verdict, attempts),
            state.rounds,
            state.consecutive,
            clock.monotonic() - state.started,
            None if state.first is None else state.first - state.started,
            tuple(attempts[-max(KEPT, len(probes)) :]),
            spread(latencies),
            warmed or (),
        )


def _next_look(rules: GateRules, state: GateState, begun: float, refused: bool) -> float:
    """Monotonic time of the next round after one that began at `begun`: an interval later, or when more can be known before.

    Enough successes need only the last moment of `min_healthy`. A target that nothing listens on yet may do so at any moment
    of the first interval.
    """
    after = begun + rules.interval
    if state.streak_from is not None and state.consecutive >= rules.successes:
        after = min(after, state.streak_from + rules.min_healthy)
    if refused and begun - state.started < rules.interval:
        after = min(after, begun + EAGER)
    return min(after, state.ends(rules))


def _attempt(at: float, probe: Probe, result: ProbeResult) -> Attempt:
    return Attempt(at, probe.name, result.ok, result.detail, result.latency_ms)


def _warm(probes: Sequence[Probe], state: GateState, rules: GateRules, clock: Clock) -> tuple[Attempt, ...]:
    """Look at each of `probes` once, one after the other, while there is time."""
    done: list[Attempt] = []
    for probe in probes:
        at = clock.monotonic()
        if at < state.ends(rules):
            done.append(_attempt(at - state.started, probe, probe.look()))
    return tuple(done)


def _pause(until: float, clock: Clock, died: Callable[[], Optional[str]]) -> Optional[str]:
    """Wait until the monotonic time `until`, but not longer than the process lives: what happened to it, or None."""
    while True:
        left = until - clock.monotonic()
        clock.sleep(min(left, PATIENCE))
        if left <= PATIENCE:
            return None
        death = died()
        if death is not None:
            return death


def _line(rules: GateRules, state: GateState, probes: Sequence[Probe], results: Sequence[ProbeResult]) -> str:
    bad = next((f"{probe.name}: {result.detail}" for probe, result in zip(probes, results) if not result.ok), None)
    return bad or f"well {state.consecutive} times in a row, {rules.successes} needed over {rules.min_healthy:g} s"


def _reason(rules: GateRules, verdict: Verdict, attempts: Sequence[Attempt]) -> str:
    if verdict is Verdict.HEALTHY:
        return f"{rules.successes} successes in a row over at least {rules.min_healthy:g} s"
    bad = next((look for look in reversed(attempts) if not look.ok), None)
    if bad is None:
        wanted = f"{rules.successes} times in a row over {rules.min_healthy:g} s"
        return f"healthy, but not {wanted} within the deadline of {rules.deadline:g} s"
    return f"not healthy within {rules.deadline:g} s; {bad.target}: {bad.detail}"


def spread(latencies: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile (nearest rank) and maximum; empty without values."""
    if not latencies:
        return {}
    ordered = sorted(latencies)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {"p50": rank(0.5), "p95": rank(0.95), "max": round(ordered[-1], 2)}
