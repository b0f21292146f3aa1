# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time: a kernel lock for a running operation, a lease on disk for a play of several tasks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..host.clock import Clock
from .disk import Disk
from .errors import Busy
from .journal import Deadline
from .machine import Machine

SCHEMA = 1


@dataclass(frozen=True)
class Lease:
    """Who may change traffic. `process` is (pid, start time) while one process owns it, None for a play."""

    txn: str
    owner: str
    created: float
    expires: Deadline
    process: Optional[tuple[int, str]] = None
    release: Optional[str] = None

    def text(self) -> str:
        """As kept on disk."""
        document = {
            "schema": SCHEMA,
            "txn": self.txn,
            "owner": self.owner,
            "created_at": round(self.created, 3),
            "expires_at": round(self.expires.wall, 3),
            "expires_since_boot": round(self.expires.since_boot, 3),
            "boot_id": self.expires.boot_id,
            "pid": self.process[0] if self.process else None,
            "pid_start": self.process[1] if self.process else None,
            "release": self.release,
        }
        return json.dumps(document, indent=1, sort_keys=True) + "\n"


class Leases:
    """The lease of one application. Call only while holding its lock."""

    def __init__(self, disk: Disk, clock: Clock, machine: Machine, path: Path) -> None:
        self.disk = disk
        self.clock = clock
        self.machine = machine
        self.path = path

    def read(self) -> Optional[Lease]:
        """The lease on disk, live or stale; an unreadable one counts as none."""
        try:
            document = json.loads(self.disk.read(self.path) or "null")
            pid, start = document["pid"], document["pid_start"]
            return Lease(
                str(document["txn"]),
                str(document["owner"]),
                float(document["created_at"]),
                Deadline(float(document["expires_at"]), float(document["expires_since_boot"]), str(document["boot_id"])),
                (int(pid), str(start)) if pid is not None else None,
                document.get("release"),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def stale(self, lease: Lease) -> Optional[str]:
        """Why `lease` binds nobody any more, or None when it does."""
        now = self.machine.moment(self.clock)
        if lease.expires.boot_id != now.boot_id:
            return "the host was restarted since"
        if lease.expires.left(now) <= 0:
            return "it has expired"
        if lease.process is not None and self.machine.start_time(lease.process[0]) != lease.process[1]:
            return f"its process {lease.process[0]} is gone"
        return None

    def holder(self) -> Optional[Lease]:
        """The lease that binds now, or None."""
        lease = self.read()
        return lease if lease is not None and self.stale(lease) is None else None

    def check(self, txn: Optional[str]) -> None:
        """Raises Busy when somebody else's lease binds."""
        lease = self.holder()
        if lease is not None and lease.txn != txn:
            raise Busy(self.refusal(lease), {"holder": self.describe(lease)})

    def refusal(self, lease: Lease) -> str:
        """Why `lease` stands in the way, and what to do."""
        left = lease.expires.left(self.machine.moment(self.clock))
        return (
            f"{lease.owner} holds the lease of {self.path.parent.name} (transaction {lease.txn}) for another {left:.0f} s. "
            "Wait for it, or, when that run is known to be dead, release it: "
            f"slipway unlock {self.path.parent.name}."
        )

    def describe(self, lease: Lease) -> dict[str, object]:
        """For results."""
        left = lease.expires.left(self.machine.moment(self.clock))
        return {
            "txn": lease.txn,
            "owner": lease.owner,
            "release": lease.release,
            "expires_in": round(left),
            "stale": self.stale(lease),
        }

    def acquire(
        self, txn: str, owner: str, ttl: float, own_process: bool = False, release: Optional[str] = None
    ) -> tuple[Lease, Optional[Lease]]:
        """Take or prolong the lease for `txn` by `ttl` seconds; also the stale one that was taken over, if any.

        Raises Busy when somebody else's lease binds.
        """
        self.check(txn)
        old = self.read()
        pid = self.machine.pid()
        process = (pid, str(self.machine.start_time(pid))) if own_process else None
        created = old.created if old is not None and old.txn == txn else self.clock.now()
        lease = Lease(txn, owner, created, self.machine.moment(self.clock, ttl), process, release)
        if old is None and self.disk.read(self.path) is None:
            if not self.disk.create_exclusive(self.path, lease.text()):
                raise Busy(f"{self.path} appeared this moment: somebody else took the lease. Try again.")
            return lease, None
        self.disk.write(self.path, lease.text())
        return lease, old if old is not None and old.txn != txn else None

    def release(self, txn: str) -> bool:
        """Give the lease of `txn` back; False when it is not that transaction's."""
        lease = self.read()
        return lease is not None and lease.txn == txn and self.disk.remove(self.path)


@dataclass(frozen=True)
class Change:
    """What `change` did, or would do: descriptions of the lease before and after, and of one that had to give way."""

    changed: bool
    before: Optional[dict[str, object]]
    after: Optional[dict[str, object]]
    taken_over: Optional[dict[str, object]]


def change(
    leases: Leases, txn: str, owner: str, ttl: Optional[float], force: bool, write: bool, release: Optional[str] = None
) -> Change:
    """Take or prolong the lease for `ttl` seconds, or with None give it back.

    Raises Busy when somebody else's binds, unless `force`. With `write` false nothing is touched.
    """
    old = leases.read()
    before = leases.describe(old) if old is not None else None
    foreign = before if old is not None and old.txn != txn else None
    if ttl is None:
        mine = old is not None and (old.txn == txn or force)
        if write and mine and old is not None:
            leases.release(old.txn)
        return Change(mine, before, None if mine else before, foreign if mine else None)
    if not force:
        leases.check(txn)
    if not write:
        return Change(foreign is not None or old is None, before, {"txn": txn, "owner": owner}, foreign)
    if foreign is not None and old is not None and force:
        leases.release(old.txn)
    lease, _stale = leases.acquire(txn, owner, ttl, release=release)
    return Change(foreign is not None or old is None, before, leases.describe(lease), foreign)


class Lock:
    """A lock that the kernel frees when its holder dies."""

    def __init__(self, path: Path, clock: Clock, machine: Machine) -> None:
        self.path = path
        self.clock = clock
        self.machine = machine

    def holder(self) -> str:
        """What the holder wrote about itself."""
        try:
            text = self.path.read_text(encoding="utf-8").strip()
        except OSError:
            text = ""
        return text or "another process"

    @contextlib.contextmanager
    def held(self, what: str, wait: float = 0.0, insist: bool = True) -> Iterator[bool]:
        """Hold the lock, saying `what` for; wait at most `wait` seconds for it.

        Raises Busy when it stays taken; with `insist` false goes on without it and yields False.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            locked = self._take(descriptor, wait)
            if not locked and insist:
                raise Busy(f"{self.holder()} is at work on this application. Wait for it to end.", {"holder": self.holder()})
            if locked:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{what} (process {self.machine.pid()})\n".encode(), 0)
            yield locked
        finally:
            os.close(descriptor)

    def taken(self) -> bool:
        """True while somebody holds it."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not self._take(descriptor, 0.0)
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int, wait: float) -> bool:
        until = self.clock.monotonic() + wait
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if self.clock.monotonic() >= until:
                return False
            self.clock.sleep(0.02)
