# SPDX-License-Identifier: GPL-3.0-or-later
"""The states of a cutover: how a lane is brought into each, and what is still to be done from there.

A state that lasts only a moment is made long enough to be hit by a hook that sleeps in it. LOCKED, GATED, DRAINING and RETIRED
are not those of the run on an edge: what deploy.yml does around it is done here by the agent, with the same library.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.fleet.shell import FleetError
from tests.path.lane import DEADLINE, Lane, other

STATES = (
    "LOCKED", "GATED", "PLANNED", "STAGED", "HEALTHY", "CANARY", "SWITCHED", "BAKING", "HOLD", "CONFIRM", "DRAINING", "RETIRED",
    "ROLLING_BACK",
)  # fmt: skip
"""As deploy.yml goes through them: migrations are applied before an edge begins to move."""
FIRST = ("LOCKED", "GATED")
LAST = ("DRAINING", "RETIRED")
HELD = ("HOLD", "CONFIRM", *LAST)
SLOW = [{"command": "sleep 1.2"}]
# Nothing follows these: a busy machine needs the time to look and to hit.
LAST_WORDS = [{"command": "sleep 4"}]
HOOKS: dict[str, Any] = {
    "PLANNED": {"planned": SLOW},
    "HEALTHY": {"healthy": SLOW},
    "SWITCHED": {"switched": [{**SLOW[0], "on_failure": "warn"}]},
    "RETIRED": {"retired": LAST_WORDS},
    "ROLLING_BACK": {"baking": [{"command": "false"}], "rolling_back": LAST_WORDS},
}
PATIENCE = 30.0
CANARY_DEADLINE = 1.5 + 30.0
"""Until the dead man takes a canary back: its patience, and the grace of run.py."""
RECOVERY = 4.0
"""Seconds that a busy machine may need on top: to start the dead man, to ask the old slot, to ask again."""


def deadline(state: str) -> float:
    """Seconds within which a fault in `state` is taken back."""
    return (CANARY_DEADLINE if state in ("PLANNED", "STAGED", "HEALTHY", "CANARY") else DEADLINE) + RECOVERY


@dataclass
class Move:
    """One move of a lane; `mend` ends the fault, `full` when that is a full disk. `session`: it is followed over SSH."""

    lane: Lane
    target: str
    release: str
    txn: str
    state: str
    session: bool = False
    full: bool = False
    mend: Callable[[], None] = lambda: None
    tried: bool = False
    follower: subprocess.Popen[str] | None = None
    held: list[socket.socket] = field(default_factory=list)

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """In the state, until the block ends."""
        try:
            self._reach()
            yield
        finally:
            for link in self.held:
                link.close()
            if self.follower is not None:
                self.follower.kill()
                self.follower.wait()

    def _reach(self) -> None:
        state, lane = self.state, self.lane
        if state in FIRST:
            lane.agent("lease", txn=self.txn, ttl=600)
            if state == "GATED":
                self._migrating()
            return
        if state in LAST:
            self.held.append(lane.websocket())
        self.begin(HOOKS.get(state, {}))
        if self.session and state not in LAST:
            self.follower = lane.session("follow", txn=self.txn)
        wanted = "ended" if state in HELD else state
        reached = lane.agent("reached", txn=self.txn, state=wanted)["reached"]
        assert reached == wanted, f"reached {reached} instead of {state}: {lane.agent('look')}"
        if state in LAST:
            self._draining()
        time.sleep(0.3)

    def begin(self, hooks: dict[str, Any], migrated: str = "none") -> None:
        """Ask for the move; on a full disk that is refused, then there is made room."""
        asked = {"to": self.target, "release": self.release, "txn": self.txn, "hooks": hooks, "migrated": migrated}
        self._insist("begin", asked)

    def _insist(self, verb: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Ask until it is not refused any more, while somebody else is at work or the disk is full."""
        until = time.time() + PATIENCE
        while True:
            said = self.lane.agent(verb, **asked)
            if not said["refused"]:
                return said
            if self.full and "o space left" in said["refused"]:
                self.full = False
                self.mend()
            elif said["kind"] != "Busy" or time.time() > until:
                raise FleetError(f"{verb} was refused: {said}")
            else:
                time.sleep(0.3)

    def _migrating(self) -> None:
        lane = self.lane
        lane.shell(f"rm -f /var/lib/{lane.app}/migrated")
        begin = lane.session if self.session else lane.behind
        self.follower = begin("migrate", to=self.target, release=self.release, txn=self.txn)
        unit = f"slipway-{lane.app}-migrate-{self.txn}.service"
        lane.shell(f"for try in $(seq 100); do systemctl is-active {unit} | grep -q ing && exit 0; sleep 0.05; done; exit 1")
        time.sleep(0.3)

    def _draining(self) -> None:
        lane, left = self.lane, other(self.target)
        self.confirm()
        lane.agent("drain", slot=left)
        if self.session:
            self.follower = lane.session("attend", slot=left)
        self._wait(lambda: self._end() in ("stopped", "draining" if self.state == "DRAINING" else "stopped"), self.state)

    def _end(self) -> str:
        return str(self.lane.agent("retiring", slot=other(self.target))["state"])

    def _wait(self, found: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        until = time.time() + seconds
        while not found():
            if time.time() > until:
                raise FleetError(f"not within {seconds:g} s: {what}, {self.lane.agent('look')}")
            time.sleep(0.2)

    def confirm(self, twice: bool = False) -> str:
        """Confirm it once; what was said."""
        self.tried = True
        return " ".join(self.lane.agent("confirm", txn=self.txn, twice=twice)["said"])

    def settle(self, since: float) -> dict[str, Any]:
        """All that is still to be done, until nothing is open any more; what is so then."""
        if self.state == "GATED":
            self._insist("migrate", {"to": self.target, "release": self.release, "txn": self.txn})
            times = self.lane.shell(f"wc -l </var/lib/{self.lane.app}/migrated").strip()
            assert times == "1", f"the migrations ran {times} times"
        if self.state in FIRST:
            self.begin({}, "expand" if self.state == "GATED" else "none")
        if self.state in LAST:
            self._ended()
        found = self._settled(since)
        if self.state in FIRST:
            self.lane.shell(f"slipway unlock {self.lane.app}")
        return found

    def _ended(self) -> None:
        """The slot that was left has stopped and nobody is at it any more; on a full disk, once there is room."""
        if self.full:
            time.sleep(3)
            self.mend()
        left = {"slot": other(self.target)}
        done = {"state": "stopped", "busy": False}
        self._wait(lambda: self.lane.agent("retiring", **left) == done, f"{left} {done}")

    def _settled(self, since: float) -> dict[str, Any]:
        """Nothing is open: a switch that is held is confirmed once.

        On a full disk no end can be written: there is made room once traffic is back and the dead man has gone.
        """
        until = max(since, time.time() if self.state in FIRST else since) + PATIENCE + deadline(self.state)
        while time.time() < until:
            found = self.lane.agent("look")
            if not found["running"] and found["transaction"] is None and not found["armed"]:
                return found
            if not found["running"] and found["transaction"] is not None:
                if found["held"] and not self.tried:
                    self.confirm()
                    continue
                if self.full and not found["armed"] and 100 in found["shares"].values():
                    self.full = False
                    self.mend()
                    self.lane.shell(f"slipway recover {self.lane.app}")
                    continue
            time.sleep(0.3)
        raise FleetError(f"still open: {self.lane.agent('look')}")
