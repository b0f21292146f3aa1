# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import renewal as r
from ansible_collections.slipway.server.plugins.module_utils.settings.upgrades import Waiting


class Still(Clock):
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.at = 0.0

    def monotonic(self):
        return self.at

    def now(self):
        return self.at

    def sleep(self, seconds):
        self.at += seconds


class Host(Runner):
    """Services and containers; `sees` and `keeps` say what containerd knows of them and leaves running."""

    def __init__(self, tmp_path, version="1.6.20", sees=True, keeps=True, dead=(), starts=True):
        self.version, self.sees, self.keeps, self.dead, self.starts = version, sees, keeps, dead, starts
        self.folder, self.ran, self.pid, self.main = tmp_path, [], 100, 10
        (tmp_path / "nginx.pid").write_text("10\n")

    def run(self, argv, data=None, timeout=600.0, env=None):
        text = " ".join(argv)
        self.ran.append(text)
        out, rc = "", 0
        if text.startswith("systemctl restart"):
            rc = 1 if argv[-1] in self.dead else 0
            self.pid += 0 if self.keeps else 1
        elif text.startswith("docker ps"):
            out = "c1\n" if self.pid else ""
        elif text.startswith("docker inspect"):
            out = json.dumps([{"Name": "/shop-blue-1", "State": {"Pid": self.pid}}])
        elif text.startswith("docker top"):
            out = "UID PID\n" + ("root 7\n" if self.sees else "")
        elif text.startswith("docker start"):
            self.pid += 5
        elif text.startswith("containerd --version"):
            out = f"containerd github.com/containerd/containerd {self.version}~ds1 x\n"
        elif text.startswith("kill -12") and self.starts:
            (self.folder / "nginx.pid").write_text("20\n")
            (self.folder / "nginx.pid.oldbin").write_text("10\n")
        elif text.startswith("kill -KILL"):
            self.main = 20
        elif text.startswith("pgrep"):
            rc = 0 if argv[2] == "20" or "kill -3 10" not in self.ran else 1
        elif "--property=MainPID" in text:
            out = f"{self.main}\n"
        return Result(rc, out, "")

    def did(self, word):
        return [text for text in self.ran if word in text]


@pytest.fixture(autouse=True)
def pids(monkeypatch, tmp_path):
    monkeypatch.setattr(r, "NGINX_PID", tmp_path / "nginx.pid")
    monkeypatch.setattr(r, "NGINX_OLD", tmp_path / "nginx.pid.oldbin")


def waiting(unit, kind, why="/usr/x was replaced"):
    return Waiting(unit, kind, why)


DOCKER = [waiting("containerd.service", "docker"), waiting("docker.service", "docker")]


def test_services_are_restarted_and_the_manager_executes_itself_anew(tmp_path):
    host = Host(tmp_path)
    done = r.Renewal(host, Still()).run([waiting("cron.service", "service"), waiting("init.scope", "manager")], True)
    assert done.restarted == ["init.scope", "cron.service"]
    assert host.did("daemon-reexec")


def test_what_only_the_host_can_renew_is_left(tmp_path):
    host = Host(tmp_path)
    done = r.Renewal(host, Still()).run([waiting("dbus.service", "host")], True)
    assert "only a restart of the host" in done.left[0]
    assert not host.did("systemctl restart")


@pytest.mark.parametrize("elsewhere", [True, False])
def test_processes_of_applications_only_while_others_serve(tmp_path, elsewhere):
    done = r.Renewal(Host(tmp_path), Still()).run([waiting("shop@blue-1.service", "app")], elsewhere)
    assert done.restarted == (["shop@blue-1.service"] if elsewhere else [])
    assert len(done.left) == (0 if elsewhere else 1)


def test_a_service_that_does_not_come_back_is_named_with_its_log(tmp_path):
    with pytest.raises(r.RenewalError, match=r"cron\.service did not come back"):
        r.Renewal(Host(tmp_path, dead=("cron.service",)), Still()).run([waiting("cron.service", "service")], True)


