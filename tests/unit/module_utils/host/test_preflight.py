# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host import preflight
from ansible_collections.slipway.server.plugins.module_utils.host.preflight import Seen, Wanted
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner

DISTRIBUTIONS = {"debian": ["12", "13"], "ubuntu": ["22.04", "24.04"]}
GOOD: dict[str, Any] = {
    "os_id": "debian",
    "os_version": "12",
    "os_name": "Debian GNU/Linux 12",
    "systemd": 252,
    "python": (3, 11, 2),
    "memory_mb": 2000,
    "cores": 2,
    "disk_total_mb": 20000,
    "disk_free_mb": 9000,
}
SS = """LISTEN 0 511        0.0.0.0:80   0.0.0.0:*    users:(("nginx",pid=20,fd=6),("nginx",pid=19,fd=6))
LISTEN 0 128      127.0.0.1:5432 0.0.0.0:*    users:(("postgres",pid=30,fd=5))
LISTEN 0 4096          [::]:3000    [::]:*    users:(("ruby",pid=40,fd=5))
LISTEN 0 4096             *:9100       *:*
"""
CGROUPS = {
    19: "0::/system.slice/nginx.service\n",
    20: "0::/docker/0a1b/system.slice/nginx.service\n",
    30: "0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n",
    40: "0::/user.slice/user-0.slice/session-3.scope\n",
}


def found(wanted: Wanted, reach: str = "", **changes: Any) -> list[str]:
    return preflight.problems(wanted, Seen(**{**GOOD, **changes}), lambda _registry, _ca: reach)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"os_version": "11", "os_name": "Debian GNU/Linux 11"},
            "distribution: Debian GNU/Linux 11 is not supported. Use one of: debian 12, 13",
        ),
        ({"os_id": "rocky"}, "distribution:"),
        ({"os_id": "ubuntu", "os_version": "22.04"}, ""),
        ({"systemd": 241}, "systemd: version 241, at least 245"),
        ({"systemd": 0}, "systemd: not running"),
        ({"python": (3, 8, 1)}, "python: 3.8.1, at least 3.9"),
        ({"root": False}, "privileges: not root"),
        ({"apt": False}, "apt-get: not found"),
        ({"memory_mb": 700}, "memory: 700 MB, at least 900 MB"),
        ({"disk_free_mb": 500}, "disk: 500 MB free"),
        ({"unknown": ["pumma"]}, "packages: no archive of this host has pumma. Correct the name"),
        ({}, ""),
    ],
)
def test_one_problem(changes: dict[str, Any], says: str) -> None:
    lines = found(Wanted(DISTRIBUTIONS, memory_mb=900, disk_free_mb=1024), **changes)
    assert len(lines) == (1 if says else 0)
    assert says in "".join(lines)


def test_all_problems_at_once() -> None:
    wanted = Wanted(DISTRIBUTIONS, 900, 1024, [(80, "nginx", ["nginx.service"])], [("reg.lan:5000", "")])
    lines = found(
        wanted, "no TLS connection", os_version="10", memory_mb=1, systemd=1, listening=[(80, "apache2", "apache2.service")]
    )
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("holder", "foreign"),
    [
        (("nginx", "nginx.service"), False),
        (("postgres", "postgresql@15-main.service"), False),
        (("apache2", "apache2.service"), True),
        (("python3", ""), True),
    ],
)
def test_ports_may_be_held_by_their_own_services(holder: tuple[str, str], foreign: bool) -> None:
    wanted = Wanted(DISTRIBUTIONS, ports=[(5432, "PostgreSQL", ["postgresql*.service", "nginx.service"])])
    assert bool(found(wanted, listening=[(5432, *holder)])) is foreign
    assert found(wanted, listening=[(5433, *holder)]) == []


def test_listeners_and_their_units() -> None:
    assert preflight.listeners(SS, lambda pid: CGROUPS.get(pid, "")) == [
        (80, "nginx", "nginx.service"),
        (3000, "ruby", "session-3.scope"),
        (5432, "postgres", "postgresql@15-main.service"),
        (9100, "an unknown process", ""),
    ]


def test_files_of_the_host() -> None:
    assert preflight.os_release('ID=debian\nVERSION_ID="12"\n# x=y\n')["VERSION_ID"] == "12"
    assert preflight.systemd_version("systemd 252 (252.39-1)\n+PAM") == 252
    assert preflight.hard_nofile("Max open files            1024                 524288               files") == 524288
    assert [preflight.systemd_version(""), preflight.hard_nofile("")] == [0, 0]


@pytest.mark.parametrize(
    ("first", "limits", "memory"),
    [
        ("0::/init.scope\n", {}, 24105),
        ("0::/init.scope\n", {"": "max\n"}, 24105),
        ("0::/init.scope\n", {"": "2147483648\n"}, 2048),
        ("4:memory:/x\n0::/lxc/web1/init.scope\n", {"lxc/web1": "4294967296\n", "lxc": "8589934592\n"}, 4096),
        ("0::/init.scope\n", {"system.slice": "1048576\n"}, 24105),
        ("", {}, 24105),
    ],
)
def test_memory_is_what_the_host_may_use(tmp_path: Path, first: str, limits: dict[str, str], memory: int) -> None:
    assert preflight.memory_mb(tmp_path) == 0
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       24684224 kB\n")
    (tmp_path / "proc/1/cgroup").write_text(first)
    for group, limit in limits.items():
        (tmp_path / "sys/fs/cgroup" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / group / "memory.max").write_text(limit)
    assert preflight.memory_mb(tmp_path) == memory


