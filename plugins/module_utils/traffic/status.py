# SPDX-License-Identifier: GPL-3.0-or-later
"""What is so, read from flags, records and processes; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from . import drain, served, upkeep
from .config import App, Slot
from .errors import SlipwayError
from .host import Host
from .records import SlotState
from .slots import Slots
from .workers import Workers, mine


def report(host: Host, app: App, history: int = 5) -> dict[str, object]:
    """Everything about one application on this host."""
    records, flags, journal = host.records(app.name), host.flags(app), host.journal(app)
    traffic = records.traffic()
    active = Slots(host, app).active()
    tx = journal.pending() if app.edge else None
    lease = host.leases(app.name).read()
    now = host.machine.moment(host.clock)
    slots = {name: _slot(host, app, app.slots[name], active) for name in app.slot_order}
    waiting: Optional[dict[str, object]] = None
    if tx is not None:
        waiting = {
            "txn": tx.txn,
            "kind": tx.kind,
            "from": tx.source,
            "to": tx.target,
            "release": tx.release,
            "owner": tx.owner,
            "step": tx.steps[-1],
            "switched": active == tx.target,
            "seconds_left": round(tx.deadline.left(now), 1) if tx.deadline is not None else None,
            "rollback_allowed": tx.rollback_allowed,
            "dead_man": host.deadman(app.name).armed(),
        }
    return {
        "app": app.name,
        "domain": app.domain,
        "host": app.host,
        "edge": app.edge,
        "runs": app.runtime is not None,
        "active": active,
        "previous": traffic.previous,
        "rollback_allowed": traffic.rollback_allowed if tx is None else tx.rollback_allowed,
        "served": dict(traffic.releases),
        "slot_order": list(app.slot_order),
        "flags": flags.present() if app.edge else [],
        "unknown_flags": flags.unknown() if app.edge else [],
        "trouble": served.trouble(host, app)
        or (_dead(app.name, slots[active], records.slot(active)) if active is not None else None),
        "strays": upkeep.strays(host, app),
        "idle": [name for name in app.slot_order if name != active and app.slots[name].managed],
        "slots": slots,
        "workers": Workers(host, app).report() if mine(app) else None,
        "transaction": waiting,
        "lease": None if lease is None else host.leases(app.name).describe(lease),
        "bad": records.bad(),
        "history": records.history(history),
    }


def _dead(app: str, slot: Mapping[str, Any], known: Optional[SlotState]) -> Optional[str]:
    """What does not run here of the slot with the traffic, and what to do; None when all does."""
    dead = [one["name"] for one in slot["instances"] if not one["alive"]]
    if not dead or not slot["managed"] or known is None or known.state != "active":
        return None
    return f"{', '.join(dead)} of slot {known.slot}, which has the traffic, does not run. Run: slipway recover {app}"


def _slot(host: Host, app: App, slot: Slot, active: Optional[str]) -> dict[str, object]:
    records = host.records(app.name)
    known = records.slot(slot.name)
    instances: list[dict[str, object]] = []
    try:
        for place in Slots(host, app).driver(slot).places:
            identity, item = place.process().identity(), place.instance
            address = f"{item.address}:{item.port}"
            instances.append({"name": item.name, "address": address, "alive": identity.alive, "state": identity.state})
    except SlipwayError:
        instances = []
    release = known.release if known is not None and known.release else records.traffic().releases.get(slot.name)
    drained = drain.load(known.drain) if known is not None else None
    retire_in = None if known is None or known.retire_at is None else round(known.retire_at - host.clock.now())
    return {
        "active": slot.name == active,
        "managed": slot.managed,
        "members": list(slot.members),
        "held": slot.held,
        "release": release,
        "artifact": known.artifact if known is not None else None,
        "state": _state(app, slot, known, active),
        "started": known.started if known is not None else None,
        "retire_in": retire_in,
        "drain": None if drained is None else drained.facts(),
        "instances": instances,
    }


def _state(app: App, slot: Slot, known: Optional[SlotState], active: Optional[str]) -> str:
    """As recorded, unless the flags of this host know better."""
    if app.edge and slot.name == active:
        return "active"
    state = known.state if known is not None else "unknown"
    if known is not None and state == "standby" and drain.load(known.drain) is not None:
        return "draining"
    return "standby" if app.edge and state == "active" else state


def lines(data: dict[str, object]) -> list[str]:
    """The same for a person."""
    text = [f"{data['app']}  https://{data['domain']}  on {data['host']}{' (edge)' if data['edge'] else ''}"]
    if data["trouble"]:
        text.append(f" ! {data['trouble']}.")
    strays = data["strays"]
    for name in strays if isinstance(strays, list) else ():
        text.append(
            f" ! slot {name} runs, but its record is lost, so that it would never end. Run: slipway recover {data['app']}."
        )
    slots = data["slots"]
    for name, slot in slots.items() if isinstance(slots, dict) else ():
        marker = ">" if slot["active"] else " "
        parts = [slot["release"] or "-", slot["state"]]
        if slot["retire_in"] is not None and slot["state"] == "standby":
            parts.append(f"drained in {slot['retire_in']} s" if slot["retire_in"] > 0 else "drained when no request comes")
        parts.extend(f"{item['name']} {item['state']}" for item in slot["instances"])
        text.append(f" {marker} {name:<10} " + "  ".join(str(part) for part in parts))
    crew = data["workers"]
    if isinstance(crew, dict):
        moving = f", moving to {crew['target']}" if crew["target"] else ""
        text.append(f"   workers of {crew['slot'] or 'no slot yet'}{moving}")
        for one in crew["processes"]:
            if one["alive"] or one["slot"] == crew["slot"]:
                text.append(
                    f"     {one['name']}: {'well' if one['fit'] and one['alive'] else 'leaving' if one['alive'] else 'dead'}"
                )
    waiting = data["transaction"]
    if isinstance(waiting, dict):
        left = waiting["seconds_left"]
        text.append(
            f"   transaction {waiting['txn']} of {waiting['owner']}: {waiting['from']} -> {waiting['to']}, {waiting['step']}"
            + (f", {left} s left to confirm" if left is not None else "")
        )
    if not data["rollback_allowed"]:
        text.append("   no way back by itself: a destructive migration came with this release (rollback only with --force)")
    lease = data["lease"]
    if isinstance(lease, dict):
        stale = f" (stale: {lease['stale']})" if lease["stale"] else ""
        text.append(f"   lease of {lease['owner']}, transaction {lease['txn']}, {lease['expires_in']} s left{stale}")
    for title in ("unknown_flags", "bad"):
        found = data[title]
        if isinstance(found, list) and found:
            text.append(f"   {title.replace('_', ' ')}: {', '.join(found)}")
    history = data["history"]
    if isinstance(history, list) and history:
        last = history[-1]
        known = ("from", "to", "slot", "release", "reason")
        details = " ".join(f"{key}={last[key]}" for key in known if last.get(key))
        text.append(f"   last: {last.get('at')} {last.get('event')} {details}")
    return text
