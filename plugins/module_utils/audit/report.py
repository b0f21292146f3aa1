# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of an audit as plain data, with the scores of earlier ones, and as lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

from .judge import MINIMUM, Verdict

KEPT = 200
"""Earlier audits whose scores are kept."""
SHORT = {
    "lynis": "lynis",
    "ssh_fail": "ssh fail",
    "ssh_warn": "ssh warn",
    "app": "app",
    "nginx": "nginx",
    "postgresql": "postgresql",
    "services": "services off",
    "settings": "settings",
    "drift": "drift",
    "ports": "ports",
}


@dataclass(frozen=True)
class Report:
    """One audit: `history` are the scores of this and earlier ones by host, the oldest first; `silent` could not be asked."""

    at: float
    verdicts: tuple[Verdict, ...]
    silent: tuple[str, ...]
    limits: Mapping[str, float]
    history: tuple[Mapping[str, Any], ...]

    @property
    def problems(self) -> list[str]:
        """What is below the minimum, a sentence each."""
        found = [f"{host}: could not be looked at" for host in self.silent]
        return found + [f"{verdict.host}: {text}" for verdict in self.verdicts for text in verdict.below]


def earlier(text: Optional[str]) -> tuple[Mapping[str, Any], ...]:
    """The history in the text of an earlier document; what cannot be read is left out."""
    try:
        entries = json.loads(text or "{}").get("history", [])
    except (ValueError, AttributeError):
        return ()
    good = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("hosts"), dict)]
    return tuple(entry for entry in good if isinstance(entry.get("at"), (int, float)))


def build(
    at: float,
    verdicts: Sequence[Verdict],
    silent: Sequence[str],
    limits: Mapping[str, float],
    before: Sequence[Mapping[str, Any]],
) -> Report:
    """The report, its own scores at the end of the history."""
    now = {"at": at, "hosts": {verdict.host: dict(verdict.scores) for verdict in verdicts}}
    return Report(at, tuple(verdicts), tuple(silent), limits, (*before, now)[-KEPT:])


def document(report: Report) -> dict[str, Any]:
    """Plain data, for programs and for the next audit."""
    return {"schema": 1, "problems": report.problems, **asdict(report)}


def shown(value: Optional[float]) -> str:
    """A score; a dash where nothing was measured."""
    return "-" if value is None else f"{value:g}"


def lines(report: Report) -> list[str]:
    """Scores of all hosts as a table, and what could not be measured."""
    heads = ["host", *SHORT.values()]
    rows = [[verdict.host, *(shown(verdict.scores.get(name)) for name in MINIMUM)] for verdict in report.verdicts]
    rows.append(["wanted", *((">= " if name == "lynis" else "<= ") + f"{report.limits[name]:g}" for name in MINIMUM)])
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in (heads, *rows)]
    table += [f"{verdict.host}: not measured: {text}" for verdict in report.verdicts for text in verdict.missing]
    return table + [f"{host}: could not be looked at" for host in report.silent]
