# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintenance of an edge, two hosts with containers and a database, while a client goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.client import records, report
from tests.fleet.shell import ROOT
from tests.path.system import System

PLAYBOOK = "playbooks/maintenance.yml"
HELD = {"db1": "pgbouncer", "app1": "docker.io", "app2": "docker.io", "edge1": "nginx"}
"""A held package of each host, in the order of maintenance."""
NEWER = "+slipway1"
POOLER = 3.0
"""Seconds around a restart of the pooler: the connections that applications keep to it end."""
QUICK = ("-e", "slipway_drain=10")


@pytest.fixture(scope="module")
def system() -> System:
    return System("spotik", "api.spotik.example", "edge1")


def upgraded(system: System) -> list[str]:
    """Hosts whose held package is the newer one."""
    versions = {host: system.on(host, "dpkg-query", "--show", "--showformat=${Version}", name) for host, name in HELD.items()}
    return [host for host, version in versions.items() if version.endswith(NEWER)]


def started(system: System, host: str, unit: str) -> float:
    """When a unit was started last, in seconds since 1970."""
    stamp = system.on(host, "systemctl", "show", "--property=ExecMainStartTimestamp", "--value", unit).strip()
    return float(system.on(host, "date", "+%s.%N", f"--date={stamp}"))


def lease(system: System, state: str) -> None:
    """Somebody else's lease on the edge."""
    command = ["ansible", "edge1", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-b", "-m", "slipway.server.lease"]
    told = f"app=spotik txn=deploy-7 owner=release-engineer state={state}"
    subprocess.run([*command, "-a", told], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_check_says_what_would_be_done_in_order_and_changes_nothing(system):
    played = system.play(PLAYBOOK, "--check")
    assert played.rc == 0, played.output
    places = [played.output.index(f"{host}: ", played.output.index("Say what there is to do")) for host in HELD]
    assert places == sorted(places), played.output
    assert played.output.count(NEWER) >= len(HELD)
    assert sum(host["changed"] for host in played.recap.values()) == 0
    assert upgraded(system) == []


def test_a_deployment_under_way_is_not_disturbed(system):
    lease(system, "present")
    try:
        played = system.play(PLAYBOOK)
        assert played.rc != 0
        assert "release-engineer holds the lease" in " ".join(played.output.split())
        assert upgraded(system) == []
    finally:
        lease(system, "absent")


def test_a_killed_run_leaves_everything_serving_and_the_next_one_ends_it_without_losing_a_request(system, tmp_path):
    log, told = tmp_path / "requests.jsonl", tmp_path / "killed.log"
    # What a colleague has changed in units waits for a restart, too.
    for host, unit in (("edge1", "nginx.service"), ("db1", "postgresql@.service")):
        folder = f"/etc/systemd/system/{unit}.d"
        text = "[Service]\\nTasksMax=4096\\n"
        system.on(host, "sh", "-c", f"mkdir -p {folder}; printf '{text}' >{folder}/70-test.conf; systemctl daemon-reload")
    with system.client(log, "--db", "1"):
        command = ["ansible-playbook", PLAYBOOK, "-i", os.environ["MOLECULE_INVENTORY_FILE"], *QUICK]
        with told.open("w") as output:
            killed = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
            while killed.poll() is None and "slipway-doors" not in system.on("app1", "iptables-save"):
                time.sleep(0.5)
            os.killpg(killed.pid, signal.SIGKILL)
            killed.wait()
        assert "slipway-doors" in system.on("app1", "iptables-save")
        assert system.release() == "v1"
        played = system.play(PLAYBOOK, *QUICK)
        assert played.rc == 0, played.output
    found = [record for record in records.load(log) if record.get("error") and record.get("kind")]
    pooler = started(system, "db1", "pgbouncer.service")
    near = [record for record in found if abs(record["t"] - pooler) < POOLER and record["kind"] == "db"]
    summary = report.summarise(records.load(log))
    print(json.dumps({key: summary[key] for key in ("requests", "failures", "latency_ms", "websockets")}))
    print(f"maintained in {played.seconds:.0f} s; {len(near)} request(s) met the restart of the pooler")
    assert upgraded(system) == list(HELD)
    assert [record for record in found if record not in near] == []
    assert len(near) <= 4
    for host in ("app1", "app2"):
        assert "slipway-doors" not in system.on(host, "iptables-save")
        assert system.on(host, "sh", "-c", "ls /usr/sbin/policy-rc.d 2>/dev/null || true") == ""


def test_nothing_is_left_to_do(system):
    played = system.play(PLAYBOOK)
    assert played.rc == 0, played.output
    assert "Maintain this host" not in played.output
    assert sum(host["changed"] for host in played.recap.values()) == 0, played.output


def test_a_host_that_is_not_well_stops_everything(system):
    system.on("app2", "docker", "stop", "slipway-spotik-blue-1")
    try:
        played = system.play(PLAYBOOK)
        assert played.rc != 0
        assert "slot blue of spotik" in " ".join(played.output.split())
        assert "Nothing was changed" in " ".join(played.output.split())
    finally:
        system.on("app2", "docker", "start", "slipway-spotik-blue-1")