class Recorded(Runner):
    """Answers from a table and remembers what was asked."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = dict(answers)
        self.asked: list[str] = []

    def run(
        self, argv: Sequence[str], data: Optional[str] = None, timeout: float = 600.0, env: Optional[Mapping[str, str]] = None
    ) -> Result:
        self.asked.append(" ".join(argv))
        if "update" in argv:
            self.answers["apt-cache"] = "pgbouncer:\n  Installed: (none)\n  Candidate: 1.18.0-1\n"
        return Result(0 if argv[0] in self.answers else 127, self.answers.get(argv[0], ""), "")


@pytest.mark.parametrize(("refresh", "versions"), [(True, {"pgbouncer": "1.18.0"}), (False, {})])
def test_the_index_is_fetched_only_when_needed_and_allowed(tmp_path: Path, refresh: bool, versions: dict[str, str]) -> None:
    (tmp_path / "var").mkdir()
    runner = Recorded({"apt-get": "apt 2.6", "dpkg-query": "", "apt-cache": "", "ss": SS})
    seen = preflight.observe(runner, ["pgbouncer"], refresh, tmp_path)
    assert seen.versions == versions
    assert any(" update" in asked for asked in runner.asked) is refresh
    assert preflight.facts(seen)["versions"] == versions
    assert seen.missing == ("pgbouncer",)
    assert seen.unknown == []
    known = Recorded({**runner.answers, "apt-cache": "pgbouncer:\n  Candidate: 1.24.1-1\n"})
    assert preflight.observe(known, ["pgbouncer"], refresh, tmp_path).versions == {"pgbouncer": "1.24.1"}
    assert not any(" update" in asked for asked in known.asked)


def test_a_package_is_unknown_only_when_a_fresh_index_does_not_have_it(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    answers = {"apt-get": "apt 2.6", "dpkg-query": "", "apt-cache": ""}
    assert preflight.observe(Recorded(answers), ["pumma", "pgbouncer"], True, tmp_path).unknown == ["pumma"]
    assert preflight.observe(Recorded(answers), ["pumma", "pgbouncer"], False, tmp_path).unknown == []

    class Offline(Recorded):
        def run(self, argv: Sequence[str], *rest: Any, **more: Any) -> Result:
            return Result(100, "", "Could not resolve") if "update" in argv else super().run(argv, *rest, **more)

    assert preflight.observe(Offline(answers), ["pumma"], True, tmp_path).unknown == []


@pytest.mark.parametrize(
    ("disks", "virtual", "turns"),
    [
        ({"sda": "1", "sdb": "1"}, False, True),
        ({"sda": "1", "nvme0n1": "0"}, False, False),
        ({"sda": "1"}, True, False),
        ({"dm-0": "1", "loop0": "1"}, False, False),
        ({}, False, False),
    ],
)
def test_disks_turn_when_all_real_ones_do(tmp_path: Path, disks: dict[str, str], virtual: bool, turns: bool) -> None:
    (tmp_path / "var").mkdir()
    for name, value in disks.items():
        (tmp_path / "sys/block" / name / "queue").mkdir(parents=True)
        (tmp_path / "sys/block" / name / "queue" / "rotational").write_text(f"{value}\n")
    runner = Recorded({"systemd-detect-virt": "kvm"} if virtual else {})
    assert preflight.facts(preflight.observe(runner, [], False, tmp_path))["rotational"] is turns


def test_registries_that_cannot_be_used() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert "no TLS connection" in preflight.reach(f"127.0.0.1:{port}", "")
    assert "does not resolve" in preflight.reach("no-such-host.invalid:5000", "")
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]

        def answer() -> None:
            peer, _address = plain.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.close()

        threading.Thread(target=answer, daemon=True).start()
        assert "no TLS connection" in preflight.reach(f"127.0.0.1:{port}", "")
    assert "no TLS connection" in preflight.reach("127.0.0.1:443", "not a certificate")


class Control(Runner):
    """pg_controldata as PostgreSQL 17 prints it."""

    def run(self, argv: Sequence[str], **_more: Any) -> Result:  # type: ignore[override]
        assert argv[0].endswith("/usr/lib/postgresql/17/bin/pg_controldata")
        lines = ("Database system identifier:           7431", "Latest checkpoint's TimeLineID:       3", "Fake LSN counter: 1")
        return Result(0, "\n".join(lines), "")


@pytest.mark.parametrize("standby", [True, False])
def test_the_cluster_and_whether_it_follows(tmp_path: Path, standby: bool) -> None:
    assert preflight.cluster(Control(), tmp_path) == {}
    for version in ("9.6", "15", "17"):
        conf = tmp_path / f"etc/postgresql/{version}/main"
        conf.mkdir(parents=True)
        (conf / "postgresql.conf").write_text(f"# x\ndata_directory = '/var/lib/postgresql/{version}/main'  # where\n")
    assert preflight.cluster(Control(), tmp_path) == {}
    program = tmp_path / "usr/lib/postgresql/17/bin/pg_controldata"
    program.parent.mkdir(parents=True)
    program.touch()
    data = tmp_path / "var/lib/postgresql/17/main"
    data.mkdir(parents=True)
    if standby:
        (data / "standby.signal").touch()
    seen = preflight.cluster(Control(), tmp_path)
    assert seen == {"system": "7431", "timeline": 3, "standby": standby}
    assert preflight.facts(Seen(cluster=seen))["cluster"] == seen


def test_a_running_pooler_is_a_fact() -> None:
    assert preflight.facts(Seen(listening=[(6432, "pgbouncer", "pgbouncer.service")]))["pooler"] is True
    assert preflight.facts(Seen())["pooler"] is False
