# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import grp
import re

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import docker_closed as d

TCP = {"hosts": ["fd://", "tcp://0.0.0.0:2375"]}


@pytest.mark.parametrize(
    ("options", "old", "containers", "says"),
    [
        (TCP, {}, [], "lets everybody who reaches it be root"),
        ({**TCP, "tls": True, "tlscert": "c", "tlskey": "k"}, {}, [], "tlsverify"),
        ({"default-ulimits": {"nofile": {"Hard": 20001, "Soft": 1}}}, {}, [], "is 20001, this host can give 20000"),
        ({"userns-remap": "default"}, {}, ["slipway-shop-blue-1", "b"], "2 container.s. .slipway-shop-blue-1, b."),
    ],
)
def test_what_is_refused(options, old, containers, says):
    (line,) = d.refusals(options, old, 20000, containers)
    assert re.search(says, line)


def test_what_is_taken():
    assert d.refusals({}, {}, 20000, ["a"]) == []
    assert d.refusals({"hosts": ["unix:///run/docker.sock"]}, {}, 20000, []) == []
    assert d.refusals({**TCP, **dict.fromkeys(d.TLS, "x")}, {}, 20000, []) == []
    assert d.refusals({"userns-remap": "default"}, {}, 20000, []) == []
    assert d.refusals({"userns-remap": "default"}, {"userns-remap": "default"}, 20000, ["a"]) == []


def test_keys_of_others_are_named():
    assert d.leaving({"debug": True, "icc": True}, {"icc": False}) == ["debug"]


class Engine(Runner):
    """Has two containers, or does not answer."""

    def __init__(self, rc=0):
        self.rc = rc

    def run(self, argv, data=None, timeout=600.0, env=None):
        return Result(self.rc, "a\nb\n", "")


def test_containers():
    assert d.containers(Engine()) == ["a", "b"]
    assert d.containers(Engine(1)) == []


class Systemd(Runner):
    """Listens for the daemon."""

    def __init__(self, listen="/run/docker.sock (Stream)\n"):
        self.listen = listen

    def run(self, argv, data=None, timeout=600.0, env=None):
        return Result(0, self.listen, "")


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "9").mkdir()
    (tmp_path / "9/cmdline").write_text("dockerd\0-H\0fd://\0")
    (tmp_path / "docker.sock").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "listen", "place"),
    [
        ("dockerd\0-H\0tcp://0.0.0.0:2375\0", "/run/docker.sock (Stream)\n", "tcp://0.0.0.0:2375"),
        ("dockerd\0--host=tcp://:2375\0", "", "tcp://:2375"),
        ("dockerd\0-H\0fd://\0", "/run/docker.sock (Stream)\n[::]:2375 (Stream)\n", "[::]:2375"),
    ],
)
def test_listeners_without_tls_and_an_open_socket_are_found(proc, command, listen, place):
    socket = proc / "docker.sock"
    socket.chmod(0o666)
    (proc / "9/cmdline").write_text(command)
    found = d.mismatches({}, "9", Systemd(listen), proc, socket)
    assert [mismatch.what.split(" ")[1] for mismatch in found] == ["socket", "TCP"]
    assert place in str(found[1])
    assert len(d.mismatches({"tlsverify": True}, "9", Systemd(listen), proc, socket)) == 1
    assert "No such file" in str(d.mismatches({"tlsverify": True}, "9", Systemd(), proc, proc / "none")[0])


def test_a_socket_for_its_group_only(proc, monkeypatch):
    monkeypatch.setattr(d.pwd, "getpwuid", lambda _number: ("root",))
    socket = proc / "docker.sock"
    socket.chmod(0o660)
    options = {"group": grp.getgrgid(socket.stat().st_gid).gr_name}
    assert d.mismatches(options, "9", Systemd(), proc, socket) == []
