# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def columns(rows: Sequence[Sequence[str]], most: int = 60) -> list[str]:
    """Rows with aligned columns; the last one is not padded."""
    if not rows:
        return []
    widths = [min(most, max(len(row[index]) for row in rows)) for index in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _sources(declared: Any) -> str:
    return declared if isinstance(declared, str) else ", ".join(map(str, declared))


def text(plan: Mapping[str, Any], hosts: Sequence[str] = ()) -> list[str]:
    """Sizes with their reasons, open ports, then the checks; only of `hosts` when given."""
    lines: list[str] = []
    chosen = [name for name in plan["hosts"] if not hosts or name in hosts]
    for name in chosen:
        lines += ["", f"{name}"]
        rows = [[row["variable"], row["value"], row["reason"]] for row in plan["table"] if row["host"] == name]
        lines += ["  " + line for line in columns(rows)]
        for kind in ("ufw_rules", "ufw_container_rules"):
            rules = plan["hosts"][name].get(kind) or []
            opened = [
                [
                    f"port {rule.get('port')}",
                    f"from {_sources(rule.get('from') or 'any')}",
                    str(rule.get("comment", "")),
                ]
                for rule in rules
                if isinstance(rule, Mapping)
            ]
            lines += ["  " + line for line in columns(opened, 80)]
    return lines + _checks([check for check in plan["checks"] if check["host"] in chosen])


def _checks(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is violated first, each with its remedy, then every check with its two numbers."""
    violated = [check for check in checks if not check["ok"]]
    lines = ["", f"checks: {len(checks) - len(violated)} hold, {len(violated)} violated"]
    for check in violated:
        lines += [
            f"  VIOLATED {check['number']} {check['id']} on {check['host']}: {check['rule']}",
            f"    {check['have']} against {check['limit']}; change {check['variable']}: {check['remedy']}",
        ]
    rows = [
        [
            "ok" if check["ok"] else "NO",
            str(check["number"]),
            str(check["id"]),
            str(check["host"]),
            f"{check['have']} against {check['limit']}",
            str(check["rule"]),
        ]
        for check in checks
    ]
    return lines + ["  " + line for line in columns(rows, 90)]
