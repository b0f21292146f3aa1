# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import struct

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import base_options as o
from ansible_collections.slipway.server.plugins.module_utils.settings.base_parts import Parts, Settings


class Kernel:
    """The kernel's end of the audit socket, with the messages it sends."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def __call__(self, *_kind):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return None

    def settimeout(self, _seconds):
        pass

    def sendto(self, data, _address):
        self.asked.append(struct.unpack("=IHHII", data)[:3])

    def recv(self, _size):
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


def message(kind, *numbers):
    return struct.pack("=IHHII", 16 + 4 * len(numbers), kind, 0, 1, 0) + struct.pack(f"={len(numbers)}i", *numbers)


@pytest.mark.parametrize(
    ("answers", "seen"),
    [
        ([message(o.ERROR, -111)], ("Connection refused", 0)),
        ([message(o.ERROR, -1)], ("Operation not permitted", 0)),
        ([OSError(93, "Protocol not supported")], ("Protocol not supported", 0)),
        ([message(o.ERROR, 0), message(o.AUDIT_GET, 0, 1, 1)], ("", 1)),
        ([message(o.AUDIT_GET, 0, 2, 1)], ("", 2)),
    ],
)
def test_the_kernel_is_asked_whether_it_lets_this_host_audit(answers, seen):
    kernel = Kernel(*answers)
    assert o.audit_status(kernel) == seen
    assert kernel.asked == [(16, 1000, 5)]


def audit(root, status, wanted=True):
    parts = Parts()
    o.auditd(Settings(auditd=wanted), root, parts, lambda: status)
    return parts


@pytest.fixture
def root(tmp_path):
    for name in ("etc/passwd", "etc/docker/daemon.json", "usr/bin/kmod", "lib/systemd/system/auditd.service"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_rules_are_of_what_is_there(root):
    parts = audit(root, ("", 1))
    rules = parts.own[0].content.splitlines()
    assert "-w /etc/passwd -p wa -k slipway-identity" in rules
    assert "-w /usr/bin/kmod -p x -k slipway-modules" in rules
    assert "-w /etc/docker -p wa -k slipway-docker" in rules
    assert not any("/etc/sudoers" in rule for rule in rules)
    keys = {"identity": "/etc/passwd", "modules": "/usr/bin/kmod", "docker": "/etc/docker"}
    loaded = "".join(f"-w {path} -p wa -k slipway-{key}\n" for key, path in keys.items())
    calls = "-a always,exit -F arch=b64 -S adjtimex -F key=slipway-time\n"
    assert re.search(parts.checks[0]["matches"], loaded + calls, re.MULTILINE)
    assert not re.search(parts.checks[0]["matches"], loaded, re.MULTILINE)
    assert parts.apply == [("augenrules", "--load")]


def test_auditing_stays_off_where_the_kernel_refuses(root):
    parts = audit(root, ("Connection refused", 0))
    assert parts.own[0].content is None
    assert [(unit.name, unit.enabled, unit.state) for unit in parts.units] == [("auditd.service", False, "stopped")]
    assert parts.apply == [("systemctl", "reset-failed", "auditd.service")]
    assert "auditd stays off: the kernel does not let this host audit (Connection refused)" in parts.warnings[0]


def test_locked_rules_wait_for_the_next_start(root):
    parts = audit(root, ("", o.LOCKED))
    assert parts.apply == []
    assert parts.checks == []
    assert "locked until the next start" in parts.warnings[0]


def test_auditing_that_was_never_on_leaves_the_host_alone(root):
    parts = audit(root, ("", 1), wanted=False)
    assert (parts.units, parts.apply, parts.warnings) == ([], [], [])


class Nft(Runner):
    def __init__(self, rc):
        self.rc = rc

    def run(self, argv, data=None, timeout=600.0, env=None):
        return Result(self.rc, "", "Operation not permitted" if self.rc else "")


def banning(root, address, rc=0, **given):
    parts = Parts()
    o.fail2ban(Settings(**{"fail2ban": True, **given}), root, Nft(rc), address, parts)
    return parts


def test_the_operator_is_never_banned_nor_the_one_before(tmp_path):
    first = banning(tmp_path, "198.51.100.7", fail2ban_ignore=["10.0.0.0/8"]).own[0]
    assert "ignoreip = 127.0.0.0/8 ::1 10.0.0.0/8 198.51.100.7\n" in first.content
    first.path.parent.mkdir(parents=True)
    first.path.write_text(first.content)
    assert banning(tmp_path, "198.51.100.7", fail2ban_ignore=["10.0.0.0/8"]).own[0].content == first.content
    assert "198.51.100.9 198.51.100.7\n" in banning(tmp_path, "198.51.100.9").own[0].content
    known = " ".join(f"10.9.9.{number}" for number in range(o.OPERATORS))
    assert o.operators(f"# Operators: {known}\n", "10.1.1.1") == ["10.1.1.1", *known.split()[:-1]]


def test_banning_stays_off_where_the_kernel_refuses(tmp_path):
    parts = banning(tmp_path, "198.51.100.7", rc=1)
    assert parts.own[0].content is None
    assert parts.units == []
    assert "fail2ban stays off" in parts.warnings[0]


def test_nft_that_is_not_there_yet_refuses_nothing(tmp_path):
    assert banning(tmp_path, "", rc=127).own[0].content


def test_options_that_are_switched_off_are_stopped(tmp_path):
    path = tmp_path / "etc/fail2ban/jail.d/60-slipway.local"
    path.parent.mkdir(parents=True)
    path.touch()
    parts = banning(tmp_path, "", fail2ban=False)
    assert [(unit.name, unit.enabled, unit.state) for unit in parts.units] == [("fail2ban.service", False, "stopped")]
    assert {spec.content for spec in parts.own} == {None}
