# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole path on three hosts: an edge that runs containers, a host that runs units, a database host."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import time

import pytest

from tests.fleet import hosts
from tests.fleet.shell import attempt
from tests.path.system import System

ROUNDS = int(os.environ.get("SLIPWAY_ROUNDS", "2"))
"""Deploys and rollbacks under load, two moves a round; 10 for the whole proof."""
PORTS = {"web1": {22, 80, 443}, "web2": {22}, "db1": {22}}
TRIED = (22, 80, 443, 2375, 3000, 3010, 5432, 6432, 8080)
KNOCK = """
import socket, sys
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=1).close()
        print(port)
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def system() -> System:
    return System("spotik", "api.spotik.example", "web1")


def open_ports(system: System, source: str, target: str) -> set[int]:
    """Ports of `target` that a connection from `source` reaches."""
    found = system.on(source, "python3", "-c", KNOCK, system.address(target), *map(str, TRIED))
    return {int(line) for line in found.split()}


def leftovers(system: System, slot: str) -> str:
    """What still runs of a slot on both app hosts."""
    containers = system.on("web1", "docker", "ps", "--all", "--quiet", "--filter", f"name=slipway-spotik-{slot}-")
    units = system.on("web2", "systemctl", "list-units", "--plain", "--no-legend", "--state=active", f"spotik@{slot}-*")
    return (containers + units).strip()


def slot_of(system: System) -> str:
    """The slot that has the traffic."""
    return str(json.loads(system.get()[2])["slot"])


def test_the_application_is_served_over_tls_with_its_database(system):
    status, headers, body = system.get("/db")
    assert status == 200
    assert json.loads(body)["statement_timeout"] == "30s"
    assert headers["x-content-type-options"] == "nosniff"
    assert {json.loads(system.get()[2])["host"] for _ in range(10)} != set()
    assert system.release() == "v1"


def test_plain_http_leads_to_https_and_strangers_get_nothing(system):
    status, headers, _body = system.get("/x?y=1", port=80)
    assert status in (301, 308)
    assert headers["location"] == f"https://{system.domain}/x?y=1"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        system.get("/", name="other.example")


def test_both_hosts_answer(system):
    assert len({json.loads(system.get()[2])["pid"] for _ in range(30)}) >= 2


@pytest.mark.parametrize("target", PORTS)
def test_only_the_declared_ports_answer_another_host(system, target):
    assert open_ports(system, "client", target) == PORTS[target]


def test_the_database_host_answers_its_app_hosts_only(system):
    assert 6432 in open_ports(system, "web2", "db1")
    assert 5432 not in open_ports(system, "web2", "db1")


def test_a_container_published_by_hand_is_closed(system):
    image = system.on("web1", "docker", "images", "--quiet").split()[0]
    system.on("web1", "docker", "run", "--detach", "--name", "open", "--publish", "8080:3000", image)
    try:
        time.sleep(3)
        assert 8080 not in open_ports(system, "client", "web1")
    finally:
        system.on("web1", "docker", "rm", "--force", "open")


def test_rounds_of_deploys_and_rollbacks_lose_nothing(system, tmp_path):
    log, since = tmp_path / "requests.jsonl", time.time()
    times = []
    with system.client(log):
        for _ in range(ROUNDS):
            played = system.deploy("v2")
            assert played.rc == 0, played.output
            assert system.release() == "v2"
            back = system.rollback()
            assert back.rc == 0, back.output
            assert system.release() == "v1"
            times.append((played.seconds, back.seconds))
    figures = system.figures(log, since)
    print(f"deploy and rollback, seconds: {[(round(a, 1), round(b, 1)) for a, b in times]}")
    print(json.dumps({key: figures[key] for key in ("requests", "failures", "latency_ms", "websockets", "releases")}))
    assert figures["requests"] > 100 * ROUNDS
    assert figures["failures"] == 0, figures["failure_examples"]
    assert figures["websockets"]["cut"] == 0
    assert [switch["stale"] for switch in figures["switches"]] == [0] * (2 * ROUNDS)


@pytest.mark.parametrize(
    ("release", "words"),
    [("bad-never", "503"), ("bad-lying", "checks"), ("bad-crash", "bad-crash"), ("bad-boot", "bad-boot")],
)
def test_a_bad_release_never_gets_or_loses_the_traffic(system, tmp_path, release, words):
    log, before = tmp_path / "requests.jsonl", slot_of(system)
    with system.client(log):
        played = system.deploy(release)
    assert played.rc != 0
    assert "log lines" in played.output
    assert words in played.output
    for secret in ("database-password", "jwt-secret", "registry-password"):
        assert (system.files / secret).read_text() not in played.output
    assert system.release() == "v1"
    assert slot_of(system) == before
    idle = "green" if before == "blue" else "blue"
    assert leftovers(system, idle) == ""
    figures = system.figures(log, time.time())
    # What changes state and is under way when its process dies cannot be asked again; everything else is.
    in_flight = figures["failures_by_kind"].pop("post", 0) if release == "bad-crash" else 0
    assert figures["failures"] == in_flight <= 2, figures["failure_examples"]


def test_an_unknown_release_and_an_unreachable_registry_are_refused(system):
    played = system.deploy("v99")
    assert played.rc != 0
    assert "Releases of spotik in the inventory" in played.output
    image = "127.0.0.1:9/spotik@sha256:" + "0" * 64
    archive = json.loads((system.files / "releases.json").read_text())["v3"]["archive"]
    played = system.deploy("v98", "-e", f"image={image}", "-e", f"archive={archive}")
    assert played.rc != 0
    assert "web1 could not pull 127.0.0.1:9/spotik" in played.output
    assert system.release() == "v1"


def test_a_killed_controller_leaves_the_old_release_serving(system, tmp_path):
    log = tmp_path / "requests.jsonl"
    with system.client(log):
        begun = len(system.journal())
        command = ["ansible-playbook", "deploy.yml", "-i", os.environ["MOLECULE_INVENTORY_FILE"]]
        process = subprocess.Popen(
            [*command, "-e", "app=spotik", "-e", "release=v2"], stdout=subprocess.DEVNULL, start_new_session=True
        )
        limit = time.monotonic() + 300
        while not any(entry["step"] == "switch" and entry["phase"] == "done" for entry in system.journal()[begun:]):
            assert time.monotonic() < limit
            assert process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        attempt(["pkill", "-9", "-f", system.address("web1")])
        deadline = time.monotonic() + 100
        while system.release() != "v1" and time.monotonic() < deadline:
            time.sleep(1)
        assert system.release() == "v1"
    assert system.figures(log, time.time())["failures"] == 0
    played = system.deploy("v3")
    assert played.rc == 0, played.output
    assert system.release() == "v3"


def test_no_secret_lies_about(system):
    for name in ("database-password", "jwt-secret", "registry-password"):
        secret = (system.files / name).read_text()
        for host in ("web1", "web2", "db1"):
            script = f"! (ps -eo args; journalctl --no-pager) | grep -F {secret} | grep -qv grep"
            system.on(host, "bash", "-c", script)
            found = system.on(
                host,
                "bash",
                "-c",
                f"find /etc /opt /var/lib/slipway /usr/local -type f -perm /o=r -exec grep -lF {secret} {{}} + || true",
            )
            assert found.strip() == "", f"{host}: {found}"


def test_everything_survives_a_restart_of_all_hosts(system):
    hosts.restart(system.fleet)
    played = system.play("playbooks/validate.yml")
    assert played.rc == 0, played.output
    assert system.release() == "v3"
    for target, ports in PORTS.items():
        assert open_ports(system, "client", target) == ports
