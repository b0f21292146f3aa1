# SPDX-License-Identifier: GPL-3.0-or-later
"""A standby: what is refused, what is copied beside the old directory, and what stays when a copy fails."""

from __future__ import annotations

import errno
import getpass
import json
from pathlib import Path
from typing import Any, Optional

import pytest

from plugins.module_utils.host.runner import Result
from plugins.module_utils.settings import postgresql_lag as lag
from plugins.module_utils.settings import postgresql_source as source
from plugins.module_utils.settings import postgresql_standby as standby
from plugins.module_utils.settings.postgresql_cluster import Cluster

SOURCE = source.Source("10.0.0.5", slot="db2", password="se'c:r\\et")
UNIT = "postgresql@17-main.service"
ALONE = {"standby": False, "databases": None, "tables": 0, "status": None, "host": None, "port": None, "slot": None}
ALONE.update(lag_bytes=None, replayed=None, position=100, held_back=False)
STREAMS = {
    **ALONE,
    "standby": True,
    "databases": ["shop"],
    "status": "streaming",
    "host": "10.0.0.5",
    "port": 5432,
    "slot": "db2",
}
STREAMS.update(lag_bytes=0, replayed=900.5)


class Killed(BaseException):
    """kill -9: nothing of the module runs after it."""


class Host:
    """A server with one cluster, and a primary; `fails` names a program that does not succeed, the run dies at call `dies`."""

    def __init__(self, root: Path, state: Optional[dict[str, Any]]) -> None:
        self.data = root / "lib" / "main"
        self.state = state
        self.fails = ""
        self.dies = 0
        self.masked = False
        self.calls: list[list[str]] = []
        self.data.mkdir(parents=True)
        (self.data / "old").touch()
        self._listens()
        etc = root / "etc" / "17" / "main"
        (etc / "conf.d").mkdir(parents=True)
        (etc / "postgresql.conf").write_text(f"data_directory = '{self.data}'\n")

    def _listens(self) -> None:
        if self.state is not None:
            (self.data / "postmaster.pid").write_text("1\n/\n1\n5432\n")

    def run(self, argv: list[str], data: Any = None, timeout: float = 0, env: Any = None) -> Result:
        self.calls.append(argv)
        line = " ".join(argv)
        self.dies -= 1
        if self.dies == 0:
            raise Killed
        if self.fails and self.fails in line:
            return Result(1, "", f"{self.fails}: no")
        if "is-enabled" in line:
            return Result(0, "masked" if self.masked else "enabled-runtime", "")
        if "is-active" in line:
            return Result(0 if self.state else 3, "", "")
        if "mask" in argv or "unmask" in argv:
            self.masked = "mask" in argv
        if argv[-3].endswith("pg_controldata"):
            end = "shut down" if self.state is None else "in production"
            return Result(0, f"Database cluster state:    {end}\nLatest checkpoint location:    0/64\n", "")
        if argv[0] == "pkill":
            return Result(1, "", "")
        if "pg_basebackup" in line:
            Path(argv[argv.index("-D") + 1]).mkdir()
        if argv[:2] == ["systemctl", "stop"]:
            self.state = None
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        if argv[:2] == ["systemctl", "start"] and not self.masked:
            self.state = STREAMS if (self.data / "standby.signal").exists() else ALONE
            self._listens()
        if "pg_logical_emit_message" in str(data) and self.state:
            self.state = {**self.state, "position": self.state.get("position", 0) + 8}
            return Result(0, "0/8\n", "")
        if "pg_promote" in str(data):
            self.state = ALONE
            return Result(0, "t\n", "")
        if "pg_is_in_recovery" in str(data):
            return Result(0, json.dumps(self.state) + "\n", "") if self.state else Result(2, "", "no server")
        return Result(0, "", "")

    def named(self, word: str) -> list[str]:
        return [" ".join(argv) for argv in self.calls if word in " ".join(argv)]


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def made(root: Path, state: Optional[dict[str, Any]]) -> tuple[Host, standby.Standby]:
    host, clock = Host(root, state), Clock()
    cluster = Cluster(host, "17", clock, etc=root / "etc", owner=getpass.getuser(), state=root / "state")  # type: ignore[arg-type]
    return host, standby.Standby(cluster, host, clock, home=root)  # type: ignore[arg-type]


