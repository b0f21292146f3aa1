# SPDX-License-Identifier: GPL-3.0-or-later
"""The flag files that decide which slot gets traffic.

These files lie in the directory of an application, and nginx tests them for each request:

`<slot>`          all traffic goes to the last slot of `slot_order` that has this flag; the first slot needs none.
`<slot>.<01-20>`  a canary: requests of this bucket, a twentieth of all, go to `slot` whatever the flag above says.
`off.<slot>`      the first flag, put aside: taking traffic back must not need space on a disk that is full.
`canary.on`       while there is a canary: nginx hands out the cookie that keeps a browser in its bucket.
`spare.<slot>`    the slot is warm and proven: a request that the slot in charge does not take up is sent there once more.

Every state of the directory has exactly one meaning, and a move is a list of single operations each of which leaves either
the old or the new slot in charge of any request.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..host.clock import Clock
from .disk import Disk

# nginx tests the flags one after the other. When a lower flag is made before a higher one goes away, a request that
# looked for the lower one too early and for the higher one too late would see neither; this pause lies between the two.
PAUSE = 0.05
BUCKETS = 20
SHARE = 100 // BUCKETS
"""Percent of all requests in one bucket."""
BUCKET = re.compile(r"(?P<slot>.+)\.(?P<number>[0-9]{2})")
SPARE = "spare."
STICKY = "canary.on"
ASIDE = "off."


@dataclass(frozen=True)
class Operation:
    """Create or remove one flag; the one that moves all traffic is `decisive`, `pause` comes before it."""

    create: bool
    flag: str
    decisive: bool = False
    pause: bool = False

    def __str__(self) -> str:
        return f"{'create' if self.create else 'remove'} flag {self.flag}"


def active(order: Sequence[str], present: Collection[str]) -> str:
    """The slot that gets traffic when the flags `present` exist, canaries aside; names outside `order[1:]` do not count."""
    return next((slot for slot in reversed(order[1:]) if slot in present), order[0])


def bucket(slot: str, number: int) -> str:
    """The flag that sends bucket `number`, from 1, to `slot`."""
    return f"{slot}.{number:02d}"


def buckets(order: Sequence[str], present: Collection[str]) -> dict[str, list[str]]:
    """The canary flags among `present` by slot, lowest bucket first."""
    found: dict[str, list[str]] = {}
    for name in sorted(present):
        match = BUCKET.fullmatch(name)
        if match and match["slot"] in order and 1 <= int(match["number"]) <= BUCKETS:
            found.setdefault(match["slot"], []).append(name)
    return found


def spares(order: Sequence[str], present: Collection[str]) -> list[str]:
    """The slots that stand in for another, in the order in which nginx looks: the last one does."""
    return [slot for slot in order if SPARE + slot in present]


def shares(order: Sequence[str], present: Collection[str]) -> dict[str, int]:
    """Percent of the traffic of each slot that gets any. A bucket that several slots claim goes to the last of `order`."""
    main = active(order, present)
    owner = dict.fromkeys(range(1, BUCKETS + 1), main)
    claims = buckets(order, present)
    for slot in order:
        owner.update({int(name[-2:]): slot for name in claims.get(slot, ())})
    counted = [slot for slot in order if slot in owner.values()]
    return {slot: sum(SHARE for each in owner.values() if each == slot) for slot in counted}


def plan(order: Sequence[str], present: Collection[str], target: str, spare: Optional[str] = None) -> list[Operation]:
    """Operations from the flags `present` to all traffic on `target`, `spare` standing in, and no other flag of the order.

    Each prefix of the list leaves every request with a slot that had traffic before or with `target`, and exactly one
    operation is decisive, unless `target` has all traffic already: then none is.
    """
    if target not in order:
        raise ValueError(f"{target} is not one of {', '.join(order)}")
    here, there = order.index(active(order, present)), order.index(target)
    flags = {slot for slot in order[1:] if slot in present}
    canaries = buckets(order, present)
    own = canaries.pop(target, [])
    foreign = [name for names in canaries.values() for name in reversed(names)]
    operations = [Operation(False, SPARE + slot) for slot in spares(order, present) if slot != spare]
    if spare is not None and spare != target and SPARE + spare not in present:
        operations.append(Operation(True, SPARE + spare))
    if there > here:
        operations += [Operation(False, name) for name in foreign]
        operations.append(Operation(True, target, decisive=True))
    elif there < here:
        operations += [Operation(False, name) for name in foreign]
        made = there > 0 and target not in flags
        operations += [Operation(True, target)] if made else []
        between = [slot for slot in order[there + 1 : here] if slot in flags]
        operations += [Operation(False, slot) for slot in between]
        operations.append(Operation(False, order[here], decisive=True, pause=made or bool(between)))
        flags -= {*between, order[here]}
    else:
        operations += [Operation(False, name, decisive=name == foreign[-1]) for name in foreign]
    operations += [Operation(False, slot) for slot in order[1:] if slot in flags and slot != target]
    operations += [Operation(False, name, pause=here != there and name == own[0]) for name in own]
    return operations + ([Operation(False, STICKY)] if STICKY in present else [])


def plan_canary(
    order: Sequence[str], present: Collection[str], target: str, percent: int, spare: Optional[str]
) -> list[Operation]:
    """Operations to `percent` (in steps of SHARE) of the traffic on `target`, none on other canaries, `spare` standing in."""
    if target not in order:
        raise ValueError(f"{target} is not one of {', '.join(order)}")
    wanted = [bucket(target, number) for number in range(1, percent // SHARE + 1)]
    canaries = buckets(order, present)
    surplus = [name for names in canaries.values() for name in reversed(names) if name not in wanted]
    operations = [Operation(False, SPARE + slot) for slot in spares(order, present) if slot != spare]
    if spare is not None and SPARE + spare not in present:
        operations.append(Operation(True, SPARE + spare))
    operations += [Operation(True, STICKY)] if wanted and STICKY not in present else []
    operations += [Operation(False, name) for name in surplus]
    operations += [Operation(True, name) for name in wanted if name not in present]
    return operations + ([Operation(False, STICKY)] if STICKY in present and not wanted else [])


@dataclass(frozen=True)
class SwitchTimes:
    """Milliseconds: the one operation that moved traffic, and that with its fsync."""

    switch_ms: float
    durable_ms: float


class Flags:
    """The flag directory of one application."""

    def __init__(self, disk: Disk, clock: Clock, directory: Path, order: Sequence[str]) -> None:
        self.disk = disk
        self.clock = clock
        self.directory = directory
        self.order = tuple(order)

    def present(self) -> list[str]:
        """Names of all files in the directory, except what is put aside."""
        return [name for name in self.disk.names(self.directory) if not name.startswith(ASIDE)]

    def unknown(self) -> list[str]:
        """Files that nginx does not test."""
        present = self.present()
        known = {STICKY, *self.order[1:], *(SPARE + slot for slot in self.order)}
        known.update(name for names in buckets(self.order, present).values() for name in names)
        return [name for name in present if name not in known]

    def active(self) -> str:
        """The slot that gets traffic, canaries aside."""
        return active(self.order, self.present())

    def shares(self) -> dict[str, int]:
        """Percent of the traffic by slot."""
        return shares(self.order, self.present())

    def share(self, slot: str) -> int:
        """Percent of the traffic that `slot` gets."""
        return self.shares().get(slot, 0)

    def spare(self) -> Optional[str]:
        """The slot that stands in."""
        return next(iter(reversed(spares(self.order, self.present()))), None)

    def plan(self, target: str, spare: Optional[str] = None) -> list[Operation]:
        """What `switch` would do now."""
        return plan(self.order, self.present(), target, spare)

    def switch(self, target: str, spare: Optional[str] = None) -> SwitchTimes:
        """Move all traffic to `target`, durably; does nothing when it is there and no other flag exists."""
        return self._apply(self.plan(target, spare))

    def canary(self, target: str, percent: int, spare: Optional[str] = None) -> None:
        """Move `percent` of the traffic to `target`, durably."""
        self._apply(plan_canary(self.order, self.present(), target, percent, spare))

    def _apply(self, operations: Sequence[Operation]) -> SwitchTimes:
        self.disk.open_up(self.directory)
        moved = durable = 0.0
        for index, operation in enumerate(operations):
            if operation.pause:
                self.clock.sleep(PAUSE)
            path = self.directory / operation.flag
            begun = time.perf_counter()
            aside = self.directory / (ASIDE + operation.flag) if operation.flag in self.order else None
            if operation.create:
                self.disk.create_flag(path, aside)
            else:
                self.disk.remove_flag(path, aside)
            done = time.perf_counter()
            following = operations[index + 1 : index + 2]
            if operation.decisive or not following or following[0].decisive or following[0].pause:
                self.disk.settle(self.directory)
            if operation.decisive:
                moved, durable = done - begun, time.perf_counter() - begun
        return SwitchTimes(round(moved * 1000, 3), round(durable * 1000, 3))
