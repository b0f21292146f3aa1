# SPDX-License-Identifier: GPL-3.0-or-later
"""What live traffic showed: samples of requests, their figures by slot in bounded memory, and their course over time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from .statistics import quantile

KEPT = 50_000


class Sample(NamedTuple):
    """One request as one slot answered it.

    `at` in seconds since the epoch, when it ended. `ms` is how long the slot took, None when that tells nothing of the
    release: an error, or a connection that became a WebSocket. `synthetic`: asked by slipway itself for want of traffic.
    """

    at: float
    slot: str
    endpoint: str
    error: bool
    ms: Optional[float]
    synthetic: bool = False


@dataclass(frozen=True)
class Summary:
    """Figures of one slot to show; `requests` and `errors` with synthetic ones. Latencies in milliseconds, None without any."""

    slot: str
    requests: int
    synthetic: int
    errors: int
    error_percent: float
    mean_ms: Optional[float]
    p50_ms: Optional[float]
    p95_ms: Optional[float]
    p99_ms: Optional[float]

    def line(self) -> str:
        """All of it on one line."""
        if not self.requests:
            return f"{self.slot or 'no slot'}: no requests"
        asked = f" ({self.synthetic} of them synthetic)" if self.synthetic else ""
        text = f"{self.slot}: {self.requests} requests{asked}, {self.errors} failed ({self.error_percent:.2f} %)"
        if self.mean_ms is None:
            return text
        return text + f", mean {self.mean_ms:.1f} ms, p50/p95/p99 {self.p50_ms:.1f}/{self.p95_ms:.1f}/{self.p99_ms:.1f} ms"


@dataclass
class Figures:
    """The sums of one slot. Counts and mean are of all samples, quantiles and comparisons of at most `KEPT` drawn ones.

    The draw is Vitter's algorithm R (Random sampling with a reservoir, ACM Transactions on Mathematical Software 11, 1985).
    `burst` is the longest row of errors, `failing` the one at the end.
    """

    slot: str = ""
    requests: int = 0
    errors: int = 0
    synthetic: int = 0
    synthetic_errors: int = 0
    burst: int = 0
    failing: int = 0
    timed: int = 0
    total_ms: float = 0.0
    squares: float = 0.0
    kept: list[tuple[str, float]] = field(default_factory=list)
    _drawn: int = field(default=1, repr=False)

    def add(self, sample: Sample) -> None:
        """Count one more sample; they come in the order of time."""
        self.requests += 1
        self.synthetic += sample.synthetic
        if sample.error:
            self.errors += 1
            self.synthetic_errors += sample.synthetic
            self.failing += 1
            self.burst = max(self.burst, self.failing)
            return
        self.failing = 0
        if sample.ms is None or sample.synthetic:
            return
        self.timed += 1
        self.total_ms += sample.ms
        self.squares += sample.ms * sample.ms
        if self.timed <= KEPT:
            self.kept.append((sample.endpoint, sample.ms))
            return
        # Knuth's linear congruential generator of MMIX: the same traffic gives the same verdict.
        self._drawn = (self._drawn * 6364136223846793005 + 1442695040888963407) % 2**64
        place = (self._drawn >> 32) * self.timed >> 32
        if place < KEPT:
            self.kept[place] = (sample.endpoint, sample.ms)

    @property
    def mean_ms(self) -> float:
        """Mean latency; nan without any."""
        return self.total_ms / self.timed if self.timed else math.nan

    @property
    def deviation_ms(self) -> float:
        """Standard deviation of the latencies."""
        if self.timed < 2:
            return 0.0
        return math.sqrt(max(0.0, (self.squares - self.total_ms * self.mean_ms) / (self.timed - 1)))

    def summary(self) -> Summary:
        """The figures to show."""
        ordered = sorted(ms for _endpoint, ms in self.kept)
        marks = [quantile(ordered, share) for share in (0.5, 0.95, 0.99)] if ordered else [None] * 3
        percent = 100.0 * self.errors / self.requests if self.requests else 0.0
        mean = self.mean_ms if self.timed else None
        return Summary(self.slot, self.requests, self.synthetic, self.errors, percent, mean, *marks)


def tally(samples: Iterable[Sample], into: Optional[dict[str, Figures]] = None) -> dict[str, Figures]:
    """Figures by slot; with `into`, the samples are added to those that are there."""
    found = {} if into is None else into
    for sample in samples:
        if sample.slot not in found:
            found[sample.slot] = Figures(sample.slot)
        found[sample.slot].add(sample)
    return found


@dataclass(frozen=True)
class Bucket:
    """One slot in one stretch of time: `at` in seconds since the epoch, when it begins; mean_ms None without latencies."""

    at: float
    slot: str
    requests: int
    errors: int
    mean_ms: Optional[float]


def series(samples: Iterable[Sample], seconds: float = 1.0) -> list[Bucket]:
    """The course of traffic, `seconds` a bucket, in the order of time; synthetic requests are left out."""
    cells: dict[tuple[int, str], list[float]] = {}
    for sample in samples:
        if sample.synthetic:
            continue
        cell = cells.setdefault((int(sample.at // seconds), sample.slot), [0, 0, 0, 0.0])
        cell[0] += 1
        cell[1] += sample.error
        if sample.ms is not None:
            cell[2] += 1
            cell[3] += sample.ms
    return [
        Bucket(number * seconds, slot, int(requests), int(errors), total / timed if timed else None)
        for (number, slot), (requests, errors, timed, total) in sorted(cells.items())
    ]
