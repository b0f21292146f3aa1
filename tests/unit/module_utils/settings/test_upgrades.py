# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import upgrades as u
from ansible_collections.slipway.server.plugins.module_utils.settings.packages import PackageError

SIMULATED = """Reading package lists...
Inst nginx-common [1.22.1-9] (1.22.1-9+deb12u1 Debian-Security:oldstable-security [all]) []
Inst nginx [1.22.1-9] (1.22.1-9+deb12u1 Debian-Security:oldstable-security [amd64])
Inst linux-image-6.1.0-31-amd64 (6.1.128-1 Debian-Security:oldstable-security [amd64])
Inst linux-image-amd64 [6.1.124-1] (6.1.128-1 Debian-Security:oldstable-security [amd64])
Inst jq [1.6-2] (1.6-2.1 Debian:12.9/oldstable, Debian-Security:12/oldstable [amd64])
Conf nginx (1.22.1-9+deb12u1 Debian-Security:oldstable-security [amd64])
"""


def test_what_apt_would_install():
    found = {one.name: one for one in u.simulated(SIMULATED)}
    assert list(found) == ["nginx-common", "nginx", "linux-image-6.1.0-31-amd64", "linux-image-amd64", "jq"]
    assert found["nginx"] == u.Upgrade("nginx", "1.22.1-9", "1.22.1-9+deb12u1", "Debian-Security:oldstable-security")
    assert found["linux-image-6.1.0-31-amd64"].old == ""
    assert found["jq"].new == "1.6-2.1"


def test_held_packages_and_kernels_are_chosen():
    names = [one.name for one in u.chosen(u.simulated(SIMULATED), ["nginx"])]
    assert names == ["nginx-common", "nginx", "linux-image-6.1.0-31-amd64", "linux-image-amd64"]
    assert [one.name for one in u.chosen(u.simulated(SIMULATED), [])] == names[2:]


@pytest.mark.parametrize(
    ("unit", "kind"),
    [
        ("nginx.service", "nginx"),
        ("postgresql@17-main.service", "postgresql"),
        ("pgbouncer.service", "pgbouncer"),
        ("pgbouncer@two.service", "pgbouncer"),
        ("docker.service", "docker"),
        ("containerd.service", "docker"),
        ("dbus.service", "host"),
        ("user@1000.service", "host"),
        ("systemd-logind.service", "host"),
        ("init.scope", "manager"),
        ("shop@blue-1.service", "app"),
        ("shop-sidekiq@blue-1.service", "app"),
        ("shopkeeper.service", "service"),
        ("redis-server@cache.service", "service"),
        ("ssh.service", "service"),
    ],
)
def test_how_a_unit_is_restarted(unit, kind):
    assert u.kind(unit, ["shop"]) == kind


def process(proc, number, unit, exe="/usr/sbin/thing", maps="", comm="thing"):
    folder = proc / str(number)
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(f"0::/system.slice/{unit}\n")
    (folder / "comm").write_text(comm + "\n")
    (folder / "maps").write_text(maps)
    os.symlink(exe, folder / "exe")


def line(path):
    return f"7f0000000000-7f0000001000 r-xp 00000000 08:01 42                 {path}\n"


def test_replaced_programs_and_libraries_are_found(tmp_path):
    process(tmp_path, 1, "init.scope", "/usr/lib/systemd/systemd", line("/usr/lib/x86_64-linux-gnu/libc.so.6 (deleted)"))
    process(tmp_path, 10, "nginx.service", "/usr/sbin/nginx.dpkg-tmp (deleted)")
    process(tmp_path, 11, "cron.service", maps=line("/lib/x86_64-linux-gnu/libssl.so.3 (deleted)"))
    process(
        tmp_path, 12, "fine.service", maps=line("/usr/lib/libz.so.1") + line("/dev/shm/x (deleted)") + line("/memfd:a (deleted)")
    )
    process(tmp_path, 13, "data.service", maps=line("/var/lib/data/file (deleted)"))
    process(tmp_path, 14, "docker.service", "/usr/bin/docker-proxy (deleted)", comm="docker-proxy")
    process(tmp_path, 15, "containerd.service", "/usr/bin/containerd (deleted)", comm="containerd")
    process(tmp_path, 16, "session-1.scope", "/usr/bin/bash (deleted)")
    (tmp_path / "self").mkdir()
    found = u.outdated(tmp_path)
    assert sorted(found) == ["containerd.service", "cron.service", "init.scope", "nginx.service"]
    assert found["nginx.service"] == "/usr/sbin/nginx was replaced"
    assert "libssl" in found["cron.service"]


