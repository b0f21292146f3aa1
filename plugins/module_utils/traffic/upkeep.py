# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to run on this host runs, and nothing that nobody knows of."""

from __future__ import annotations

from .config import App, Slot
from .drivers import Artifact
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


def strays(host: Host, app: App) -> list[str]:
    """Slots without traffic that run here and have no record, by name.

    None while it is not known which slot has the traffic: on an edge that has forgotten all, others still send requests here.
    """
    slots, records = Slots(host, app), host.records(app.name)
    active = slots.active()
    if active is None or (app.edge and not records.traffic().releases):
        return []
    return [
        slot.name
        for slot in app.slots.values()
        if slot.managed and slot.instances and slot.name != active and not slots.takes_part(slot.name)
        if records.slot(slot.name) is None and alive(slots.driver(slot))
    ]


def adopt(host: Host, app: App) -> list[str]:
    """Put them on standby, so that they end in time; their names."""
    found = strays(host, app)
    for name in found:
        Slots(host, app).standby(Request(name, owner="recovery"))
    return found
