# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that waits for its confirmation: what it is, and the way back, on disk."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from ..host import files as disk
from ..host.clock import Clock
from ..host.runner import Runner
from . import saved as snapshot
from .deadman import Timer
from .saved import Saved

STATE = "var/lib/slipway/guard"
PROGRAM = "/usr/lib/slipway-guard/guard"
TRIES = 4
PAUSE = 2.0
"""How often, and after how many seconds, the commands that make old bytes effective are tried again."""


class GuardError(Exception):
    """The change cannot be armed or confirmed; the message says what to do."""


class TakenBack(Exception):
    """A change was not well on its own host; the old state is back, and the message says why and what of it is not."""


@dataclass(frozen=True)
class Record:
    """One armed change. `back` makes the old bytes effective, `then` follows a confirmation.

    `until` is on the monotonic clock of this boot; no record outlives a restart of the host.
    """

    name: str
    txn: str
    owner: str
    saved: tuple[Saved, ...]
    back: tuple[tuple[str, ...], ...]
    then: tuple[tuple[str, ...], ...]
    until: float
    at: float

    def text(self) -> str:
        """As JSON."""
        return json.dumps({**asdict(self), "saved": [item.as_dict() for item in self.saved]}, indent=1) + "\n"


def parse(text: str) -> Record:
    """The opposite of `Record.text`; raises ValueError, KeyError or TypeError."""
    data = json.loads(text)
    saved = tuple(snapshot.from_dict(item) for item in data["saved"])
    commands = {key: tuple(tuple(argv) for argv in data[key]) for key in ("back", "then")}
    return Record(**{**data, **commands, "saved": saved})


class Guard:
    """The guard of one thing, `name`, on this host; `root` is / except in tests."""

    def __init__(self, name: str, runner: Runner, clock: Optional[Clock] = None, root: Path = Path("/")) -> None:
        if not name or name.strip("abcdefghijklmnopqrstuvwxyz0123456789_-"):
            raise GuardError(f"`{name}` is no name of a guard: write small letters, digits, - and _")
        self.name = name
        self.runner = runner
        self.clock = clock or Clock()
        self.all = root / STATE
        self.folder = self.all / name
        self.timer = Timer(runner, self.clock, f"slipway-guard-{name}")

    def record(self) -> Optional[Record]:
        """The change that is armed now."""
        text = disk.read_text(self.folder / "record.json")
        if text is None:
            return None
        try:
            return parse(text)
        except (ValueError, KeyError, TypeError) as error:
            raise GuardError(f"{self.folder}/record.json cannot be read ({error}); look at it, then move it away") from error

    def last(self) -> dict[str, Any]:
        """How the change before ended; empty when there was none."""
        try:
            return dict(json.loads(disk.read_text(self.folder / "last.json") or "{}"))
        except ValueError:
            return {}

    def left(self, record: Record) -> float:
        """Seconds until the change takes itself back."""
        return max(0.0, record.until - self.clock.monotonic())

    def arm(
        self,
        txn: str,
        paths: Sequence[Path],
        back: Sequence[Sequence[str]],
        seconds: float,
        owner: str = "",
        then: Sequence[Sequence[str]] = (),
    ) -> Record:
        """Save what stands at `paths` and set the timer that puts it back and then runs `back`; nothing else is changed.

        Raises GuardError when the same thing or one of the paths is guarded already, ArmingFailed, OSError.
        """
        disk.make_directories(self.all.parent)
        disk.make_directories(self.all, 0o700)
        with _locked(self.all):
            self._refuse_second(paths)
            shutil.rmtree(self.folder / "saved", ignore_errors=True)
            disk.make_directories(self.folder, 0o700)
            with _locked(self.folder):
                saved = self._save(paths)
                now = self.clock.monotonic()
                commands = tuple(map(tuple, back)), tuple(map(tuple, then))
                record = Record(self.name, txn, owner, saved, *commands, now + seconds, self.clock.now())
                # A timer without a record does nothing; a record without a timer would stand until the next restart.
                command = [PROGRAM, "revert", self.name, "--txn", txn, "--reason", f"not confirmed within {seconds:g} s"]
                self.timer.arm(seconds, command, f"Take the change of {self.name} back unless it is confirmed", insist=True)
                disk.atomic_write(self.folder / "record.json", record.text(), 0o600)
                return record

    def _save(self, paths: Sequence[Path]) -> tuple[Saved, ...]:
        try:
            return tuple(snapshot.save(paths, self.folder / "saved"))
        except OSError as error:
            shutil.rmtree(self.folder / "saved", ignore_errors=True)
            text = f"the old state could not be kept in {self.folder}: {error.strerror or error}. Nothing was changed"
            raise GuardError(f"{text}; make room there, then run again") from error

    def _refuse_second(self, paths: Sequence[Path]) -> None:
        for name in names(self.all):
            other = Guard(name, self.runner, self.clock)
            other.all, other.folder = self.all, self.all / name
            record = other.record()
            if record is None:
                continue
            shared = sorted({item.path for item in record.saved} & set(map(str, paths)))
            if name == self.name or shared:
                what = f"change {record.txn} of {name}" + (f", which holds {', '.join(shared)}," if name != self.name else "")
                left = f"by {record.owner or 'somebody'} is not confirmed yet; it takes itself back in {other.left(record):.0f} s"
                ends = f"`slipway guard confirm {name}` or `slipway guard revert {name}`"
                raise GuardError(f"{what} {left}. Wait, or end it on the host: {ends}. Nothing was changed.")

    def confirm(self, txn: str = "") -> Record:
        """Make the armed change final; raises GuardError when there is none, or another one, CommandFailed when `then` fails."""
        disk.make_directories(self.folder, 0o700)
        with _locked(self.folder):
            record = self.record()
            if record is None or txn not in ("", record.txn):
                last = self.last()
                ended = f" The last one, {last['txn']}, was {last['outcome']}: {last['reason']}." if last else ""
                raise GuardError(f"no change {txn + ' ' if txn else ''}of {self.name} waits for a confirmation.{ended}")
            self._end(record, "confirmed", "confirmed", [])
        self.timer.disarm()
        for argv in record.then:
            self.runner.must(argv)
        return record

    def revert(
        self, txn: str = "", reason: str = "by hand", booting: bool = False, alone: bool = False
    ) -> Optional[dict[str, Any]]:
        """Put the old bytes back and make them effective; None when nothing is armed under this name (and `txn`).

        While the host boots nothing runs yet that would have to be told. `alone`: nobody sees it happen, so the next run says it.
        Raises GuardError when bytes could not be put back.
        """
        if not self.folder.is_dir():
            return None
        with _locked(self.folder):
            record = self.record()
            if record is None or txn not in ("", record.txn):
                return None
            faults = snapshot.restore(record.saved, self.folder / "saved")
            if faults:
                raise GuardError("; ".join(faults))
            last = self._end(record, "reverted", reason, self._make_effective(record, booting), alone)
        self.timer.disarm()
        return last

    def unheard(self, hear: bool) -> Optional[str]:
        """What nobody saw: that the last change took itself back. With `hear` it counts as said from now on."""
        last = self.last()
        if not last.get("unheard"):
            return None
        if hear:
            disk.atomic_write(self.folder / "last.json", json.dumps({**last, "unheard": False}, indent=1) + "\n", 0o600)
        ago = max(0.0, self.clock.now() - float(last["at"]))
        faults = "".join(f"; {fault}" for fault in last["faults"])
        return (
            f"{self.name}: change {last['txn']} by {last['owner'] or 'somebody'} took itself back {ago / 60:.0f} minutes ago, "
            f"{last['reason']}{faults}. This run begins with what was there before it."
        )

    def taken_back(self, txn: str, reason: str) -> None:
        """End the change `txn`, if it is armed: whoever armed it has put the old bytes back and made them effective."""
        if not self.folder.is_dir():
            return
        with _locked(self.folder):
            record = self.record()
            if record is None or record.txn != txn:
                return
            self._end(record, "reverted", reason, [])
        self.timer.disarm()

    def _make_effective(self, record: Record, booting: bool) -> list[str]:
        if booting:
            self.runner.run(["systemctl", "daemon-reload"], timeout=60)
            return []
        waiting = list(record.back)
        for attempt in range(TRIES):
            if attempt:
                self.clock.sleep(PAUSE)
            waiting = [argv for argv in waiting if not self.runner.run(argv, timeout=60).ok]
            if not waiting:
                break
        return [f"`{' '.join(argv)}` failed" for argv in waiting]

    def _end(self, record: Record, outcome: str, reason: str, faults: list[str], unheard: bool = False) -> dict[str, Any]:
        last = {
            **{key: value for key, value in asdict(replace(record, saved=())).items() if key in ("name", "txn", "owner")},
            "outcome": outcome,
            "reason": reason,
            "faults": faults,
            "unheard": unheard,
            "at": self.clock.now(),
            "paths": [item.path for item in record.saved],
        }
        disk.atomic_write(self.folder / "last.json", json.dumps(last, indent=1) + "\n", 0o600)
        disk.remove(self.folder / "record.json")  # from here on it has ended
        shutil.rmtree(self.folder / "saved", ignore_errors=True)
        return last


