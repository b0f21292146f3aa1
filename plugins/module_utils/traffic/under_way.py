# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a unit of this host moves an application right now."""

from __future__ import annotations

from typing import Optional

from .config import App
from .host import Host

MARGIN = 30.0
"""Seconds that each step of a move may be late."""
LOOK = 1.0


def unit(app: str) -> str:
    """The unit that moves `app`, without suffix."""
    return f"slipway-{app}-move"


def running(host: Host, app: str) -> Optional[str]:
    """The transaction that is under way, or None."""
    names = "--property=ActiveState,Description"
    shown = host.runner.run(["systemctl", "show", names, f"{unit(app)}.service"], timeout=15).out
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if values.get("ActiveState") not in ("active", "activating", "deactivating"):
        return None
    return values.get("Description", "").rpartition(" ")[2]


def let_end(host: Host, app: App, txn: str) -> None:
    """Where the application is locked: wait until the run of `txn` has ended, as long as all of its steps may last together."""
    if not host.lock(app.name).taken():
        return
    gate = max(slot.gate.rules.deadline for slot in app.slots.values())
    steps = len(app.canary.steps) * (app.canary.patience + MARGIN)
    until = host.clock.monotonic() + gate + steps + app.confirm_deadline + MARGIN
    while host.clock.monotonic() < until and running(host, app.name) == txn:
        host.clock.sleep(LOOK)
