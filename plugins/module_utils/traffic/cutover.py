# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving traffic to another slot, as it is asked for: preview, prepare, join, switch, confirm. `run` does what takes time."""

from __future__ import annotations

from typing import Optional

from . import moves, recovery, served, slots
from .config import App
from .errors import Busy, SlipwayError
from .host import Host
from .journal import Transaction
from .records import Traffic, check_release
from .run import Request, Run, first_deadline, result


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
        self.run = Run(host, app)

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
            steps.append(f"arm slipway-{app.name}-deadman.timer for {first_deadline(app):g} s")
            steps += [
                f"canary {number}/{len(app.canary.steps)}: {percent} % of the traffic for {app.canary.dwell:g} to "
                f"{app.canary.patience:g} s, until its requests are judged against those of {active}"
                for number, percent in enumerate(app.canary.steps, start=1)
            ]
        spare = active if app.failover and not request.one_way else None
        steps += [
            *(str(operation) for operation in self.flags.plan(request.to, spare)),
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
        tx, last = self.journal.pending(), self.journal.last()
        if active == request.to and last is not None and last.txn == request.txn:  # a run beside this one may have confirmed it
            return {"changed": False, "outcome": "prepared", "from": active, "to": request.to, "txn": request.txn}
        if active == request.to:
            raise SlipwayError(f"slot {active} of {self.app.name} has the traffic on {self.app.host}: no candidate starts there.")
        self._refuse_unknown_places(request.to)
        stays = spare if spare != request.to else None
        changed = tx is None and bool(self.flags.plan(active, stays))
        if changed and write:
            what = f"{request.owner} preparing slot {request.to} of {self.app.name}"
            with self.host.lock(self.app.name).held(what, self.app.one_step):
                self.host.leases(self.app.name).check(request.txn)
                self.flags.switch(active, stays)
        self._refuse_other_slot(request.to)
        return {"changed": changed, "outcome": "prepared", "from": active, "to": request.to, "txn": request.txn}

    def _refuse_other_slot(self, name: str) -> None:
        """Raises SlipwayError when nginx may send requests to the slot, whatever the flags say: it must not be stopped."""
        found = served.astray(self.host, self.app)
        if found is not None:
            raise SlipwayError(f"no candidate of {self.app.name} starts in slot {name}: on {self.app.host}, {found}.")

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
                return self.run.prove(attached, host.jury(app, attached.source, attached.target), None, {})
            if self.flags.active() == request.to:
                return self._same(request, write=True)
            self._refuse_bad(request)
            tx = self.run.begin(request)
            jury = host.jury(app, tx.source, tx.target)
            try:
                return self.run.move(tx, jury, self.run.gate(tx))
            except OSError as error:
                raise self.run.back(tx, f"the disk failed: {error}", False) from error

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
                raise self.run.taken_over(tx, tx)
            moves.complete(host, app, tx)
            return result(tx, "confirmed", True)

    def check_confirm(self, txn: Optional[str] = None) -> dict[str, object]:
        """What `confirm` would do; changes nothing."""
        tx = self.journal.pending()
        if tx is None or (txn is not None and tx.txn != txn):
            return self._already(txn)
        return result(tx, "confirmed", True)

    def _already(self, txn: Optional[str]) -> dict[str, object]:
        last = self.journal.last()
        if last is not None and txn in (None, last.txn) and last.outcome == "confirmed":
            return result(last, "confirmed", False)
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
