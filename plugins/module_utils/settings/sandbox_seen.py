# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the sandbox of a unit's files is around the process that runs: its status and namespaces against systemd's own word."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..host import files as disk
from ..host.clock import parse_time
from ..host.runner import Runner

PROPERTIES = "Id,MainPID,ControlPID,ActiveState,SubState,ExecMainStartTimestamp,InactiveExitTimestamp,FragmentPath"
PROPERTIES += ",DropInPaths,NoNewPrivileges,CapabilityBoundingSet,SystemCallFilter,ProtectSystem,ProtectHome,PrivateTmp"
PROPERTIES += ",PrivateDevices,PrivateUsers,ProtectHostname"
MOUNTS = ("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices")
# By number, as the kernel has them in the sets of /proc/PID/status.
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module",
    "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time",
    "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
    "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
)  # fmt: skip


@dataclass
class Found:
    """Of each running process: what is missing around it, or what it gets at its next start only."""

    missing: dict[str, list[str]] = field(default_factory=dict)
    later: dict[str, list[str]] = field(default_factory=dict)


def look(runner: Runner, unit: str, proc: Path = Path("/proc")) -> Found:
    """Compare every running process of `unit`, a name or a template; what does not run has nothing to show."""
    pattern = unit.replace("@.", "@*.")
    out = runner.run(["systemctl", "show", "--timestamp=us+utc", f"--property={PROPERTIES}", "--", pattern]).out
    return judge(blocks(out), proc)


def blocks(listing: str) -> list[dict[str, str]]:
    """The properties of each unit in the output of `systemctl show`."""
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in listing.strip().split("\n\n")]


def judge(units: Iterable[Mapping[str, str]], proc: Path = Path("/proc")) -> Found:
    """The same of units whose PROPERTIES, times in UTC, are known already."""
    found = Found()
    for values in units:
        pid = process(values)
        # What runs before and after the start may be declared to have no sandbox.
        if (values.get("ActiveState") not in ("active", "reloading") and values.get("SubState") != "start") or pid == "0":
            continue
        lacks = missing(values, proc, pid)
        if lacks:
            place = found.later if started_before_its_files(values) else found.missing
            place[values["Id"]] = lacks
    return found


def process(values: Mapping[str, str]) -> str:
    """The unit's main process, or while systemd waits for the tool that starts it that tool, which it has all from; or 0."""
    return next((pid for pid in (values.get("MainPID", "0"), values.get("ControlPID", "0")) if pid != "0"), "0")


def missing(values: Mapping[str, str], proc: Path, pid: str) -> list[str]:
    """The declared keys that are not around process `pid`; none when it has ended meanwhile."""
    text = disk.read_text(proc / pid / "status")
    if text is None:
        return []
    status = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = []
    if values.get("NoNewPrivileges") == "yes" and status.get("NoNewPrivs", "").strip() != "1":
        found.append("NoNewPrivileges")
    if values.get("SystemCallFilter") and status.get("Seccomp", "").strip() != "2":
        found.append("SystemCallFilter")
    # A program that made a namespace of users for itself has all powers, over nothing but that.
    apart = values.get("PrivateUsers") != "yes" and not _shares(proc, pid, "user")
    if "CapabilityBoundingSet" in values and not apart:
        allowed = {word[len("cap_") :] for word in values["CapabilityBoundingSet"].split()}
        has = int(status.get("CapBnd", "0").strip() or "0", 16)
        if any(has >> number & 1 for number, name in enumerate(CAPABILITIES) if name not in allowed):
            found.append("CapabilityBoundingSet")
    own = [key for key in MOUNTS if values.get(key, "no") not in ("no", "")]
    if own and _shares(proc, pid, "mnt"):
        found += own
    if values.get("PrivateUsers") == "yes" and _shares(proc, pid, "user"):
        found.append("PrivateUsers")
    if values.get("ProtectHostname") == "yes" and _shares(proc, pid, "uts"):
        found.append("ProtectHostname")
    return found


def _shares(proc: Path, pid: str, kind: str) -> bool:
    """Whether the process lives in the host's own namespace of this kind."""
    try:
        return os.readlink(proc / pid / "ns" / kind) == os.readlink(proc / "1" / "ns" / kind)
    except OSError:
        return False


def started_before_its_files(values: Mapping[str, str]) -> bool:
    """Whether a file of the unit is younger than its process."""
    kind = "ExecMainStartTimestamp" if values.get("MainPID", "0") != "0" else "InactiveExitTimestamp"
    started = parse_time(values.get(kind, ""))
    paths = [values.get("FragmentPath", ""), *values.get("DropInPaths", "").split()]
    times = [Path(path).stat().st_mtime for path in paths if path and Path(path).exists()]
    return bool(times) and started <= max(times)
