# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving traffic to another slot: gate, dead man, canary, flag, proof through nginx, bake; then hold until it is confirmed."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, replace
from typing import Optional

from ..guard.deadman import ArmingFailed
from ..health import gate as gates
from ..health.gate import GateReport
from . import course, moves, recovery, slots
from .config import App
from .errors import Busy, SlipwayError
from .host import Host
from .journal import Transaction
from .jury import Jury
from .records import Traffic, check_release
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


class Cutover:
    """Cutovers of one application on this edge."""

    def __init__(self, host: Host, app: App) -> None:
        if not app.edge:
            raise SlipwayError(f"{app.host} is no edge of {app.name}: traffic is switched where nginx is (group edge).")
        self.host = host
        self.app = app
        self.flags = host.flags(app)
        self.journal = host.journal(app)
        self.records = host.records(app.name)

    def preview(self, request: Request) -> dict[str, object]:
        """What `switch` would do, having looked at the target; changes nothing."""
        app, slot = self.app, self.app.slot(request.to)
        self.refuse(request)
        active = self.flags.active()
        if active == request.to:
            return self._same(request, write=False)
        wrong = moves.well_now(self.host.sensors.members(slot, request.release))
        rules = slot.gate.rules
        steps = [
            f"gate {', '.join(slot.members)}: {rules.successes} successes in a row, at least {rules.min_healthy:g} s healthy, "
            f"within {rules.deadline:g} s" + (f" (now: {wrong})" if wrong else " (now: well)")
        ]
        if request.one_way:
            steps.append("no dead man, no canary, no way back: the migrations of this release are destructive")
        else:
            steps.append(f"arm slipway-{app.name}-deadman.timer for {self._first_deadline():g} s")
            steps += [
                f"canary {number}/{len(app.canary.steps)}: {percent} % of the traffic for {app.canary.dwell:g} to "
                f"{app.canary.patience:g} s, until its requests are judged against those of {active}"
                for number, percent in enumerate(app.canary.steps, start=1)
            ]
        steps += [
            *(str(operation) for operation in self.flags.plan(request.to, self._spare(active, request.one_way))),
            f"ask {app.domain} through nginx on {moves.VERIFY_LOOKS} fresh connections",
            f"watch and judge for {app.bake:g} s, then hold until confirmed, at most {app.confirm_deadline:g} s",
        ]
        return {
            "changed": True,
            "outcome": "planned",
            "from": active,
            "to": request.to,
            "plan": steps,
            "healthy": wrong is None,
            "detail": wrong or "well",
        }

    def refuse(self, request: Request) -> None:
        """Raises SlipwayError when `request` cannot be begun at all."""
        self.app.slot(request.to)
        self._refuse_bad(request)
        self.host.leases(self.app.name).check(request.txn)

    def prepare(self, request: Request, write: bool = True) -> dict[str, object]:
        """Before a candidate is started in a slot: that slot stands in for no other any more."""
        self.app.slot(request.to)
        active, spare = self.flags.active(), self.flags.spare()
        tx = self.journal.pending()
        if active == request.to and tx is not None and tx.txn == request.txn:
            return {"changed": False, "outcome": "prepared", "from": active, "to": request.to, "txn": request.txn}
        if active == request.to:
            raise SlipwayError(f"slot {active} of {self.app.name} has the traffic on {self.app.host}: no candidate starts there.")
        self._refuse_unknown_places(request.to)
        changed = spare == request.to
        if changed and write:
            what = f"{request.owner} preparing slot {request.to} of {self.app.name}"
            with self.host.lock(self.app.name).held(what, self.app.one_step):
                self.host.leases(self.app.name).check(request.txn)
                self.flags.drop_spare(request.to)
        return {"changed": changed, "outcome": "prepared", "from": active, "to": request.to, "txn": request.txn}

    def _refuse_unknown_places(self, name: str) -> None:
        """Raises SlipwayError when nginx has a site of this application that leads elsewhere for the slot."""
        site = self.host.disk.read(self.host.layout.site(self.app.name))
        missing = [one for one in self.app.slot(name).members if site is not None and f"server {one} " not in site]
        if missing:
            raise SlipwayError(
                f"nginx on {self.app.host} does not know {', '.join(missing)}, where slot {name} of {self.app.name} is by its "
                "newest description: ports or hosts changed in the inventory. Run site.yml, then deploy."
            )

    def join(self, request: Request, write: bool = True) -> dict[str, object]:
        """An edge that never served goes where the others are; raises SlipwayError, its flags as before, when it cannot.

        Nobody was sent anywhere by it on purpose, so nothing has to be watched or confirmed.
        """
        app = self.app
        slot, before = app.slot(request.to), self.flags.active()
        with self.host.lock(app.name).held(f"{request.owner} bringing {app.host} to {request.to} of {app.name}", app.one_step):
            self.refuse(request)
            if self.journal.pending() is not None or self.records.traffic().releases:
                raise SlipwayError(f"{app.host} has served {app.name} before: it is moved by a deployment or a rollback.")
            wrong = moves.well_now(self.host.sensors.members(slot, request.release))
            if wrong is not None:
                raise SlipwayError(f"{app.host} cannot serve {app.name} yet: {wrong}. It can after the next deployment.")
            if not write:
                return {"changed": True, "outcome": "planned", "from": before, "to": request.to, "release": request.release}
            self.flags.switch(request.to)
            try:
                done = self._same(request, write=True)
            except (SlipwayError, OSError):
                self.flags.switch(before)
                raise
        return {**done, "changed": True, "from": before}

    def switch(self, request: Request) -> dict[str, object]:
        """Move traffic and hold it there with the dead man armed; raises SlipwayError after taking it back."""
        app, host = self.app, self.host
        app.slot(request.to)
        with host.lock(app.name).held(f"{request.owner} moving {app.name} to {request.to}", app.one_step):
            attached = self._leftovers(request)
            host.leases(app.name).check(request.txn)
            if attached is not None:
                return self._prove(attached, host.jury(app, attached.source, attached.target), None, {})
            if self.flags.active() == request.to:
                return self._same(request, write=True)
            self._refuse_bad(request)
            tx = self._begin(request)
            jury = host.jury(app, tx.source, tx.target)
            try:
                return self._move(tx, jury, self._gate(tx))
            except OSError as error:
                raise self._back(tx, f"the disk failed: {error}", False) from error

    def confirm(self, txn: Optional[str] = None, owner: str = "slipway") -> dict[str, object]:
        """Make the switch that waits final; raises SlipwayError when there is none or nginx does not bear it out."""
        app, host = self.app, self.host
        with host.lock(app.name).held(f"{owner} confirming {app.name}", app.one_step):
            tx = self.journal.pending()
            if tx is None or (txn is not None and tx.txn != txn):
                return self._already(txn)
            if tx.kind != "cutover" or self.flags.active() != tx.target or tx.has("intent revert"):
                found = recovery.recover(host, app)
                raise SlipwayError(f"{app.name} has nothing to confirm: {found.message}.", {"active": found.active})
            if not tx.has("done confirm"):
                proof = moves.verify(host, app, tx.target, tx.release, looks=2)
                if not proof.ok:
                    raise SlipwayError(
                        f"{app.name} is not confirmed: through nginx, {proof.detail}. The dead man stays armed and takes "
                        f"traffic back to {tx.source}; at once with: slipway rollback {app.name}."
                    )
                try:
                    self.journal.write(tx.txn, "done", "confirm", confirmed_by=owner)
                except OSError as error:
                    raise SlipwayError(
                        f"{app.name} is not confirmed: the disk of {app.host} failed, {error}. Make room and confirm again: "
                        f"the dead man stays armed and takes traffic back to {tx.source}."
                    ) from error
            tx = moves.current(host, app, tx.txn)
            if self.flags.active() != tx.target:
                raise self._taken_over(tx, tx)
            moves.complete(host, app, tx)
            return self._result(tx, "confirmed", True)

    def check_confirm(self, txn: Optional[str] = None) -> dict[str, object]:
        """What `confirm` would do; changes nothing."""
        tx = self.journal.pending()
        if tx is None or (txn is not None and tx.txn != txn):
            return self._already(txn)
        return self._result(tx, "confirmed", True)

    def _already(self, txn: Optional[str]) -> dict[str, object]:
        last = self.journal.last()
        if last is not None and txn in (None, last.txn) and last.outcome == "confirmed":
            return self._result(last, "confirmed", False)
        if last is not None and txn in (None, last.txn) and last.outcome is not None:
            raise SlipwayError(
                f"transaction {last.txn} of {self.app.name} cannot be confirmed: {last.outcome}, {last.reason}. "
                f"Traffic is on {self.flags.active()}.",
                {"outcome": last.outcome, "active": self.flags.active()},
            )
        raise SlipwayError(f"nothing waits for a confirmation of {self.app.name}" + (f" as {txn}." if txn else "."))

    def _refuse_bad(self, request: Request) -> None:
        if request.release is not None:
            check_release(request.release)
        why = self.records.is_bad(request.release)
        if why is not None and not request.force:
            raise SlipwayError(
                f"release {request.release} of {self.app.name} was taken back before ({why}). "
                "Deploy another release, or this one with force."
            )

    def _leftovers(self, request: Request) -> Optional[Transaction]:
        """Deal with a transaction that was not ended; it is returned when it is this very one, switched already."""
        found = recovery.recover(self.host, self.app)
        if found.waiting is None:
            return None
        if found.waiting.txn == request.txn and found.waiting.target == request.to:
            if found.left >= self.app.bake + moves.VERIFY_TIMEOUT:
                self.flags.switch(request.to, moves.spare(self.app, found.waiting))
                return found.waiting
            moves.take_back(self.host, self.app, found.waiting, "interrupted, and too little time left to go on", False)
            return None
        raise Busy(
            f"transaction {found.waiting.txn} of {found.waiting.owner} moved {self.app.name} to {found.waiting.target}: "
            f"{found.message}. Finish it first: slipway confirm {self.app.name}, or slipway rollback {self.app.name}.",
            {"holder": found.waiting.owner},
        )

    def _same(self, request: Request, write: bool) -> dict[str, object]:
        """Traffic is there already: nothing to do but to remember which release that is."""
        known = self.records.traffic()
        here = known.releases.get(request.to)
        if request.release and here and here != request.release:
            raise SlipwayError(
                f"slot {request.to} of {self.app.name} has the traffic and runs {here}; {request.release} belongs into "
                f"another slot ({', '.join(name for name in self.app.slot_order if name != request.to)})."
            )
        adopt = bool(request.release) and here is None
        if adopt and write:
            lost = slots.watch(self.host, self.app, self.app.slot(request.to)).died()
            if lost is not None:
                raise SlipwayError(f"{self.app.name} does not serve {request.release} from {request.to}: {lost}.")
            proof = moves.verify(self.host, self.app, request.to, request.release)
            if not proof.ok:
                raise SlipwayError(
                    f"{self.app.name} does not serve {request.release} from {request.to}: through nginx, {proof.detail}."
                )
            releases = {**known.releases, request.to: str(request.release)}
            self.records.save_traffic(
                Traffic(request.to, known.previous, releases, known.txn, known.since or self.host.clock.now())
            )
            self.records.remember("adopted", to=request.to, release=request.release, owner=request.owner)
        return {
            "changed": adopt,
            "outcome": "adopted" if adopt else "unchanged",
            "txn": known.txn,
            "from": request.to,
            "to": request.to,
            "release": request.release or here,
        }

    def _spare(self, source: str, one_way: bool) -> Optional[str]:
        return source if self.app.failover and not one_way else None

    def _first_deadline(self) -> float:
        return self.app.canary.patience + GRACE if self.app.canary.steps else self.app.confirm_deadline

    def _begin(self, request: Request) -> Transaction:
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
            raise self._back(tx, str(error), False) from error

    def _gate(self, tx: Transaction) -> GateReport:
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

    def _move(self, tx: Transaction, jury: Jury, report: GateReport) -> dict[str, object]:
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
                raise self._back(tx, f"in {title}, {trouble.why}", trouble.guilty)
        self._deadline(tx, "switch", app.confirm_deadline + float(str(tx.facts.get("wait", 0))), before=self.flags.present())
        times = self.flags.switch(tx.target, spare)
        self.journal.write(tx.txn, "done", "switch", **asdict(times))
        self._tell(tx, "SWITCHED", f"all traffic on {tx.target}, moved in {times.switch_ms:g} ms", share=100, **asdict(times))
        return self._prove(tx, jury, report, asdict(times))

    def _arm(self, tx: Transaction) -> None:
        """The dead man, before the first request moves; raises SlipwayError when there can be none."""
        host, app = self.host, self.app
        seconds = self._first_deadline()
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

    def _prove(self, tx: Transaction, jury: Jury, report: Optional[GateReport], times: dict[str, float]) -> dict[str, object]:
        """From the moved flag to `hold`; also entered again by a second run of the same transaction."""
        host, app = self.host, self.app
        try:
            proof = moves.verify(host, app, tx.target, tx.release)
            if not proof.ok:
                sick = moves.well_now(host.sensors.members(app.slot(tx.target), tx.release))
                raise self._back(tx, f"through nginx, {proof.detail}", sick is not None)
            self.journal.write(tx.txn, "done", "verify", verified_ms=proof.all_ms)
            title = f"all traffic, watched for {app.bake:g} s"
            self._tell(tx, "BAKING", f"{tx.target} answers through nginx after {proof.first_ms:g} ms; {title}", share=100)
            trouble = self._attend(tx, jury, "BAKING", title, 100, app.bake, app.bake)
            if trouble is not None:
                raise self._back(tx, f"while it was watched for {app.bake:g} s, {trouble.why}", trouble.guilty)
            self.journal.write(tx.txn, "done", "hold")
        except OSError as error:
            raise self._back(tx, f"the disk failed: {error}", False) from error
        return {
            **self._result(moves.current(host, app, tx.txn), "switched", True),
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
        raise self._taken_over(tx, now)

    def _taken_over(self, tx: Transaction, now: Transaction) -> SlipwayError:
        return SlipwayError(
            f"{self.app.name} was taken over while moving to {tx.target}: {now.outcome or 'flags moved by hand'} "
            f"{now.reason}. Traffic is on {self.flags.active()}.",
            {"outcome": now.outcome or "overridden", "txn": tx.txn, "from": tx.source, "to": tx.target},
        )

    def _back(self, tx: Transaction, reason: str, guilty: bool) -> SlipwayError:
        """Take traffic back, unless somebody did; the error that tells so. A `guilty` release is marked bad."""
        now = moves.current(self.host, self.app, tx.txn)
        if not now.open and not self.flags.share(tx.target):
            return self._taken_over(tx, now)
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

    def _result(self, tx: Transaction, outcome: str, changed: bool) -> dict[str, object]:
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
