# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving traffic to another slot: gate, dead man, flag, proof through nginx, bake; then hold until it is confirmed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Optional

from ..guard.deadman import ArmingFailed
from ..health import gate as gates
from ..health.gate import GateReport
from ..health.model import Probe, ProbeResult
from ..health.process import Watcher
from . import moves, recovery, slots
from .config import App
from .errors import Busy, SlipwayError
from .host import Host
from .journal import Transaction
from .records import Traffic, check_release

FAILURES = 3
REFUSALS = 2
SOON = 0.25


@dataclass(frozen=True)
class Request:
    """What is asked for. `txn` of None makes a new one."""

    to: str
    release: Optional[str] = None
    txn: Optional[str] = None
    owner: str = "slipway"
    force: bool = False


@dataclass(frozen=True)
class Watch:
    """The bake so far, by probe: failures in a row, and connections that were refused, in a row or not.

    A refused connection means that no process listens, which a healthy slot never does; looking again soon tells a crash
    that a service manager repairs within a second from one slow answer.
    """

    failed: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    again_soon: bool = False

    def after(self, probes: Sequence[Probe], results: Sequence[ProbeResult]) -> tuple[Watch, Optional[str]]:
        """The watch after one more round, and why traffic must go back, if it must."""
        failed, refused = dict(self.failed), dict(self.refused)
        verdict = None
        for probe, result in zip(probes, results):
            failed[probe.name] = 0 if result.ok else failed.get(probe.name, 0) + 1
            refused[probe.name] = refused.get(probe.name, 0) + (1 if result.refused else 0)
            if refused[probe.name] >= REFUSALS:
                verdict = verdict or f"{probe.name} refused {refused[probe.name]} connections: {result.detail}"
            elif failed[probe.name] >= FAILURES:
                verdict = verdict or f"{probe.name} failed {failed[probe.name]} times in a row: {result.detail}"
        return Watch(failed, refused, any(result.refused for result in results)), verdict


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
        self._refuse_bad(request)
        self.host.leases(app.name).check(request.txn)
        active = self.flags.active()
        if active == request.to:
            return self._same(request, write=False)
        wrong = moves.well_now(self.host.sensors.members(slot, request.release))
        steps = [
            f"gate {', '.join(slot.members)}: {slot.gate.rules.successes} successes in a row within "
            f"{slot.gate.rules.deadline:g} s" + (f" (now: {wrong})" if wrong else " (now: well)"),
            f"arm slipway-{app.name}-deadman.timer for {app.confirm_deadline:g} s",
            *(str(operation) for operation in self.flags.plan(request.to)),
            f"ask {app.domain} through nginx on {moves.VERIFY_LOOKS} fresh connections",
            f"watch for {app.bake:g} s, then hold until confirmed",
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

    def switch(self, request: Request) -> dict[str, object]:
        """Move traffic and hold it there with the dead man armed; raises SlipwayError after taking it back."""
        app, host = self.app, self.host
        app.slot(request.to)
        with host.lock(app.name).held(f"{request.owner} moving {app.name} to {request.to}"):
            attached = self._leftovers(request)
            host.leases(app.name).check(request.txn)
            if attached is not None:
                return self._prove(attached, None, {})
            if self.flags.active() == request.to:
                return self._same(request, write=True)
            self._refuse_bad(request)
            tx = self._begin(request)
            report = self._gate(tx)
            return self._move(tx, report)

    def confirm(self, txn: Optional[str] = None, owner: str = "slipway") -> dict[str, object]:
        """Make the switch that waits final; raises SlipwayError when there is none or nginx does not bear it out."""
        app, host = self.app, self.host
        with host.lock(app.name).held(f"{owner} confirming {app.name}", wait=2.0):
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
                self.journal.write(tx.txn, "done", "confirm", confirmed_by=owner)
            tx = moves.current(host, app, tx.txn)
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
                self.flags.switch(request.to)
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

    def _begin(self, request: Request) -> Transaction:
        host, app = self.host, self.app
        txn = request.txn or uuid.uuid4().hex[:12]
        leases = host.leases(app.name)
        own = leases.holder() is None
        ttl = app.slot(request.to).gate.rules.deadline + app.confirm_deadline + 60
        if own:
            _lease, stale = leases.acquire(txn, request.owner, ttl)
            if stale is not None:
                self.records.remember("lease_taken_over", txn=txn, owner=request.owner, before=leases.describe(stale))
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
        )
        return moves.current(host, app, txn)

    def _gate(self, tx: Transaction) -> GateReport:
        slot = self.app.slot(tx.target)
        report = gates.run(self.host.sensors.members(slot, tx.release), slot.gate.rules, self.host.clock)
        if not report.healthy:
            moves.end(self.host, self.app, tx, "aborted", report.reason)
            answers = "\n  ".join(report.lines())
            raise SlipwayError(
                f"{self.app.name} stays on {tx.source}: {tx.target} did not pass the gate from {self.app.host}, "
                f"{report.reason}. Last answers:\n  {answers}",
                {"outcome": "aborted", "txn": tx.txn, "from": tx.source, "to": tx.target, "gate": report.as_dict()},
            )
        self.journal.write(tx.txn, "done", "gate", seconds=round(report.seconds, 2))
        return report

    def _move(self, tx: Transaction, report: GateReport) -> dict[str, object]:
        host, app = self.host, self.app
        self._mine(tx, moved=False)
        deadline = host.machine.moment(host.clock, app.confirm_deadline)
        self.journal.write(tx.txn, "intent", "switch", deadline=asdict(deadline), before=self.flags.present())
        try:
            host.arm_deadman(app.name, app.confirm_deadline)
        except ArmingFailed as error:
            moves.end(host, app, tx, "aborted", str(error))
            raise SlipwayError(f"{app.name} stays on {tx.source}: without a dead man no traffic moves. {error}") from error
        try:
            times = self.flags.switch(tx.target)
            self.journal.write(tx.txn, "done", "switch", **asdict(times))
        except OSError as error:
            raise self._back(tx, f"the disk failed: {error}", False) from error
        return self._prove(tx, report, asdict(times))

    def _prove(self, tx: Transaction, report: Optional[GateReport], times: dict[str, float]) -> dict[str, object]:
        """From the moved flag to `hold`; also entered again by a second run of the same transaction."""
        host, app = self.host, self.app
        try:
            proof = moves.verify(host, app, tx.target, tx.release)
            if not proof.ok:
                sick = moves.well_now(host.sensors.members(app.slot(tx.target), tx.release))
                raise self._back(tx, f"through nginx, {proof.detail}", sick is not None)
            self.journal.write(tx.txn, "done", "verify", verified_ms=proof.all_ms)
            why, guilty = self._bake(tx)
            if why is not None:
                raise self._back(tx, f"while it was watched for {app.bake:g} s, {why}", guilty)
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
        }

    def _bake(self, tx: Transaction) -> tuple[Optional[str], bool]:
        """Watch the new slot; why it must give traffic back, or None, and whether that is the release's fault."""
        host, slot = self.host, self.app.slot(tx.target)
        members = host.sensors.members(slot, tx.release)
        edge = [host.sensors.through_edge(self.app, slot, tx.release)]
        outside = Watch()
        watch, watcher = Watch(), Watcher(slots.processes(host, self.app, slot))
        until = host.clock.monotonic() + self.app.bake
        while host.clock.monotonic() < until:
            begun = host.clock.monotonic()
            self._mine(tx, moved=True)
            watch, why = watch.after(members, gates.look_at_all(members))
            why = watcher.died() or why
            if why is not None:
                return why, True
            outside, why = outside.after(edge, gates.look_at_all(edge))
            if why is not None:
                return f"through nginx, {why}", False
            interval = SOON if watch.again_soon or outside.again_soon else slot.gate.rules.interval
            host.clock.sleep(min(begun + interval, until) - host.clock.monotonic())
        self._mine(tx, moved=True)
        return None, False

    def _mine(self, tx: Transaction, moved: bool) -> None:
        """Raises SlipwayError when somebody, on purpose or by deadline, ended this transaction meanwhile."""
        now = moves.current(self.host, self.app, tx.txn)
        wanted = tx.target if moved else tx.source
        if self.flags.active() == wanted and (now.outcome == "confirmed" or (now.open and not now.has("intent revert"))):
            return
        if not now.open and moved and self.flags.active() == tx.target:
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
        if not now.open and self.flags.active() != tx.target:
            return self._taken_over(tx, now)
        guilty = guilty and not self.host.going_down()
        times = moves.take_back(self.host, self.app, replace(now, reason=reason), reason, guilty)
        return SlipwayError(
            f"{self.app.name} is back on {tx.source} after {times.switch_ms:g} ms: {tx.target} failed, {reason}."
            + (f" Release {tx.release} is marked bad on {self.app.host}." if guilty and tx.release else ""),
            {"outcome": "rolled_back", "txn": tx.txn, "from": tx.source, "to": tx.target, "reason": reason},
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