def test_containers_go_on_over_a_restart_of_docker(tmp_path):
    host = Host(tmp_path)
    done = r.Renewal(host, Still()).run(DOCKER, False)
    assert done.restarted == ["containerd.service", "docker.service"]
    assert (done.containers, done.stopped) == (1, [])


def test_a_container_that_ended_is_an_error(tmp_path):
    with pytest.raises(r.RenewalError, match="shop-blue-1"):
        r.Renewal(Host(tmp_path, keeps=False), Still()).run(DOCKER, True)


def test_containers_that_a_newer_containerd_would_end_are_stopped_properly_where_others_serve(tmp_path):
    host = Host(tmp_path, version="1.7.24", sees=False, keeps=False)
    done = r.Renewal(host, Still()).run(DOCKER, True)
    assert done.stopped == ["shop-blue-1"]
    order = [
        host.ran.index(text) for text in (*host.did("systemd-run"), *host.did("docker stop"), *host.did("systemctl restart"))
    ]
    assert order == sorted(order)
    assert host.ran.index("docker start shop-blue-1") > max(order)
    assert host.did("systemctl stop slipway-containers-start.timer")


def test_and_left_alone_where_nobody_else_serves(tmp_path):
    host = Host(tmp_path, version="1.7.24", sees=False)
    done = r.Renewal(host, Still()).run(DOCKER, False)
    assert done.restarted == ["docker.service"]
    assert "would end shop-blue-1" in done.left[0]
    assert not host.did("docker stop")


def test_the_new_nginx_takes_over_with_the_old_ones_sockets(tmp_path):
    host = Host(tmp_path)
    done = r.Renewal(host, Still()).run([waiting("nginx.service", "nginx")], True)
    assert done.restarted == ["nginx.service (on the fly)"]
    assert [text for text in host.ran if text.startswith("kill")] == ["kill -12 10", "kill -3 10", "kill -KILL 10"]
    assert not (tmp_path / "nginx.pid.oldbin").exists()
    assert not host.did("systemctl restart")


def test_a_new_nginx_that_does_not_start_leaves_the_old_one(tmp_path):
    host = Host(tmp_path, starts=False)
    with pytest.raises(r.RenewalError, match=r"the old one \(process 10\) serves"):
        r.Renewal(host, Still()).run([waiting("nginx.service", "nginx")], True)
    assert not host.did("kill -3")


@pytest.mark.parametrize("dead", [(), ("nginx.service",)])
def test_a_changed_unit_restarts_nginx_behind_a_door_that_opens_again_in_any_case(tmp_path, dead):
    host, doors = Host(tmp_path, dead=dead), []
    renewal = r.Renewal(host, Still(), door=lambda shut: doors.append((shut, len(host.did("systemctl restart")))))
    unit = waiting("nginx.service", "nginx", "/etc/systemd/system/nginx.service.d/x.conf is newer than its process")
    if dead:
        with pytest.raises(r.RenewalError):
            renewal.run([unit], True)
    else:
        assert renewal.run([unit], True).restarted == ["nginx.service"]
    assert doors == [(True, 0), (False, 1)]


class Hold:
    """A pooler's hold that writes down what happens."""

    def __init__(self, log, there=True):
        self.log, self.is_there = log, there

    def there(self):
        return self.is_there

    def take(self, timeout):
        self.log.append("take")

    def release(self):
        self.log.append("release")


@pytest.mark.parametrize("dead", [(), ("pgbouncer.service",)])
def test_clients_of_the_pooler_are_held_and_let_go_in_any_case(tmp_path, dead):
    log = []
    renewal = r.Renewal(Host(tmp_path, dead=dead), Still(), [Hold(log), Hold(log, there=False)])
    if dead:
        with pytest.raises(r.RenewalError):
            renewal.run([waiting("pgbouncer.service", "pgbouncer")], True)
    else:
        renewal.run([waiting("pgbouncer.service", "pgbouncer")], True)
    assert log == ["take", "release"]
