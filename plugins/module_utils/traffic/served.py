# SPDX-License-Identifier: GPL-3.0-or-later
"""Where nginx of an edge really sends requests, asked of nginx itself: its workers look at the flags with rights of their own."""

from __future__ import annotations

from typing import Optional

from .config import App
from .host import Host

AGAIN = 0.5
"""Seconds until nginx is asked once more: one that starts anew refuses at once, one that hangs would hang again."""


def trouble(host: Host, app: App) -> Optional[str]:
    """Why requests do not go where a transaction put them, and what to do; None when they do."""
    if not app.edge:
        return None
    return astray(host, app) or _split(host, app)


def astray(host: Host, app: App) -> Optional[str]:
    """Why nginx of this edge does not do as the flags say, and what to do; None when it does, or has no site of `app`."""
    if host.disk.read(host.layout.site(app.name)) is None:
        return None
    flags = host.flags(app)
    before, begun = flags.shares(), host.clock.monotonic()
    told = host.sensors.chosen(app)
    if told.slot is None and host.clock.monotonic() - begun < AGAIN:
        host.clock.sleep(AGAIN)
        told = host.sensors.chosen(app)
    if told.slot is None:
        return f"nginx does not answer for {app.domain}: {told.detail}. Look at it: systemctl status nginx"
    if not told.slot or told.slot in {**before, **flags.shares()}:
        return None
    shut = ", ".join(map(str, host.disk.shut(flags.directory)))
    why = (
        f"since {shut} is closed to others. Run: slipway recover {app.name}"
        if shut
        else "as when something was mounted there after nginx was started. Then: systemctl restart nginx"
    )
    return f"nginx sends requests to {told.slot}, but the flags say {flags.active()}: it does not see {flags.directory}, {why}"


def _split(host: Host, app: App) -> Optional[str]:
    """The same for flags of a canary that is none."""
    shares = host.flags(app).shares()
    if len(shares) < 2 or host.journal(app).pending() is not None:
        return None
    told = ", ".join(f"{slot} {percent} %" for slot, percent in shares.items())
    return f"flags that no transaction explains split the requests: {told}. Run: slipway recover {app.name}"
