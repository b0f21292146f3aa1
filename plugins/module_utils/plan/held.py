# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots that run stay where they are: what the inventory wants otherwise is for the next slot that is started.

Else a changed port, runtime or list of hosts would lead requests to where nothing listens yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .firewall import port_range
from .model import App, Facts, Host, Inventory

LOOPBACK = ("127.0.0.1", "::1")


class Held:
    """What stands on the hosts of the fleet, as far as they were looked at."""

    def __init__(self, inventory: Inventory, facts: Mapping[str, Facts]) -> None:
        self.inventory = inventory
        self.facts = facts

    def standing(self, host: str, app: App, slot: str) -> Mapping[str, Any]:
        """What a host told of a slot; empty when it does not run there."""
        seen = self.facts.get(host)
        found = seen.standing.get(app.name, {}).get(slot, {}) if seen else {}
        return found if isinstance(found, Mapping) else {}

    def members(self, app: App, slot: str, planned: list[str]) -> list[str]:
        """ADDRESS:PORT of every instance of a slot: of one that runs, those it has, without hosts that the app has left."""
        edges = [host.name for host in self.inventory.group("edge")]
        others = [host.name for host in self.inventory.hosts if host.name not in edges]
        told = (self.standing(name, app, slot).get("members") for name in (*edges, *others))
        now = [str(member) for member in next(filter(None, told), [])]
        return [member for member in now if self._belongs(member, app)] or now or planned

    def _belongs(self, member: str, app: App) -> bool:
        address = member.rpartition(":")[0].strip("[]")
        if address in LOOPBACK:
            return any(edge.name in app.hosts() for edge in self.inventory.group("edge"))
        return any(self.inventory.host(name).address == address for name in app.hosts())

    def reached(self, host: Host, members: Mapping[str, list[str]]) -> bool:
        """Whether an edge still sends requests of an app to a host."""
        return any(member.rpartition(":")[0].strip("[]") == host.address for slot in members.values() for member in slot)

    def left(self, host: Host, app: App) -> bool:
        """Whether an edge that is no host of an app any more still has instances of it."""
        runs = any(self.standing(host.name, app, slot).get("instances") for slot in app.slot_order())
        return host.has("edge") and host.name not in app.hosts() and runs

    def instances(
        self, app: App, slot: str, host: Host, planned: list[dict[str, Any]], runs: bool, members: list[str]
    ) -> list[dict[str, Any]]:
        """The instances of a slot on a host: of one that runs where it is, under the names that the runtime of now gives them.

        Where it has stopped before it did elsewhere, those stay that the edges still know.
        """
        if not any(self.standing(one.name, app, slot) for one in self.inventory.hosts):
            return planned
        if not self.standing(host.name, app, slot):
            known = [member.rpartition(":") for member in members]
            places = {(address.strip("[]"), port) for address, _colon, port in known}
            return [one for one in planned if (one["address"], str(one["port"])) in places]
        now = [dict(instance) for instance in self.standing(host.name, app, slot).get("instances") or ()]
        names = [instance["name"] for instance in planned] if runs else []
        return [{**instance, "name": name} for instance, name in zip(now, names)] + now[len(names) :]

    def kept_units(self, host: Host) -> list[str]:
        """Templates of units that run here although their apps are to run otherwise."""
        return sorted(
            {
                name
                for app in self.inventory.apps
                for slot in app.slot_order()
                if self.standing(host.name, app, slot).get("kind") == "systemd"
                for name in (f"{app.name}@.service", *(f"{app.name}-{worker.name}@.service" for worker in app.workers))
            }
        )

    def openings(self, host: Host, kind: str) -> list[tuple[Any, list[str], str]]:
        """Port, sources and comment of what runs here under `kind` and edges elsewhere reach."""
        sources = [edge.address for edge in self.inventory.group("edge") if edge.name != host.name and edge.address]
        found = []
        for app in self.inventory.apps if sources else ():
            for slot in app.slot_order():
                there = self.standing(host.name, app, slot)
                ports = sorted(int(one["port"]) for one in there.get("instances") or () if one.get("address") not in LOOPBACK)
                if ports and there.get("kind") == kind:
                    found.append((port_range(ports), sources, f"{app.name} {slot}"))
        return found
