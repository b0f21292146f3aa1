# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd says of units, and what has to be done to each of them after a change. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..host.clock import parse_time
from .declared import ANY_PATH, EFFECTS, UnitSpec


@dataclass(frozen=True)
class UnitState:
    """What systemd says of a unit. `unmet`: it was asked to start in this boot, and a condition of its own kept it off."""

    loaded: bool
    active: bool
    enabled: str
    needs_daemon_reload: bool
    unmet: bool = False
    since: float = 0.0


def parse_units(listing: str) -> dict[str, UnitState]:
    """Unit states from `systemctl show --property=Id,…` output, by unit name."""
    states = {}
    for block in listing.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in values:
            active = values.get("ActiveState") in ("active", "activating", "reloading")
            tried = values.get("ConditionTimestampMonotonic", "0") != "0"
            for name in {values["Id"], *values.get("Names", "").split()}:
                states[name] = UnitState(
                    loaded=values.get("LoadState") == "loaded",
                    active=active,
                    enabled=values.get("UnitFileState", ""),
                    needs_daemon_reload=values.get("NeedDaemonReload") == "yes",
                    unmet=not active and tried and values.get("ConditionResult") == "no",
                    since=parse_time(values.get("StateChangeTimestamp", "")),
                )
    return states


def strongest(effects: Iterable[str]) -> str:
    """The one that asks most of a unit; `none` of none."""
    return max(effects, key=EFFECTS.index, default="none")


def marked_effects(text: Optional[str]) -> dict[Path, str]:
    """The changes that an interrupted run had not yet brought to its units; an unreadable marker concerns all of them."""
    if text is None:
        return {}
    try:
        found = {Path(path): effect for path, effect in json.loads(text).items() if effect in EFFECTS}
    except (ValueError, AttributeError):
        found = {}
    return found or {ANY_PATH: "restart"}


def effect_on(unit: UnitSpec, effects: Mapping[Path, str]) -> str:
    """The strongest effect among the changes that concern `unit`."""
    return strongest(effect for path, effect in effects.items() if not unit.follows or path in unit.follows or path == ANY_PATH)


def unit_steps(unit: UnitSpec, state: UnitState, effect: str) -> list[str]:
    """The systemctl verbs that bring `unit` from `state` to its declared state after a change with `effect`."""
    verbs = []
    if unit.enabled is True and state.enabled not in ("enabled", "static", "alias", "indirect", "generated"):
        verbs.append("enable")
    if unit.enabled is False and state.enabled == "enabled":
        verbs.append("disable")
    if unit.state == "stopped" and state.active:
        verbs.append("stop")
    if unit.state == "started" and not state.active and not (state.unmet and effect == "none"):
        verbs.append("start")
    elif unit.state == "started" and state.active and effect in ("reload", "restart") and unit.on_change != "none":
        wanted = effect if unit.on_change == "auto" else unit.on_change
        verbs.append("restart" if wanted == "restart" else "reload-or-restart")
    return verbs
