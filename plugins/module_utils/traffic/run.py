# SPDX-License-Identifier: GPL-3.0-or-later
"""One cutover under way: gate, dead man, canary, flag, proof through nginx, bake; from its first line to `hold`."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, replace
from typing import Optional

from ..guard.deadman import ArmingFailed
from ..health import gate as gates
from ..health.gate import GateReport
from . import course, moves, slots
from .config import App
from .errors import SlipwayError
from .host import Host
from .journal import Transaction
from .jury import Jury
from .watch import SOON, Watch

GRACE = 30.0
"""Seconds that a step of a canary may be late before its dead man takes it back."""
CHANGED = {
    "none": "the database was not changed",
    "expand": "the database was changed so that the former release can go on with it",
    "contract": "the database was changed so that the former release cannot go on with it: there is no way back",
}


@dataclass(frozen=True)
class Request:
    """What is asked for. `txn` of None makes a new one.

    `migrations` are what the release did to the database: `none`, `expand`, or `contract`, after which the old release cannot
    serve any more and nothing is taken back by itself. `wait`: seconds that other edges may need before this one is confirmed.
    """

    to: str
    release: Optional[str] = None
    txn: Optional[str] = None
    owner: str = "slipway"
    force: bool = False
    migrations: str = "none"
    wait: float = 0.0

    @property
    def one_way(self) -> bool:
        """True when there is no way back."""
        return self.migrations == "contract"


@dataclass(frozen=True)
class Trouble:
    """Why traffic must go back, and whether that is the release's fault."""

    why: str
    guilty: bool


def first_deadline(app: App) -> float:
    """Seconds after which the dead man takes back what has not come further."""
    return app.canary.patience + GRACE if app.canary.steps else app.confirm_deadline


def result(tx: Transaction, outcome: str, changed: bool) -> dict[str, object]:
    """What a run says of its transaction."""
    facts = {key: tx.facts.get(key) for key in ("switch_ms", "durable_ms", "verified_ms")}
    return {
        "changed": changed,
        "outcome": outcome,
        "txn": tx.txn,
        "from": tx.source,
        "to": tx.target,
        "release": tx.release,
        **facts,
    }


