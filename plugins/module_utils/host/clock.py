# SPDX-License-Identifier: GPL-3.0-or-later
"""Time as the library sees it, so that tests can replace it."""

from __future__ import annotations

import time


class Clock:
    """Wall time for records, monotonic time for intervals."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds` (not at all when it is zero or less)."""
        if seconds > 0:
            time.sleep(seconds)
