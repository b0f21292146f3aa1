# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the slots that run on this host are, for a plan that may want them elsewhere.

Only reads. What cannot be read does not stand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..host.files import read_text
from . import flags
from .layout import Layout

LIVE = ("staged", "active", "standby")
PLACE = ("name", "address", "port")


def look(root: Path = Path("/")) -> dict[str, dict[str, Any]]:
    """By app and managed slot: `members` as edges reach it, here `instances`, `kind` of runtime, `database` (name and user).

    `server` (name and address) is where that database was when the host was last described: it stays there while a slot runs.
    """
    layout = Layout(root)
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(layout.apps.glob("*.json")):
        app = _document(path)
        slots = {name: slot for name, slot in _mapping(app.get("slots")).items() if _mapping(slot).get("managed") is True}
        records = {name: _document(layout.slot(path.stem, name)) for name in slots}
        serving = _serving(app, layout, path.stem)
        live = {
            name: _standing(slot, records[name], app)
            for name, slot in slots.items()
            if records[name].get("state") in LIVE or (name == serving and records[name].get("state") != "stopped")
        }
        if live:
            found[path.stem] = live
    return found


def _standing(slot: Mapping[str, Any], record: Mapping[str, Any], app: Mapping[str, Any]) -> dict[str, Any]:
    place, runtime = _mapping(record.get("place")), _mapping(app.get("runtime"))
    instances = place.get("instances") or slot.get("instances") or []
    return {
        "members": [str(member) for member in slot.get("members") or []],
        "instances": [{key: one.get(key) for key in PLACE} for one in instances if isinstance(one, Mapping)],
        "kind": str(_mapping(place.get("runtime")).get("kind") or runtime.get("kind") or ""),
        "database": dict(_mapping(place.get("database"))),
        "server": dict(_mapping(_mapping(app.get("environment")).get("server"))),
    }


def _serving(app: Mapping[str, Any], layout: Layout, name: str) -> str:
    """The slot that this edge sends requests to; empty elsewhere, and while no release was ever proven."""
    order = app.get("slot_order")
    if app.get("edge") is not True or not isinstance(order, list) or not order:
        return ""
    if not _document(layout.traffic(name)).get("releases"):
        return ""
    directory = layout.flags(name)
    return flags.active(order, [path.name for path in directory.iterdir()] if directory.is_dir() else [])


def _document(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(read_text(path) or "null"))
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
