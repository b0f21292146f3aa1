# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH session that this process runs in, as the host knows it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class Login:
    """Who logged in, from which address, and to which port of this host; empty when it was not over SSH."""

    user: str = ""
    address: str = ""
    port: int = 0


def ancestors(proc: Path = Path("/proc"), pid: Optional[int] = None) -> Iterable[Mapping[str, str]]:
    """The environments of this process and those above it: sudo takes SSH_CONNECTION away, its parents still have it."""
    current = pid or os.getpid()
    while current > 1:
        try:
            entries = (proc / str(current) / "environ").read_bytes().decode(errors="replace").split("\0")
            stat = (proc / str(current) / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return
        yield dict(entry.split("=", 1) for entry in entries if "=" in entry)
        current = int(stat.rpartition(")")[2].split()[1])


def login(environments: Iterable[Mapping[str, str]]) -> Login:
    """The session of the outermost environment that knows one (SSH_CONNECTION: client, port, server, port)."""
    found = Login()
    for environment in environments:
        parts = environment.get("SSH_CONNECTION", "").split()
        if len(parts) == 4 and parts[3].isdigit():
            found = Login(environment.get("USER", ""), parts[0], int(parts[3]))
    return found
