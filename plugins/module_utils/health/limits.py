# SPDX-License-Identifier: GPL-3.0-or-later
"""What live traffic is measured against: the key `verdict` of an application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

POLICIES = ("hold", "pass", "fail")
DECIMALS = {
    "error_percent": (0.0, 100.0),
    "usual_error_percent": (0.0, 50.0),
    "mean_ms": (1.0, 600000.0),
    "mean_warning_ms": (1.0, 600000.0),
    "p95_ms": (1.0, 600000.0),
    "p99_ms": (1.0, 600000.0),
    "ratio": (1.0, 1000.0),
    "alpha": (0.00001, 0.2),
}
COUNTS = {"min_samples": (20, 1000000), "burst": (2, 10000)}
KEYS = (*DECIMALS, *COUNTS, "on_inconclusive")


@dataclass(frozen=True)
class Limits:
    """When a release is guilty.

    `error_percent`: share of 5xx answers that is too much; `usual_error_percent`: the share that is nobody's fault, above
    which a sample must prove itself before the limit condemns. Latencies in milliseconds, None: no limit. `ratio`: how
    many times slower or more faulty than the control is a fault at all. `min_samples`: requests before anything is said.
    `alpha`: chance of taking back a good release, over all looks and tests of it. `burst`: failed requests in a row that
    need no more samples. `on_inconclusive`: hold, pass or fail when there is no telling.
    """

    error_percent: float = 5.0
    usual_error_percent: float = 1.0
    mean_ms: float = 500.0
    mean_warning_ms: float = 200.0
    p95_ms: Optional[float] = None
    p99_ms: Optional[float] = None
    ratio: float = 1.25
    alpha: float = 0.01
    min_samples: int = 100
    burst: int = 10
    on_inconclusive: str = "hold"

    def problem(self) -> Optional[tuple[str, str]]:
        """The key that is out of bounds or does not fit the others, and what it must be, if there is one."""
        for name, (low, high) in {**DECIMALS, **COUNTS}.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                return name, f"from {low:g} to {high:g}"
        if self.usual_error_percent >= self.error_percent:
            return "usual_error_percent", f"less than error_percent, which is {self.error_percent:g}"
        return None
