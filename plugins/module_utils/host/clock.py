# SPDX-License-Identifier: GPL-3.0-or-later
"""Time as the library sees it, so that tests can replace it."""

from __future__ import annotations

import time
from datetime import datetime


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


def parse_time(stamp: str) -> float:
    """Seconds since the epoch of a time as `systemctl show --timestamp=us+utc` prints it; 0 where there is none."""
    try:
        return datetime.strptime(f"{stamp} +0000", "%a %Y-%m-%d %H:%M:%S.%f UTC %z").timestamp()
    except ValueError:
        return 0.0
