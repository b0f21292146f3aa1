# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots of an application on a host that runs it: start and prove, keep warm, stop. Never the one that has the traffic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from ..health import gate as gates
from ..health import secrets
from ..health.gate import GateReport
from ..health.process import LOG_LINES, Watcher
from . import drain, moves, places
from .config import App, DrainLimits, Runtime, Slot
from .docker import DockerDriver, environment_of
from .drivers import Artifact, Driver, fingerprint
from .errors import SlipwayError
from .host import Host
from .proven import alive, watcher, who
from .records import SlotState, check_release
from .units import ExternalDriver, UnitDriver

QUIET = 300.0


@dataclass(frozen=True)
class Request:
    """What is asked for. `active`: the slot that the edges serve, when the caller knows it from them.

    `first`: no release was ever proven, so the slot that requests would go to may be stopped, too.
    """

    slot: str
    artifact: Optional[Artifact] = None
    active: Optional[str] = None
    txn: Optional[str] = None
    owner: str = "slipway"
    force: bool = False
    first: bool = False


class Slots:
    """Slots of one application on this host."""

    def __init__(self, host: Host, app: App) -> None:
        self.host = host
        self.app = app
        self.records = host.records(app.name)

    def driver(self, slot: Slot) -> Driver:
        """What runs `slot` here, as it was started; raises SlipwayError when nothing does."""
        known = places.started(self.records.slot(slot.name)) if slot.managed else None
        if known is None:
            return self._described(slot)
        return self._managed(known[0], replace(slot, instances=known[1]))

    def _described(self, slot: Slot) -> Driver:
        """What is to run `slot` here by its description."""
        if not slot.managed:
            if slot.unit is None or not slot.instances:
                raise SlipwayError(f"{self.app.host} does not run slot {slot.name} of {self.app.name}, a unit of another host.")
            return ExternalDriver(self.host, self.app, slot, slot.unit)
        if self.app.runtime is None or not slot.instances:
            raise SlipwayError(
                f"{self.app.host} runs no instance of slot {slot.name} of {self.app.name}. "
                "Slots are started on the hosts of the application's backends."
            )
        return self._managed(self.app.runtime, slot)

    def _managed(self, runtime: Runtime, slot: Slot) -> Driver:
        kind = DockerDriver if runtime.kind == "docker" else UnitDriver
        return kind(self.host, self.app, runtime, slot)

    def active(self, told: Optional[str] = None) -> Optional[str]:
        """The slot with the traffic: by flags on an edge, else as told by one, else as last marked; None when unknown."""
        if self.app.edge:
            return self.host.flags(self.app).active()
        if told is not None:
            return self.app.slot(told).name
        return next((name for name, state in self.records.slots().items() if state.state == "active"), None)

    def start(self, request: Request, write: bool = True) -> dict[str, object]:
        """Run the release of `request` in its slot and prove it; raises SlipwayError with the candidate removed again.

        With `write` false nothing is touched and the result says what would be done.
        """
        slot = self.app.slot(request.slot)
        artifact = request.artifact or Artifact("external")
        if slot.held and not slot.instances and self.active(request.active) == slot.name:
            return {**self._result(slot, "active", artifact.release), "changed": False, "outdated": True}
        driver = self._described(slot)
        check_release(artifact.release)
        driver.check(artifact)
        why = self.records.is_bad(artifact.release)
        if why is not None and not request.force:
            raise SlipwayError(
                f"release {artifact.release} of {self.app.name} was taken back before ({why}). "
                "Deploy another release, or this one with force."
            )
        if not write:
            return self._start(slot, driver, artifact, request, False)
        what = f"{request.owner} starting slot {slot.name} of {self.app.name}"
        with self.host.lock(self.app.name).held(what, self.app.one_step):
            self.host.leases(self.app.name).check(request.txn)
            return self._start(slot, driver, artifact, request, True)

    def _start(self, slot: Slot, driver: Driver, artifact: Artifact, request: Request, write: bool) -> dict[str, object]:
        wanted = fingerprint(driver, artifact)
        known = self.records.slot(slot.name) or SlotState(slot.name, "stopped")
        running = self.driver(slot)
        living = alive(running)
        same = known.release == artifact.release and len(living) == len(driver.places)
        here = self.active(request.active) == slot.name
        if here and living:
            return self._active(slot, running, known, artifact, wanted)
        lives = same and known.fingerprint == wanted and self._well(slot, driver, artifact.release) is None
        if lives and watcher(self.host, self.app, slot, driver, known).died() is None:
            return self._unchanged(slot, driver, known, write)
        result = {
            **self._result(slot, "active" if here else "staged", artifact.release),
            "changed": True,
            "before": {"release": known.release, "state": known.state, "alive": len(living)},
        }
        if not write:
            return result
        exact = driver.prepare(artifact)
        self.host.retire_timer(self.app.name, slot.name).cancel()
        for former in running.places if slot.managed else ():
            former.stop()  # before the record that says how they were started is gone
        self.records.save_slot(SlotState(slot.name, "stopped"))
        report = self._prove(slot, driver, artifact)
        for place in driver.places:
            place.keep()
        now = self.host.clock.now()
        state = "active" if here else "staged"
        proven = who(self.host, driver)
        started = None
        if slot.managed and self.app.runtime is not None:
            started = places.saved(self.app.runtime, slot, environment_of(self.host, self.app.runtime))
        self.records.save_slot(SlotState(slot.name, state, artifact.release, exact, wanted, now, proven=proven, place=started))
        self.records.remember("started", slot=slot.name, release=artifact.release, artifact=exact, owner=request.owner)
        return {**result, "artifact": exact, "gate": report.as_dict()}

    def _active(self, slot: Slot, driver: Driver, known: SlotState, artifact: Artifact, wanted: str) -> dict[str, object]:
        """The slot has the traffic and runs: it is right already, or it is refused."""
        if known.release != artifact.release:
            raise SlipwayError(
                f"slot {slot.name} of {self.app.name} has the traffic on {self.app.host} and runs "
                f"{known.release or 'an unknown release'}: {artifact.release} belongs into another slot "
                f"({', '.join(name for name in self.app.slot_order if name != slot.name)})."
            )
        # What is described otherwise by now goes to the idle slot, well or not: a changed password may be what it suffers from.
        stale = slot.held or (known.fingerprint is not None and known.fingerprint != wanted)
        wrong = None if stale else self._well(slot, driver, artifact.release)
        if wrong is not None or (not stale and len(alive(driver)) < len(driver.places)):
            raise SlipwayError(
                f"slot {slot.name} of {self.app.name} has the traffic on {self.app.host} with {artifact.release}, but "
                f"{wrong or 'not all of its instances run'}. Deploy {artifact.release} into another slot, or roll back."
            )
        return {**self._result(slot, "active", artifact.release), "changed": False, "outdated": stale}

    def _unchanged(self, slot: Slot, driver: Driver, known: SlotState, write: bool) -> dict[str, object]:
        state = "active" if known.state == "active" else "staged"
        if write and known.state != state:
            self.host.retire_timer(self.app.name, slot.name).cancel()
            proven = who(self.host, driver)
            self.records.save_slot(replace(known, state=state, retire_at=None, drain=None, limits=None, proven=proven))
        return {**self._result(slot, state, known.release), "changed": known.state != state, "outdated": False}

    def _well(self, slot: Slot, driver: Driver, release: str) -> Optional[str]:
        """What is wrong with an instance of `slot` right now, or None."""
        wanted = release if slot.managed else None
        return moves.well_now([self.host.sensors.instance(slot, place.instance, wanted) for place in driver.places])

    def _prove(self, slot: Slot, driver: Driver, artifact: Artifact) -> GateReport:
        """Start all instances and gate them; raises SlipwayError after removing them again."""
        release = artifact.release if slot.managed else None
        for place in driver.places if slot.managed else ():
            place.stop()
        try:
            for place in driver.places:
                place.start(artifact)
            processes = [place.process() for place in driver.places]
            probes = [self.host.sensors.instance(slot, place.instance, release) for place in driver.places]
            warmup = self.host.sensors.warmup(slot, [place.instance for place in driver.places])
            report = gates.run(probes, slot.gate.rules, self.host.clock, Watcher(processes).died, warmup)
            if report.healthy:
                return report
            error = self._failure(slot, driver, artifact, report)
        except SlipwayError as failed:
            error = failed
        for place in driver.places if slot.managed else ():
            place.stop()
        self.records.remember("refused", slot=slot.name, release=artifact.release, reason=str(error.facts.get("reason", "")))
        raise error

    def _failure(self, slot: Slot, driver: Driver, artifact: Artifact, report: GateReport) -> SlipwayError:
        hidden, logs = driver.secrets(), _logs(driver)
        answers = secrets.mask("\n  ".join(report.lines()), hidden)
        reason = secrets.mask(report.reason, hidden)
        told = {name: [secrets.mask(line, hidden) for line in lines] for name, lines in report.texts().items()}
        gate = {**report.as_dict(), "reason": reason, **told}
        return SlipwayError(
            f"release {artifact.release} of {self.app.name} did not become healthy in slot {slot.name} of {self.app.host}: "
            f"{reason}. It was removed again; traffic was not touched.\nLast answers:\n  {answers}\n{_last_words(logs)}",
            {"reason": reason, "gate": gate, "logs": logs},
        )

    def _result(self, slot: Slot, state: str, release: Optional[str]) -> dict[str, object]:
        return {"slot": slot.name, "state": state, "release": release, "active": self.active()}

    def still(self, request: Request) -> dict[str, object]:
        """See that the slot is well and every process still the one that passed its gate; raises SlipwayError when not."""
        slot = self.app.slot(request.slot)
        driver = self.driver(slot)
        known = self.records.slot(slot.name)
        release = known.release if known is not None else None
        wrong = watcher(self.host, self.app, slot, driver, known).died() or self._well(slot, driver, release or "")
        if wrong is not None:
            hidden, logs = driver.secrets(), _logs(driver)
            raise SlipwayError(
                f"{release or 'what runs'} in slot {slot.name} of {self.app.name} passed its gate on {self.app.host} and did not "
                f"stay well: {secrets.mask(wrong, hidden)}.\n{_last_words(logs)}",
                {"disproved": True, "logs": logs},
            )
        return {**self._result(slot, known.state if known is not None else "staged", release), "changed": False}

    def mark_active(self, request: Request, write: bool = True) -> dict[str, object]:
        """Remember that the edges serve this slot: it is not stopped, and no other slot here counts as active."""
        slot = self.app.slot(request.slot)
        if self.app.edge and self.host.flags(self.app).active() != slot.name:
            raise SlipwayError(
                f"{slot.name} cannot be marked active: the flags on {self.app.host} say {self.host.flags(self.app).active()}."
            )
        known = self.records.slots()
        mine = known.get(slot.name)
        if mine is None and not (slot.managed and slot.instances):
            mine = SlotState(slot.name, "staged", "external")
        if mine is None or mine.release is None:
            raise SlipwayError(f"nothing was ever started in slot {slot.name} of {self.app.name} on {self.app.host}.")
        others = [state for name, state in known.items() if name != slot.name and state.state == "active"]
        changed = mine.state != "active" or bool(others)
        if write and changed:
            self.host.retire_timer(self.app.name, slot.name).cancel()
            self.serve_again(slot, mine)
            for state in others:
                self.records.save_slot(replace(state, state="standby", drain=None))
        return {**self._result(slot, "active", mine.release), "changed": changed}

    def settle(
        self, request: Request, left: str, seconds: Optional[float] = None, write: bool = True
    ) -> tuple[dict[str, object], dict[str, object]]:
        """After a move: what `mark_active` says of the slot of `request` and `standby` of slot `left`."""
        return self.mark_active(request, write), self.standby(replace(request, slot=left), seconds, write)

    def standby(self, request: Request, seconds: Optional[float] = None, write: bool = True) -> dict[str, object]:
        """Keep the slot warm for `seconds`, then drain and stop it; raises SlipwayError for the active one."""
        slot = self.app.slot(request.slot)
        self._refuse_active(slot, request)
        known = self.records.slot(slot.name)
        if known is None and slot.instances and (not slot.managed or alive(self.driver(slot))):
            release = self.records.traffic().releases.get(slot.name) if slot.managed else "external"
            known = SlotState(slot.name, "active", release)
        if known is None or known.state == "stopped":
            return {**self._result(slot, "stopped", None), "changed": False}
        after = self.app.standby if seconds is None else seconds
        changed = known.state != "standby" or known.retire_at is None
        retire_at = self.host.clock.now() + after
        if write and changed:
            window = min(QUIET, after / 2)
            self.host.retire_timer(self.app.name, slot.name).cancel()
            wanted = replace(known, state="standby", retire_at=retire_at, window=window, quiet_from=None, drain=None, limits=None)
            self.records.save_slot(wanted)
            self.host.arm_retire(self.app.name, slot.name, after - window)
        return {
            **self._result(slot, "standby", known.release),
            "changed": changed,
            "retire_in": round(after if changed else (known.retire_at or retire_at) - self.host.clock.now()),
        }

    def stop(self, request: Request, write: bool = True) -> dict[str, object]:
        """Stop the slot once its requests have ended, or their time is over; raises SlipwayError for the active one.

        WebSockets are not waited for: that is what `drain` is for.
        """
        slot = self.app.slot(request.slot)
        self._refuse_active(slot, request)
        driver = self.driver(slot)
        known = self.records.slot(slot.name)
        changed = bool(alive(driver)) or (known is not None and known.state != "stopped")
        logs = _logs(driver) if changed else {}
        if write and changed:
            what = f"{request.owner} stopping slot {slot.name} of {self.app.name}"
            with self.host.lock(self.app.name).held(what, self.app.one_step):
                self.host.leases(self.app.name).check(request.txn)
                self.host.retire_timer(self.app.name, slot.name).cancel()
                self._finish_requests(driver, lambda: self._refuse_active(slot, request))
                self.end(slot, driver, request.owner)
        return {**self._result(slot, "stopped", None), "changed": changed, "logs": logs}

    def remove(self, slot: Slot) -> None:
        """End the slot for good, with traffic or without, once its requests have ended. To be called with the lock."""
        driver = self.driver(slot)
        self._finish_requests(driver, lambda: None)
        for place in driver.places:
            place.stop()

    def _finish_requests(self, driver: Driver, still_allowed: Callable[[], None]) -> None:
        watch, limits, begun = drain.Watch(self.host.machine), self.app.drain, self.host.clock.monotonic()
        while self.host.clock.monotonic() - begun < limits.http:
            if not any(watch.look(driver.places)):
                return
            self.host.clock.sleep(drain.LOOK)
            still_allowed()

    def end(self, slot: Slot, driver: Driver, owner: str, done: Optional[drain.Drain] = None) -> None:
        """Stop what still runs of the slot and remember it, with how the drain went. To be called with the lock."""
        for place in driver.places:
            place.stop()
        known = self.records.slot(slot.name) or SlotState(slot.name, "stopped")
        saved = done.saved() if done is not None else None
        wanted = replace(known, state="stopped", fingerprint=None, retire_at=None, quiet_from=None, drain=saved)
        self.records.save_slot(wanted)
        facts = done.facts() if done is not None else {}
        self.records.remember("stopped", slot=slot.name, release=known.release, owner=owner, **facts)

    def serve_again(self, slot: Slot, known: SlotState) -> None:
        """The slot has the traffic again: no drain goes on, and instances that one stopped are started."""
        self.records.save_slot(replace(known, state="active", retire_at=None, drain=None, limits=None))
        if drain.load(known.drain) is not None:
            from . import upkeep

            upkeep.revive(self.host, self.app, slot, known)

    def drain(self, request: Request, limits: DrainLimits, write: bool = True) -> dict[str, object]:
        """Have this host drain the slot and then stop it, from now on and whatever becomes of this process.

        Raises SlipwayError for the active slot. With `write` false nothing is touched and `remaining` counts connections.
        """
        slot = self.app.slot(request.slot)
        self._refuse_active(slot, request)
        driver = self.driver(slot)
        counted = drain.counts(drain.Watch(self.host.machine).look(driver.places))
        known = self.records.slot(slot.name) or SlotState(slot.name, "stopped")
        changed = any(count is not None for count in counted)
        remaining = sum(count or 0 for count in counted)
        if write and changed:
            what = f"{request.owner} draining slot {slot.name} of {self.app.name}"
            with self.host.lock(self.app.name).held(what, self.app.one_step):
                self.host.leases(self.app.name).check(request.txn)
                now = self.host.clock.now()
                begun = drain.Drain(self.host.machine.moment(self.host.clock), limits)
                wanted = replace(known, state="standby", retire_at=now, window=0.0, quiet_from=now, drain=begun.saved())
                self.host.retire_timer(self.app.name, slot.name).cancel()
                self.records.save_slot(wanted)
                self.records.remember("draining", slot=slot.name, release=known.release, owner=request.owner, open=remaining)
                self.host.arm_retire(self.app.name, slot.name, 0.1)
        state = "draining" if changed else "stopped"
        return {**self._result(slot, state, known.release), "changed": changed, "remaining": remaining}

    def _refuse_active(self, slot: Slot, request: Request) -> None:
        active = self.active(request.active)
        proven = not request.first or bool(self.records.traffic().releases)
        if active == slot.name and proven:
            raise SlipwayError(
                f"slot {slot.name} of {self.app.name} has the traffic on {self.app.host}: it is not stopped. "
                "Move the traffic first."
            )
        if self.takes_part(slot.name):
            raise SlipwayError(
                f"slot {slot.name} of {self.app.name} takes part in a transaction that is not confirmed yet. "
                f"Confirm it or roll it back first: slipway confirm {self.app.name}."
            )

    def takes_part(self, name: str) -> bool:
        """True while a transaction that is not confirmed may still need the slot."""
        tx = self.host.journal(self.app).pending() if self.app.edge else None
        return tx is not None and name in (tx.source, tx.target)


def watch(host: Host, app: App, slot: Slot) -> Watcher:
    """Over what runs `slot` on this host: a release that never had traffic has to be what its gate proved, all the time."""
    if not slot.instances:
        return Watcher(())
    return watcher(host, app, slot, Slots(host, app).driver(slot), host.records(app.name).slot(slot.name))


def _last_words(logs: Mapping[str, Sequence[str]]) -> str:
    return "\n".join(
        f"Last {LOG_LINES} log lines of {name}:\n  " + ("\n  ".join(lines) or "(none)") for name, lines in logs.items()
    )


def _logs(driver: Driver) -> dict[str, list[str]]:
    """The last log lines of every process, without secrets."""
    hidden = driver.secrets()
    processes = [place.process() for place in driver.places]
    return {process.name: [secrets.mask(line, hidden) for line in process.logs()] for process in processes}
