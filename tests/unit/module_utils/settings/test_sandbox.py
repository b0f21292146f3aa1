# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import time

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import sandbox, sandbox_seen, sandboxed
from ansible_collections.slipway.server.plugins.module_utils.settings.converge import (
    ConvergeError,
    FileSpec,
    Transaction,
    UnitSpec,
)


class Kernel(Runner):
    """Starts services without the keys in `refuses`, and without all of `together` at once."""

    def __init__(self, refuses=(), together=()):
        self.refuses, self.together, self.calls = set(refuses), set(together), []

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.calls.append(list(argv))
        keys = {word[len("--property=") :].split("=")[0] for word in argv if word.startswith("--property=")}
        refused = keys & self.refuses or (self.together and self.together <= keys)
        return Result(226 if refused else 0, "", "")


@pytest.mark.parametrize("service", sandbox.SERVICES)
def test_a_drop_in_has_no_key_twice_but_lists(service):
    text = sandbox.render(service)
    assert text.startswith("# Written by slipway.server")
    keys = [line.split("=")[0] for line in text.splitlines() if "=" in line]
    assert {key for key in keys if keys.count(key) > 1} <= {"SystemCallFilter", "ReadWritePaths"}


def test_what_this_kernel_refuses_is_found_left_out_and_remembered(tmp_path):
    path = tmp_path / "box.conf"
    kernel = Kernel(refuses=["ProtectHostname", "PrivateTmp"])
    text, refused = sandbox.drop_in(kernel, "nginx", path)
    assert refused == ["PrivateTmp", "ProtectHostname"]
    assert "ProtectHostname=" not in text
    assert "left out: PrivateTmp ProtectHostname" in text
    path.write_text(text)
    kernel.calls.clear()
    assert sandbox.drop_in(kernel, "nginx", path) == (text, refused)
    assert not kernel.calls
    assert "PrivateTmp, ProtectHostname" in sandbox.warning("nginx.service", refused)


def test_a_changed_drop_in_is_tried_anew(tmp_path):
    path = tmp_path / "box.conf"
    path.write_text(sandbox.render("nginx") + "PrivateTmp=no\n")
    assert sandbox.drop_in(Kernel(), "nginx", path) == (sandbox.render("nginx"), [])


def test_keys_that_are_refused_together_only_are_all_left_out():
    kernel = Kernel(together=["PrivateTmp", "PrivateMounts"])
    assert "NoNewPrivileges" in sandbox.refusals(kernel, sandbox.SERVICES["nginx"])


def test_paths_of_services_that_are_not_installed_yet_are_not_tried():
    kernel = Kernel()
    assert sandbox.refusals(kernel, sandbox.SERVICES["nginx"]) == []
    assert not any("ReadWritePaths" in word for word in kernel.calls[0])


def test_a_check_tries_nothing(tmp_path):
    kernel = Kernel()
    assert sandbox.drop_in(kernel, "redis", tmp_path / "none", tried=False)[0] == sandbox.render("redis")
    assert not kernel.calls


