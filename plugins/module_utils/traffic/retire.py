# SPDX-License-Identifier: GPL-3.0-or-later
"""From standby to stopped, in steps that may be taken by several processes and again after a crash or a restart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Optional

from . import drain, upkeep
from .config import App, DrainLimits, Slot
from .drain import Drain, Watch
from .drivers import Driver, Place
from .errors import Busy, SlipwayError
from .host import Host
from .records import SlotState
from .slots import Slots

SOON = 0.05
SELDOM = 15.0
STARTING = 30.0


class Retirement:
    """The end of one slot on this host: its time on standby, its drain, its stop.

    An edge elsewhere may go back to the slot without telling this host. So traffic is watched for: before the drain it
    delays that, during the drain it calls it off.
    """

    def __init__(self, host: Host, app: App, name: str) -> None:
        self.host = host
        self.app = app
        self.slot: Slot = app.slot(name)
        self.slots = Slots(host, app)
        self.records = host.records(app.name)
        self.watch = Watch(host.machine)
        self.reached: list[str] = []
        # As long as one that does not hear would take to end.
        self.patience = float(app.runtime.stop_timeout) if app.runtime is not None else STARTING
        self.waiting_since: Optional[float] = None

    def step(self) -> tuple[str, Optional[float]]:
        """One step: what was seen or done, and in how many seconds to take the next one, or None when there is none."""
        name, lock = self.slot.name, self.host.lock(self.app.name)
        try:
            with lock.held(f"retiring slot {name} of {self.app.name}", wait=2.0):
                found = self._step(name)
        except Busy as error:
            return str(error), drain.LOOK
        self._hooks(found[0])
        return found

    def _hooks(self, text: str) -> None:
        """Run those of the states that were reached, without the lock: a hook may take longer than anybody waits for that."""
        while self.reached:
            state = self.reached.pop(0)
            if self.app.hooks.get(state):
                from . import hooks

                known = self.records.slot(self.slot.name)
                facts = {"txn": self.records.traffic().txn, "from": self.slot.name, "to": self.slots.active(), "reason": text}
                hooks.run(self.host, self.app, state, {**facts, "release": known.release if known is not None else None})

    def _step(self, name: str) -> tuple[str, Optional[float]]:
        known = self.records.slot(name)
        if known is None or known.state != "standby" or known.retire_at is None:
            return f"slot {name} is {known.state if known else 'unused'}, not standby: left alone", None
        if self.app.edge and self.host.flags(self.app).active() == name:
            self._called_off(known, "the edge went back to it")
            self.slots.serve_again(self.slot, known)
            return f"slot {name} has the traffic again: left alone", None
        driver = self.slots.driver(self.slot)
        looked = self.watch.look(driver.places)
        if self.slots.takes_part(name) or self.watch.traffic(looked):
            return self._busy(known)
        under_way = drain.load(known.drain)
        if under_way is None:
            return self._wait(known, drain.counts(looked))
        return self._drain(known, driver, under_way, drain.counts(looked))

    def _called_off(self, known: SlotState, reason: str) -> None:
        if drain.load(known.drain) is not None:
            self.records.remember("drain_called_off", slot=known.slot, release=known.release, reason=reason)

    def _busy(self, known: SlotState) -> tuple[str, float]:
        """Requests come: a drain ends here, and everything begins again with a quiet time."""
        self._called_off(known, "new requests came to it")
        under_way, limits = drain.load(known.drain), known.limits
        if under_way is not None:
            limits = asdict(under_way.limits)
            upkeep.revive(self.host, self.app, self.slot, known)
        window = known.window or self.app.drain.idle * 2
        self.records.save_slot(replace(known, quiet_from=self.host.clock.now(), window=window, drain=None, limits=limits))
        again = max(min(window / 4, SELDOM), drain.LOOK)
        return f"slot {known.slot} has traffic: it stays until none came for {window:.0f} s", again

    def _wait(self, known: SlotState, connections: Sequence[Optional[int]]) -> tuple[str, float]:
        """Still warm: until its time is over and it was quiet for long enough."""
        now = self.host.clock.now()
        quiet_from = now if known.quiet_from is None else known.quiet_from
        due = max(known.retire_at or now, quiet_from + known.window)
        total = sum(count or 0 for count in connections)
        if now < due - 0.5:
            if known.quiet_from is None:
                self.records.save_slot(replace(known, quiet_from=quiet_from))
            return f"slot {known.slot} is drained in {due - now:.0f} s, {total} connections", min(due - now, drain.LOOK)
        begun = Drain(self.host.machine.moment(self.host.clock), drain.limits(known.limits) or self.app.drain)
        self.records.save_slot(replace(known, quiet_from=quiet_from, drain=begun.saved()))
        self.records.remember("draining", slot=known.slot, release=known.release, owner="retirement", open=total)
        return f"slot {known.slot} is being drained of {total} connections", SOON

    def _drain(
        self, known: SlotState, driver: Driver, under_way: Drain, connections: Sequence[Optional[int]]
    ) -> tuple[str, Optional[float]]:
        elapsed = max(-under_way.began.left(self.host.machine.moment(self.host.clock)), 0.0)
        limits = under_way.limits
        total = sum(count or 0 for count in connections)
        if not under_way.told:
            self.reached.append("draining")
        now = replace(under_way, told=True, peak=max(under_way.peak, total if elapsed >= limits.idle else 0))
        step = drain.step(limits, elapsed, connections)
        if step.wait is None and step.stop is None:
            done = replace(now, seconds=round(elapsed, 1))
            self.slots.end(self.slot, driver, "retirement", done)
            self.reached.append("retired")
            return f"slot {known.slot} stopped: {now.peak - now.remaining} connections ended, {now.remaining} were closed", None
        place = driver.places[step.stop] if step.stop is not None else None
        if place is not None and self._starting(place):
            step = drain.Step(f"{place.instance.name} is told to end once it is up", wait=SOON * 10)
        if step.stop is not None:
            remaining = now.remaining + (connections[step.stop] or 0)
            now = replace(now, peak=max(now.peak, remaining), remaining=remaining)
        if now != under_way:
            self.records.save_slot(replace(known, drain=now.saved()))
        if step.stop is not None:
            driver.places[step.stop].stop()
        return f"slot {known.slot}: {step.said}", step.wait or SOON

    def _starting(self, place: Place) -> bool:
        """True while a restart of the host has the instance start again: many servers miss a SIGTERM that comes so early."""
        machine, pid = self.host.machine, place.pid()
        if not pid or machine.age(pid) > self.patience:
            return False
        now = self.host.clock.monotonic()
        self.waiting_since = now if self.waiting_since is None else self.waiting_since
        if now - self.waiting_since > self.patience:  # it is started again and again
            return False
        return not self.host.sensors.instance(self.slot, place.instance, None).look().ok


def attend(host: Host, app: App, name: str) -> dict[str, object]:
    """Wait for the end of the drain that this host has under way; raises SlipwayError when it was called off."""
    while True:
        known = host.records(app.name).slot(name)
        found = drain.load(known.drain) if known is not None else None
        if known is None or found is None or known.state not in ("standby", "stopped"):
            raise SlipwayError(
                f"the drain of slot {name} of {app.name} on {app.host} was called off: the slot is "
                f"{known.state if known else 'unused'}. See what came to it: slipway history {app.name}."
            )
        if known.state == "stopped":
            return {"slot": name, "state": "stopped", "release": known.release, **found.facts()}
        host.clock.sleep(SOON * 10)


def limits(app: App, given: Mapping[str, Optional[float]]) -> DrainLimits:
    """Those of the application but for the ones that are given; raises SlipwayError for a negative time."""
    found = replace(app.drain, **{name: value for name, value in given.items() if value is not None})
    if min(found.http, found.websockets, found.pace) < 0:
        raise SlipwayError(f"a drain of {app.name} takes no negative time: {found}.")
    return found
