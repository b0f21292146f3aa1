# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes passed the gate of a slot, and whether they still are what runs there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Optional

from ..health.process import Identity, Watcher
from .config import App, Slot
from .drivers import Driver, Place
from .host import Host
from .records import SlotState


def watcher(host: Host, app: App, slot: Slot, driver: Driver, known: Optional[SlotState]) -> Watcher:
    """Over what runs `slot`: a release that never had traffic has to be what its gate proved, all the time.

    After a restart of the host they are other processes rightly. So may they be where the release was confirmed on this edge
    before: what serves is restarted now and then.
    """
    found = [place.process() for place in driver.places]
    proven = known.proven if known is not None and known.state in ("staged", "active") and slot.managed else None
    if proven and known is not None and host.records(app.name).traffic().releases.get(slot.name) == known.release:
        proven = None
    if not proven or proven.get("boot") != host.machine.boot_id():
        return Watcher(found)
    told = proven.get("processes")
    return Watcher(found, {name: Identity(**facts) for name, facts in told.items()} if isinstance(told, dict) else None)


def who(host: Host, driver: Driver) -> dict[str, object]:
    """The processes of a slot, to be recognised until the next restart of the host."""
    found = [place.process() for place in driver.places]
    return {"boot": host.machine.boot_id(), "processes": {process.name: asdict(process.identity()) for process in found}}


def alive(driver: Driver) -> list[Place]:
    """Places whose process runs."""
    return [place for place in driver.places if place.process().identity().alive]
