# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking an application off this host: what runs of it ends, then goes what was made for it. Its database is never touched."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..guard.deadman import Timer
from . import crew
from .config import App, Runtime
from .errors import SlipwayError
from .host import Host
from .proven import alive
from .slots import Slots
from .workers import STOPPED, Workers, mine


@dataclass(frozen=True)
class Removed:
    """What ended, by name, and the paths that went."""

    ended: list[str]
    removed: list[str]


class Removal:
    """The removal of one application from this host."""

    def __init__(self, host: Host, app: App) -> None:
        self.host = host
        self.app = app
        self.site = host.layout.site(app.name)
        self.slots = [slot for slot in app.slots.values() if slot.managed]

    def run(self, owner: str, write: bool = True, keep_edge: bool = False) -> Removed:
        """Do it, or with `write` false say what would be done; raises SlipwayError while something is under way.

        One that was killed goes on when it is called again: the description goes last. With `keep_edge` an edge goes on
        sending requests to other hosts, and only the instances here end.
        """
        app, host = self.app, self.host
        if keep_edge and app.edge:
            return self._end_instances(owner, write)
        if not write:
            self._refuse()
            return self._told()
        with host.lock(app.name).held(f"{owner} removing {app.name}", app.one_step):
            self._refuse()
            told = self._told()
            self._take_site_off()
            self._end_timers()
            self._end_renewals()
            for slot in self.slots:
                if mine(app):
                    Workers(host, app).move(STOPPED, slot.name)
                if slot.instances:
                    Slots(host, app).remove(slot)
            for path in self._paths():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for root in {one.root for one in self._runtimes() if one.root}:
                with contextlib.suppress(OSError):  # what else is there is somebody else's
                    host.layout.path(root).rmdir()
            host.runner.run(["systemctl", "daemon-reload"])
        host.records(app.name).log("removed", owner=owner, ended=told.ended)
        return told

    def _end_instances(self, owner: str, write: bool) -> Removed:
        """Of an edge that is no host of the application any more."""
        slots, ended = Slots(self.host, self.app), []
        with self.host.lock(self.app.name).held(f"{owner} ending {self.app.name} here", self.app.one_step):
            for slot in (slot for slot in self.slots if slot.instances):
                driver = slots.driver(slot)
                running = [place.instance.name for place in alive(driver)]
                if running and write:
                    self._refuse()
                    self.host.retire_timer(self.app.name, slot.name).cancel()
                    slots.remove(slot)
                    slots.end(slot, driver, owner)
                ended += running
            # None of them belongs here any more, and a handover might never come by.
            for place in crew.strays(self.host, self.app):
                if not crew.over(place.process().identity()):
                    if write:
                        place.quiet()
                        place.stop()
                    ended.append(place.instance.name)
        return Removed(sorted(ended), [])

    def _refuse(self) -> None:
        app = self.app
        pending = self.host.journal(app).pending() if app.edge else None
        if pending is not None:
            raise SlipwayError(
                f"transaction {pending.txn} of {pending.owner} is not confirmed yet on {app.host}. End it, then remove "
                f"{app.name}: slipway confirm {app.name}, or slipway rollback {app.name}."
            )
        self.host.leases(app.name).check(None)

    def _told(self) -> Removed:
        app, host = self.app, self.host
        places = [place for slot in self.slots if slot.instances for place in Slots(host, app).driver(slot).places]
        ended = [place.instance.name for place in places if place.process().identity().alive]
        workers = Workers(host, app).observe() if mine(app) else []
        ended += [one.name for one in workers if one.alive and app.slot(one.slot).managed]
        site = [self.site] if self.site.exists() else []
        return Removed(sorted(ended), [str(path) for path in (*site, *self._renewals(), *self._paths())])

    def _take_site_off(self) -> None:
        """Before anything ends; raises SlipwayError with the site back when nginx does not take it."""
        if not self.site.exists():
            return
        content = self.site.read_text(encoding="utf-8")
        self.site.unlink()
        tested = self.host.runner.run(["nginx", "-t", "-q"])
        if not tested.ok:
            self.host.disk.write(self.site, content)
            raise SlipwayError(f"nginx of {self.app.host} would not run without {self.site}: {tested.err.strip()}")
        self.host.runner.must(["systemctl", "try-reload-or-restart", "nginx"])

    def _end_timers(self) -> None:
        app, host = self.app, self.host
        host.end_deadman(app.name)
        for slot in app.slot_order:
            host.retire_timer(app.name, slot).cancel()
        for kind in ("settle", "workers"):
            Timer(host.runner, host.clock, f"slipway-{app.name}-{kind}").cancel()

    def _renewals(self) -> list[Path]:
        """Where certbot keeps that it renews a certificate which the role certificates has asked for; the pair itself stays."""
        path = self.host.layout.path(f"/etc/letsencrypt/renewal/{self.app.name}.conf")
        return [path] if self.app.edge and path.exists() and "slipway-certificate" in path.read_text(encoding="utf-8") else []

    def _end_renewals(self) -> None:
        if self._renewals():
            self.host.runner.must(["certbot", "delete", "--non-interactive", "--cert-name", self.app.name], timeout=120)

    def _runtimes(self) -> list[Runtime]:
        return [one for one in (self.app.runtime, *(worker.runtime for worker in self.app.workers)) if one is not None]

    def _paths(self) -> list[Path]:
        """What was made for it here, its description last."""
        app, layout = self.app, self.host.layout
        runtimes = self._runtimes()
        own = [app.name, *(f"{app.name}-{worker.name}" for worker in app.workers)]
        env = layout.path("/etc/slipway/env")
        found = {
            *(path for name in own for path in env.glob(f"{name}@*")),
            *env.glob(f"{app.name}.*"),
            *(layout.path(path) for path in map(_template, runtimes) if path),
            # Where the template went before, systemd does not disable its instances any more.
            *(path for name in own for path in layout.path("/etc/systemd/system").glob(f"*.wants/{name}@*.service")),
            *(layout.path(f"{one.root}/{part}") for one in runtimes if one.root for part in ("releases", "slots")),
        }
        ordered = [*sorted(found), layout.access_log(app.name), layout.state(app.name), layout.config(app.name)]
        return [path for path in ordered if path.exists() or path.is_symlink()]


def _template(runtime: Runtime) -> str:
    """The template of the units that a runtime names one by one."""
    return f"/etc/systemd/system/{runtime.unit.partition('@')[0]}@.service" if "@" in runtime.unit else ""
