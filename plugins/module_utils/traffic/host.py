# SPDX-License-Identifier: GPL-3.0-or-later
"""One host with everything the traffic room needs of it, each part replaceable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..guard.deadman import ArmingFailed, Timer
from ..host.clock import Clock
from ..host.runner import Runner
from . import config
from .config import App
from .disk import Disk
from .errors import SlipwayError
from .flags import Flags
from .journal import Journal
from .layout import COMMAND, Layout
from .lease import Leases, Lock
from .machine import Machine
from .progress import Progress
from .records import Records
from .sensors import Sensors

if TYPE_CHECKING:
    from .jury import Jury


@dataclass
class Host:
    """This host."""

    layout: Layout = field(default_factory=Layout)
    runner: Runner = field(default_factory=Runner)
    clock: Clock = field(default_factory=Clock)
    disk: Disk = field(default_factory=Disk)
    machine: Machine = field(default_factory=Machine)
    sensors: Sensors = field(default_factory=Sensors)
    is_deadman: bool = False

    def app(self, name: str) -> App:
        """The application of that name; raises SlipwayError."""
        return config.load(self.disk, self.layout, name)

    def apps(self) -> list[str]:
        """Names of all applications here."""
        return config.known(self.disk, self.layout)

    def flags(self, app: App) -> Flags:
        """The truth of traffic."""
        return Flags(self.disk, self.clock, self.layout.flags(app.name), app.slot_order)

    def journal(self, app: App) -> Journal:
        """The write-ahead journal."""
        return Journal(self.disk, self.clock, self.layout.journal(app.name))

    def leases(self, app: str) -> Leases:
        """The lease."""
        return Leases(self.disk, self.clock, self.machine, self.layout.lease(app))

    def lock(self, app: str) -> Lock:
        """The lock of a running operation."""
        return Lock(self.layout.lock(app), self.clock, self.machine)

    def records(self, app: str) -> Records:
        """Releases, slots, history."""
        return Records(self.disk, self.clock, self.layout, app, self.machine.controller)

    def jury(self, app: App, source: str, target: str) -> Jury:
        """Who judges the requests of a cutover."""
        from ..health.access_log import AccessLog
        from .jury import LogJury, asking

        log = AccessLog(self.layout.access_log(app.name), app.members())
        ask = asking(self.sensors.reading(app.slot(target), app.canary.synthetic), target, self.clock)
        return LogJury(log, app.verdict, (source, target), len(app.canary.steps), ask)

    def progress(self, app: App, txn: str) -> Progress:
        """What the transaction `txn` tells."""
        return Progress(self.disk, self.clock, self.layout.runs(app.name), txn, app.host)

    def deadman(self, app: str) -> Timer:
        """The timer that takes an unconfirmed switch back."""
        return Timer(self.runner, self.clock, f"slipway-{app}-deadman")

    def arm_deadman(self, app: str, seconds: float) -> None:
        """Have this host take the switch back in `seconds`; raises ArmingFailed."""
        command = [COMMAND, "recover", app, "--deadline"]
        self.deadman(app).arm(seconds, command, f"Take back the traffic of {app} unless confirmed", insist=True)

    def end_deadman(self, app: str) -> None:
        """Nothing is taken back any more. The dead man himself, when he runs, is not stopped by his own hand."""
        timer = self.deadman(app)
        timer.disarm() if self.is_deadman else timer.cancel()

    def retire_timer(self, app: str, slot: str) -> Timer:
        """The timer that stops a slot that is no longer needed."""
        return Timer(self.runner, self.clock, f"slipway-{app}-retire-{slot}")

    def arm_retire(self, app: str, slot: str, seconds: float) -> None:
        """Have this host drain and stop `slot` from in `seconds` on; raises SlipwayError."""
        command = [COMMAND, "retire", app, slot]
        try:
            self.retire_timer(app, slot).arm(seconds, command, f"Drain and stop slot {slot} of {app}", insist=True)
        except ArmingFailed as error:
            text = f"slot {slot} of {app} runs on and does not stop by itself: {error}. Then run: slipway recover {app}."
            raise SlipwayError(text) from error

    def arm_settle(self, app: str, active: str, left: str) -> None:
        """Have this host keep slot `left` warm for a while, from now on; raises ArmingFailed."""
        command = [COMMAND, "settle", app, "--active", active, "--standby", left]
        Timer(self.runner, self.clock, f"slipway-{app}-settle").arm(0.1, command, f"Settle the slots of {app} after a rollback")

    def going_down(self) -> bool:
        """True while the host shuts down: what dies then dies for no fault of its own."""
        return self.runner.run(["systemctl", "is-system-running"], timeout=15).out.strip() == "stopping"
