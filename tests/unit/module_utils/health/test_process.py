# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import secrets
from ansible_collections.slipway.server.plugins.module_utils.health.process import (
    ContainerProcess,
    Identity,
    ProcessProbe,
    UnitProcess,
    Watcher,
)
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner


class Says(Runner):
    def __init__(self, out: str, rc: int = 0, err: str = "") -> None:
        self.result = Result(rc, out, err)
        self.calls: list[list[str]] = []

    def run(
        self,
        argv: Sequence[str],
        data: Optional[str] = None,
        timeout: float = 600.0,
        env: Optional[Mapping[str, str]] = None,
    ) -> Result:
        self.calls.append(list(argv))
        return self.result


def show(**changes: str) -> str:
    values = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "running",
        "Result": "success",
        "ExecMainStatus": "0",
        "MainPID": "42",
        "NRestarts": "0",
        "ExecMainStartTimestampMonotonic": "1000",
        **changes,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({}, None),
        ({"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": "3"}, "exit status 3"),
        ({"NRestarts": "2", "MainPID": "50"}, "was restarted 2 times"),
        ({"MainPID": "50"}, "was replaced by another process"),
        ({"ExecMainStartTimestampMonotonic": "2000"}, "was replaced by another process"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "no such unit"),
    ],
)
def test_units(changes: dict[str, str], lost: Optional[str]) -> None:
    runner = Says(show())
    watcher = Watcher([UnitProcess(runner, "shop@blue-1.service")])
    runner.result = Result(0, show(**changes), "")
    died = watcher.died()
    assert died is None if lost is None else died is not None and lost in died


def test_a_unit_that_still_starts_may_get_its_process() -> None:
    runner = Says(show(ActiveState="activating", MainPID="0"))
    watcher = Watcher([UnitProcess(runner, "x.service")])
    runner.result = Result(0, show(), "")
    assert watcher.died() is None
    runner.result = Result(0, show(MainPID="43"), "")
    assert watcher.died() is not None


def inspect(**changes: object) -> str:
    state = {"Status": "running", "ExitCode": 0, "OOMKilled": False, "Error": "", "StartedAt": "t1", "Pid": 7}
    return json.dumps([{"State": {**state, **changes}, "RestartCount": changes.get("restarts", 0)}])


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({}, None),
        ({"Status": "exited", "ExitCode": 3}, "exited, exit code 3"),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, "more memory than allowed"),
        ({"restarts": 1, "StartedAt": "t2"}, "was restarted 1 times"),
        ({"StartedAt": "t2"}, "was replaced"),
    ],
)
def test_containers(changes: dict[str, object], lost: Optional[str]) -> None:
    runner = Says(inspect())
    watcher = Watcher([ContainerProcess(runner, "c")])
    runner.result = Result(0, inspect(**changes), "")
    died = watcher.died()
    assert died is None if lost is None else died is not None and lost in died
    runner.result = Result(1, "", "No such container")
    assert watcher.died() == "c died: no such container"


def test_a_unit_is_up_once_it_runs_and_stays_the_same() -> None:
    runner = Says(show(LoadState="not-found", ActiveState="inactive", MainPID="0"))
    probe = ProcessProbe(UnitProcess(runner, "x.service"))
    assert (probe.look().ok, probe.look().final, probe.look().detail) == (False, False, "not running: no such unit")
    runner.result = Result(0, show(ActiveState="activating", SubState="start", MainPID="0"), "")
    assert probe.look().detail == "not running: activating (start), result success"
    runner.result = Result(0, show(), "")
    assert (probe.look().ok, probe.look().detail) == (True, "active (running), result success")
    runner.result = Result(0, show(MainPID="43", NRestarts="1"), "")
    for _look in range(2):
        result = probe.look()
        assert (result.ok, result.final, result.detail) == (False, True, "was restarted 1 times: it does not stay up")


def test_a_unit_that_ran_and_ended_is_not_up() -> None:
    assert not ProcessProbe(UnitProcess(Says(show(SubState="exited", MainPID="0")), "x.service")).look().ok


@pytest.mark.parametrize(
    ("health", "ok", "detail"),
    [
        (None, True, "running"),
        ({"Status": "none"}, True, "running"),
        ({"Status": "healthy", "Log": []}, True, "running"),
        ({"Status": "starting", "Log": []}, False, "its own health check says starting"),
        (
            {"Status": "unhealthy", "Log": [{"Output": "a"}, {"Output": "no db\n"}]},
            False,
            "its own health check says unhealthy: no db",
        ),
    ],
)
def test_a_container_and_its_own_health(health: object, ok: bool, detail: str) -> None:
    result = ProcessProbe(ContainerProcess(Says(inspect(Health=health)), "c")).look()
    assert (result.ok, result.detail) == (ok, detail)


def test_a_container_that_comes_and_goes() -> None:
    runner = Says("", rc=1)
    probe = ProcessProbe(ContainerProcess(runner, "c"))
    assert (probe.look().detail, probe.look().final) == ("not running: no such container", False)
    runner.result = Result(0, inspect(), "")
    assert probe.look().ok
    runner.result = Result(0, inspect(Status="exited", ExitCode=1), "")
    assert (probe.look().final, probe.look().detail) == (True, "died: exited, exit code 1")


def test_logs() -> None:
    runner = Says("one\ntwo\n", err="three\n")
    assert ContainerProcess(runner, "c").logs(2) == ["two", "three"]
    assert UnitProcess(runner, "u.service").logs() == ["two", "one"]  # it is asked backwards
    assert "_SYSTEMD_UNIT=u.service" in runner.calls[-1]
    assert not any("--since" in word for word in runner.calls[-1])
    UnitProcess(runner, "u.service", 12.5).logs()
    assert "--since=@12.500" in runner.calls[-1]


def test_identity_in_words() -> None:
    assert Identity(True, "running", "a", 0).lost(Identity(True, "running", "a", 0)) is None
    lost = Identity(True, "running", "a", 2).lost(Identity(True, "running", "b", 0))
    assert lost == "was replaced by another process: it did not stay up"


def test_secrets_of_environment_files() -> None:
    text = (
        "# JWT_SECRET=comment-is-no-secret\n"
        "JWT_SECRET=abcd\n"
        'API_KEY="with \\"quotes\\""\n'
        "APP_ENV=production\n"
        "PORT=3000\n"
        "TOKEN=abc\n"
        "DATABASE_URL=postgresql://shop:p%40ss@db/shop\n"
        "OPAQUE=0123456789abcdef\n"
    )
    hidden = secrets.values(text)
    assert {"abcd", 'with "quotes"', "p%40ss", "p@ss", "0123456789abcdef"} <= hidden
    assert not {"production", "3000", "abc", "comment-is-no-secret"} & hidden
    shown = secrets.mask('login with p@ss and abcd, said "with \\"quotes\\"" in production', hidden)
    assert shown == f'login with {secrets.MASK} and {secrets.MASK}, said "{secrets.MASK}" in production'
