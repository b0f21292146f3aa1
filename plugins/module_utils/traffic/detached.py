# SPDX-License-Identifier: GPL-3.0-or-later
"""A cutover as a unit of its own on the host: whoever started it may go away, come back and follow it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Optional

from . import transient, under_way
from .config import App
from .cutover import Cutover
from .errors import Busy, SlipwayError
from .host import Host
from .layout import COMMAND
from .machine import CONTROLLER
from .progress import check_txn
from .run import Request

PATIENCE = 15.0
"""Seconds without news after which a follower gets an answer, so that it can tell a quiet run from a lost connection."""
PATIENCE_TOGETHER = 5.0
"""The same where other edges move, too: between two answers it hears whether one of them has refused the release."""
BATCH = 1.0
"""Seconds in which lines are gathered once there is one."""
LOOK = 0.2
ALIVE = 2.0
START_TRIES = 10


@dataclass(frozen=True)
class Followed:
    """News of a run: `lines` since the last call, where to go on, and how it ended once it has."""

    lines: Sequence[dict[str, object]]
    offset: int
    ended: bool
    facts: dict[str, object]


class Detached:
    """Cutovers of one application that run apart from who asked for them."""

    def __init__(self, host: Host, app: App) -> None:
        self.host = host
        self.app = app
        self.unit = under_way.unit(app.name)

    def running(self) -> Optional[str]:
        """The transaction that is under way, or None."""
        return under_way.running(self.host, self.app.name)

    def start(self, request: Request) -> None:
        """Begin `request`, or attach to it when it runs already; raises SlipwayError."""
        txn = check_txn(str(request.txn))
        other = self.running()
        if other == txn:
            return
        if other is not None:
            raise Busy(f"transaction {other} moves {self.app.name} on {self.app.host} right now. Wait for it to end.")
        if self.host.progress(self.app, txn).disk.read(self.host.progress(self.app, txn).outcome) is not None:
            last = self.host.journal(self.app).last()
            if last is not None and last.txn == txn and last.open and last.has("done hold"):
                return
        Cutover(self.host, self.app).refuse(request)
        progress = self.host.progress(self.app, txn)
        progress.forget()
        self.host.disk.write(progress.request, json.dumps(asdict(request)) + "\n", 0o600)
        origin = {CONTROLLER: self.host.machine.controller() or ""}
        argv = [
            *transient.options(self.unit, origin, [f"ExecStopPost={_when_killed(self.app.name)}"]),
            f"--description=Move {self.app.name} to {request.to}: {txn}",
            "--collect",
            "--quiet",
            COMMAND,
            "move",
            self.app.name,
            f"--txn={txn}",
        ]
        for _try in range(START_TRIES):
            started = self.host.runner.run(argv, timeout=30)
            if started.ok:
                return
            self.host.clock.sleep(0.5)
        raise SlipwayError(f"{self.app.host} could not start the move of {self.app.name}: {started.text()}")

    def run(self, txn: str) -> dict[str, object]:
        """What the unit does: the move that was asked for. Leaves its end for followers; raises SlipwayError."""
        progress = self.host.progress(self.app, txn)
        document = self.host.disk.document(progress.request)
        if document is None:
            raise SlipwayError(f"{progress.request} is missing: nothing was asked for under the name {txn}.")
        try:
            result = Cutover(self.host, self.app).switch(Request(**document))  # type: ignore[arg-type]
        except SlipwayError as error:
            progress.finish(None, error)
            raise
        except OSError as error:
            failed = SlipwayError(f"{self.app.host} failed while {self.app.name} moved: {error}")
            progress.finish(None, failed)
            raise failed from error
        progress.finish(result, None)
        return result

    def follow(self, txn: str, offset: int, patience: float = PATIENCE) -> Followed:
        """Wait for news of the run `txn`, at most `patience` seconds; raises SlipwayError when it ended badly or died."""
        progress, clock = self.host.progress(self.app, txn), self.host.clock
        until = clock.monotonic() + patience
        look_at_unit = clock.monotonic() + ALIVE
        dead = False
        while True:
            outcome = self.host.disk.document(progress.outcome)
            found, following = progress.lines(offset)
            lines = [line for line in found if line.get("text")]
            if outcome is not None:
                facts = outcome.get("facts")
                known = dict(facts) if isinstance(facts, dict) else {}
                if outcome.get("failed"):
                    raise SlipwayError(str(outcome.get("message")), {**known, "progress": lines})
                return Followed(lines, following, True, known)
            if dead:
                raise self._died(txn, lines)
            if lines:
                until = min(until, clock.monotonic() + BATCH)
            if clock.monotonic() >= until:
                return Followed(lines, following, False, {})
            if clock.monotonic() >= look_at_unit:
                look_at_unit = clock.monotonic() + ALIVE
                dead = self.running() != txn  # it may have ended well since: look once more before saying so
            else:
                clock.sleep(LOOK)

    def _died(self, txn: str, lines: Sequence[dict[str, object]]) -> SlipwayError:
        last = self.host.journal(self.app).last()
        active = self.host.flags(self.app).active()
        text = f"the run of transaction {txn} on {self.app.host} died before it could tell how it ended. "
        if last is not None and last.txn == txn and last.open and last.has("intent arm"):
            text += f"Its dead man brings the traffic of {self.app.name} back to {last.source} at its deadline. "
        text += f"Traffic is on {active} now. Look: slipway status {self.app.name}; journalctl -u {self.unit}."
        return SlipwayError(text, {"outcome": "died", "txn": txn, "active": active, "progress": list(lines)})


def _when_killed(app: str) -> str:
    """What systemd runs once the run has ended: recovery, unless it ended by itself, which it tells, or was stopped in peace."""
    return f'/bin/sh -c "case $$SERVICE_RESULT in success|exit-code) ;; *) exec {COMMAND} recover {app} ;; esac"'
