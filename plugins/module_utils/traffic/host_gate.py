# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host is well as a whole: its services run, what serves on it passes its gate, and nothing is under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..health import gate as gates
from ..health.process import Watcher
from . import drain
from .config import App
from .errors import SlipwayError
from .host import Host
from .slots import Slots

SERVICES = ("nginx", "docker", "containerd", "postgresql@*", "pgbouncer*", "redis-server*")


@dataclass
class Wellness:
    """What a look at a host found. `gated`: slots that passed, as `app slot`."""

    problems: list[str] = field(default_factory=list)
    gated: list[str] = field(default_factory=list)


def serving(host: Host) -> list[tuple[App, str]]:
    """The applications whose active slot has instances on this host, with that slot."""
    found = []
    for name in host.apps():
        app = host.app(name)
        active = Slots(host, app).active()
        if active and app.slot(active).instances and host.records(name).slot(active):
            found.append((app, active))
    return found


def under_way(host: Host) -> list[str]:
    """Deployments that are not finished on this host, each with what to do."""
    found = []
    for name in host.apps():
        pending = host.journal(host.app(name)).pending()
        if pending is not None:
            found.append(
                f"{name}: transaction {pending.txn} of {pending.owner} is not confirmed yet; wait for it, or end it:"
                f" slipway confirm {name}, or slipway rollback {name}"
            )
    return found


def judge(host: Host) -> Wellness:
    """Every service and every slot that serves here."""
    found = Wellness()
    for unit in SERVICES:
        shown = host.runner.run(
            ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--state=failed", "--", f"{unit}.service"]
        )
        found.problems += [f"{line.split()[0]} has failed" for line in shown.out.splitlines() if line.strip()]
    ready = host.runner.run(["pg_lsclusters", "--no-header"])
    for row in (line.split() for line in ready.out.splitlines()) if ready.ok else ():
        found.problems += [f"PostgreSQL {row[0]}/{row[1]} is {row[3]}"] if not row[3].startswith("online") else []
    for app, active in serving(host):
        try:
            found.problems += _gate(host, app, active)
            found.gated.append(f"{app.name} {active}")
        except SlipwayError as error:
            found.problems.append(str(error))
    return found


def _gate(host: Host, app: App, active: str) -> list[str]:
    slot = app.slot(active)
    driver = Slots(host, app).driver(slot)
    known = host.records(app.name).slot(active)
    release = known.release if known is not None and slot.managed else None
    probes = [host.sensors.instance(slot, place.instance, release) for place in driver.places]
    report = gates.run(probes, slot.gate.rules, host.clock, Watcher([place.process() for place in driver.places]).died)
    if report.healthy:
        return []
    return [f"slot {active} of {app.name}: {report.reason}. Last answers: {'; '.join(report.lines()[-3:])}"]


def drained(host: Host, serving_here: Sequence[tuple[App, str]], seconds: float) -> int:
    """Wait at most `seconds` until nobody is connected to what serves here; how many connections are left."""
    watch, deadline = drain.Watch(host.machine), host.clock.monotonic() + seconds
    places = [place for app, active in serving_here for place in Slots(host, app).driver(app.slot(active)).places]
    while True:
        left = sum(count or 0 for count in drain.counts(watch.look(places)))
        if not left or host.clock.monotonic() >= deadline:
            return left
        host.clock.sleep(1.0)
