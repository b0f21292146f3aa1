# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to run on this host runs, and nothing that nobody knows of."""

from __future__ import annotations

from .config import App, Slot
from .drivers import Artifact
from .errors import SlipwayError
from .host import Host
from .proven import alive
from .records import SlotState
from .slots import Request, Slots


def revive(host: Host, app: App, slot: Slot, known: SlotState) -> list[str]:
    """Start the instances of a slot that its record knows and that do not run; their names. Raises SlipwayError."""
    if known.state == "stopped" or known.release is None or not slot.managed:
        return []
    driver = Slots(host, app).driver(slot)
    running = alive(driver)
    missing = [place for place in driver.places if place not in running]
    artifact = Artifact(known.release, known.artifact if known.artifact and "@sha256:" in known.artifact else None)
    if missing:
        driver.prepare(artifact)
    for place in missing:
        place.start(artifact)
        place.keep()
    return [place.instance.name for place in missing]


def revive_active(host: Host, app: App) -> list[str]:
    """The same for the slot with the traffic."""
    active = Slots(host, app).active()
    known = host.records(app.name).slot(active) if active is not None else None
    if active is None or known is None or known.state != "active":
        return []
    return revive(host, app, app.slot(active), known)


def adopt(host: Host, app: App) -> list[str]:
    """Put slots that run here without a record on standby, so that they end in time; their names.

    None while it is not known which slot has the traffic: that one must not end.
    """
    slots, found = Slots(host, app), []
    if slots.active() is None:
        return []
    for slot in app.slots.values():
        if slot.managed and slot.instances and host.records(app.name).slot(slot.name) is None:
            try:
                done = slots.standby(Request(slot.name, owner="recovery"))
            except SlipwayError:  # it has the traffic, or a transaction needs it
                continue
            found += [slot.name] if done["changed"] else []
    return found
