# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole path on three hosts: an edge that runs containers, a host that runs units, a database host."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import time
from typing import Any

import pytest

from tests.client import records, report
from tests.fleet import hosts
from tests.fleet.shell import attempt
from tests.path import receiver
from tests.path.system import System

ROUNDS = int(os.environ.get("SLIPWAY_ROUNDS", "1"))
"""Deploys and rollbacks by playbook under load, two moves a round; 10 for the whole proof."""
MOVES = 20
"""Moves under load altogether, at least; those beyond the rounds by the edge's own command."""
PORTS = {"web1": {22, 80, 443}, "web2": {22}, "db1": {22}}
TRIED = (22, 80, 443, 2375, 3000, 3001, 3010, 3011, 5432, 6432, 8080)
KNOCK = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def knock(port):
    try:
        socket.create_connection((sys.argv[1], int(port)), timeout=2).close()
        return [port]
    except OSError:
        return []
with ThreadPoolExecutor(len(sys.argv)) as pool:
    print(*sum(pool.map(knock, sys.argv[2:]), []))
"""
SLIPWAY = "/usr/local/sbin/slipway"
DESCRIPTION = "/etc/slipway/apps/spotik.json"
DATABASE = "spotik_production"
WEBSOCKETS = 24
"""So many that each of the three instances has some."""


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


def other(slot: str) -> str:
    """The other one."""
    return "green" if slot == "blue" else "blue"


def status(system: System, host: str) -> dict[str, Any]:
    """What `slipway status` says on a host."""
    return dict(json.loads(system.on(host, SLIPWAY, "status", "spotik", "--json")))


def states(system: System, host: str) -> dict[str, dict[str, Any]]:
    """What it says of the slots."""
    return dict(status(system, host)["slots"])


def wait_for_state(system: System, host: str, slot: str, state: str, seconds: float = 30) -> dict[str, Any]:
    """The slot, as soon as it is in that state."""
    until = time.monotonic() + seconds
    while (seen := states(system, host)[slot])["state"] != state:
        assert time.monotonic() < until, seen
        time.sleep(0.5)
    return seen


def wait_until_settled(system: System, left: str, seconds: float = 30) -> None:
    """Until the edge keeps the slot that its command left for as long as the application says."""
    until = time.monotonic() + seconds
    while not 800 < (seen := states(system, "web1")[left]["retire_in"] or 0) <= 900:
        assert time.monotonic() < until, seen
        time.sleep(0.5)


def history(system: System, host: str, event: str) -> list[dict[str, Any]]:
    """Entries of the history of a host."""
    return list(json.loads(system.on(host, SLIPWAY, "history", "spotik", "--event", event, "--limit", "100", "--json")))


def wait_for_hooks(system: System, host: str, wanted: list[str], seconds: float = 30) -> None:
    """Until the last lines that the hooks of a host wrote are those."""
    until = time.monotonic() + seconds
    while (said := system.on(host, "sh", "-c", "cat /var/tmp/hooks || true").splitlines())[-len(wanted) :] != wanted:
        assert time.monotonic() < until, said
        time.sleep(0.2)


def ask(system: System, query: str) -> list[str]:
    """Rows of the application's database."""
    return system.on("db1", "runuser", "-u", "postgres", "--", "psql", "-Atc", query, DATABASE).splitlines()


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


