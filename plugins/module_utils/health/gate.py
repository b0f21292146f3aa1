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


@dataclass(frozen=True)
class GateRules:
    """When a target is proven healthy; times in seconds.

    `successes` rounds in a row, the first and the last of them at least `min_healthy` apart, before `deadline`.
    """

    successes: int = 3
    interval: float = 1.0
    min_healthy: float = 5.0
    deadline: float = 60.0


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


@dataclass(frozen=True)
class GateState:
    """Where a gate stands: rounds in a row that were well, when that row began, and since when it looks."""

    started: float
    rounds: int = 0
    consecutive: int = 0
    streak_from: Optional[float] = None


@dataclass(frozen=True)
class GateReport:
    """How a gate ended. Latencies in milliseconds over the looks that were well; `first_healthy` in seconds."""

    healthy: bool
    reason: str
    rounds: int
    consecutive: int
    seconds: float
    first_healthy: Optional[float]
    last: tuple[Attempt, ...]
    latency: dict[str, float]

    def lines(self) -> list[str]:
        """The last answers, one a line, oldest first."""
        return [f"{look.at:6.1f} s  {look.target}  {'ok' if look.ok else 'FAILED'}: {look.detail}" for look in self.last]

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
            "last_answers": self.lines(),
        }


def step(rules: GateRules, state: GateState, well: bool, now: float) -> tuple[GateState, Verdict]:
    """The state and verdict after one more round, which ended at monotonic time `now` and was `well` or not."""
    if well:
        since = now if state.streak_from is None else state.streak_from
        state = replace(state, rounds=state.rounds + 1, consecutive=state.consecutive + 1, streak_from=since)
        if state.consecutive >= rules.successes and now - since >= rules.min_healthy:
            return state, Verdict.HEALTHY
    else:
        state = replace(state, rounds=state.rounds + 1, consecutive=0, streak_from=None)
    return state, Verdict.FAILED if now - state.started >= rules.deadline else Verdict.WAITING


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
) -> GateReport:
    """Look until the verdict is there.

    `died` says what happened to the process, or None while it lives: a death ends the gate at once.
    """
    state = GateState(clock.monotonic())
    attempts: list[Attempt] = []
    latencies: list[float] = []
    first: Optional[float] = None
    while True:
        begun = clock.monotonic()
        results = look_at_all(probes)
        for probe, result in zip(probes, results):
            attempts.append(Attempt(begun - state.started, probe.name, result.ok, result.detail, result.latency_ms))
            latencies.extend([result.latency_ms] if result.ok else [])
        now = clock.monotonic()
        well = all(result.ok for result in results)
        first = now - state.started if well and first is None else first
        death = died()
        state, verdict = step(rules, state, well and death is None, now)
        if death is not None or verdict is not Verdict.WAITING:
            healthy = death is None and verdict is Verdict.HEALTHY
            reason = death or _reason(rules, verdict, attempts)
            kept = tuple(attempts[-max(KEPT, len(probes)) :])
            return GateReport(
                healthy, reason, state.rounds, state.consecutive, now - state.started, first, kept, spread(latencies)
            )
        clock.sleep(min(begun + rules.interval, state.started + rules.deadline) - now)


def _reason(rules: GateRules, verdict: Verdict, attempts: Sequence[Attempt]) -> str:
    if verdict is Verdict.HEALTHY:
        return f"{rules.successes} successes in a row over at least {rules.min_healthy:g} s"
    bad = next((look for look in reversed(attempts) if not look.ok), None)
    if bad is None:
        return f"healthy, but not for {rules.min_healthy:g} s within the deadline of {rules.deadline:g} s"
    return f"not healthy within {rules.deadline:g} s; {bad.target}: {bad.detail}"


def spread(latencies: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile (nearest rank) and maximum; empty without values."""
    if not latencies:
        return {}
    ordered = sorted(latencies)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {"p50": rank(0.5), "p95": rank(0.95), "max": round(ordered[-1], 2)}
