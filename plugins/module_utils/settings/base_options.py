# SPDX-License-Identifier: GPL-3.0-or-later
"""Auditing and banning: each on or off, and off by itself, with a word, where the kernel does not let it."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from ..host import files as disk
from ..host.runner import Runner
from ..host.session import Login
from .base_parts import Parts, Settings
from .base_texts import HEADER
from .converge import UnitSpec

AUDIT_NETLINK, AUDIT_GET, REQUEST_AND_ACK, ERROR = 9, 1000, 5, 2
LOCKED = 2
"""Value of `enabled` with which the kernel takes no other rules until it starts anew."""
WATCHED = {
    "identity": ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/security/opasswd", "/etc/pam.d"),
    "sudo": ("/etc/sudoers", "/etc/sudoers.d"),
    "sshd": ("/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d"),
    "modules": ("/usr/bin/kmod", "/etc/modprobe.d"),
    "time": ("/etc/localtime",),
    "docker": (
        *("/usr/bin/dockerd", "/usr/bin/containerd", "/usr/bin/runc", "/usr/sbin/runc", "/etc/docker", "/etc/default/docker"),
        *("/usr/bin/containerd-shim-runc-v2", "/run/containerd/containerd.sock", "/run/docker.sock"),
        *("/usr/lib/systemd/system/docker.service", "/usr/lib/systemd/system/docker.socket"),
    ),
}
AUDIT_UNITS = ("auditd.service", "audit-rules.service")
CALLS = {"time": "adjtimex,settimeofday,clock_settime", "modules": "init_module,finit_module,delete_module"}
OPERATORS = 5
"""Addresses of runs that stay allowed, the last one first."""
IGNORED = "ignoreip = "


def options(settings: Settings, root: Path, runner: Runner, connection: Login, parts: Parts) -> None:
    """All of them."""
    auditd(settings, root, parts)
    fail2ban(settings, root, runner, connection.address, parts)


def audit_status(make: Callable[..., Any] = socket.socket) -> tuple[str, int]:
    """Why the kernel does not let this host audit, empty when it does; and whether auditing is on. Asked as auditctl asks it."""
    try:
        with make(socket.AF_NETLINK, socket.SOCK_RAW, AUDIT_NETLINK) as stream:
            stream.settimeout(3)
            stream.sendto(struct.pack("=IHHII", 16, AUDIT_GET, REQUEST_AND_ACK, 1, 0), (0, 0))
            while True:
                answer = stream.recv(8192)
                kind = struct.unpack("=H", answer[4:6])[0]
                if kind == AUDIT_GET:
                    return "", int(struct.unpack("=I", answer[20:24])[0])
                code = -struct.unpack("=i", answer[16:20])[0] if kind == ERROR else 0
                if code:
                    return os.strerror(code), 0
    except OSError as error:
        return str(error.strerror or error), 0


def audit_rules(root: Path) -> str:
    """Rules for what is there; a watch of a file whose folder is missing would stop all rules behind it."""
    watched = [
        f"-w {name} -p {'x' if '/bin/' in name or '/sbin/' in name else 'wa'} -k slipway-{key}\n"
        for key, names in WATCHED.items()
        for name in names
        if (root / name.lstrip("/")).exists()
    ]
    calls = [f"-a always,exit -F arch=b64 -S {names} -k slipway-{key}\n" for key, names in CALLS.items()]
    return HEADER + "".join([*watched, *calls])


def auditd(settings: Settings, root: Path, parts: Parts, status: Callable[[], tuple[str, int]] = audit_status) -> None:
    """Who changed users, rights, the clock, the kernel, Docker."""
    path = root / "etc/audit/rules.d/60-slipway.rules"
    refusal, enabled = status() if settings.auditd else ("", 0)
    on = settings.auditd and not refusal
    text = audit_rules(root) if on else None
    parts.add(path, text, mode=0o640)
    if refusal:
        parts.warnings.append(
            f"auditd stays off: the kernel does not let this host audit ({refusal}), as in a container. Audit the machine below"
        )
        # Their packages started them in vain.
        found = [
            name for name in AUDIT_UNITS if any((root / lib / "systemd/system" / name).exists() for lib in ("usr/lib", "lib"))
        ]
        parts.units += [UnitSpec(name, False, "stopped", "none") for name in found]
        parts.apply += [("systemctl", "reset-failed", *found)] if found else []
    if on:
        parts.units.append(UnitSpec("auditd.service", on_change="none"))
    if enabled == LOCKED and text != disk.read_text(path):
        parts.warnings.append("the audit rules are locked until the next start of this host, which brings the new ones")
    elif on:
        keys = sorted(set(re.findall(r"-k (\S+)", text or "")))
        matches = r"\A" + "".join(rf"(?=[\s\S]*(-k |key=){key}$)" for key in keys)
        remedy = "See `augenrules --load`."
        parts.checks.append(
            {
                "kind": "command",
                "what": "audit rules in the kernel",
                "argv": ["auditctl", "-l"],
                "matches": matches,
                "remedy": remedy,
            }
        )
    if (on or path.exists()) and enabled != LOCKED:
        parts.apply.append(("augenrules", "--load"))


def jail(ignored: Sequence[str]) -> str:
    """Failures of sshd in the journal, whatever unit they came from; who has five is refused at every port, each time longer."""
    names = " + ".join(f"SYSLOG_IDENTIFIER={name} _UID=0" for name in ("sshd", "sshd-session", "sshd-auth"))
    return (
        f"{HEADER}[DEFAULT]\nignoreself = true\n{IGNORED}{' '.join(ignored)}\n\n"
        "[sshd]\nenabled = true\nbackend = systemd\nmode = aggressive\n"
        f"journalmatch = {names}\nbanaction = nftables[type=allports]\n"
        "maxretry = 5\nfindtime = 10m\nbantime = 10m\nbantime.increment = true\nbantime.maxtime = 1w\n"
    )


def operators(before: str, address: str) -> list[str]:
    """The addresses from which this and earlier runs came."""
    line = next((line for line in before.splitlines() if line.startswith("# Operators: ")), "")
    known = line.partition(": ")[2].split()
    return known if not address or address in known else [address, *known][:OPERATORS]


def fail2ban(settings: Settings, root: Path, runner: Runner, address: str, parts: Parts) -> None:
    """Hosts that guess are refused; never the one that this run comes from."""
    path = root / "etc/fail2ban/jail.d/60-slipway.local"
    before = disk.read_text(path)
    refused = runner.run(["nft", "list", "tables"]) if settings.fail2ban else None
    on = refused is not None and refused.rc in (0, 127)  # not there yet in check mode on a new host
    known = operators(before or "", address)
    note = f"# Operators: {' '.join(known)}\n" if known else ""
    parts.add(path, note + jail(["127.0.0.0/8", "::1", *settings.fail2ban_ignore, *known]) if on else None, "restart")
    unit = "fail2ban.service"
    if on:
        parts.validate.append(("fail2ban-client", "--test"))
        parts.units.append(UnitSpec(unit, follows=(path,), on_change="restart", settle=1.0))
        everybody = {
            "kind": "command",
            "what": "addresses that are never banned",
            "argv": ["fail2ban-client", "get", "sshd", "ignoreip"],
        }
        parts.checks.append({**everybody, "matches": rf"[`\s-]{re.escape(known[0])}$" if known else "127"})
    elif settings.fail2ban and refused is not None:
        parts.warnings.append(f"fail2ban stays off: the kernel lets nobody be refused here (nft: {refused.text()[:200]})")
    if not on and before is not None:
        parts.units.append(UnitSpec(unit, False, "stopped", "none"))
