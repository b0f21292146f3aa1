# SPDX-License-Identifier: GPL-3.0-or-later
"""A server in miniature: it reads the files it is given, and dies of some."""

from __future__ import annotations

import getpass
import json
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import postgresql as conf
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_cluster import Cluster, ClusterError, Wanted

PARAMETERS = [
    ["max_connections", "integer", "postmaster", None, "1", "262143", None],
    ["work_mem", "integer", "user", "kB", "64", "2147483647", None],
    ["listen_addresses", "string", "postmaster", None, None, None, None],
    ["port", "integer", "postmaster", None, "1", "65535", None],
]


class Patient(Clock):
    """Time that passes only by sleeping."""

    seconds = 0.0

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += max(seconds, 0.01)


class Server(Runner):
    """Runs psql, systemctl and the server's binary against the folder `etc`."""

    def __init__(self, etc, data):
        self.etc, self.data = etc, data
        self.born = 0
        self.running, self.loaded, self.calls = False, 10.0, []
        self.effective: dict[str, str] = {}
        self.elsewhere: list[list[str]] = []
        self.slots: list[str] = []
        self.refuses = self.dies = self.hangs = False

    @property
    def drop_in(self):
        path = self.etc / "conf.d" / conf.DROP_IN
        lines = path.read_text().splitlines() if path.exists() else []
        return dict(line.replace("'", "").split(" = ") for line in lines if not line.startswith("#"))

    def start(self):
        self.running = not (self.dies and self.drop_in.get("max_connections") == "666")
        if self.running:
            self.effective, self.loaded = self.drop_in, max(self.loaded, time.time() + 1)
            self.born += 1
            (self.data / "postmaster.pid").write_text(f"{self.born}\n/data\n99\n5432\n/run\nlocalhost\n12 34\nready   \n")
        else:
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def run(self, argv, data=None, timeout=600.0, env=None):
        if "--check" in argv:
            self.calls.append("check")
            return Result(1, "", "FATAL: no memory") if self.refuses else Result(0, "", "")
        if argv[0] == "systemd-run" and "pg_createcluster 15 main" in argv[-1]:
            self.calls.append("create")
            (self.etc / "conf.d").mkdir(parents=True)
            Path(argv[-1].split()[-1]).unlink(missing_ok=True)
            (self.etc / "postgresql.conf").write_text(f"data_directory = '{self.data}'\n")
            for name in ("pg_hba.conf", "pg_ident.conf"):
                (self.etc / name).write_text("of the package\n")
            return Result(0, "", "")
        if argv[:2] == ["systemctl", "is-active"] and "createcluster" in argv[-1]:
            return Result(3, "", "")
        if argv[0] == "systemctl":
            if argv[1] == "show":
                return Result(0, "", "")
            if argv[1] in ("start", "restart"):
                self.calls.append(argv[1])
                self.start()
            return Result(0 if self.running else 3, "", "")
        if "pg_reload_conf" in data:
            self.calls.append("reload")
            self.loaded += 0 if self.hangs else 1e12
            self.effective["work_mem"] = self.drop_in.get("work_mem", "")
            return Result(0, "", "")
        if "pg_replication_slots" in data:
            return Result(0, "\n".join(self.slots), "")
        if "ORDER BY seqno\n" in data and "jsonb_agg" not in data:
            return Result(0, "\n".join(map(json.dumps, self.elsewhere)), "")
        return Result(0, json.dumps(self.answer()), "") if self.running else Result(2, "", "no server")

    def answer(self):
        now = self.drop_in
        pending = sorted(name for name in now if name != "work_mem" and now[name] != self.effective.get(name))
        error = "bad" in (self.etc / "pg_hba.conf").read_text()
        return {
            "parameters": PARAMETERS,
            "pending": pending,
            "lines": [[f"{self.etc}/conf.d/{conf.DROP_IN}", name, True, None] for name in now]
            + [["/var/lib/x/postgresql.auto.conf", "work_mem", True, None]],
            "hba_errors": ["line 1: bad"] if error else None,
            "loaded": self.loaded,
            "checksums": True,
            "version": "15.1",
        }


@pytest.fixture
def world(tmp_path):
    etc, data = tmp_path / "etc" / "15" / "main", tmp_path / "data"
    (etc / "conf.d").mkdir(parents=True)
    data.mkdir()
    (etc / "postgresql.conf").write_text(f"data_directory = '{data}'\n")
    for name in ("pg_hba.conf", "pg_ident.conf"):
        (etc / name).write_text("old\n")
    server = Server(etc, data)
    server.start()
    (tmp_path / "meminfo").write_text("MemTotal:       8000000 kB\n")
    cluster = Cluster(server, "15", Patient(), tmp_path / "etc", tmp_path / "meminfo", getpass.getuser(), tmp_path / "state")
    return cluster, server


