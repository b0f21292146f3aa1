# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic back to the last good slot, with nothing to decide."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Optional

from . import moves
from .config import App
from .errors import SlipwayError
from .host import Host
from .journal import Transaction

PREVIOUS = "previous"
BY_HAND = "rolled back by hand"
LOCK_WAIT = 0.3


@dataclass(frozen=True)
class Request:
    """What is asked for. With `txn`, only what that transaction moved is taken back. A `reason` marks the release bad."""

    to: str = PREVIOUS
    reason: Optional[str] = None
    txn: Optional[str] = None
    owner: str = "slipway"
    force: bool = False
    looks: int = moves.VERIFY_LOOKS


@dataclass(frozen=True)
class Choice:
    """Where traffic would go: `pending` is the unconfirmed transaction that is taken back, `why_not` says nothing is done."""

    target: str
    release: Optional[str]
    pending: Optional[Transaction] = None
    why_not: Optional[str] = None


class Rollback:
    """Rollbacks of one application on this edge."""

    def __init__(self, host: Host, app: App) -> None:
        if not app.edge:
            raise SlipwayError(f"{app.host} is no edge of {app.name}: traffic is switched where nginx is (group edge).")
        self.host = host
        self.app = app
        self.flags = host.flags(app)
        self.journal = host.journal(app)
        self.records = host.records(app.name)

    def choose(self, request: Request) -> Choice:
        """Where to, and whether at all; raises SlipwayError when that cannot be known or must not be."""
        active, pending = self.flags.active(), self.journal.pending()
        if pending is not None and pending.kind == "cutover" and request.to in (PREVIOUS, pending.source):
            if not pending.rollback_allowed and not request.force:
                raise SlipwayError(self._one_way(pending.release, pending.source))
            if request.txn in (None, pending.txn):
                release = None
                with contextlib.suppress(SlipwayError):  # the journal says where to; the records would only tell the release
                    release = self.records.traffic().releases.get(pending.source)
                return Choice(pending.source, release, pending)
            return Choice(active, None, None, f"transaction {request.txn} moved nothing here")
        if pending is not None and pending.kind == "rollback" and request.to == PREVIOUS and active == pending.target:
            return Choice(active, None, None, f"traffic is on {active} already, by a rollback whose end is not recorded yet")
        traffic = self.records.traffic()
        if request.txn is not None and request.txn != traffic.txn:
            return Choice(active, None, None, f"transaction {request.txn} moved nothing here")
        target: Optional[str] = request.to
        if target == PREVIOUS:
            # Flags that were moved by hand lead back to where traffic was left on purpose.
            target = traffic.previous if traffic.active in (None, active) else traffic.active
        if target is None:
            others = ", ".join(name for name in self.app.slot_order if name != active)
            raise SlipwayError(
                f"{self.app.name} is on {active} and no slot before it is known: nothing was deployed since the last "
                f"rollback. Name a slot that runs, with its release, or deploy: slots are {others}."
            )
        self.app.slot(target)
        if target != active and not traffic.rollback_allowed and not request.force:
            raise SlipwayError(self._one_way(traffic.releases.get(active), target))
        if target == active:
            return Choice(active, None, None, f"traffic is on {active} already")
        release = traffic.releases.get(target)
        why = self.records.is_bad(release)
        if why is not None and not request.force:
            raise SlipwayError(
                f"{target} of {self.app.name} runs {release}, which was taken back before ({why}); traffic stays on "
                f"{active}. Deploy a good release, or roll back with force."
            )
        return Choice(target, release)

    def _one_way(self, release: Optional[str], target: str) -> str:
        return (
            f"{self.app.name} stays where it is: the migrations of {release or 'the release that serves'} are destructive, and "
            f"{target} was made for the database before them. When that is known to be safe: with force."
        )

    def preview(self, request: Request) -> dict[str, object]:
        """What `run` would do, having looked at the target; changes nothing."""
        choice = self.choose(request)
        active = self.flags.active()
        if choice.why_not:
            return self._unchanged(choice)
        wrong = moves.well_now(self.host.sensors.members(self.app.slot(choice.target), choice.release))
        plan = [str(operation) for operation in self.flags.plan(choice.target)]
        return {
            "changed": True,
            "outcome": "planned",
            "from": active,
            "to": choice.target,
            "healthy": wrong is None,
            "detail": wrong or "well",
            "plan": plan,
        }

    def run(self, request: Request) -> dict[str, object]:
        """Move traffic back; raises SlipwayError, and leaves it where it is, when the target does not answer.

        It does not wait for a running cutover or a lease: an operator's word comes first. That run notices and stops.
        """
        app, host = self.app, self.host
        with host.lock(app.name).held(f"{request.owner} rolling {app.name} back", LOCK_WAIT, insist=False):
            choice = self.choose(request)
            if choice.why_not:
                return self._unchanged(choice)
            active = self.flags.active()
            reason = request.reason or (BY_HAND if request.txn is None else "the deployment failed elsewhere")
            if choice.pending is not None and not self.flags.share(choice.pending.target):
                moves.end(host, app, choice.pending, "aborted", reason)
                return {**self._unchanged(choice), "changed": True, "outcome": "aborted", "txn": choice.pending.txn}
            report = moves.brief_gate(host, app, choice.target, choice.release, self._wake(choice.target))
            if not report.healthy:
                raise SlipwayError(
                    f"{app.name} stays on {active}: {choice.target} cannot take the traffic, {report.reason}. "
                    f"Start it (deploy {choice.release or 'a good release'}), or name another slot.",
                    {"outcome": "refused", "from": active, "to": choice.target, "gate": report.as_dict()},
                )
            recorded = True
            if choice.pending is not None:
                times = moves.take_back(host, app, choice.pending, reason, request.reason is not None)
                txn = choice.pending.txn
            else:
                txn = os.urandom(6).hex()
                try:
                    self._begin(txn, request, choice, active)
                except OSError:
                    recorded = False
                    if self.records.traffic().active not in (None, active):
                        raise  # the way back from flags that no record explains is the way to the release that was left
                times = self.flags.switch(choice.target)
                if recorded:
                    with moves.though_the_disk_is_full():
                        self.journal.write(txn, "done", "switch", switch_ms=times.switch_ms)
                        moves.complete(host, app, moves.current(host, app, txn))
            proof = moves.verify(host, app, choice.target, choice.release, request.looks)
            result: dict[str, object] = {
                "changed": True,
                "outcome": "rolled_back",
                "txn": txn,
                "from": active,
                "to": choice.target,
                "release": choice.release,
                "switch_ms": times.switch_ms,
                "durable_ms": times.durable_ms,
                "verified": proof.ok,
                "verified_ms": proof.all_ms,
                "recorded": recorded,
            }
            if not proof.ok:
                raise SlipwayError(
                    f"the flags of {app.name} now say {choice.target}, which answers itself, but not through nginx: "
                    f"{proof.detail}. Look at nginx on {app.host}: systemctl status nginx.",
                    result,
                )
            return result

    def _wake(self, name: str) -> float:
        """Start again what a drain has stopped of the slot on this host; seconds within which it has to be well."""
        slot, known = self.app.slot(name), self.records.slot(name)
        if known is not None and known.drain and slot.instances and slot.managed:
            from . import upkeep

            if upkeep.revive(self.host, self.app, slot, known):
                return slot.gate.rules.deadline
        return moves.BRIEF.deadline

    def _begin(self, txn: str, request: Request, choice: Choice, active: str) -> None:
        lease = self.host.leases(self.app.name).holder()
        bad = self.records.traffic().releases.get(active) if request.reason else None
        self.journal.rotate()
        self.journal.write(
            txn,
            "intent",
            "begin",
            kind="rollback",
            source=active,
            target=choice.target,
            release=choice.release,
            owner=request.owner,
            why=request.reason or BY_HAND,
            bad=bad,
            despite=lease.owner if lease is not None else None,
        )
        self.journal.write(txn, "intent", "switch")

    def _unchanged(self, choice: Choice) -> dict[str, object]:
        active = self.flags.active()
        return {"changed": False, "outcome": "unchanged", "from": active, "to": active, "reason": choice.why_not}
