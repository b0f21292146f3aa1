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
    """Users that cannot be kept: a pooler elsewhere has their passwords from the inventory alone."""
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
