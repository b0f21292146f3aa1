# SPDX-License-Identifier: GPL-3.0-or-later
"""A scenario's hosts as the tests use them: run playbooks, ask over HTTPS, look into a host, keep a client running."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.client import records, report
from tests.fleet import hosts
from tests.fleet.molecule import fleet_name
from tests.fleet.shell import ROOT, attempt, run

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ENOUGH = 4096
"""Bytes of a client's log that tell that it is under way: some twenty requests."""
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Played:
    """A playbook's run: exit status, everything it printed, and `ok`, `changed` and `failed` by host."""

    rc: int
    output: str
    seconds: float

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """Counts by host."""
        rows = RECAP.findall(self.output)
        return {row[0]: {"ok": int(row[1]), "changed": int(row[2]), "failed": int(row[4])} for row in rows}


@dataclass(frozen=True)
class System:
    """The hosts of the running scenario; `edge` is the host that serves `domain`."""

    app: str
    domain: str
    edge: str

    @property
    def fleet(self) -> str:
        """Name of the fleet."""
        return fleet_name(os.environ["MOLECULE_SCENARIO_NAME"], os.environ["MOLECULE_PROJECT_DIRECTORY"])

    @property
    def files(self) -> Path:
        """Releases and secrets of the scenario."""
        return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])

    def address(self, host: str) -> str:
        """IPv4 address of a host."""
        listed = json.loads(run(["docker", "inspect", hosts.container_name(self.fleet, host)]))
        networks = listed[0]["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def play(self, playbook: str, *arguments: str, timeout: float = 900) -> Played:
        """Run a playbook of the repository to its end."""
        start = time.monotonic()
        command = ["ansible-playbook", playbook, "-i", os.environ["MOLECULE_INVENTORY_FILE"], *arguments]
        done = attempt(command, timeout=timeout)
        return Played(done.returncode, COLOUR.sub("", done.stdout + done.stderr), time.monotonic() - start)

    def deploy(self, release: str, *arguments: str) -> Played:
        """Deploy a release."""
        return self.play("deploy.yml", "-e", f"app={self.app}", "-e", f"release={release}", *arguments)

    def rollback(self, *arguments: str) -> Played:
        """Go back."""
        return self.play("rollback.yml", "-e", f"app={self.app}", *arguments)

    def on(self, host: str, *argv: str) -> str:
        """Output of a command on a host; raises FleetError when it fails."""
        return run(["docker", "exec", hosts.container_name(self.fleet, host), *argv])

    def journal(self) -> list[dict[str, Any]]:
        """The journal of the edge."""
        text = self.on(self.edge, "cat", f"/var/lib/slipway/{self.app}/journal.jsonl")
        return [json.loads(line) for line in text.splitlines()]

    def get(
        self,
        path: str = "/version",
        method: str = "GET",
        port: int = 443,
        name: str = "",
        timeout: float = 20,
        address: str = "",
        **headers: str,
    ) -> tuple[int, dict, bytes]:
        """Status, headers in lower case and body of one request to the edge (at `address`, if known) on a fresh connection."""
        raw: socket.socket = socket.create_connection((address or self.address(self.edge), port), timeout=timeout)
        if port == 443:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            raw = context.wrap_socket(raw, server_hostname=name or self.domain)
        connection = http.client.HTTPConnection(name or self.domain)
        connection.sock = raw
        connection.request(method, path, headers={"Host": name or self.domain, **headers})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, body

    def release(self) -> str:
        """The release that answers now."""
        return str(json.loads(self.get()[2])["release"])

    @contextmanager
    def client(self, log: Path, *more: str) -> Iterator[None]:
        """The continuous client, with `more` options, while the block runs."""
        command = [sys.executable, "-m", "tests.client", "run", "--url", f"https://{self.domain}", "--insecure"]
        options = ["--connect", f"{self.address(self.edge)}:443", "--log", str(log), *(more or ("--db", "1"))]
        process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 20
            while not log.exists() or len(log.read_bytes()) < ENOUGH:
                assert time.monotonic() < until, f"the client says nothing in {log}"
                time.sleep(0.2)
            yield
            time.sleep(1)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)

    def figures(self, log: Path, since: float) -> dict[str, Any]:
        """The client's figures, around every move of traffic since `since` (seconds since 1970)."""
        moves = [move for move in report.moves(self.journal()) if move.at > since]
        return report.summarise(records.load(log), moves)
