# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarting what waits for it, each in the way that its clients notice least."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..guard.deadman import Timer
from ..host import files as disk
from ..host.clock import Clock
from ..host.runner import Runner
from .pgbouncer_hold import Hold
from .upgrades import Waiting

NGINX_PID = Path("/run/nginx.pid")
NGINX_OLD = Path("/run/nginx.pid.oldbin")
PATIENCE = 20.0
PAUSE = 15.0
START_AFTER = 180.0
CLEANS_SINCE = (1, 7)
ORDER = ("manager", "service", "docker", "pgbouncer", "app", "nginx")


class RenewalError(Exception):
    """A service did not come back as it has to; the message says which, and what runs now."""


@dataclass
class Outcome:
    """What was restarted and how; `left`: what waits for a restart of the host, or until its traffic is elsewhere.

    `containers`: how many went on over a restart of Docker; `stopped`: which were ended and started again.
    """

    restarted: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    containers: int = 0
    stopped: list[str] = field(default_factory=list)


class Renewal:
    """Restarts on this host. `traffic_elsewhere`: whether processes of applications may be restarted."""

    def __init__(self, runner: Runner, clock: Clock, holds: Sequence[Hold] = (), door: Callable[[bool], None] = lambda _: None):
        """`door` shuts (True) or opens the ports of the web server to new connections, which wait meanwhile."""
        self.runner = runner
        self.clock = clock
        self.holds = holds
        self.door = door
        self.traffic_elsewhere = False

    def run(self, waiting: Sequence[Waiting], traffic_elsewhere: bool) -> Outcome:
        """Restart all but PostgreSQL; raises RenewalError."""
        outcome = Outcome()
        self.traffic_elsewhere = traffic_elsewhere
        for kind in ORDER:
            units = [one for one in waiting if one.kind == kind]
            if kind == "app" and not traffic_elsewhere:
                outcome.left += [f"{one.unit}: {one.why}; no other host takes its requests, so deploy again" for one in units]
                continue
            if units:
                getattr(self, f"_{kind}")(units, outcome)
        outcome.left += [f"{one.unit}: {one.why}; only a restart of the host renews it" for one in waiting if one.kind == "host"]
        return outcome

    def _service(self, units: Sequence[Waiting], outcome: Outcome) -> None:
        for one in units:
            self._restart(one.unit)
            outcome.restarted.append(one.unit)

    _app = _service

    def _manager(self, units: Sequence[Waiting], outcome: Outcome) -> None:
        self.runner.must(["systemctl", "daemon-reexec"])
        outcome.restarted += [one.unit for one in units]

    def _docker(self, units: Sequence[Waiting], outcome: Outcome) -> None:
        """Containers go on meanwhile; one that does not is an error."""
        due = [name for name in ("containerd.service", "docker.service") if any(one.unit == name for one in units)]
        before = self._containers()
        # A newer containerd ends, when it starts, what it sees no process of.
        unseen = [name for name in before if due[0] == "containerd.service" and not self._seen(name)]
        if unseen and not self.traffic_elsewhere:
            outcome.left.append(
                f"containerd.service: its restart would end {', '.join(unseen)}, and no other host takes the requests"
            )
            due.remove("containerd.service")
            unseen = []
        with self._stopped(unseen):
            for name in due:
                self._restart(name)
                outcome.restarted.append(name)
            self._until(lambda: self.runner.run(["docker", "info"]).ok, "docker.service was restarted and does not answer")
        after = self._containers()
        lost = [name for name, pid in before.items() if after.get(name) != pid and not (name in unseen and name in after)]
        outcome.containers, outcome.stopped = len(before) - len(lost) - len(unseen), list(unseen)
        if lost:
            names = ", ".join(lost)
            raise RenewalError(f"containers ended with the restart of Docker: {names}; see live-restore in daemon.json")

    def _seen(self, name: str) -> bool:
        version = re.search(r" v?(\d+)\.(\d+)", self.runner.run(["containerd", "--version"]).out)
        if version and (int(version[1]), int(version[2])) < CLEANS_SINCE:
            return True
        return len(self.runner.run(["docker", "top", name]).out.splitlines()) > 1

    @contextmanager
    def _stopped(self, names: Sequence[str]) -> Iterator[None]:
        """Containers ended gracefully and started again, by a timer when this process dies in between."""
        timer = Timer(self.runner, self.clock, "slipway-containers-start")
        if names:
            timer.arm(START_AFTER, ["docker", "start", *names], "start containers that were stopped for an upgrade", insist=True)
            self.runner.must(["docker", "stop", *names])
        try:
            yield
        finally:
            if names:
                self.runner.must(["docker", "start", *names])
                timer.disarm()

    def _containers(self) -> dict[str, int]:
        listed = self.runner.run(["docker", "ps", "--quiet"]).out.split()
        if not listed:
            return {}
        found = json.loads(self.runner.must(["docker", "inspect", *listed]).out)
        return {str(one["Name"]).lstrip("/"): int(one["State"]["Pid"]) for one in found}

    def _pgbouncer(self, units: Sequence[Waiting], outcome: Outcome) -> None:
        """No transaction is cut: clients are held. Their connections end all the same, and they connect anew."""
        taken: list[Hold] = []
        try:
            for hold in self.holds:
                if hold.there():
                    hold.take(PAUSE)
                    taken.append(hold)
            self._service(units, outcome)
        finally:
            for hold in taken:
                hold.release()

    def _nginx(self, units: Sequence[Waiting], outcome: Outcome) -> None:
        if any("newer than its process" in one.why for one in units):
            # A unit file acts on a new process only. New connections wait at the door: their clients ask again after a second.
            self.runner.must(["nginx", "-t", "-q"])
            self.door(True)
            try:
                self._restart("nginx.service")
            finally:
                self.door(False)
            outcome.restarted.append("nginx.service")
        else:
            self._nginx_on_the_fly()
            outcome.restarted.append("nginx.service (on the fly)")

    def _nginx_on_the_fly(self) -> None:
        """The old master starts the new program with its own sockets; its workers end once their requests have."""
        self.runner.must(["nginx", "-t", "-q"])
        old = _pid(NGINX_PID)
        if not old:
            raise RenewalError(f"nginx runs without {NGINX_PID}; restart it: systemctl restart nginx")
        self._kill(signal.SIGUSR2, old)
        self._until(
            lambda: _pid(NGINX_OLD) == old and _pid(NGINX_PID) not in (0, old) and self._workers(_pid(NGINX_PID)),
            f"the new nginx did not start; the old one (process {old}) serves. See /var/log/nginx/error.log",
        )
        new = _pid(NGINX_PID)
        self._kill(signal.SIGQUIT, old)
        self._until(lambda: not self._workers(old), f"old workers of nginx (process {old}) still take requests")
        # It would stay as long as a WebSocket of its workers, and systemd would take it for the main process.
        self.runner.run(["kill", "-KILL", str(old)])
        self._until(lambda: self._main_pid() == new, f"systemd does not take process {new} for the main process of nginx")
        disk.remove(NGINX_OLD)

    def _main_pid(self) -> int:
        shown = self.runner.run(["systemctl", "show", "--property=MainPID", "--value", "nginx.service"]).out.strip()
        return int(shown) if shown.isdigit() else 0

    def _workers(self, master: int) -> bool:
        """Whether `master` has workers that take requests, not only such that end."""
        return self.runner.run(["pgrep", "--parent", str(master), "--full", "worker process$"]).ok

    def _kill(self, number: signal.Signals, pid: int) -> None:
        self.runner.must(["kill", f"-{int(number)}", str(pid)])

    def _restart(self, unit: str) -> None:
        result = self.runner.run(["systemctl", "restart", "--", unit])
        if not result.ok or not self.runner.run(["systemctl", "is-active", "--quiet", "--", unit]).ok:
            log = self.runner.run(["journalctl", "--unit", unit, "--lines=20", "--no-pager", "--output=cat"]).out.strip()
            raise RenewalError(f"{unit} did not come back: {result.text()}\nIts last log lines:\n{log}")

    def _until(self, good: Callable[[], bool], otherwise: str) -> None:
        deadline = self.clock.monotonic() + PATIENCE
        while not good():
            if self.clock.monotonic() >= deadline:
                raise RenewalError(otherwise)
            self.clock.sleep(0.1)


def _pid(path: Path) -> int:
    text = (disk.read_text(path) or "").strip()
    return int(text) if text.isdigit() else 0