def test_a_process_that_ends_meanwhile_is_no_error(tmp_path):
    (tmp_path / "77").mkdir()
    assert u.outdated(tmp_path) == {}


def block(name, files, started="Fri 2026-01-02 10:00:00.000000 UTC", kind="notify", state="active"):
    return f"Type={kind}\nExecMainStartTimestamp={started}\nId={name}\nFragmentPath=\nDropInPaths={files}\nActiveState={state}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (block("a.service", "/etc/new.conf"), ["a.service"]),
        (block("a.service", "/etc/old.conf"), []),
        (block("a.service", "/usr/lib/new.conf /etc/gone.conf"), []),
        (block("a.service", "/etc/new.conf", kind="oneshot"), []),
        (block("a.service", "/etc/new.conf", state="inactive"), []),
        (block("a.service", "/etc/new.conf", started=""), []),
        (block("a.service", "/etc/old.conf") + "\n" + block("b.service", "/etc/old.conf /etc/new.conf"), ["b.service"]),
    ],
)
def test_unit_files_newer_than_the_process(text, found, monkeypatch):
    times = {"/etc/new.conf": 1767348000.0 + 60, "/usr/lib/new.conf": 1767348000.0 + 60, "/etc/old.conf": 1767348000.0 - 60}
    monkeypatch.setattr(u, "_changed_at", lambda path: times.get(str(path), 0.0))
    assert list(u.refreshed(text)) == found


class Host(Runner):
    """apt and systemd of a host."""

    def __init__(self, policy, fails="", busy=False):
        self.policy, self.fails, self.busy, self.ran, self.seen = policy, fails, busy, [], []

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.ran.append(list(argv))
        if "is-active" in argv:
            return Result(0 if self.busy else 3, "", "")
        if argv[0] == "systemd-run":
            self.seen.append(self.policy.read_text() if self.policy.exists() else "")
        bad = bool(self.fails) and self.fails in argv
        return Result(1 if bad else 0, SIMULATED if "--simulate" in argv else "", "no space" if bad else "")


def test_packages_may_not_restart_services_while_they_are_upgraded(tmp_path):
    policy = tmp_path / "policy-rc.d"
    host = Host(policy)
    u.Upgrades(host, ["nginx"], policy=policy).upgrade(["nginx", "nginx-common"])
    assert host.seen == [u.POLICY_TEXT]
    assert not policy.exists()
    run = next(argv for argv in host.ran if argv[0] == "systemd-run")
    assert run[-4:] == ["install", "--only-upgrade", "nginx", "nginx-common"]
    assert "dpkg --configure --pending" in run[run.index("-c") + 1]


def test_a_failed_upgrade_leaves_no_policy_behind(tmp_path):
    policy = tmp_path / "policy-rc.d"
    with pytest.raises(PackageError, match="no space"):
        u.Upgrades(Host(policy, fails="--only-upgrade"), [], policy=policy).upgrade(["nginx"])
    assert not policy.exists()


def test_what_a_killed_run_left_is_taken_over_and_somebody_elses_policy_is_not(tmp_path):
    policy = tmp_path / "policy-rc.d"
    policy.write_text(u.POLICY_TEXT)
    u.Upgrades(Host(policy), [], policy=policy).upgrade(["nginx"])
    policy.write_text("#!/bin/sh\nexit 101\n")
    with pytest.raises(PackageError, match="is there and not ours"):
        u.Upgrades(Host(policy), [], policy=policy).upgrade(["nginx"])
    assert policy.exists()


def test_two_upgrades_at_once_are_refused(tmp_path):
    with pytest.raises(PackageError, match="another upgrade is under way"):
        u.Upgrades(Host(tmp_path / "p", busy=True), [], policy=tmp_path / "p").upgrade(["nginx"])


def test_a_report_for_people():
    report = u.Report((u.Upgrade("nginx", "1", "2", "x"),), (u.Waiting("cron.service", "service", "libc was replaced"),), "linux")
    assert report.lines() == [
        "nginx 1 -> 2",
        "cron.service waits for a restart: libc was replaced",
        "the host waits for a restart: linux",
    ]
    assert not report.idle
    assert report.work
    assert not u.Report(waiting=(u.Waiting("dbus.service", "host", "x"),), reboot="linux").work
    assert u.Report().idle
