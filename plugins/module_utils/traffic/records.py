# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered about an application besides its flags: releases, slots of this host, bad releases, history."""

from __future__ import annotations

import contextlib
import json
import re
import syslog
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Callable, Optional

from ..host.clock import Clock
from .disk import Disk
from .errors import SlipwayError
from .layout import Layout

SCHEMA = 1
RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ROTATE_AT = 512 * 1024
KEPT = 3
WHOLE = 100_000
"""More entries than a history has."""
STATES = ("staged", "active", "standby", "stopped")


def check_release(release: str) -> str:
    """`release`, which becomes a file name; raises SlipwayError when it must not."""
    if not RELEASE.fullmatch(release):
        raise SlipwayError(f"{release!r} is no name for a release: letters, digits, . _ - and at most 100 of them.")
    return release


def stamp(moment: float) -> str:
    """A time as people and programs read it: UTC, ISO 8601, milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment * 1000) % 1000:03d}Z"


@dataclass(frozen=True)
class Traffic:
    """What an edge knows: the release in each slot, where traffic was before, and the last confirmed transaction.

    `rollback_allowed` is false after destructive migrations: what was before cannot serve any more.
    """

    active: Optional[str] = None
    previous: Optional[str] = None
    releases: Mapping[str, str] = field(default_factory=dict)
    txn: Optional[str] = None
    since: Optional[float] = None
    rollback_allowed: bool = True


@dataclass(frozen=True)
class SlotState:
    """What an app host knows of one slot.

    `fingerprint` changes with anything that needs a new start. A standby slot is drained from `retire_at` on (seconds since
    the epoch) when no traffic came to it in the last `window` seconds; `quiet_from` is since when none did. `drain` is the
    drain under way, or, of a stopped slot, how the last one went; `limits` are those of one that requests called off. `proven`:
    the processes that passed the gate, see `slots`. `place`: how and where they were started, see `places`.
    """

    slot: str
    state: str
    release: Optional[str] = None
    artifact: Optional[str] = None
    fingerprint: Optional[str] = None
    started: Optional[float] = None
    retire_at: Optional[float] = None
    window: float = 0.0
    quiet_from: Optional[float] = None
    drain: Optional[Mapping[str, object]] = None
    limits: Optional[Mapping[str, object]] = None
    proven: Optional[Mapping[str, object]] = None
    place: Optional[Mapping[str, object]] = None


class Records:
    """The records of one application on this host."""

    def __init__(
        self, disk: Disk, clock: Clock, layout: Layout, app: str, controller: Callable[[], Optional[str]] = lambda: None
    ) -> None:
        self.controller = controller
        self.disk = disk
        self.clock = clock
        self.layout = layout
        self.app = app

    def traffic(self) -> Traffic:
        """From traffic.json; where that is lost, as the history tells, else an application would count as new."""
        document = self.disk.document(self.layout.traffic(self.app))
        if document is None:
            return self._rebuilt()
        releases = document.get("releases")
        since = document.get("since")
        return Traffic(
            _text(document.get("active")),
            _text(document.get("previous")),
            {str(slot): str(name) for slot, name in releases.items()} if isinstance(releases, dict) else {},
            _text(document.get("txn")),
            float(since) if isinstance(since, (int, float)) else None,
            document.get("rollback_allowed") is not False,
        )

    def _rebuilt(self) -> Traffic:
        """As the history tells it: each move that came to stay, in its order."""
        found = Traffic()
        for one in self.history(WHOLE):
            event, to, release = one.get("event"), _text(one.get("to")), _text(one.get("release"))
            back = event == "rolled_back" and one.get("kind") == "rollback"
            if to is None or not (back or event in ("confirmed", "failed", "adopted")):
                continue
            releases = {**found.releases, **({to: release} if release else {})}
            if event == "adopted":
                found = replace(found, active=to, releases=releases)
                continue
            before = None if back else _text(one.get("from"))
            found = Traffic(to, before, releases, _text(one.get("txn")), None, one.get("rollback_allowed") is not False)
        return found

    def restore_traffic(self) -> None:
        """Write the record again where it is lost, so that nobody has to read the whole history for it."""
        if self.disk.document(self.layout.traffic(self.app)) is None:
            found = self._rebuilt()
            if found.releases:
                self.save_traffic(found)

    def save_traffic(self, traffic: Traffic) -> None:
        """To traffic.json."""
        self.save(self.layout.traffic(self.app), asdict(traffic))

    def slot(self, slot: str) -> Optional[SlotState]:
        """From slots/<slot>.json; None when nothing ever ran there."""
        document = self.disk.document(self.layout.slot(self.app, slot))
        if document is None:
            return None
        known = {item.name: document.get(item.name) for item in fields(SlotState)}
        return SlotState(**{**known, "slot": slot, "state": str(document.get("state")), "window": document.get("window") or 0.0})  # type: ignore[arg-type]

    def slots(self) -> dict[str, SlotState]:
        """All slots of this host that ever ran."""
        names = self.disk.names(self.layout.slot(self.app, "x").parent)
        states = (self.slot(name[: -len(".json")]) for name in names if name.endswith(".json") and name[0] != ".")
        return {state.slot: state for state in states if state is not None}

    def save_slot(self, state: SlotState) -> None:
        """To slots/<slot>.json."""
        self.save(self.layout.slot(self.app, state.slot), asdict(state))

    def is_bad(self, release: Optional[str]) -> Optional[str]:
        """Why `release` was taken back, or None when it was not."""
        if not release:
            return None
        document = self.disk.document(self.layout.bad(self.app, check_release(release)))
        return None if document is None else str(document.get("reason", "unknown"))

    def mark_bad(self, release: Optional[str], txn: str, reason: str) -> None:
        """Remember that `release` was taken back."""
        if release:
            path = self.layout.bad(self.app, check_release(release))
            self.save(path, {"release": release, "txn": txn, "reason": reason, "at": stamp(self.clock.now())})

    def unmark_bad(self, release: str) -> bool:
        """Forget it; False when it was not marked."""
        return self.disk.remove(self.layout.bad(self.app, check_release(release)))

    def bad(self) -> list[str]:
        """All releases that were taken back."""
        return [name for name in self.disk.names(self.layout.bad(self.app, "x").parent) if name[0] != "."]

    def save(self, path: Path, values: Mapping[str, object]) -> None:
        """`values` as one of the records, durably."""
        text = json.dumps({"schema": SCHEMA, **values}, indent=1, sort_keys=True) + "\n"
        self.disk.write(path, text)

    def history(self, limit: int = 20) -> list[dict[str, object]]:
        """The last entries, newest last."""
        found: list[dict[str, object]] = []
        path = self.layout.history(self.app)
        for file in (path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1))):
            lines = (self.disk.read(file) or "").splitlines()[-(limit - len(found)) :]
            found = [*_entries(lines), *found]
            if len(found) >= limit:
                break
        return found

    def remember(self, event: str, **facts: object) -> None:
        """Add to the history, durably, and to the system log, with what is known besides `facts`: from where, what exactly."""
        entry: dict[str, object] = {"at": stamp(self.clock.now()), "event": event, **facts}
        known = {"controller": self.controller(), "artifact": self._artifact(facts)}
        entry.update({key: value for key, value in known.items() if value is not None and key not in facts})
        line = json.dumps(entry, sort_keys=True)
        path = self.layout.history(self.app)
        self.disk.rotate(path, ROTATE_AT, KEPT)
        self.disk.append(path, line)
        self._log(line)

    def _artifact(self, facts: Mapping[str, object]) -> Optional[str]:
        """What the release is by digest, where this host runs it."""
        slot = facts.get("slot") or facts.get("to")
        known = None
        with contextlib.suppress(SlipwayError):
            known = self.slot(slot) if isinstance(slot, str) else None
        return known.artifact if known is not None and known.release == facts.get("release") else None

    def log(self, event: str, **facts: object) -> None:
        """To the system log only."""
        self._log(json.dumps({"event": event, **facts}, sort_keys=True))

    def _log(self, line: str) -> None:
        syslog.openlog("slipway")
        syslog.syslog(f"{self.app}: {line}")

    def remember_once(self, event: str, txn: str, began: str, **facts: object) -> None:
        """The same, unless the history already tells that `event` of the `txn` that `began` then."""
        told = {"event": event, "txn": txn, "began": began}
        if not any(told.items() <= entry.items() for entry in self.history()):
            self.remember(event, txn=txn, began=began, **facts)


def _entries(lines: Sequence[str]) -> list[dict[str, object]]:
    """The readable ones of `lines`."""
    found: list[dict[str, object]] = []
    for line in lines:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                found.append(entry)
    return found


def _text(value: object) -> Optional[str]:
    return value if isinstance(value, str) else None
