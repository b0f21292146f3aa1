# SPDX-License-Identifier: GPL-3.0-or-later
"""How often verdicts are wrong: thousands of simulated releases, good and bad, judged by the library that judges real ones.

python -m tests.bench.verdict --releases 10000
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

from ansible_collections.slipway.server.plugins.module_utils.health.limits import Limits
from ansible_collections.slipway.server.plugins.module_utils.health.samples import Figures, Sample
from ansible_collections.slipway.server.plugins.module_utils.health.statistics import binomial_tail
from ansible_collections.slipway.server.plugins.module_utils.health.verdict import judge

LOOKS = 10


@dataclass(frozen=True)
class Endpoint:
    """A kind of request: how often, its median in milliseconds, the deviation of the logarithm of its latency."""

    name: str
    share: float
    median: float
    spread: float


SHOP = (
    Endpoint("GET /", 0.50, 20, 0.5),
    Endpoint("GET /search", 0.30, 120, 0.6),
    Endpoint("POST /orders", 0.15, 60, 0.4),
    Endpoint("GET /report", 0.05, 900, 0.7),
)
REPORTS = (Endpoint("GET /report", 0.9, 600, 0.5), Endpoint("GET /", 0.1, 20, 0.5))
OTHER_MIX = (
    Endpoint("GET /", 0.20, 20, 0.5),
    Endpoint("GET /search", 0.35, 120, 0.6),
    Endpoint("POST /orders", 0.35, 60, 0.4),
    Endpoint("GET /report", 0.10, 900, 0.7),
)


@dataclass(frozen=True)
class Traffic:
    """What one slot gets in one look, and how well it serves it: share of errors, factor of latencies."""

    requests: int = 100
    errors: float = 0.01
    slower: float = 1.0
    mix: tuple[Endpoint, ...] = SHOP


@dataclass(frozen=True)
class Scenario:
    """One kind of release: `looks` looks of `LOOKS` planned ones, each at its own window, or at all since the start.

    From look `alone` on, the control gets no traffic and is judged by what it had: nothing in a window of its own.
    """

    name: str
    candidate: Traffic = Traffic()
    control: Traffic = Traffic()
    looks: int = 1
    planned: int = LOOKS
    cumulative: bool = False
    alone: int = LOOKS
    limits: Limits = field(default_factory=Limits)


SCENARIOS = (
    Scenario("good: 1 % errors, 4 looks beside 100 requests of the control, 6 alone", looks=10, alone=4),
    Scenario("good: the same, control 19 times as busy", control=Traffic(1900), looks=10, alone=4),
    Scenario("good: 10 looks beside the control, all of them at everything since the start", looks=10, cumulative=True),
    Scenario("good: no errors at all", Traffic(errors=0.0), Traffic(errors=0.0), looks=10, alone=4),
    Scenario("good: another mix of endpoints than the control", Traffic(mix=OTHER_MIX), looks=10, alone=4),
    Scenario("good: slow by nature, mean above 500 ms", Traffic(mix=REPORTS), Traffic(mix=REPORTS), looks=10),
    Scenario("10 % errors, n = 100", Traffic(100, 0.1), Traffic(100)),
    Scenario("10 % errors, n = 200, one look", Traffic(200, 0.1), Traffic(200)),
    Scenario("10 % errors, n = 200, no control", Traffic(200, 0.1), Traffic(0)),
    Scenario("10 % errors, n = 200, control busy", Traffic(200, 0.1), Traffic(3800)),
    Scenario("10 % errors, n = 200, a second look at another 200", Traffic(200, 0.1), Traffic(200), looks=2),
    Scenario("latency doubled, n = 100", Traffic(100, slower=2.0), Traffic(100)),
    Scenario("latency doubled, n = 200", Traffic(200, slower=2.0), Traffic(200)),
    Scenario("1.5 times the latency, n = 200", Traffic(200, slower=1.5), Traffic(200)),
    Scenario("10 % errors in both slots, n = 200", Traffic(200, 0.1), Traffic(200, 0.1)),
    Scenario("10 % errors in both slots, 10 looks", Traffic(200, 0.1), Traffic(200, 0.1), looks=10),
)


class Crowd:
    """Draws traffic; latencies come from a stock of each endpoint, which is quicker than a draw for each request."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.stock: dict[Endpoint, list[float]] = {}

    def latency(self, endpoint: Endpoint) -> float:
        """Milliseconds, of a lognormal distribution."""
        if endpoint not in self.stock:
            level = math.log(endpoint.median)
            self.stock[endpoint] = [self.draw.lognormvariate(level, endpoint.spread) for _ in range(50_000)]
        return self.draw.choice(self.stock[endpoint])

    def visit(self, figures: Figures, traffic: Traffic) -> None:
        """Let `traffic` happen."""
        random_ = self.draw.random
        endpoints = self.draw.choices(traffic.mix, [endpoint.share for endpoint in traffic.mix], k=traffic.requests)
        for endpoint in endpoints:
            error = random_() < traffic.errors
            ms = None if error else float(round(self.latency(endpoint) * traffic.slower))
            figures.add(Sample(0.0, figures.slot, endpoint.name, error, ms))

    def release(self, scenario: Scenario) -> str:
        """The outcome of one release: fail at the first look that says so, else that of the last one."""
        candidate, control = Figures("green"), Figures("blue")
        outcome = ""
        for look in range(1, scenario.looks + 1):
            if not scenario.cumulative:
                candidate, control = Figures("green"), Figures("blue")
            self.visit(candidate, scenario.candidate)
            if look <= scenario.alone:
                self.visit(control, scenario.control)
            outcome = judge(candidate, control, scenario.limits, look, scenario.planned).outcome
            if outcome == "fail":
                break
        return outcome


def simulate(scenario: Scenario, releases: int, seed: int) -> Counter[str]:
    """Outcomes of `releases` releases."""
    crowd = Crowd(seed)
    return Counter(crowd.release(scenario) for _ in range(releases))


def bounds(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval for a rate of which `count` of `total` were seen, by bisection of exact tails."""
    side = (1.0 - confidence) / 2.0

    def search(too_low: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2.0
            tail = binomial_tail(count + too_low, total, middle)
            low, high = (middle, high) if tail < (1.0 - side if too_low else side) else (low, middle)
        return low

    return (search(0) if count else 0.0), (search(1) if count < total else 1.0)


def _part(job: tuple[Scenario, int, int]) -> Counter[str]:
    return simulate(*job)


def table(scenarios: Sequence[Scenario], releases: int, processes: int) -> list[str]:
    """Markdown: outcomes in percent, with the bounds of the failures."""
    lines = ["| release | looks | fail % (95 % bounds) | inconclusive % | pass % | s |", "|---|---|---|---|---|---|"]
    with multiprocessing.Pool(processes) as pool:
        for scenario in scenarios:
            begun = time.perf_counter()
            parts = 4 * processes
            jobs = [(scenario, releases // parts + (part < releases % parts), part) for part in range(parts)]
            found: Counter[str] = sum(pool.map(_part, jobs, 1), Counter())
            low, high = bounds(found["fail"], releases)
            rates = [100.0 * found[outcome] / releases for outcome in ("fail", "inconclusive", "pass")]
            lines.append(
                f"| {scenario.name} | {scenario.looks} | {rates[0]:.2f} ({100 * low:.2f} to {100 * high:.2f}) "
                f"| {rates[1]:.2f} | {rates[2]:.2f} | {time.perf_counter() - begun:.0f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--releases", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    given = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if given.only in scenario.name]
    print("\n".join(table(chosen, given.releases, given.processes)))


if __name__ == "__main__":
    main()
