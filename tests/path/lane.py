# SPDX-License-Identifier: GPL-3.0-or-later
"""One host with an application of its own, on which cutovers are begun, and somebody who asks there all the time."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.client import frames
from tests.fleet import hosts
from tests.fleet.shell import ROOT, FleetError, run
from tests.path.system import System

AGENT = Path(__file__).with_name("agent.py")
MIGRATIONS = ROOT / "plugins/module_utils/traffic/migrations.py"
DEADLINE = 10.0
"""Seconds after the switch until the dead man takes an unconfirmed one back."""
TIMES: dict[str, Any] = {
    "gate": {"successes": 2, "interval": 0.5, "min_healthy": 2.0, "deadline": 15, "timeout": 2, "warmup": []},
    "canary": {"steps": [50], "dwell": 1.5, "patience": 1.5},
    "verdict": {"min_samples": 1000, "on_inconclusive": "pass"},
    "bake": 2,
    "confirm_deadline": DEADLINE,
    "standby": 3600,
    "drain": {"http": 2, "websockets": 5, "pace": 0},
}


@dataclass
class Answers:
    """What came through nginx: when each request began and ended, and the release that answered well, else None."""

    seen: list[tuple[float, float, str | None]] = field(default_factory=list)

    def dark(self, since: float, until: float) -> float:
        """Seconds of the longest time without a good answer."""
        good = [since, *(end for begun, end, release in self.seen if release and since <= begun and end <= until), until]
        return max(later - earlier for earlier, later in zip(good, good[1:], strict=False))

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(release is None for _begun, _end, release in self.seen)


RELEASES = ("v1", "v2")


def other(slot: str) -> str:
    """The other slot."""
    return "green" if slot == "blue" else "blue"


def other_release(release: str) -> str:
    """The other release."""
    return "v2" if release == "v1" else "v1"


class Lane:
    """One host with its application."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.app = system.app
        self.host = system.edge
        self.container = hosts.container_name(system.fleet, system.edge)
        self.state = f"/var/lib/slipway/{system.app}"
        self.number = 0
        self.release = ""

    def agent(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Have the agent do something on the host; raises FleetError."""
        argv = ["docker", "exec", "--interactive", self.container, "python3", "-", verb]
        answer = run([*argv, json.dumps({"app": self.app, **arguments})], input=AGENT.read_text(), timeout=120)
        return dict(json.loads(answer.splitlines()[-1]))

    def shell(self, script: str) -> str:
        """Run a script on the host."""
        return self.system.on(self.host, "sh", "-c", script.format(state=self.state))

    def unit(self, slot: str) -> str:
        """The unit of the one instance of a slot."""
        return f"{self.app}@{slot}-1.service"

    def kill(self, unit: str) -> None:
        """kill -9 of the main process of a unit; its systemd does what it was told to do then."""
        self.shell(f"pid=$(systemctl show --property=MainPID --value {unit}); test $pid -gt 0 && kill -9 $pid")

    def idle(self) -> str:
        """The slot that has no traffic."""
        return other(str(self.agent("look")["active"]))

    def prepare(self) -> None:
        """Both slots run a release, and all times are short."""
        known = json.loads((self.system.files / "releases.json").read_text())
        self.agent("tune", **TIMES)
        run(["docker", "cp", str(MIGRATIONS), f"{self.container}:/var/tmp/migrations.py"])
        for release in RELEASES:
            run(["docker", "cp", known[release]["archive"], f"{self.container}:/var/tmp/{release}.tar.gz"])
        self.fill(self.idle())

    def fill(self, slot: str) -> None:
        """Start the release in `slot` that the other one does not run."""
        release = other_release(self.system.release())
        self.agent("start", to=slot, release=release, archive=f"/var/tmp/{release}.tar.gz")

    def session(self, verb: str, **arguments: Any) -> subprocess.Popen[str]:
        """A real SSH session in which the agent does something, as a task of a playbook does."""
        ssh = [
            "ssh",
            *hosts.ssh_options(self.system.fleet).split(),
            "-i",
            str(hosts.KEY),
            f"root@{self.system.address(self.host)}",
        ]
        return self._spawn([*ssh, f"python3 - {verb} '{json.dumps({'app': self.app, **arguments})}'"])

    def behind(self, verb: str, **arguments: Any) -> subprocess.Popen[str]:
        """The same without SSH."""
        words = json.dumps({"app": self.app, **arguments})
        return self._spawn(["docker", "exec", "--interactive", self.container, "python3", "-", verb, words])

    def _spawn(self, argv: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        assert process.stdin is not None
        process.stdin.write(AGENT.read_text())
        process.stdin.close()
        return process

    def websocket(self) -> ssl.SSLSocket:
        """A WebSocket through nginx."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw = socket.create_connection((self.system.address(self.host), 443), timeout=10)
        link = context.wrap_socket(raw, server_hostname=self.system.domain)
        lines = ["GET /ws HTTP/1.1", f"Host: {self.system.domain}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {frames.new_key()}", "Sec-WebSocket-Version: 13"]
        link.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        answer = link.recv(4096)
        if b" 101 " not in answer[:20]:
            raise FleetError(f"no WebSocket: {answer[:200]!r}")
        return link

    def ready(self) -> tuple[str, str]:
        """The idle slot and its release, once both slots are well and nothing is open."""
        self.shell("rm -f {state}/bad/*")
        for slot in ("blue", "green"):
            self.shell(f"systemctl reset-failed {self.unit(slot)} 2>/dev/null; systemctl start {self.unit(slot)}")
        found = self.agent("ready")
        return str(found["target"]), str(found["release"])


class Asking(threading.Thread):
    """Asks through nginx every 0.2 s on a fresh connection while the block runs."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self.system, self.answers, self.ended = system, Answers(), threading.Event()
        self.address = system.address(system.edge)

    def __enter__(self) -> Answers:
        self.start()
        return self.answers

    def __exit__(self, *_error: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        """Until the end."""
        while not self.ended.is_set():
            begun, release = time.time(), None
            with suppress(OSError, ValueError, KeyError, EOFError):
                status, headers, _body = self.system.get("/version", timeout=2, address=self.address)
                release = headers["x-release"] if status == 200 else None
            self.answers.seen.append((begun, time.time(), release))
            self.ended.wait(max(0.0, begun + 0.2 - time.time()))
