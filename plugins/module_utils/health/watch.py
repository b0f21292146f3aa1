# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching live traffic for a while."""

from __future__ import annotations

from typing import Callable

from ..host.clock import Clock
from .access_log import AccessLog, Position
from .samples import Figures, tally

INTERVAL = 1.0


def drain(log: AccessLog, since: Position, figures: dict[str, Figures]) -> Position:
    """Add all that the log has after `since` to `figures`; where it ends."""
    while True:
        samples, reached = log.read(since)
        tally(samples, figures)
        if reached == since:
            return reached
        since = reached


def watch(
    log: AccessLog, since: Position, seconds: float, clock: Clock, enough: Callable[[dict[str, Figures]], bool]
) -> tuple[dict[str, Figures], Position]:
    """Figures by slot of what came after `since` and in the next `seconds`, or until `enough`; where the log ended."""
    figures: dict[str, Figures] = {}
    deadline = clock.monotonic() + seconds
    while True:
        since = drain(log, since, figures)
        left = deadline - clock.monotonic()
        if left <= 0 or enough(figures):
            return figures, since
        clock.sleep(min(INTERVAL, left))
