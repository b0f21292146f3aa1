# SPDX-License-Identifier: GPL-3.0-or-later
"""The flag files that decide which slot gets traffic.

nginx tests one file per slot in the order of `slot_order` and takes the last that exists; the first slot of the order
has no flag and gets traffic when there is none. So every state of the directory has exactly one meaning, and a switch is
a list of single operations each of which leaves either the old or the new slot in charge.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..host.clock import Clock
from .disk import Disk

# nginx tests the flags one after the other. When a lower flag is made before a higher one goes away, a request that
# looked for the lower one too early and for the higher one too late would see neither; this pause lies between the two.
PAUSE = 0.05


@dataclass(frozen=True)
class Operation:
    """Create or remove the flag of `slot`; the one that moves traffic is `decisive`."""

    create: bool
    slot: str
    decisive: bool = False

    def __str__(self) -> str:
        return f"{'create' if self.create else 'remove'} flag {self.slot}"


def active(order: Sequence[str], present: Collection[str]) -> str:
    """The slot that gets traffic when the flags `present` exist; names outside `order[1:]` do not count."""
    return next((slot for slot in reversed(order[1:]) if slot in present), order[0])


def plan(order: Sequence[str], present: Collection[str], target: str) -> list[Operation]:
    """Operations from the flags `present` to traffic on `target` and no other flag of the order.

    Every prefix of the list leaves the present or the target slot active, and exactly one operation is decisive, unless
    `target` is active already: then none is.
    """
    if target not in order:
        raise ValueError(f"{target} is not one of {', '.join(order)}")
    here, there = order.index(active(order, present)), order.index(target)
    flags = {slot for slot in order[1:] if slot in present}
    operations: list[Operation] = []
    if there > here:
        operations.append(Operation(True, target, decisive=True))
    elif there < here:
        if there > 0 and target not in flags:
            operations.append(Operation(True, target))
        between = [slot for slot in order[there + 1 : here] if slot in flags]
        operations.extend(Operation(False, slot) for slot in between)
        operations.append(Operation(False, order[here], decisive=True))
        flags -= {*between, order[here]}
    operations.extend(Operation(False, slot) for slot in order[1:] if slot in flags and slot != target)
    return operations


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
        """Names of all files in the directory."""
        return self.disk.names(self.directory)

    def unknown(self) -> list[str]:
        """Files that nginx does not test."""
        return [name for name in self.present() if name not in self.order[1:]]

    def active(self) -> str:
        """The slot that gets traffic."""
        return active(self.order, self.present())

    def plan(self, target: str) -> list[Operation]:
        """What `switch` would do now."""
        return plan(self.order, self.present(), target)

    def switch(self, target: str) -> SwitchTimes:
        """Move traffic to `target`, durably; does nothing when it is there and no other flag exists."""
        self.disk.make_directories(self.directory)
        moved = durable = 0.0
        operations = self.plan(target)
        for index, operation in enumerate(operations):
            if operation.decisive and index > 0:
                self.clock.sleep(PAUSE)
            path = self.directory / operation.slot
            begun = time.perf_counter()
            if operation.create:
                self.disk.create_flag(path)
            else:
                self.disk.remove_flag(path)
            done = time.perf_counter()
            self.disk.settle(self.directory)
            if operation.decisive:
                moved, durable = done - begun, time.perf_counter() - begun
        return SwitchTimes(round(moved * 1000, 3), round(durable * 1000, 3))
