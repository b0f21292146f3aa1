# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd says: how exposed services are, and which of them do not run."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping

from ..host.runner import Runner

ROW = re.compile(r"^\s*(?P<unit>\S+\.service)\s+(?P<exposure>\d+(?:\.\d+)?)\s+[A-Z]+\b")
RUNNING = ("active", "activating", "reloading")


def exposures(table: str) -> dict[str, float]:
    """Exposure of each service from the table of `systemd-analyze security`."""
    rows = (ROW.match(line) for line in table.splitlines())
    return {row.group("unit"): float(row.group("exposure")) for row in rows if row}


def worst(found: Mapping[str, float], patterns: Iterable[str]) -> dict[str, float]:
    """The services whose names match one of the patterns."""
    wanted = list(patterns)
    return {unit: value for unit, value in sorted(found.items()) if any(fnmatch.fnmatch(unit, pattern) for pattern in wanted)}


def blocks(shown: str) -> list[dict[str, str]]:
    """What `systemctl show` says of several units."""
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.strip().split("\n\n")]


def off(shown: str) -> list[str]:
    """The services that ought to run and do not, from `systemctl show` of what is enabled or has failed."""
    found = []
    for unit in blocks(shown):
        state = unit.get("ActiveState", "")
        idle = state in RUNNING or (unit.get("ConditionResult") == "no" and unit.get("ConditionTimestampMonotonic", "0") != "0")
        if state == "failed" or not (idle or unit.get("Type") == "oneshot"):
            found.append(f"{unit.get('Id', '?')} is {state or 'unknown'}")
    return sorted(set(found))


def look(runner: Runner) -> list[str]:
    """Services of this host that are enabled or have failed, and do not run."""
    listed = runner.run(["systemctl", "list-unit-files", "--type=service", "--state=enabled", "--plain", "--no-legend"]).out
    failed = runner.run(["systemctl", "list-units", "--state=failed", "--plain", "--no-legend"]).out
    lines = [line.split()[0] for line in (*listed.splitlines(), *failed.splitlines()) if line.strip()]
    names = sorted({name for name in lines if "@." not in name})
    if not names:
        return []
    properties = "--property=Id,Type,ActiveState,ConditionResult,ConditionTimestampMonotonic"
    return off(runner.run(["systemctl", "show", properties, "--", *names]).out)
