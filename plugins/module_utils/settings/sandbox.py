# SPDX-License-Identifier: GPL-3.0-or-later
"""What services are denied: profiles of systemd's sandbox, drop-ins made of them, and a trial of what this kernel allows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from ..host import files as disk
from ..host.runner import Runner

Value = Union[str, int, float, bool, Sequence[Any], None]
HEADER = "# Written by slipway.server: what this service is denied. A later file here (90-own.conf) loosens a key.\n"
LEFT_OUT = "# This kernel refuses, so it is left out: "
FAMILIES = "AF_INET AF_INET6 AF_UNIX"
CAPABILITY = re.compile(r"CAP_[A-Z_]+")
FAMILY = re.compile(r"AF_[A-Z0-9_]+")

# What no service here needs, whoever it runs as.
COMMON: dict[str, Value] = {
    "NoNewPrivileges": True,
    "ProtectHome": True,
    "PrivateTmp": True,
    "PrivateDevices": True,
    "PrivateMounts": True,
    "ProtectKernelTunables": True,
    "ProtectKernelModules": True,
    "ProtectKernelLogs": True,
    "ProtectControlGroups": True,
    "ProtectClock": True,
    "ProtectHostname": True,
    "ProtectProc": "invisible",
    "RestrictAddressFamilies": FAMILIES,
    "RestrictNamespaces": True,
    "RestrictRealtime": True,
    "RestrictSUIDSGID": True,
    "LockPersonality": True,
    "KeyringMode": "private",
    "DevicePolicy": "closed",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
}
# AF_NETLINK is not there: name resolution and listening work without.
APP: dict[str, Value] = {
    "UMask": "0077",
    **COMMON,
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "PrivateUsers": True,
    "ProcSubset": "pid",
    "RemoveIPC": True,
    "SystemCallFilter": ["@system-service", "~@privileged @resources"],
    "LimitCORE": 0,
}
# What keeps programs from working that bring a sandbox, a debugger or a browser of their own.
DEMANDING: tuple[str, ...] = ("PrivateUsers", "ProtectProc", "ProcSubset", "RestrictAddressFamilies", "RestrictNamespaces")
DEMANDING += ("DevicePolicy", "SystemCallArchitectures", "SystemCallErrorNumber", "SystemCallFilter", "RemoveIPC")
USUAL = "standard"
APPS: Mapping[str, Mapping[str, Value]] = {
    # Ruby, PHP and Node translate code at run time, so memory may be written and executed.
    USUAL: APP,
    "strict": {**APP, "MemoryDenyWriteExecute": True},
    "compatible": {**{key: value for key, value in APP.items() if key not in DEMANDING}, "ProtectSystem": "full"},
    "none": {},
}

_ROOT_STARTS = ["@system-service", "~@resources"]
SERVICES: Mapping[str, Mapping[str, Value]] = {
    # The master opens logs and keys of others, binds low ports and signals workers; workers read flags and challenges.
    "nginx": {
        **COMMON,
        "CapabilityBoundingSet": "CAP_CHOWN CAP_DAC_OVERRIDE CAP_KILL CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID",
        "ProtectSystem": "strict",
        "ReadWritePaths": "/run /var/log/nginx /var/lib/nginx -/var/cache/nginx",
        "ProcSubset": "pid",
        "SystemCallFilter": _ROOT_STARTS,
    },
    # Debian's tool starts as root and becomes the cluster's owner. Archives and tablespaces may lie anywhere, the size of huge
    # pages is read from /proc/meminfo, code is translated at run time, and clusters of one owner share System V memory.
    # AF_NETLINK: a member of a group looks at its own addresses before it starts.
    "postgresql": {
        **COMMON,
        "CapabilityBoundingSet": "CAP_CHOWN CAP_DAC_OVERRIDE CAP_SETGID CAP_SETUID",
        "ProtectSystem": "full",
        "RestrictAddressFamilies": f"{FAMILIES} AF_NETLINK",
        "SystemCallFilter": _ROOT_STARTS,
    },
    # Not PrivateUsers: peers on its socket are told apart by their user. AF_NETLINK and capset:
    # its start waits for addresses with ip(8).
    "pgbouncer": {
        **COMMON,
        "CapabilityBoundingSet": "",
        "AmbientCapabilities": "",
        "ProtectSystem": "strict",
        "ReadWritePaths": "-/var/log/postgresql -/run/postgresql",
        "ProcSubset": "pid",
        "RestrictAddressFamilies": f"{FAMILIES} AF_NETLINK",
        "SystemCallFilter": ["@system-service", "~@privileged @resources", "capset"],
        "MemoryDenyWriteExecute": True,
    },
    # The package's unit is closed already; this is what it leaves. An instance writes its own data only.
    "redis": {
        "PrivateMounts": True,
        "KeyringMode": "private",
        "DevicePolicy": "closed",
        "SystemCallErrorNumber": "EPERM",
        "AmbientCapabilities": "",
        "ReadWritePaths": ["", "-/var/lib/redis/%i -/run/redis-%i"],
    },
}
PATHS = ("ReadWritePaths",)


def app(profile: str, capabilities: Sequence[str] = (), families: Sequence[str] = ()) -> dict[str, Value]:
    """The keys of an app's unit; with capabilities it keeps the host's users, where alone they count."""
    found = dict(APPS[profile])
    if capabilities and found:
        found["CapabilityBoundingSet"] = found["AmbientCapabilities"] = " ".join(capabilities)
        found.pop("PrivateUsers", None)
    if families and "RestrictAddressFamilies" in found:
        found["RestrictAddressFamilies"] = " ".join(dict.fromkeys([*FAMILIES.split(), *families]))
    return found


def scalar(value: object) -> str:
    """A value as unit files have it."""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def lines(values: Mapping[str, Value]) -> list[str]:
    """`Key=value` for each value; a list is given key by key."""
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += [(key, each) for each in value] if isinstance(value, (list, tuple)) else [(key, value)]
    return [f"{key}={scalar(value)}" for key, value in rows if value is not None]


def render(service: str, refused: Sequence[str] = ()) -> str:
    """The drop-in of a service, without the keys that the kernel has `refused`."""
    kept = {key: value for key, value in SERVICES[service].items() if key not in refused}
    note = f"{LEFT_OUT}{' '.join(refused)}\n" if refused else ""
    return HEADER + note + "[Service]\n" + "".join(f"{line}\n" for line in lines(kept))


def refusals(runner: Runner, values: Mapping[str, Value], user: str = "") -> list[str]:
    """The keys with which a service cannot be started here, found by starting one; none when all together do."""
    tried = {key: value for key, value in values.items() if key not in PATHS}

    def starts(some: Mapping[str, Value]) -> bool:
        argv = ["systemd-run", "--wait", "--quiet", "--pipe", "--collect"]
        argv += [f"--property=User={user}"] if user else []
        return runner.run([*argv, *(f"--property={line}" for line in lines(some)), "/bin/true"], timeout=60).ok

    if starts(tried):
        return []
    found = [key for key, value in tried.items() if not starts({key: value})]
    left = {key: value for key, value in tried.items() if key not in found}
    # When only several together are refused there is no telling which: none of them is used.
    return found if found and starts(left) else list(tried)


def drop_in(runner: Runner, service: str, path: Path, tried: bool = True) -> tuple[str, list[str]]:
    """The text for `path` and the keys left out of it. What is there already was tried when it was written."""
    present = disk.read_text(path)
    left_out = _left_out(present)
    if present is not None and present == render(service, left_out):
        return present, left_out
    refused = refusals(runner, SERVICES[service]) if tried else []
    return render(service, refused), refused


def _left_out(text: Optional[str]) -> list[str]:
    found = [line[len(LEFT_OUT) :].split() for line in (text or "").splitlines() if line.startswith(LEFT_OUT)]
    return found[0] if found else []


def warning(unit: str, refused: Iterable[str]) -> str:
    """What to tell the operator of keys that were left out."""
    return f"{unit}: this kernel refuses {', '.join(refused)}, so its sandbox goes without; as in nested containers"


def problems(where: str, capabilities: Sequence[str], families: Sequence[str]) -> list[str]:
    """What is wrong with the names of capabilities and address families, a sentence each."""
    found = [f"{where}: capabilities: {word!r} is not a name such as CAP_NET_BIND_SERVICE" for word in capabilities
             if not CAPABILITY.fullmatch(word)]  # fmt: skip
    found += [f"{where}: address_families: {word!r} is not a name such as AF_NETLINK" for word in families
              if not FAMILY.fullmatch(word)]  # fmt: skip
    return found
