# SPDX-License-Identifier: GPL-3.0-or-later
"""What the traffic room knows about the machine it runs on: boot, processes, time since boot, users."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Optional

from ..host.clock import Clock
from .journal import Deadline


class Machine:
    """Reads /proc; tests put another in its place."""

    def boot_id(self) -> str:
        """Changes with every boot. A container shares it with its host, so the start of process 1 is part of it."""
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{kernel}/{self.start_time(1)}"

    def since_boot(self) -> float:
        """Seconds since boot, sleep included; never jumps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def start_time(self, pid: int) -> Optional[str]:
        """When process `pid` started, in clock ticks since boot; None when there is no such process."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        return text.rpartition(")")[2].split()[19]

    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def moment(self, clock: Clock, seconds: float = 0.0) -> Deadline:
        """The point in time `seconds` from now."""
        return Deadline(clock.now() + seconds, self.since_boot() + seconds, self.boot_id())

    def established(self, port: int, pid: Optional[int] = None) -> int:
        """Established TCP connections to the local `port`, in the network of process `pid` or of this one."""
        directory = Path(f"/proc/{pid or 'self'}/net")
        return sum(_established((directory / name), port) for name in ("tcp", "tcp6"))


def _established(table: Path, port: int) -> int:
    """Connections in state 01 (ESTABLISHED, include/net/tcp_states.h) of a /proc/net/tcp table."""
    try:
        lines = table.read_text(encoding="ascii", errors="replace").splitlines()[1:]
    except OSError:
        return 0
    rows = (line.split() for line in lines)
    return sum(1 for row in rows if len(row) > 3 and row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port)