def wanted(hba="hba\n", **settings):
    return Wanted({"max_connections": "40", "work_mem": "6MB", **settings}, hba, "ident\n")


def started(cluster, **settings):
    """The cluster runs with `settings`."""
    cluster.ensure(wanted(**settings))
    assert cluster.restart()
    return cluster.ensure(wanted(**settings))


def contents(server):
    return {path.name: path.read_text() for path in sorted(server.etc.rglob("*.conf"))}


def test_first_run_loads_everything_and_the_second_changes_nothing(world):
    cluster, server = world
    done = cluster.ensure(wanted())
    assert (done.changed, done.reloaded, done.pending) == (True, True, ("max_connections",))
    assert server.effective["work_mem"] == "6MB"
    assert server.calls == ["check", "reload"]
    assert not cluster.ensure(wanted()).changed
    assert server.calls == ["check", "reload"]


def test_no_restart_for_what_a_reload_can_take(world):
    cluster, server = world
    started(cluster)
    done = cluster.ensure(wanted(work_mem="7MB"))
    assert (done.reloaded, done.pending) == (True, ())
    assert not cluster.proven.exists()
    assert server.effective["work_mem"] == "7MB"


def test_unchanged_while_a_restart_is_pending(world):
    cluster, _server = world
    first, second = cluster.ensure(wanted()), cluster.ensure(wanted())
    assert (first.changed, second.changed) == (True, False)
    assert second.pending == ("max_connections",)


def test_what_the_server_runs_with_is_kept_while_newer_settings_are_pending(world):
    cluster, _server = world
    started(cluster)
    before = cluster.drop_in.read_text()
    cluster.ensure(wanted(max_connections="50"))
    cluster.ensure(wanted(max_connections="60", work_mem="8MB"))
    assert cluster.proven.read_text() == before
    assert cluster.put_back()
    assert cluster.drop_in.read_text() == before
    assert not cluster.put_back()


def test_without_a_drop_in_before_there_is_none_after(world):
    cluster, _server = world
    cluster.ensure(wanted())
    assert cluster.put_back()
    assert not cluster.drop_in.exists()


def test_pending_settings_that_are_taken_out_again_leave_nothing_to_go_back_to(world):
    cluster, _server = world
    started(cluster)
    cluster.ensure(wanted(max_connections="50"))
    assert cluster.ensure(wanted()).pending == ()
    assert not cluster.proven.exists()


def test_a_host_that_did_not_come_up_with_pending_settings_gets_the_old_ones_first(world):
    cluster, server = world
    started(cluster)
    cluster.ensure(wanted(max_connections="666"))
    server.dies = True
    server.start()
    assert cluster.observe() is None
    done = cluster.ensure(wanted(max_connections="41"))
    assert (done.started, done.pending) == (True, ("max_connections",))
    assert server.running


def test_shadowed_settings_are_told(world):
    cluster, _server = world
    assert cluster.ensure(wanted()).shadowed == {"work_mem": "/var/lib/x/postgresql.auto.conf"}


def test_a_file_younger_than_the_last_load_is_loaded(world):
    cluster, server = world
    cluster.ensure(wanted())
    server.loaded = 0.0
    assert cluster.ensure(wanted(), check_mode=True).changed
    done = cluster.ensure(wanted())
    assert (done.changes, done.reloaded) == ([], True)


def test_values_are_refused_before_anything_is_written(world):
    cluster, server = world
    before = contents(server)
    with pytest.raises(ClusterError, match=r"nothing was changed; 2 setting(.|\n)*max_connections(.|\n)*wal_keep_size"):
        cluster.ensure(wanted(max_connections="0", wal_keep_segments="3"))
    assert contents(server) == before
    assert server.calls == []


def test_all_that_is_wrong_is_told_at_once(world):
    cluster, server = world
    bad = Wanted({"max_connections": "0"}, "", "ident\n", ("postgresql_hba[0]: no address",))
    with pytest.raises(ClusterError, match=r"2 setting(.|\n)*no address(.|\n)*max_connections"):
        cluster.ensure(bad)
    assert server.calls == []


def test_the_binary_refuses_before_anything_is_written(world):
    cluster, server = world
    before, server.refuses = contents(server), True
    with pytest.raises(ClusterError, match=r"nothing was changed; PostgreSQL 15 refuses(.|\n)*no memory"):
        cluster.ensure(wanted())
    assert contents(server) == before
    assert list(server.data.parent.glob(".slipway-*")) == []