class Run:
    """What happens to one application's traffic on this edge after a cutover has begun. To be called with the lock."""

    def __init__(self, host: Host, app: App) -> None:
        self.host = host
        self.app = app
        self.flags = host.flags(app)
        self.journal = host.journal(app)
        self.records = host.records(app.name)

    def begin(self, request: Request) -> Transaction:
        """Write that it is meant, with a lease where nobody has one."""
        host, app = self.host, self.app
        txn = request.txn or uuid.uuid4().hex[:12]
        leases = host.leases(app.name)
        own = leases.holder() is None
        if own:
            ttl = app.slot(request.to).gate.rules.deadline + app.confirm_deadline + 60
            _lease, stale = leases.acquire(txn, request.owner, ttl, release=request.release)
            if stale is not None:
                self.records.remember("lease_taken_over", txn=txn, owner=request.owner, before=leases.describe(stale))
        # One who was to go at the end of a run that was killed there must not wake up in this one.
        host.end_deadman(app.name)
        self.journal.rotate()
        self.journal.write(
            txn,
            "intent",
            "begin",
            kind="cutover",
            source=self.flags.active(),
            target=request.to,
            release=request.release,
            owner=request.owner,
            own_lease=own,
            forced=request.force,
            migrations=request.migrations,
            rollback_allowed=not request.one_way,
            wait=request.wait,
        )
        tx = moves.current(host, app, txn)
        host.progress(app, txn).prune()
        text = f"{request.release or 'what runs there'} in {tx.target} takes over from {tx.source}, asked for by {tx.owner}"
        facts = {"txn": txn, "app": app.name, "source": tx.source, "target": tx.target, "release": tx.release, "owner": tx.owner}
        self._tell(tx, "PLANNED", text, share=0, log=course.begin(host, app), **facts)
        return tx

    def _tell(self, tx: Transaction, state: str, text: str, **facts: object) -> None:
        """Progress and hooks; raises SlipwayError, after taking traffic back, when a hook aborts."""
        try:
            moves.tell(self.host, self.app, tx, state, text, facts)
        except SlipwayError as error:
            raise self.back(tx, str(error).rstrip("."), False) from error

    def gate(self, tx: Transaction) -> GateReport:
        """Ask the target until it is well; raises SlipwayError, with the transaction ended, when it is not in time."""
        slot = self.app.slot(tx.target)
        progress = self.host.progress(self.app, tx.txn)
        self._tell(tx, "STAGED", f"{tx.target} is asked until it is well, within {slot.gate.rules.deadline:g} s")
        report = gates.run(
            self.host.sensors.members(slot, tx.release),
            slot.gate.rules,
            self.host.clock,
            slots.watch(self.host, self.app, slot).died,
            told=lambda line: progress.say("STAGED", f"gate of {tx.target}: {line}"),
        )
        if not report.healthy:
            moves.end(self.host, self.app, tx, "aborted", report.reason)
            answers = "\n  ".join(report.lines())
            raise SlipwayError(
                f"{self.app.name} stays on {tx.source}: {tx.target} did not pass the gate from {self.app.host}, "
                f"{report.reason}. Last answers:\n  {answers}",
                {"outcome": "aborted", "txn": tx.txn, "from": tx.source, "to": tx.target, "gate": report.as_dict()},
            )
        self.journal.write(tx.txn, "done", "gate", seconds=round(report.seconds, 2))
        self._tell(tx, "HEALTHY", f"{tx.target} passed the gate: {report.reason}", gate=report.as_dict())
        return report

    def move(self, tx: Transaction, jury: Jury, report: GateReport) -> dict[str, object]:
        """From the gate to the moved flag, step by step when the application wants that."""
        app = self.app
        self._mine(tx, 0)
        self._tell(tx, "GATED", CHANGED.get(str(tx.facts.get("migrations")), CHANGED["none"]))
        spare = moves.spare(app, tx)
        steps = app.canary.steps if tx.rollback_allowed else ()
        if tx.rollback_allowed:
            self._arm(tx)
        for number, percent in enumerate(steps, start=1):
            title = f"canary {number}/{len(steps)} at {percent} %"
            self._deadline(tx, "canary", app.canary.patience + GRACE, share=percent)
            self.flags.canary(tx.target, percent, spare)
            self.journal.write(tx.txn, "done", "canary", share=percent)
            self._tell(tx, "CANARY", title, share=percent)
            trouble = self._attend(tx, jury, "CANARY", title, percent, app.canary.dwell, app.canary.patience)
            if trouble is not None:
                raise self.back(tx, f"in {title}, {trouble.why}", trouble.guilty)
        self._deadline(tx, "switch", app.confirm_deadline + float(str(tx.facts.get("wait", 0))), before=self.flags.present())
        times = self.flags.switch(tx.target, spare)
        self.journal.write(tx.txn, "done", "switch", **asdict(times))
        self._tell(tx, "SWITCHED", f"all traffic on {tx.target}, moved in {times.switch_ms:g} ms", share=100, **asdict(times))
        return self.prove(tx, jury, report, asdict(times))

    def _arm(self, tx: Transaction) -> None:
        """The dead man, before the first request moves; raises SlipwayError when there can be none."""
        host, app = self.host, self.app
        seconds = first_deadline(self.app)
        self._deadline(tx, "arm", seconds)
        try:
            # He wakes in time for the earliest deadline that a later step may have, and then waits for the one that is written.
            host.arm_deadman(app.name, min(seconds, app.confirm_deadline))
        except ArmingFailed as error:
            moves.end(host, app, tx, "aborted", str(error))
            raise SlipwayError(f"{app.name} stays on {tx.source}: without a dead man no traffic moves. {error}") from error

    def _deadline(self, tx: Transaction, step: str, seconds: float, **facts: object) -> None:
        """Write that `step` is meant, and until when it may last. The dead man reads this before he takes anything back."""
        host = self.host
        moment = host.machine.moment(host.clock, seconds)
        self.journal.write(tx.txn, "intent", step, deadline=asdict(moment), **facts)
        leases = host.leases(self.app.name)
        holder = leases.holder()
        if holder is not None and holder.txn == tx.txn and holder.expires.left(host.machine.moment(host.clock)) < seconds + GRACE:
            leases.acquire(tx.txn, holder.owner, seconds + GRACE, release=tx.release)

    def prove(self, tx: Transaction, jury: Jury, report: Optional[GateReport], times: dict[str, float]) -> dict[str, object]:
        """From the moved flag to `hold`; also entered again by a second run of the same transaction."""
        host, app = self.host, self.app
        try:
            proof = moves.verify(host, app, tx.target, tx.release)
            if not proof.ok:
                sick = moves.well_now(host.sensors.members(app.slot(tx.target), tx.release))
                raise self.back(tx, f"through nginx, {proof.detail}", sick is not None)
            self.journal.write(tx.txn, "done", "verify", verified_ms=proof.all_ms)
            title = f"all traffic, watched for {app.bake:g} s"
            self._tell(tx, "BAKING", f"{tx.target} answers through nginx after {proof.first_ms:g} ms; {title}", share=100)
            trouble = self._attend(tx, jury, "BAKING", title, 100, app.bake, app.bake)
            if trouble is not None:
                raise self.back(tx, f"while it was watched for {app.bake:g} s, {trouble.why}", trouble.guilty)
            self.journal.write(tx.txn, "done", "hold")
        except OSError as error:
            raise self.back(tx, f"the disk failed: {error}", False) from error
        return {
            **result(moves.current(host, app, tx.txn), "switched", True),
            **times,
            "first_ms": proof.first_ms,
            "verified_ms": proof.all_ms,
            "gate": report.as_dict() if report is not None else None,
            "attempts": report.rounds if report is not None else 0,
            "verdicts": jury.verdicts,
            "rollback_allowed": tx.rollback_allowed,
        }

    def _attend(
        self, tx: Transaction, jury: Jury, state: str, title: str, share: int, least: float, most: float
    ) -> Optional[Trouble]:
        """Watch the target with `share` percent of the traffic for `least` seconds, up to `most` while no verdict is there."""
        host, slot = self.host, self.app.slot(tx.target)
        members = host.sensors.members(slot, tx.release)
        edge = [host.sensors.through_edge(self.app, slot, tx.release)] if share == 100 else []
        watch, outside, watcher = Watch(), Watch(), slots.watch(host, self.app, slot)
        begun = host.clock.monotonic()
        jury.open(share)
        while True:
            now = host.clock.monotonic()
            self._mine(tx, share)
            if now - begun < least or least < most:
                watch, why = watch.after(members, gates.look_at_all(members))
                why = watcher.died() or why
                if why is not None:
                    return Trouble(why, True)
                outside, why = outside.after(edge, gates.look_at_all(edge))
                if why is not None:
                    return Trouble(f"through nginx, {why}", False)
            ruling = jury.hear(now - begun >= least, now - begun >= most)
            if ruling.news:
                self.host.progress(self.app, tx.txn).say(state, f"{title}: {ruling.text}", share=share, verdict=ruling.figures)
            if ruling.trouble:
                return Trouble(ruling.text, ruling.guilty)
            if ruling.done:
                return None
            interval = SOON if watch.again_soon or outside.again_soon else slot.gate.rules.interval
            until = begun + (least if now - begun < least else most)
            host.clock.sleep(max(min(now + interval, until) - host.clock.monotonic(), 0.0))

    def _mine(self, tx: Transaction, share: int) -> None:
        """Raises SlipwayError when somebody, on purpose or by deadline, ended this transaction meanwhile."""
        now = moves.current(self.host, self.app, tx.txn)
        has = self.flags.share(tx.target)
        if has == share and (now.outcome == "confirmed" or (now.open and not now.has("intent revert"))):
            return
        if not now.open and share and has:
            self.flags.switch(tx.source)
        raise self.taken_over(tx, now)

    def taken_over(self, tx: Transaction, now: Transaction) -> SlipwayError:
        """The error that tells who ended it meanwhile."""
        return SlipwayError(
            f"{self.app.name} was taken over while moving to {tx.target}: {now.outcome or 'flags moved by hand'} "
            f"{now.reason}. Traffic is on {self.flags.active()}.",
            {"outcome": now.outcome or "overridden", "txn": tx.txn, "from": tx.source, "to": tx.target},
        )

    def back(self, tx: Transaction, reason: str, guilty: bool) -> SlipwayError:
        """Take traffic back, unless somebody did; the error that tells so. A `guilty` release is marked bad."""
        now = moves.current(self.host, self.app, tx.txn)
        if not now.open and not self.flags.share(tx.target):
            return self.taken_over(tx, now)
        guilty = guilty and not self.host.going_down()
        facts = {"txn": tx.txn, "from": tx.source, "to": tx.target, "reason": reason}
        if not tx.rollback_allowed and self.flags.share(tx.target):
            moves.stay(self.host, self.app, replace(now, reason=reason), reason)
            return SlipwayError(
                f"{self.app.name} stays on {tx.target} although it failed, {reason}: its migrations are destructive and "
                f"{tx.source} cannot serve any more. Mend it, or when you know better: slipway rollback {self.app.name} --force.",
                {"outcome": "failed", **facts},
            )
        if not self.flags.share(tx.target):
            moves.end(self.host, self.app, tx, "aborted", reason)
            return SlipwayError(f"{self.app.name} stays on {tx.source}: {reason}", {"outcome": "aborted", **facts})
        times = moves.take_back(self.host, self.app, replace(now, reason=reason), reason, guilty)
        return SlipwayError(
            f"{self.app.name} is back on {tx.source} after {times.switch_ms:g} ms: {tx.target} failed, {reason}."
            + (f" Release {tx.release} is marked bad on {self.app.host}." if guilty and tx.release else ""),
            {"outcome": "rolled_back", "guilty": guilty, **facts},
        )