def test_profiles():
    assert "MemoryDenyWriteExecute" not in sandbox.app("standard")
    assert sandbox.app("strict")["MemoryDenyWriteExecute"] is True
    assert "SystemCallFilter" not in sandbox.app("compatible")
    assert sandbox.app("compatible")["CapabilityBoundingSet"] == ""
    assert sandbox.app("none", ["CAP_CHOWN"], ["AF_NETLINK"]) == {}
    loose = sandbox.app("standard", ["CAP_NET_BIND_SERVICE"], ["AF_NETLINK", "AF_UNIX"])
    assert loose["AmbientCapabilities"] == loose["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert "PrivateUsers" not in loose
    assert loose["RestrictAddressFamilies"] == "AF_INET AF_INET6 AF_UNIX AF_NETLINK"
    assert len(sandbox.problems("x", ["chown", "CAP_KILL"], ["INET", "AF_UNIX"])) == 2


def shown(**values):
    """What systemd says of a unit with a sandbox."""
    base = {"Id": "nginx.service", "MainPID": "7", "ActiveState": "active", "NoNewPrivileges": "yes", "SystemCallFilter": "read"}
    base.update({"ProtectSystem": "strict", "CapabilityBoundingSet": "cap_chown cap_kill", "PrivateUsers": "yes"})
    base.update({"ProtectHostname": "yes", "FragmentPath": "", "DropInPaths": ""})
    return {**base, **values}


@pytest.fixture
def proc(tmp_path):
    for pid in ("1", "7"):
        (tmp_path / pid / "ns").mkdir(parents=True)
        for kind in ("mnt", "user", "uts"):
            os.symlink(f"{kind}:[{pid}]", tmp_path / pid / "ns" / kind)
    (tmp_path / "7/status").write_text("NoNewPrivs:\t1\nSeccomp:\t2\nCapBnd:\t0000000000000021\n")
    return tmp_path


def test_a_process_within_its_sandbox_lacks_nothing(proc):
    assert sandbox_seen.missing(shown(), proc, "7") == []
    assert sandbox_seen.missing(shown(), proc, "8") == []


def test_what_is_not_around_a_process_is_named(proc):
    (proc / "7/status").write_text("NoNewPrivs:\t0\nSeccomp:\t0\nCapBnd:\t000001ffffffffff\n")
    for kind in ("mnt", "user", "uts"):
        (proc / "7/ns" / kind).unlink()
        os.symlink(f"{kind}:[1]", proc / "7/ns" / kind)
    found = sandbox_seen.missing(shown(), proc, "7")
    assert found[:3] == ["NoNewPrivileges", "SystemCallFilter", "CapabilityBoundingSet"]
    assert found[3:] == ["ProtectSystem", "PrivateUsers", "ProtectHostname"]


class Systemd(Runner):
    """Shows one unit."""

    def __init__(self, values):
        self.values = values

    def run(self, argv, data=None, timeout=600.0, env=None):
        if "--value" in argv:
            return Result(0, self.values["MainPID"] + "\n", "")
        return Result(0, "".join(f"{key}={value}\n" for key, value in self.values.items()), "")


def test_a_process_older_than_its_files_gets_it_later_a_younger_one_lacks_it(proc, tmp_path):
    (proc / "7/status").write_text("NoNewPrivs:\t0\nSeccomp:\t2\nCapBnd:\t0000000000000021\n")
    file = tmp_path / "drop.conf"
    file.write_text("")
    started = time.strftime("%a %Y-%m-%d %H:%M:%S.000000 UTC", time.gmtime(time.time() - 60))
    old = shown(DropInPaths=str(file), ExecMainStartTimestamp=started)
    assert sandbox_seen.look(Systemd(old), "nginx.service", proc).later == {"nginx.service": ["NoNewPrivileges"]}
    young = {**old, "ExecMainStartTimestamp": started.replace(started[4:8], "2099")}
    assert sandbox_seen.look(Systemd(young), "nginx.service", proc).missing == {"nginx.service": ["NoNewPrivileges"]}
    assert not sandbox_seen.look(Systemd({**old, "ActiveState": "inactive"}), "nginx.service", proc).later


def test_while_systemd_waits_for_the_tool_that_starts_a_server_the_tool_is_looked_at(proc, tmp_path):
    (proc / "7/status").write_text("NoNewPrivs:\t0\nSeccomp:\t2\nCapBnd:\t0000000000000021\n")
    file = tmp_path / "drop.conf"
    file.write_text("")
    begun = time.strftime("%a %Y-%m-%d %H:%M:%S.000000 UTC", time.gmtime(time.time() + 60))
    starting = shown(ActiveState="activating", SubState="start", MainPID="0", ControlPID="7")
    starting.update(InactiveExitTimestamp=begun, DropInPaths=str(file))
    assert sandbox_seen.look(Systemd(starting), "x.service", proc).missing == {"nginx.service": ["NoNewPrivileges"]}
    for other in ({"ControlPID": "0"}, {"SubState": "start-pre"}):
        assert not sandbox_seen.look(Systemd({**starting, **other}), "x.service", proc).missing


def join(proc, kind):
    """Put the process into the host's namespace of this kind."""
    (proc / "7/ns" / kind).unlink()
    os.symlink(f"{kind}:[1]", proc / "7/ns" / kind)


def test_powers_over_a_namespace_of_its_own_are_none_over_the_host(proc):
    (proc / "7/status").write_text("NoNewPrivs:\t1\nSeccomp:\t2\nCapBnd:\t000001ffffffffff\n")
    assert sandbox_seen.missing(shown(PrivateUsers="no"), proc, "7") == []
    join(proc, "user")
    assert sandbox_seen.missing(shown(PrivateUsers="no"), proc, "7") == ["CapabilityBoundingSet"]


def test_a_running_process_waits_for_a_drop_in_that_is_not_written_yet(proc, tmp_path):
    join(proc, "user")
    spec = FileSpec(tmp_path / "new.conf", sandbox.render("pgbouncer"))
    assert sandboxed.waits(Systemd(shown()), "pgbouncer", "pgbouncer.service", spec, proc)
    assert not sandboxed.waits(Systemd(shown(MainPID="0")), "pgbouncer", "pgbouncer.service", spec, proc)
    assert not sandboxed.waits(Systemd(shown()), "pgbouncer", "pgbouncer.service", FileSpec(spec.path, None), proc)
    (proc / "7/status").write_text("NoNewPrivs:\t1\nSeccomp:\t2\nCapBnd:\t0000000000000000\n")
    assert not sandboxed.waits(Systemd(shown()), "pgbouncer", "pgbouncer.service", spec, proc)


def test_a_unit_that_serves_is_not_restarted_for_it():
    whole = Transaction("nginx", units=(UnitSpec("nginx.service"),))
    entry = {"service": "nginx", "unit": "nginx.service"}
    added, refused = sandboxed.add(whole, Kernel(), entry, check_mode=False)
    assert refused == []
    assert added.files[0].effect == "daemon-reload"
    assert added.readback == ({"kind": "sandbox", "unit": "nginx.service"},)
    assert "verify" in added.validate[0]
    assert sandboxed.add(whole, Kernel(), {**entry, "fresh": True}, check_mode=True)[0].files[0].effect == "restart"
    assert sandboxed.add(whole, Kernel(), {**entry, "enabled": False}, check_mode=False)[0].files[0].content is None


def test_before_the_package_there_is_no_unit_to_look_at():
    added, _refused = sandboxed.add(Transaction("x"), Kernel(), {"service": "postgresql", "unit": "postgresql@.service"}, False)
    assert added.files[0].path.name == "65-slipway-sandbox.conf"
    assert not added.readback
    assert not added.validate


def test_units_whose_sandbox_this_kernel_refuses_are_named_before_anything_is_written(tmp_path):
    new = Transaction("units", files=(FileSpec(tmp_path / "shop.service", "x"),))
    trials = [{"unit": name, "keys": sandbox.app("standard")} for name in ("shop@.service", "worker@.service")]
    kernel = Kernel(refuses=["PrivateUsers"])
    with pytest.raises(ConvergeError, match=r"nothing was changed(.|\n)*- shop@.service: PrivateUsers\n- worker(.|\n)*loosen"):
        sandboxed.refuse(new, kernel, trials)
    assert not (tmp_path / "shop.service").exists()
    sandboxed.refuse(new, Kernel(), trials)
    calls = len(kernel.calls)
    sandboxed.refuse(Transaction("units"), kernel, trials)
    assert len(kernel.calls) == calls, "where nothing changes nothing is tried"
