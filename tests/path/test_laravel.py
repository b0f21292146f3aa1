# SPDX-License-Identifier: GPL-3.0-or-later
"""From a former system to containers and back: no request and no job is lost, and there is never a second scheduler."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fleet import hosts
from tests.fleet.shell import attempt
from tests.path.system import System

FEED = "while [ ! -e /tmp/enough ]; do psql -qc 'INSERT INTO jobs DEFAULT VALUES' spotik_production; sleep 0.2; done"
LONGEST_GAP = 30.0
"""Seconds without a tick: the interval, one round trip between the hosts and the other side's start, on a busy machine."""


@pytest.fixture(scope="module")
def system() -> System:
    return System("spotik", "api.spotik.example", "app1")


def ask(system: System, query: str) -> list[list[str]]:
    """Rows of the application's database."""
    said = system.on("jobs1", "runuser", "-u", "postgres", "--", "psql", "-Atc", query, "spotik_production")
    return [line.split("|") for line in said.splitlines()]


@contextmanager
def jobs(system: System) -> Iterator[None]:
    """New jobs, five in a second, while the block runs."""
    system.on("jobs1", "rm", "-f", "/tmp/enough")
    system.on("jobs1", "sh", "-c", f'runuser -u postgres -- sh -c "{FEED}" >/dev/null 2>&1 &')
    try:
        yield
    finally:
        system.on("jobs1", "touch", "/tmp/enough")


def sides(system: System) -> dict[str, bool]:
    """Which workers run: of the former system by unit, of the new one by container."""
    units = ("laravel-queue.service", "laravel-scheduler.timer")
    found = {
        unit: attempt(["docker", "exec", _container(system), "systemctl", "is-active", "--quiet", unit]).returncode == 0
        for unit in units
    }
    names = system.on("jobs1", "docker", "ps", "--format", "{{.Names}}").split()
    return {
        **found,
        "queue": sum("-queue-" in name for name in names) == 2,
        "scheduler": any("-scheduler-" in name for name in names),
    }


def _container(system: System) -> str:
    return hosts.container_name(system.fleet, "app1")


FORMER = {"laravel-queue.service": True, "laravel-scheduler.timer": True, "queue": False, "scheduler": False}
NEW = {name: not runs for name, runs in FORMER.items()}


def test_the_former_system_serves_at_first(system):
    status, _headers, body = system.get("/api/health")
    assert (status, json.loads(body)["status"]) == (200, "ok"), body
    assert system.release() == "laravel"
    assert sides(system) == FORMER


def test_a_worker_that_does_not_stay_up_takes_the_move_back(system):
    played = system.deploy("bad-worker")
    assert played.rc != 0
    assert "FAULT_WORKER=exit: this worker refuses to work" in played.output
    assert "was not taken; slot laravel serves as before" in played.output
    assert system.release() == "laravel"
    assert sides(system) == FORMER


def test_there_and_back(system, tmp_path):
    log, since = tmp_path / "requests.jsonl", time.time()
    with jobs(system), system.client(log):
        played = system.deploy("v1")
        assert played.rc == 0, played.output
        print(f"to the containers: {played.seconds:.1f} s")
        assert (system.release(), sides(system)) == ("v1", NEW)
        time.sleep(2)
        played = system.rollback()
        assert played.rc == 0, played.output
        print(f"and back: {played.seconds:.1f} s")
        assert (system.release(), sides(system)) == ("laravel", FORMER)
    figures = system.figures(log, since)
    print({key: figures[key] for key in ("requests", "failures")})
    assert figures["failures"] == 0, figures
    assert figures["websockets"]["cut"] == 0


def test_every_job_was_done_once(system):
    for _second in range(60):
        if ask(system, "SELECT count(*) FROM jobs WHERE taken IS NULL") == [["0"]]:
            break
        time.sleep(1)
    time.sleep(1)
    once = "SELECT count(*), count(*) FILTER (WHERE times = 1), max(waited) FROM (SELECT count(done.job) AS times, \
        extract(epoch FROM max(at) - made) AS waited FROM jobs LEFT JOIN done ON job = id GROUP BY id, made) AS per_job"
    ((made, done, longest),) = ask(system, once)
    shares = dict(ask(system, "SELECT split_part(worker, '/', 1), count(*) FROM done GROUP BY 1"))
    print(f"{made} jobs, {done} of them done once, by {shares}; the longest took {float(longest):.1f} s")
    assert made == done
    assert int(made) > 20
    assert set(shares) == {"laravel", "ruby"}


def test_there_was_one_scheduler_at_any_time(system):
    rows = ask(system, "SELECT worker, extract(epoch FROM began), extract(epoch FROM ended) FROM ticks ORDER BY began")
    ticks = [(worker.split("/")[0], float(began), float(ended)) for worker, began, ended in rows]
    pairs = list(zip(ticks, ticks[1:], strict=False))
    changes = [(before, after) for before, after in pairs if before[0] != after[0]]
    gaps = [after[1] - before[1] for before, after in pairs]
    print(f"{len(ticks)} ticks, {len(changes)} changes of sides, longest gap {max(gaps):.1f} s")
    assert all(after[1] >= before[2] for before, after in pairs), "two ticks overlap"
    assert [(before[0], after[0]) for before, after in changes] == [("laravel", "ruby"), ("ruby", "laravel")]
    assert max(gaps) <= LONGEST_GAP


def test_the_same_again_changes_nothing(system):
    played = system.play("site.yml", "--limit", "app1,jobs1")
    assert played.rc == 0, played.output
    assert sum(host["changed"] for host in played.recap.values()) == 0, played.output
