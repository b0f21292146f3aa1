# SPDX-License-Identifier: GPL-3.0-or-later
"""What the traffic room knows about the machine it runs on: boot, processes, time since boot, users."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Optional

from ..host.clock import Clock
from .journal import Deadline

CONTROLLER = "SLIPWAY_CONTROLLER"
"""Tells a unit of its own, which nobody is logged in to, who had it started."""


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

    def age(self, pid: int) -> float:
        """Seconds that process `pid` has lived; 0 when there is no such process."""
        start = self.start_time(pid)
        return 0.0 if start is None else self.since_boot() - int(start) / os.sysconf("SC_CLK_TCK")

    def controller(self) -> Optional[str]:
        """The address from which somebody is at work here over SSH, through whatever of sudo and shells; None when nobody is."""
        pid = os.getpid()
        while pid > 1:
            found = _variable(pid, b"SSH_CONNECTION") or _variable(pid, CONTROLLER.encode())
            if found:
                return found.split()[0]
            try:
                text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                return None
            pid = int(text.rpartition(")")[2].split()[1])
        return None

    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def moment(self, clock: Clock, seconds: float = 0.0) -> Deadline:
        """The point in time `seconds` from now."""
        return Deadline(clock.now() + seconds, self.since_boot() + seconds, self.boot_id(), seconds or None)

    def peers(self, port: int, pid: int) -> frozenset[str]:
        """The other ends of established TCP connections to the local `port` in the network of process `pid`."""
        tables = (Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6"))
        return frozenset(peer for table in tables for peer in established(table, port))


def _variable(pid: int, name: bytes) -> str:
    """A variable that process `pid` was started with, or nothing."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((pair.partition(b"=")[2].decode("ascii", "replace") for pair in pairs if pair.startswith(name + b"=")), "")


def established(table: Path, port: int) -> list[str]:
    """Remote ends of the connections to `port` in state 01 (ESTABLISHED, include/net/tcp_states.h) of a /proc/net/tcp table."""
    try:
        lines = table.read_text(encoding="ascii", errors="replace").splitlines()[1:]
    except OSError:
        return []
    rows = (line.split() for line in lines)
    return [row[2] for row in rows if len(row) > 3 and row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port]
