# SPDX-License-Identifier: GPL-3.0-or-later
"""The key `verdict` of an application's description."""

from __future__ import annotations

from typing import Any

from ..health import limits
from ..health.limits import Limits
from .reader import Reader


def parse_limits(read: Reader) -> Limits:
    """The limits of live traffic; raises SlipwayError."""
    default = Limits()
    numbers: dict[str, Any] = {
        name: read.decimal(name, getattr(default, name), low, high) for name, (low, high) in limits.DECIMALS.items()
    }
    numbers.update({name: read.count(name, getattr(default, name), low, high) for name, (low, high) in limits.COUNTS.items()})
    policy = read.text("on_inconclusive", default.on_inconclusive)
    if policy not in limits.POLICIES:
        raise read.fail("on_inconclusive", f"one of {', '.join(limits.POLICIES)}")
    found = Limits(**numbers, on_inconclusive=policy)
    problem = found.problem()
    if problem:
        raise read.fail(*problem)
    return found