def test_an_empty_cluster_becomes_a_copy_and_stays_one(tmp_path: Path) -> None:
    host, server = made(tmp_path, ALONE)
    done = server.ensure(SOURCE)
    assert done.steps == ["copied"]
    assert done.state is not None
    assert done.state.follows(SOURCE)
    assert sorted(path.name for path in (tmp_path / "lib").iterdir()) == ["main"]
    assert (host.data / "standby.signal").exists()
    assert not (host.data / "old").exists()
    assert server.passfile.stat().st_mode & 0o777 == 0o600
    assert server.passfile.read_text() == "*:5432:*:replicator:se'c\\:r\\\\et\n"
    assert not host.named("c:r"), "no password on a command line"
    host.calls.clear()
    assert server.ensure(SOURCE).steps == []
    assert not host.named("pg_basebackup")


def test_data_of_its_own_is_refused_or_kept(tmp_path: Path) -> None:
    host, server = made(tmp_path, {**ALONE, "databases": ["shop"]})
    with pytest.raises(standby.StandbyError, match=r"holds data \(shop\)(.|\n)*`replace`"):
        server.ensure(SOURCE)
    assert (host.data / "old").exists()
    assert not server.passfile.exists()
    done = server.ensure(SOURCE, replace=True)
    assert (Path(done.kept) / "old").exists()


def test_a_server_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    host, server = made(tmp_path, None)
    with pytest.raises(standby.StandbyError, match="does not answer"):
        server.ensure(SOURCE)
    assert (host.data / "old").exists()


@pytest.mark.parametrize("program", ["pg_basebackup", "CREATE_REPLICATION_SLOT"])
def test_a_failed_copy_leaves_what_was_there(tmp_path: Path, program: str) -> None:
    host, server = made(tmp_path, ALONE)
    host.fails = program
    with pytest.raises(standby.StandbyError):
        server.ensure(SOURCE)
    assert (host.data / "old").exists()
    assert host.state == ALONE
    assert not host.named("systemctl stop")


def test_a_copy_that_does_not_start_is_taken_back(tmp_path: Path) -> None:
    host, server = made(tmp_path, ALONE)
    host.fails = "systemctl start"
    with pytest.raises(standby.StandbyError):
        server.ensure(SOURCE)
    assert (host.data / "old").exists()


def test_check_mode_changes_nothing(tmp_path: Path) -> None:
    host, server = made(tmp_path, ALONE)
    assert server.ensure(SOURCE, check_mode=True).steps == ["copied"]
    assert (host.data / "old").exists()
    assert not server.passfile.exists()
    assert not server.drop_in.exists()


def test_a_fenced_server_is_stopped_and_masked_once(tmp_path: Path) -> None:
    host, server = made(tmp_path, {**ALONE, "databases": ["shop"]})
    assert server.fence().steps == ["fenced"]
    assert host.masked
    assert host.state is None
    assert server.fence().steps == []
    done = server.rejoin(SOURCE)
    assert done.steps == ["rewound"]
    assert not host.masked
    assert done.state is not None
    assert done.state.follows(SOURCE)


def test_a_standby_that_may_not_replay_its_own_log_yet_is_left_alone(tmp_path: Path) -> None:
    host, server = made(tmp_path, STREAMS)
    (server.data / "standby.signal").touch()
    server.ensure(SOURCE)
    host.state = {**STREAMS, "status": None, "host": None, "held_back": True}
    assert server.ensure(SOURCE).steps == []
    host.state = {**host.state, "held_back": False}
    with pytest.raises(standby.StandbyError, match="does not stream"):
        server.ensure(SOURCE)


def test_a_fence_says_where_the_log_ends_also_again_and_is_taken_back(tmp_path: Path) -> None:
    host, server = made(tmp_path, {**ALONE, "databases": ["shop"]})
    assert [server.fence().ended, server.fence().ended] == [100, 100]
    assert server.unfence().steps == ["unfenced"]
    assert not host.masked
    assert host.state is not None
    assert server.unfence().steps == []


def test_a_word_in_the_log_of_a_primary_is_what_no_standby_has_yet(tmp_path: Path) -> None:
    host, server = made(tmp_path, {**ALONE, "position": 100})
    assert server.mark(check_mode=True).state == server.observe()
    marked = server.mark().state
    assert marked is not None
    assert marked.position == 108
    host.fails = "psql"
    assert server.mark().state is None  # nothing is refused for one that cannot be asked
    host.fails = ""
    host.state = {**STREAMS, "position": 100}
    assert server.mark().state == server.observe()
    assert "has not replayed 8 bytes" in lag.Limits(bytes=0, reached=marked.position).verdict(server.observe())
    host.state = None
    assert server.mark().state is None