def test_a_server_that_dies_of_the_change_comes_back_with_the_old_bytes(world):
    cluster, server = world
    started(cluster)
    before, server.dies = contents(server), True
    cluster.ensure(wanted(max_connections="666"))
    assert not cluster.restart()
    assert cluster.put_back()
    assert cluster.start()
    assert contents(server)[conf.DROP_IN] == before[conf.DROP_IN]
    assert server.running
    assert server.effective["max_connections"] == "40"


def test_a_restart_is_over_when_another_process_is_ready(world):
    cluster, server = world
    started(cluster)
    file, jobs = server.data / "postmaster.pid", ["77\n"] * 3
    texts = [file.read_text(), "", file.read_text().replace("ready   ", "starting").replace("2\n", "9\n", 1)]
    texts.append(texts[2].replace("starting", "ready   "))
    run = server.run

    def later(argv, data=None, timeout=600.0, env=None):
        if argv[:2] == ["systemctl", "restart"]:
            return Result(0, "", "")
        if argv[:2] == ["systemctl", "show"]:
            return Result(0, jobs.pop() if jobs else "", "")
        return run(argv, data)

    def sleep(seconds):
        cluster.clock.seconds += seconds
        if texts:
            file.write_text(texts.pop(0))

    server.run, cluster.clock.sleep = later, sleep
    assert cluster.restart()
    assert texts == []
    assert cluster.settle().version == "15.1"


def test_a_restart_that_hangs_is_one_that_failed(world):
    cluster, server = world
    started(cluster)
    server.start = lambda: None
    assert not cluster.restart()


def test_rules_that_the_server_finds_wrong_are_taken_back(world):
    cluster, server = world
    cluster.ensure(wanted())
    before = contents(server)
    with pytest.raises(ClusterError, match=r"pg_hba.conf: line 1(.|\n)*the server answers"):
        cluster.ensure(wanted(hba="bad\n"))
    assert contents(server) == before


def test_a_reload_that_never_comes_is_a_failure(world):
    cluster, server = world
    cluster.ensure(wanted())
    before, server.hangs = contents(server), True
    with pytest.raises(ClusterError, match="did not load its files"):
        cluster.ensure(wanted(work_mem="9MB"))
    assert contents(server) == before


def test_a_stopped_server_is_started(world):
    cluster, server = world
    cluster.ensure(wanted())
    server.running = False
    (server.data / "postmaster.pid").unlink()
    assert cluster.ensure(wanted(), check_mode=True).started
    assert not server.running
    assert cluster.ensure(wanted()).started
    assert server.running


@pytest.fixture
def bare(world, tmp_path):
    """The package is there, and no cluster."""
    cluster, server = world
    shutil.rmtree(server.etc)
    server.running = False
    (server.data / "postmaster.pid").unlink()
    cluster.library = tmp_path / "lib"
    (cluster.library / "bin").mkdir(parents=True)
    (cluster.library / "bin" / "postgres").touch()
    return cluster, server


def test_a_cluster_that_is_missing_is_made_and_its_first_start_needs_no_other(bare):
    cluster, server = bare
    done = cluster.ensure(wanted())
    assert (done.changed, done.started, done.pending) == (True, True, ())
    assert server.calls == ["create", "check", "start"]
    assert server.effective["max_connections"] == "40"
    assert not cluster.ensure(wanted()).changed


@pytest.mark.parametrize(
    ("breaks", "settings", "says"),
    [
        ("refuses", {"wal_keep_segments": "64"}, "wal_keep_segments"),
        ("dies", {"max_connections": "666"}, "The old files are back; the server answers"),
    ],
)
def test_a_new_cluster_that_does_not_take_its_settings_runs_without_them(bare, breaks, settings, says):
    cluster, server = bare
    setattr(server, breaks, True)
    with pytest.raises(ClusterError, match=says):
        cluster.ensure(wanted(**settings))
    assert server.running
    assert server.drop_in == {}
    assert (server.etc / "pg_hba.conf").read_text() == "of the package\n"


def test_no_cluster_is_made_without_the_package(bare):
    cluster, server = bare
    (cluster.library / "bin" / "postgres").unlink()
    with pytest.raises(ClusterError, match="install the package postgresql-15"):
        cluster.ensure(wanted())
    assert server.calls == []


def test_check_mode_without_a_cluster(tmp_path):
    cluster = Cluster(Runner(), "15", Patient(), tmp_path)
    assert len(cluster.ensure(wanted(), check_mode=True).changes) == 3