@dataclass(frozen=True)
class Arming:
    """How a change is to be armed. `program` brings what the timer runs, `seconds` is how long it waits for the confirmation."""

    guard: Guard
    program: Callable[[], object]
    seconds: float
    owner: str = ""
    txn: str = field(default_factory=lambda: os.urandom(4).hex())

    def carry(
        self,
        change: Callable[[], None],
        paths: Sequence[Path],
        back: Sequence[Sequence[str]],
        then: Sequence[Sequence[str]] = (),
    ) -> None:
        """Arm `paths`, then make the `change`; one that raises is taken back at once.

        Raises TakenBack, and before anything is changed what `Guard.arm` and `program` raise.
        """
        self.program()
        self.guard.arm(self.txn, paths, back, self.seconds, self.owner, then)
        try:
            change()
        except Exception as error:
            try:
                last = self.guard.revert(self.txn, f"not well on the host: {error}")
            except GuardError as fault:
                tried = f"not all of the old state is back: {fault}. Mend that; the host tries again in {self.seconds:.0f} s"
                raise TakenBack(f"{error}\n{tried}") from error
            faults = "; ".join(last["faults"]) if last else ""
            raise TakenBack(f"{error}\nThe old state is back" + (f", but {faults}." if faults else ".")) from error

    def waiting(self) -> dict[str, object]:
        """What the controller needs for the confirmation; empty when nothing waits."""
        record = self.guard.record()
        mine = record is not None and record.txn == self.txn
        return {"name": self.guard.name, "txn": self.txn, "seconds": self.seconds} if mine else {}


def tell(guard: Guard, warn: Callable[[str], object], hear: bool) -> None:
    """Warn of a change that took itself back while nobody looked; raises OSError."""
    text = guard.unheard(hear)
    if text:
        warn(text)


def names(folder: Path) -> list[str]:
    """Guards that `folder` knows of."""
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
