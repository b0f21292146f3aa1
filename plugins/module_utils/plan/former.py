# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases and users that slots run with although the inventory names others by now: kept until those slots have stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .model import App, Facts, Inventory, Problem


def apps(app: App, facts: Mapping[str, Facts]) -> tuple[App, ...]:
    """The app as its slots that run know it, once for each other database or user."""
    if not app.database:
        return ()
    found = []
    for seen in facts.values():
        for slot in seen.standing.get(app.name, {}).values():
            used = slot.get("database") or {}
            if used:
                other = replace(app, database=replace(app.database, name=used["name"], user=used["user"]))
                found += [other] if other.database != app.database and other not in found else []
    return tuple(found)


def problems(inventory: Inventory, facts: Mapping[str, Facts]) -> list[Problem]:
    """What cannot be kept for the slots that run: users that poolers elsewhere know from the inventory alone, and servers."""
    return _users(inventory, facts) + [problem for app in inventory.apps for problem in _servers(app, inventory, facts)]


def _servers(app: App, inventory: Inventory, facts: Mapping[str, Facts]) -> list[Problem]:
    """An app that runs on a server that is neither its own by now, nor one that this one follows or is followed by."""
    if not app.database or not app.database.host:
        return []
    server = inventory.host(app.database.host)
    known = {word for one in (server, *inventory.replicas(server)) for word in (one.name, one.address) if word}
    slots = (slot for seen in facts.values() for slot in seen.standing.get(app.name, {}).values())
    used = {str(slot["server"]["name"]): set(slot["server"].values()) for slot in slots if slot.get("server")}
    return [
        Problem(
            "inventory",
            f"slipway_apps.{app.name}.database.host",
            f"is {server.name}, but the app runs on the database of {name}, whose rows nobody moves",
            f"Make {server.name} a standby of {name} (group `replica`) and promote it with playbooks/promote.yml, or let the app"
            " go first (`state: absent`)",
        )
        for name, words in used.items()
        if not words & known
    ]


def _users(inventory: Inventory, facts: Mapping[str, Facts]) -> list[Problem]:
    return [
        Problem(
            "inventory",
            f"slipway_apps.{app.name}.database.user",
            f"is `{app.database.user}`, but a slot that runs is `{other.database.user}`, whose password poolers would lose",
            f"Keep `{other.database.user}`: a database with a standby cannot change its user while the app runs",
        )
        for app in inventory.apps
        if app.database and app.database.pooled and inventory.replicas(inventory.host(app.database.host))
        for other in apps(app, facts)
        if other.database and other.database.user != app.database.user
    ]
