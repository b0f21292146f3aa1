# SPDX-License-Identifier: GPL-3.0-or-later
"""The write-ahead journal: what was intended, what was done. It explains the flags and never overrules them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ..host.clock import Clock
from .disk import Disk
from .errors import SlipwayError

VERSION = 1
ROTATE_AT = 256 * 1024
KEPT = 3


@dataclass(frozen=True)
class Deadline:
    """When an unconfirmed switch takes itself back: wall clock, and seconds since boot within the boot `boot_id`.

    `length`: seconds that were meant in the beginning, where that is known. More are never left.
    """

    wall: float
    since_boot: float
    boot_id: str
    length: Optional[float] = None

    def left(self, now: Deadline) -> float:
        """Seconds until then, as of `now`. Within one boot the wall clock may jump; after another it may be far back."""
        if now.boot_id == self.boot_id:
            return self.since_boot - now.since_boot
        left = self.wall - now.wall
        return left if self.length is None else min(left, self.length)


@dataclass(frozen=True)
class Transaction:
    """One move of traffic as the journal tells it. `steps` are "intent switch", "done switch", … in order."""

    txn: str
    kind: str
    source: str
    target: str
    release: Optional[str]
    owner: str
    started: float
    steps: tuple[str, ...] = ()
    deadline: Optional[Deadline] = None
    reason: str = ""
    outcome: Optional[str] = None
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """True until its end is written."""
        return self.outcome is None

    @property
    def rollback_allowed(self) -> bool:
        """False after destructive migrations: then nothing is taken back without a person's word."""
        return self.facts.get("rollback_allowed") is not False

    def has(self, step: str) -> bool:
        """True when `step` was written."""
        return step in self.steps


class Journal:
    """The journal of one application."""

    def __init__(self, disk: Disk, clock: Clock, path: Path) -> None:
        self.disk = disk
        self.clock = clock
        self.path = path

    def entries(self) -> list[dict[str, object]]:
        """All readable lines; a torn one, which a crash leaves, is passed over. Raises SlipwayError for a newer format."""
        found: list[dict[str, object]] = []
        for line in (self.disk.read(self.path) or "").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if not isinstance(entry, dict):
                continue
            version = entry.get("v", VERSION)
            if not isinstance(version, int) or version > VERSION:
                raise SlipwayError(
                    f"{self.path} was written by a newer slipway (format {version}, this one reads {VERSION}). "
                    "Traffic stays as the flags say. Install the newer command: run site.yml with --tags app."
                )
            found.append(entry)
        return found

    def last(self) -> Optional[Transaction]:
        """The transaction that was written last, ended or not."""
        return transaction(self.entries())

    def pending(self) -> Optional[Transaction]:
        """The last transaction when it has no end."""
        last = self.last()
        return last if last is not None and last.open else None

    def write(self, txn: str, phase: str, step: str, **facts: object) -> None:
        """Add `phase` (intent or done) of `step`, durably before it returns."""
        entry = {"v": VERSION, "at": round(self.clock.now(), 3), "txn": txn, "phase": phase, "step": step, **facts}
        self.disk.append(self.path, json.dumps(entry, sort_keys=True))

    def rotate(self) -> None:
        """Put a long journal aside; only to be called while no transaction is open."""
        self.disk.rotate(self.path, ROTATE_AT, KEPT)


def transaction(entries: Sequence[dict[str, object]]) -> Optional[Transaction]:
    """The last transaction that began in `entries`."""
    at = next((number for number in reversed(range(len(entries))) if entries[number].get("step") == "begin"), None)
    if at is None:
        return None
    begin = entries[at]
    own = [entry for entry in entries[at:] if entry.get("txn") == begin.get("txn")]
    facts: dict[str, object] = {}
    for entry in own:
        facts.update(entry)
    # What a run writes that has not seen yet that somebody ended its transaction does not open it again.
    ended = any(entry.get("step") == "end" for entry in own)
    release = begin.get("release")
    return Transaction(
        str(begin.get("txn")),
        str(begin.get("kind", "cutover")),
        str(begin.get("source")),
        str(begin.get("target")),
        release if isinstance(release, str) else None,
        str(begin.get("owner", "")),
        _number(begin.get("at")),
        tuple(f"{entry.get('phase')} {entry.get('step')}" for entry in own),
        _deadline(facts.get("deadline")),
        str(facts.get("reason", "")),
        str(facts.get("outcome")) if ended else None,
        facts,
    )


def _deadline(value: object) -> Optional[Deadline]:
    if not isinstance(value, dict):
        return None
    length = value.get("length")
    known = _number(length) if length is not None else None
    return Deadline(_number(value.get("wall")), _number(value.get("since_boot")), str(value.get("boot_id", "")), known)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
