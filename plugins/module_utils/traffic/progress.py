# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transaction tells while it runs: one line for each thing that happens, for people who follow it and for its report.

It explains and decides nothing: a line that a full disk swallows is missed, never waited for.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..host.clock import Clock
from .disk import Disk
from .errors import SlipwayError

KEPT = 20
ENDS = (".outcome.json", ".request.json", ".jsonl")
TXN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,160}")


def check_txn(txn: str) -> str:
    """`txn`, which becomes a file name; raises SlipwayError when it must not."""
    if not TXN.fullmatch(txn):
        raise SlipwayError(f"{txn!r} is no name for a transaction: letters, digits, . _ - and at most 161 of them.")
    return txn


@dataclass
class Progress:
    """The lines of one transaction on this host, and how it ended."""

    disk: Disk
    clock: Clock
    directory: Path
    txn: str
    host: str

    @property
    def path(self) -> Path:
        """The lines."""
        return self.directory / f"{check_txn(self.txn)}.jsonl"

    @property
    def outcome(self) -> Path:
        """How the run ended."""
        return self.directory / f"{check_txn(self.txn)}.outcome.json"

    @property
    def request(self) -> Path:
        """What was asked for."""
        return self.directory / f"{check_txn(self.txn)}.request.json"

    def say(self, state: str, text: str, **facts: object) -> None:
        """Add a line: `state` in capitals is one that has hooks (config.py), `text` for people, `facts` for the report."""
        entry: dict[str, object] = {"at": round(self.clock.now(), 3), "host": self.host, "state": state, "text": text, **facts}
        self.add(entry)

    def add(self, entry: Mapping[str, object]) -> None:
        """Add a line that is not for people to follow."""
        with contextlib.suppress(OSError):
            self.disk.note(self.path, json.dumps({"host": self.host, **entry}, sort_keys=True))

    def lines(self, offset: int = 0) -> tuple[list[dict[str, object]], int]:
        """The lines from number `offset` on, and the number of the next one."""
        found: list[dict[str, object]] = []
        text = self.disk.read(self.path) or ""
        whole = text[: text.rfind("\n") + 1].splitlines()
        for line in whole[offset:]:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append(entry)
        return found, max(len(whole), offset)

    def finish(self, result: Optional[Mapping[str, object]], error: Optional[SlipwayError]) -> None:
        """Leave how it ended for whoever follows."""
        document = (
            {"failed": True, "message": str(error), "facts": error.facts}
            if error is not None
            else {"failed": False, "facts": dict(result or {})}
        )
        with contextlib.suppress(OSError):
            self.disk.write(self.outcome, json.dumps(document, sort_keys=True) + "\n", 0o600)

    def forget(self) -> None:
        """A new run of the same transaction begins."""
        self.disk.remove(self.outcome)

    def prune(self) -> None:
        """Keep the newest transactions only."""
        runs: dict[str, list[Path]] = {}
        for name in self.disk.names(self.directory):
            txn = next((name[: -len(end)] for end in ENDS if name.endswith(end)), name)
            runs.setdefault(txn, []).append(self.directory / name)
        aged = sorted(runs.values(), key=lambda paths: max(map(self.disk.changed_at, paths)))
        for paths in aged[:-KEPT]:
            for path in paths:
                self.disk.remove(path)
