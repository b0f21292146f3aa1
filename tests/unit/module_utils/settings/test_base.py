# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.slipway.server.plugins.module_utils.guard.armed import Arming, Guard, TakenBack
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.host.session import Login
from ansible_collections.slipway.server.plugins.module_utils.settings import base as b
from ansible_collections.slipway.server.plugins.module_utils.settings import base_pam, base_parts, manifest

SUDO = ("use_pty", "logfile=/var/log/sudo.log")
HAND = "Name: Unix\n"


class Host(Runner):
    """Commands of a host that is well; `units` are those it has: name to ActiveState and UnitFileState."""

    def __init__(self, **refused):
        self.refused = refused
        self.calls = []
        self.units = {"logrotate.timer": ("active", "enabled"), "systemd-timesyncd.service": ("active", "enabled")}
        self.units["systemd-journald.service"] = ("active", "static")

    def run(self, argv, data=None, timeout=600.0, env=None):
        argv = list(argv)
        self.calls.append(" ".join(argv))
        if argv[0] in self.refused:
            return Result(1, "", self.refused[argv[0]])
        if argv[:2] == ["systemctl", "show"] and any("Id," in word for word in argv):
            rows = [(name, *self.units.get(name, ("inactive", ""))) for name in argv[argv.index("--") + 1 :]]
            form = "Id={}\nNames={}\nLoadState=loaded\nActiveState={}\nUnitFileState={}\nNeedDaemonReload=no"
            return Result(0, "\n\n".join(form.format(name, name, active, enabled) for name, active, enabled in rows), "")
        if argv[0] == "systemctl" and argv[1] in ("stop", "disable", "start", "enable") and argv[-1] in self.units:
            active, enabled = self.units[argv[-1]]
            states = {"stop": ("inactive", enabled), "start": ("active", enabled)}
            self.units[argv[-1]] = states.get(argv[1], (active, f"{argv[1]}d"))
        if argv[0] == "pam-auth-update":
            (Path(argv[2]) / "etc/pam.d/common-auth").write_text("".join(f"{name}\n" for name in argv[5:]))
            (Path(argv[2]) / "var/lib/pam/auth").write_text("".join(f"Module: {name}\n" for name in argv[5:]))
        return Result(0, "", "")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(b.Converger, "_check", lambda _self, _transaction: b.Seen())
    monkeypatch.setattr("ansible_collections.slipway.server.plugins.module_utils.settings.converge.look", lambda *_: b.Seen())
    files = {
        "etc/issue": "Debian\n",
        "etc/issue.net": "Debian\n",
        "etc/login.defs": "UMASK 022\n",
        "etc/crontab": "# m h\n",
        "etc/sudoers.d/README": "#\n",
        "usr/share/zoneinfo/Etc/UTC": "",
        "usr/share/pam-configs/unix": HAND,
        **dict.fromkeys((*base_pam.STACKS, *base_pam.RECORDS), ""),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    (tmp_path / "etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Paris")
    (tmp_path / "etc/sudoers.d").chmod(0o755)
    return tmp_path


def settings(**given):
    passwords = {"quality": {"minlen": 14}, "history": 5, "lockout": {"deny": 5}, "ageing": {"PASS_MAX_DAYS": 365}}
    plain = {"passwords": passwords, "sudo": SUDO, "banner": "Go away.", "modules_off": ["dccp"]}
    return base_parts.Settings(**{**plain, **given})


def run(root, host=None, present=True, check=False, **given):
    host = host or Host()
    arming = Arming(Guard(b.NAME, host, root=root), lambda: None, 60, txn="t1")
    done = b.Base(host, Login("ann", "198.51.100.7", 22), root=root).converge(
        settings(**given), present, None if check else arming
    )
    if arming.waiting():
        arming.guard.confirm("t1")
    return done


def tree(root):
    found = {}
    for path in sorted(root.rglob("*")):
        if not path.is_relative_to(root / "var/lib/slipway") and not (path.is_dir() and not path.is_symlink()):
            state = b.base_parts.observe(path)
            found[str(path.relative_to(root))] = (state.kind, state.content, state.mode)
    found["sudoers.d"] = b.base_parts.observe(root / "etc/sudoers.d").mode
    return found


def test_a_run_changes_a_second_does_not_and_the_original_bytes_come_back(root):
    before = tree(root)
    assert run(root, check=True).changed
    assert tree(root) == before
    done = run(root)
    names = {str(path.relative_to(root)) for path in (change.path for change in done.shown)}
    assert {"etc/sudoers.d/00-slipway", "etc/login.defs", "etc/issue", "etc/modprobe.d/60-slipway.conf"} <= names
    assert (root / "etc/login.defs").read_text() == "UMASK\t027\nPASS_MAX_DAYS\t365\nHOME_MODE\t0700\n"
    assert (root / "etc/sudoers.d").stat().st_mode & 0o777 == 0o750
    second = run(root)
    assert not second.changed
    run(root, present=False)
    assert tree(root) == before
    assert not run(root, present=False).changed
    assert not (root / "var/lib/slipway/base/originals").exists()


def test_nothing_waits_for_a_login_when_no_login_depends_on_it(root):
    run(root)
    host = Host()
    done = run(root, host, journal_max_use="1G")
    assert [str(change.path.relative_to(root)) for change in done.shown] == ["etc/systemd/journald.conf.d/60-slipway.conf"]
    assert not any(call.startswith("systemd-run") for call in host.calls)


def test_what_is_not_declared_any_more_goes_back(root):
    run(root)
    (root / "etc/crontab").write_text("# by hand\n")
    done = run(root, banner="", permissions=["sudoers"])
    assert (root / "etc/issue").read_text() == "Debian\n"
    assert b.base_parts.observe(root / "etc/crontab").mode == 0o644
    assert (root / "etc/crontab").read_text() == "# by hand\n"
    assert done.changed
    assert not run(root, banner="", permissions=["sudoers"]).changed


def test_a_change_that_is_not_well_is_taken_back_and_its_originals_stay(root):
    host = Host()
    before = tree(root)

    def visudo(argv, data=None, timeout=600.0, env=None):
        return Result(1, "", "broken") if argv == ["visudo", "-c", "-q"] else Host.run(host, argv, data, timeout, env)

    host.run = visudo
    with pytest.raises(TakenBack, match="broken"):
        run(root, host)
    guarded = ("etc/sudoers.d/00-slipway", "etc/login.defs", *base_pam.STACKS, "sudoers.d")
    assert {name: tree(root).get(name) for name in guarded} == {name: before.get(name) for name in guarded}
    run(root)
    run(root, present=False)
    assert tree(root) == before


def test_a_run_that_finds_an_unconfirmed_change_does_not_say_that_all_is_well(root):
    host = Host()
    arming = Arming(Guard(b.NAME, host, root=root), lambda: None, 60, owner="a playbook as ann", txn="t1")
    b.Base(host, Login(), root=root).converge(settings(), True, arming)
    with pytest.raises(b.BaseError, match=r"change t1 by a playbook as ann is not confirmed yet; it takes itself back in"):
        run(root, host)
    record = root / "var/lib/slipway/files/base-login.json"
    assert record.exists()
    assert arming.guard.revert("t1")
    assert not record.exists()
    assert run(root, host).login


def test_what_sudo_does_not_take_is_never_written(root):
    before = tree(root)
    with pytest.raises(b.BaseError, match=r"sudo would not take these settings, nothing was changed: syntax error"):
        run(root, Host(visudo="syntax error"))
    assert tree(root) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sudo": ["requiretty"]}, "keeps everything out"),
        ({"modules_off": ["br-netfilter"]}, "br-netfilter is needed by Docker"),
        ({"modules_off": ["a b"]}, "`a b` is no name"),
        ({"umask": "27"}, "`27` is no umask"),
        ({"timezone": "Europe/Nowhere"}, "there is no Europe/Nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_changed(root, given, said):
    before = tree(root)
    with pytest.raises(b.BaseError, match=said):
        run(root, **given)
    assert tree(root) == before


def test_units_go_off_and_come_back(root):
    host = Host()
    host.units["cups.service"] = ("active", "enabled")
    done = run(root, host, services_off=["cups.service", "avahi-daemon.service"])
    assert [action for action in done.outcome.actions if "restart" not in action] == ["disable cups.service", "stop cups.service"]
    assert not run(root, host, services_off=["cups.service", "avahi-daemon.service"]).changed
    assert run(root, host, services_off=["avahi-daemon.service"]).outcome.actions == ["enable cups.service", "start cups.service"]
    assert not run(root, host, services_off=["avahi-daemon.service"]).changed


def test_modules_in_use_stay_allowed_until_they_are_not(root):
    (root / "proc").mkdir()
    (root / "proc/modules").write_text("usb_storage 1 0\n")
    (root / "proc/mounts").write_text("/dev/sr0 /mnt udf ro 0 0\n")
    done = run(root, modules_off=["usb-storage", "udf", "dccp"])
    path = root / "etc/modprobe.d/60-slipway.conf"
    assert b.base_texts.blocked(path.read_text()) == ["dccp"]
    assert [line.split()[2] for line in done.warnings] == ["usb-storage", "udf"]
    (root / "proc/modules").write_text("dccp 1 0\n")
    (root / "proc/mounts").write_text("")
    assert not any("dccp" in line for line in run(root, modules_off=["usb-storage", "udf", "dccp"]).warnings)
    assert b.base_texts.blocked(path.read_text()) == ["usb-storage", "udf", "dccp"]


def test_nothing_is_started_from_where_everybody_may_write_if_that_is_a_mount(root):
    (root / "proc").mkdir()
    (root / "proc/mounts").write_text("tmpfs /tmp tmpfs rw 0 0\nudev /dev devtmpfs rw 0 0\n")
    path, apt = root / "etc/systemd/system/slipway-noexec.service", root / "etc/apt/apt.conf.d/60-slipway.conf"
    host = Host()
    assert run(root, host).warnings == []
    assert not path.exists()
    assert "TempDir" not in apt.read_text()
    assert run(root, host, permissions=["noexec"]).warnings == []
    start, stop = re.findall(r"^Exec(?:Start|Stop)=.* /tmp /dev; .*remount,(\w+) ", path.read_text(), re.MULTILINE)
    assert (start, stop) == ("noexec", "exec")
    assert 'APT::ExtractTemplates::TempDir "/var/cache/apt"' in apt.read_text()
    (root / "proc/mounts").write_text("udev /dev devtmpfs rw 0 0\n")
    (warning,) = run(root, host, permissions=["noexec"]).warnings
    assert warning.startswith("/tmp is no mount of its own")
    run(root, host)
    assert not path.exists()


def test_failed_logins_can_be_counted_from_the_start(root):
    path = root / "etc/tmpfiles.d/60-slipway.conf"
    run(root)
    assert (root / "run/faillock").is_dir()
    assert path.read_text().endswith("d /run/faillock 0755 root root -\n")
    run(root, passwords={})
    assert not path.exists()


def test_packages_come_before_their_files(root):
    class Empty(Host):
        def run(self, argv, data=None, timeout=600.0, env=None):
            known = {"dpkg-query": "", "apt-cache": "aide:\n  Candidate: 1\n"}
            done = super().run(argv, data, timeout, env)
            return Result(0, known[argv[0]], "") if argv[0] in known else done

    host = Empty()
    run(root, host, check=True, aide=True)
    assert not any(call.startswith("apt-get") for call in host.calls)
    run(root, host, aide=True)
    asked = [call.split()[0] for call in host.calls if call.startswith(("apt-get", "visudo -c -q"))]
    assert asked == ["apt-get", "visudo"]


def test_verifying_says_what_differs_and_changes_nothing(root):
    run(root)
    (root / "etc/sudoers.d/00-slipway").write_text("Defaults !use_pty\n")
    seen = b.Base(Host(), Login(), root=root).verify(settings())
    assert [line.partition(" ")[0] for line in seen.mismatches] == [str(root / "etc/sudoers.d/00-slipway")]
    assert (root / "etc/sudoers.d/00-slipway").read_text() == "Defaults !use_pty\n"


def test_homes_are_those_of_people(tmp_path):
    for name in ("ann", "robot", "shared"):
        (tmp_path / "home" / name).mkdir(parents=True)
    people = [
        SimpleNamespace(pw_uid=1000, pw_dir="/home/ann", pw_shell="/bin/bash"),
        SimpleNamespace(pw_uid=1001, pw_dir="/home/robot", pw_shell="/usr/sbin/nologin"),
        SimpleNamespace(pw_uid=33, pw_dir="/home/shared", pw_shell="/bin/bash"),
        SimpleNamespace(pw_uid=1002, pw_dir="/srv/app", pw_shell="/bin/bash"),
        SimpleNamespace(pw_uid=1003, pw_dir="/home/gone", pw_shell="/bin/bash"),
    ]
    assert base_parts._homes(people, tmp_path) == [tmp_path / "home/ann"]


def test_what_is_owned_is_told_when_it_was_changed_by_hand(root):
    run(root)
    folder = root / "var/lib/slipway/files"
    assert manifest.drift(folder) == []
    with (root / "etc/login.defs").open("a") as stream:
        stream.write("# by hand\n")
    assert [entry.owner for entry in manifest.drift(folder)] == ["base-login"]
    run(root, present=False)
    assert manifest.drift(folder) == []
