# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: servers, an application, a release under load, and back. `python -m tests.demo`.

Leaves the hosts running. The figures are those of the continuous client's log and of the hosts' own history.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.app.__main__ import publish
from tests.client import records, report
from tests.fleet import engine, hosts
from tests.fleet.shell import ROOT, run, say
from tests.fleet.spec import parse

INVENTORY = "inventories/demo"
DOMAIN, EDGE = "api.spotik.example", "10.87.0.11"
LOGS = ROOT / ".cache" / "demo"


def play(*arguments: str) -> float:
    """Run a playbook with its output shown; seconds it took. Raises CalledProcessError."""
    say(f"ansible-playbook {' '.join(arguments)}")
    start = time.monotonic()
    subprocess.run(["ansible-playbook", *arguments, "-i", INVENTORY], cwd=ROOT, stdin=subprocess.DEVNULL, check=True)
    return time.monotonic() - start


class Client:
    """The continuous client, running beside what happens in the `with` block."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __enter__(self) -> Client:
        command = [sys.executable, "-m", "tests.client", "run", "--url", f"https://{DOMAIN}", "--connect", f"{EDGE}:443"]
        options = ["--insecure", "--log", str(self.log), "--db", "2"]
        self.process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.DEVNULL)
        time.sleep(5)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(5)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def moves(host: str, app: str) -> list[report.Switch]:
    """The moves of traffic in the journal of an edge, oldest first."""
    name = hosts.container_name("demo", host)
    journal = run(["docker", "exec", name, "cat", f"/var/lib/slipway/{app}/journal.jsonl"])
    return report.moves(map(json.loads, journal.splitlines()))


def main() -> int:
    """All of it; 1 when a request failed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    engine.ensure()
    spec = parse(yaml.safe_load(hosts.spec_path("demo").read_text()))
    hosts.up(spec)
    publish(["v1", "v2"], "demo", "registry")
    took = {"bare servers to a served application": play("site.yml")}
    log = LOGS / "requests.jsonl"
    with Client(log):
        took["deploy v2"] = play("deploy.yml", "-e", "app=spotik", "-e", "release=v2")
        time.sleep(3)
        took["rollback to v1"] = play("rollback.yml", "-e", "app=spotik")
    return show(log, took, moves("web1", "spotik")[-2:])


def show(log: Path, took: dict[str, float], moved: list[report.Switch]) -> int:
    """Print the table; 1 when a request failed or a WebSocket was cut."""
    figures = report.summarise(records.load(log), moved, window=3.0)
    say("")
    print(report.text(figures))
    for name, seconds in took.items():
        print(f"{name:42} {seconds:7.1f} s")
    print(f"\nThe hosts are up: curl --insecure --resolve {DOMAIN}:443:{EDGE} https://{DOMAIN}/version")
    print("Log in with `python -m tests.fleet ssh demo web1`, look with `slipway status spotik`, remove with `make demo-down`.")
    return 1 if figures["failures"] or figures["websockets"]["cut"] else 0


if __name__ == "__main__":
    sys.exit(main())
