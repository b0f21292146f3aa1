# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the history: which entries are wanted, and how they look to a person. One host's or, with `host`, a fleet's."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from .errors import SlipwayError

Entry = Mapping[str, object]
MOVES = ("confirmed", "rolled_back", "aborted", "failed", "kept", "overridden", "adopted")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
AGO = re.compile(r"(\d{1,6})([smhdw])")
MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2})(?:\.\d+)?)?Z?)?")
HEAD = ("when (UTC)", "host", "app", "event", "where", "release", "who", "took", "why")
WIDEST = 100
NUMBERS = ("switch_ms", "verified_ms", "peak", "drained", "remaining", "open", "by", "state", "hook")


@dataclass(frozen=True)
class Wanted:
    """Which entries: of one kind (`moves`: all ends of moves), release or transaction; `since` in seconds since the epoch."""

    event: Optional[str] = None
    release: Optional[str] = None
    txn: Optional[str] = None
    since: Optional[float] = None
    limit: int = 20

    def holds(self, entry: Entry) -> bool:
        """True when `entry` is one of them."""
        event = entry.get("event")
        if self.event is not None and event != self.event and not (self.event == "moves" and event in MOVES):
            return False
        if any(wanted not in (None, entry.get(key)) for key, wanted in (("release", self.release), ("txn", self.txn))):
            return False
        return self.since is None or moment(str(entry.get("at", ""))) >= self.since

    @property
    def depth(self) -> int:
        """How many entries to read so that this many are found."""
        return self.limit if self == Wanted(limit=self.limit) else 100_000


def since(text: str, now: float) -> float:
    """A point in time: 90s, 30m, 12h, 2d or 1w ago, or 2026-05-31, or 2026-05-31T17:30, in UTC; raises SlipwayError."""
    ago = AGO.fullmatch(text)
    if ago:
        return now - int(ago.group(1)) * UNITS[ago.group(2)]
    try:
        return moment(text, strict=True)
    except ValueError as error:
        raise SlipwayError(f"{text!r} is no time: say 30m, 12h, 2d, 1w, or 2026-05-31T17:30 (UTC).") from error


def moment(text: str, strict: bool = False) -> float:
    """Seconds since the epoch of a time as the history has it; 0, or with `strict` a ValueError, when it is none."""
    found = MOMENT.fullmatch(text)
    if found is None:
        if strict:
            raise ValueError(text)
        return 0.0
    day, minute, second = found.groups()
    return float(calendar.timegm(time.strptime(f"{day} {minute or '00:00'}:{second or '00'}", "%Y-%m-%d %H:%M:%S")))


def select(entries: Sequence[Entry], wanted: Wanted) -> list[dict[str, object]]:
    """The last `limit` entries that are wanted, newest last."""
    found = [dict(entry) for entry in entries if wanted.holds(entry)]
    return found[-wanted.limit :] if wanted.limit > 0 else []


def merge(per_host: Mapping[str, Sequence[Entry]], limit: int) -> list[dict[str, object]]:
    """The last `limit` entries of several hosts in the order of time, each with its host."""
    found = [{**entry, "host": host} for host, entries in per_host.items() for entry in entries]
    return sorted(found, key=lambda entry: (str(entry.get("at")), str(entry["host"])))[-limit:] if limit > 0 else []


def table(entries: Sequence[Entry]) -> list[str]:
    """Lines for a person: columns without any entry are left out."""
    rows = [_row(entry) for entry in entries]
    used = [index for index, _title in enumerate(HEAD) if any(row[index] for row in rows)]
    lines = [[HEAD[index] for index in used], *([row[index] for index in used] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(used))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines] if rows else []


def _row(entry: Entry) -> list[str]:
    at = str(entry.get("at", ""))
    there, here, took = entry.get("from"), entry.get("to"), entry.get("seconds")
    where = f"{there} -> {here}" if there and here and there != here else str(here or entry.get("slot") or "")
    who = str(entry.get("owner") or "") + (f" from {entry['controller']}" if entry.get("controller") else "")
    return [
        at[:19].replace("T", " "),
        str(entry.get("host") or ""),
        str(entry.get("app") or ""),
        str(entry.get("event") or ""),
        where,
        str(entry.get("release") or ""),
        who,
        f"{took} s" if isinstance(took, (int, float)) else "",
        _why(entry),
    ]


def _why(entry: Entry) -> str:
    """The reason and the numbers, on one line."""
    parts = [str(entry["reason"])] if entry.get("reason") else []
    verdict = entry.get("verdict")
    candidate = verdict.get("candidate") if isinstance(verdict, Mapping) else None
    if isinstance(candidate, Mapping):
        mean = candidate.get("mean_ms")
        slow = f", mean {mean:.0f} ms" if isinstance(mean, (int, float)) else ""
        parts.append(f"{candidate.get('requests')} requests, {candidate.get('errors')} failed{slow}")
    parts += [f"{key} {entry[key]}" for key in NUMBERS if entry.get(key) is not None]
    text = " ".join("; ".join(parts).split())
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