@pytest.mark.parametrize("state", ["in production", "shut down in recovery", "shutting down"])
def test_a_log_that_was_not_ended_in_order_ends_nowhere(state: str) -> None:
    assert lag.ended_at(f"Database cluster state:               {state}\nLatest checkpoint location:           1/2A\n") is None


def test_a_rewind_that_fails_leaves_it_stopped_and_fenced(tmp_path: Path) -> None:
    host, server = made(tmp_path, {**ALONE, "databases": ["shop"]})
    server.fence()
    host.fails = "pg_rewind"
    with pytest.raises(standby.StandbyError, match=r"pg_rewind: no(.|\n)*`replace`"):
        server.rejoin(SOURCE)
    assert host.masked
    assert host.state is None


def test_a_standby_is_promoted_once(tmp_path: Path) -> None:
    _host, server = made(tmp_path, STREAMS)
    assert server.promote().steps == ["promoted"]
    assert server.promote().steps == []


@pytest.mark.parametrize(
    ("change", "limits", "says"),
    [
        ({}, lag.Limits(0, 0), ""),
        ({"lag_bytes": 5}, lag.Limits(4), "5 bytes behind"),
        ({"lag_bytes": 5}, lag.Limits(5), ""),
        ({"lag_bytes": 5}, lag.Limits(-1, 900), "900.5 s behind"),
        ({}, lag.Limits(0, reached=101), "not replayed 1 bytes that the primary had written"),
        ({"status": None, "lag_bytes": None}, lag.Limits(reached=101), "not replayed 1 bytes"),
        ({"status": None, "lag_bytes": None}, lag.Limits(1, reached=101), ""),
        ({"status": None}, lag.Limits(9), "does not stream"),
        ({"standby": False}, lag.Limits(9), "no standby"),
    ],
)
def test_lag_is_judged(change: dict[str, Any], limits: lag.Limits, says: str) -> None:
    verdict = limits.verdict(lag.parse_state(json.dumps({**STREAMS, **change})))
    assert (says in verdict) if says else not verdict


def test_names_and_modes_that_cannot_be_are_told_together() -> None:
    found = source.problems(source.Source("", slot="Db-2", sslmode="prefer"))
    assert len(found) == 3
    assert source.problems(SOURCE) == []
    assert source.problems(source.Source("10.0.0.5", sslmode="verify-ca"))
    assert source.slot_name("DB-2.example") == "db_2_example"


@pytest.mark.parametrize("call", range(1, 10))
@pytest.mark.parametrize("atomic", [True, False])
def test_killed_at_any_call_it_keeps_what_was_there_and_the_next_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int, atomic: bool
) -> None:
    def refused(*_paths: Path) -> None:
        raise OSError(errno.EINVAL, "no exchange here")

    if not atomic:
        monkeypatch.setattr(standby.disk, "exchange", refused)
    host, server = made(tmp_path, {**ALONE, "databases": ["shop"]})
    host.dies = call
    with pytest.raises(Killed):
        server.ensure(SOURCE, replace=True)
    finishes(tmp_path, host, server)


@pytest.mark.parametrize("done", [False, True])
def test_killed_around_the_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    real = standby.disk.exchange

    def dies(one: Path, other: Path) -> None:
        if done:
            real(one, other)
        raise Killed

    host, server = made(tmp_path, {**ALONE, "databases": ["shop"]})
    monkeypatch.setattr(standby.disk, "exchange", dies)
    with pytest.raises(Killed):
        server.ensure(SOURCE, replace=True)
    monkeypatch.setattr(standby.disk, "exchange", real)
    assert host.state is None, "its server was stopped for the exchange"
    finishes(tmp_path, host, server)


def finishes(tmp_path: Path, host: Host, server: standby.Standby) -> None:
    """The old directory is whole, and the next run makes the standby; the operator's word was given to the first one."""
    kept = [path for path in (tmp_path / "lib").glob("main*") if (path / "old").exists()]
    assert len(kept) == 1, "the old directory is there, whole, under one of its names"
    assert host.data.exists()
    host.dies = 0
    done = server.ensure(SOURCE, replace=host.state is not None)
    assert done.state is not None
    assert done.state.follows(SOURCE)
    assert (host.data / "standby.signal").exists()
    names = sorted(path.name.partition(".before")[0] for path in (tmp_path / "lib").iterdir())
    assert names == ["main", "main"], "the copy, and the old directory that is kept"
    assert server.ensure(SOURCE).steps == []