def test_twenty_deploys_and_rollbacks_lose_nothing(system, tmp_path):
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
            times.append((round(played.seconds, 1), round(back.seconds, 1)))
        slots = {"v1": slot_of(system)}
        slots["v2"] = other(slots["v1"])
        by_hand = ["v2", "v1"] * max(MOVES // 2 - ROUNDS, 1)
        for left, release in enumerate(by_hand, start=1 - len(by_hand)):
            # With an owner it is a playbook that asks, and that settles the slots.
            more = ("--owner", "tests") if left < -1 else ()
            system.on("web1", SLIPWAY, "rollback", "spotik", "--to", slots[release], *more)
            assert system.release() == release
            time.sleep(0.5)
            if left == -1:
                wait_until_settled(system, slots["v1"])
                system.on("web1", "sed", "-i", 's/"standby": 900/"standby": 4/', DESCRIPTION)
        # Nobody but the edge's own unit stops the slot that its command left; a host that is no edge keeps it.
        seen = wait_for_state(system, "web1", slots["v2"], "stopped")
        assert not any(one["alive"] for one in seen["instances"]), seen
        assert states(system, "web2")[slots["v2"]]["state"] == "standby"
    assert system.on("web1", "systemctl", "list-units", "--failed", "--no-legend") == ""
    figures = system.figures(log, since)
    print(f"deploy and rollback, seconds: {times}")
    print(json.dumps({key: figures[key] for key in ("requests", "failures", "latency_ms", "websockets", "releases")}))
    assert figures["requests"] > 100 * MOVES
    assert figures["failures"] == 0, figures["failure_examples"]
    assert figures["websockets"]["cut"] == 0
    assert [switch["stale"] for switch in figures["switches"]] == [0] * (2 * ROUNDS + len(by_hand))


def test_a_receiver_that_is_away_hinders_no_move(system):
    failed = history(system, "web1", "notify_failed")
    assert len(failed) >= MOVES, failed
    assert {entry["reason"] for entry in failed} == {"the URL: no connection: Connection refused"}


# Those that answer badly for as long as the gate waits are refused in scenario app.
@pytest.mark.parametrize("release", ["bad-crash", "bad-boot"])
def test_a_bad_release_never_gets_or_loses_the_traffic(system, tmp_path, release):
    log, before = tmp_path / "requests.jsonl", slot_of(system)
    with system.client(log):
        played = system.deploy(release)
    assert played.rc != 0
    assert "log lines" in played.output
    assert release in played.output
    for secret in ("database-password", "jwt-secret", "registry-password"):
        assert (system.files / secret).read_text() not in played.output
    assert system.release() == "v1"
    assert slot_of(system) == before
    assert leftovers(system, other(before)) == ""
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
        tuned = False
        while not any(entry["step"] == "switch" and entry["phase"] == "done" for entry in system.journal()[begun:]):
            assert time.monotonic() < limit
            assert process.poll() is None
            if not tuned and (tuned := bool(status(system, "web1")["lease"])):
                # The description of this run is written: from here on the dead man waits less than an inventory may say.
                system.on("web1", "sed", "-i", 's/"confirm_deadline": 33/"confirm_deadline": 12/', DESCRIPTION)
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        attempt(["pkill", "-9", "-f", system.address("web1")])
        deadline = time.monotonic() + 100
        while system.release() != "v1" and time.monotonic() < deadline:
            time.sleep(1)
        assert system.release() == "v1"
    assert system.figures(log, time.time())["failures"] == 0


def test_no_secret_lies_about(system):
    names = ("database-password", "jwt-secret", "registry-password", "notify-token")
    options = " ".join(f"-e {(system.files / name).read_text()}" for name in names)
    # The look itself is no finding.
    shown = f"! (ps -eo args | grep -v grep; journalctl --no-pager) | grep -F {options}"
    files = f"find /etc /opt /var/lib/slipway /usr/local -type f -perm /o=r -exec grep -lF {options} {{}} + || true"
    for host in ("web1", "web2", "db1"):
        system.on(host, "bash", "-c", shown)
        assert system.on(host, "bash", "-c", files) == "", host


def test_a_release_changes_its_database_and_whoever_is_to_know_is_told(system):
    old = slot_of(system)
    with receiver.receiver(system, "client"):
        played = system.deploy("expand")
        assert played.rc == 0, played.output
        (told,) = receiver.told(system, "client")
    assert (system.release(), slot_of(system)) == ("expand", other(old))
    assert ask(system, "SELECT kind, name, release FROM slipway_migrations") == ["expand|one|expand"]
    assert ask(system, "SELECT count(*) FROM slipway_migration_runs") == ["1"]
    assert ask(system, "SELECT count(by_one) FROM slipway_hits") == ["0"]
    assert told["path"] == "/" + (system.files / "notify-token").read_text()
    wanted = {"app": "spotik", "host": "web1", "release": "expand", "outcome": "confirmed", "from": old, "migrations": "expand"}
    assert {key: told["told"].get(key) for key in wanted} == wanted


def test_websockets_of_a_slot_that_is_drained_are_closed_in_a_spread(system, tmp_path):
    """And a restart of the host that is at it only delays the end."""
    log, left = tmp_path / "requests.jsonl", slot_of(system)
    with system.client(log, "--websockets", str(WEBSOCKETS)):
        back = system.rollback()
        assert back.rc == 0, back.output
        begun = time.time()
        system.on("web1", SLIPWAY, "retire", "spotik", left, "--now")
        wait_for_state(system, "web1", left, "stopped")
        requests = list(records.load(log))
        system.on("web2", "systemd-run", "--quiet", SLIPWAY, "retire", "spotik", left, "--now")
        wait_for_hooks(system, "web2", [f"draining {left}"])
        assert states(system, "web2")[left]["state"] == "draining"
        hosts.restart(system.fleet)
    cuts = [record for record in requests if record.get("event") == "ws_cut"]
    after = sorted(cut["t"] - begun for cut in cuts)
    print(f"{len(cuts)} of {WEBSOCKETS} WebSockets were closed, after {', '.join(f'{seconds:.1f}' for seconds in after)} s")
    assert [record for record in requests if "kind" in record and report.failed(record)] == []
    assert {cut["code"] for cut in cuts} == {1001}, cuts
    # drain: http 2, websockets 6, pace 4. So the first of the two containers is told to stop after 4 s, the other after 6 s.
    assert 3.5 < after[0] < after[-1] - 1 < 10
    entry = history(system, "web1", "stopped")[-1]
    # Two seconds after the last request nginx may still hold an idle connection or two.
    assert entry["slot"] == left, entry
    assert len(cuts) <= entry["remaining"] <= len(cuts) + 4, entry
    wait_for_hooks(system, "web1", [f"draining {left}", f"retired {left}"])
    wait_for_hooks(system, "web2", [f"draining {left}", f"retired {left}"])
    assert states(system, "web2")[left]["state"] == "stopped"
    assert leftovers(system, left) == ""


def test_after_the_restart_everything_is_as_declared(system):
    """Each role reads its settings back from what runs, so that a run that changes nothing proves them all."""
    played = system.play("site.yml")
    assert played.rc == 0, played.output
    assert sum(host["changed"] for host in played.recap.values()) == 0, played.output
    assert system.release() == "v1"
    for target, ports in PORTS.items():
        assert open_ports(system, "client", target) == ports
