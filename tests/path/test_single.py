# SPDX-License-Identifier: GPL-3.0-or-later
"""One host in all groups: served, quiet in a second run, deployed, taken back, restarted."""

from __future__ import annotations

import json

import pytest

from tests.fleet import hosts
from tests.path.system import System

TASK_RUNS = 60


@pytest.fixture(scope="module")
def system() -> System:
    return System("hello", "hello.example", "server1")


def test_it_serves_with_its_database(system):
    status, headers, body = system.get("/db")
    assert status == 200
    assert json.loads(body)["hits"] >= 1
    assert "strict-transport-security" in headers
    assert system.release() == "v1"


def test_a_second_run_changes_nothing_in_few_task_runs(system):
    played = system.play("site.yml")
    assert played.rc == 0, played.output
    print(f"{played.recap['server1']['ok']} task runs, {played.seconds:.1f} s")
    assert played.recap["server1"]["changed"] == 0, played.output
    assert played.recap["server1"]["ok"] <= TASK_RUNS


def test_check_mode_on_the_running_system_changes_nothing(system):
    played = system.play("site.yml", "--check", "--diff")
    assert played.rc == 0, played.output
    assert played.recap["server1"]["changed"] == 0, played.output


def test_a_release_there_and_back(system, tmp_path):
    log = tmp_path / "requests.jsonl"
    with system.client(log):
        played = system.deploy("v2")
        assert played.rc == 0, played.output
        assert system.release() == "v2"
        played = system.rollback()
        assert played.rc == 0, played.output
        assert system.release() == "v1"
    figures = system.figures(log, 0)
    assert figures["failures"] == 0, figures
    assert figures["websockets"]["cut"] == 0


def test_the_host_command_alone_goes_forth_and_back(system):
    assert system.deploy("v2").rc == 0
    system.on("server1", "/usr/local/sbin/slipway", "rollback", "hello")
    assert system.release() == "v1"
    assert "blue" in system.on("server1", "/usr/local/sbin/slipway", "status", "hello")


def test_all_of_it_survives_a_restart(system):
    hosts.restart(system.fleet, "server1")
    played = system.play("playbooks/validate.yml")
    assert played.rc == 0, played.output
    assert system.release() == "v1"
