# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at a host before the first change: can it carry what the plan puts there? Changes nothing."""

from __future__ import annotations

import fnmatch
import os
import re
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..settings.packages import ensure_present
from ..traffic import standing
from .files import read_text
from .network import Network
from .network import observe as observe_network
from .runner import Runner

LEAST_SYSTEMD = 245
LEAST_PYTHON = (3, 9)
_OWNER = re.compile(r'\("([^"]+)",pid=(\d+)')
_DATA = re.compile(r"^\s*data_directory\s*=\s*'([^']+)'", re.MULTILINE)
_CONTROL_LINES = ("Database system identifier", "Latest checkpoint's TimeLineID")
_CONTROL = re.compile(rf"^({'|'.join(_CONTROL_LINES)}):\s+(\d+)$", re.MULTILINE)
_UNIT = re.compile(r"([^/]+\.(?:service|scope))(?:/|$)")


@dataclass(frozen=True)
class Wanted:
    """What the host must offer; memory and disk in MiB. `ports` maps a port to (owner, unit patterns)."""

    distributions: Mapping[str, Sequence[str]]
    memory_mb: int = 0
    disk_free_mb: int = 0
    ports: Sequence[tuple[int, str, Sequence[str]]] = ()
    registries: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Seen:
    """What was found. `listening` has (port, process, unit); an unknown number is 0.

    `missing` are wanted packages that are not installed, `unknown` those that a fresh index of the archive does not have.
    """

    os_id: str = ""
    os_version: str = ""
    os_name: str = ""
    systemd: int = 0
    python: tuple[int, ...] = ()
    root: bool = True
    memory_mb: int = 0
    cores: int = 0
    disk_total_mb: int = 0
    disk_free_mb: int = 0
    nofile_hard: int = 0
    container: bool = False
    rotational: bool = False
    apt: bool = True
    listening: Sequence[tuple[int, str, str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    unknown: Sequence[str] = ()
    network: Network = field(default_factory=Network)
    cluster: Mapping[str, Any] = field(default_factory=dict)
    apps: Sequence[str] = ()
    ran: Sequence[str] = ()
    standing: Mapping[str, Any] = field(default_factory=dict)


def problems(wanted: Wanted, seen: Seen, reach: Callable[[str, str], str]) -> list[str]:
    """Everything that is wrong with the host, one line each; `reach` tells why a registry cannot be used, or nothing."""
    found = [*_system(wanted, seen)]
    if seen.memory_mb and seen.memory_mb < wanted.memory_mb:
        need = f"at least {wanted.memory_mb} MB needed"
        found.append(f"memory: {seen.memory_mb} MB, {need}. Use a larger host or lower preflight_memory_mb")
    if seen.disk_total_mb and seen.disk_free_mb < wanted.disk_free_mb:
        found.append(f"disk: {seen.disk_free_mb} MB free in /var, at least {wanted.disk_free_mb} MB needed. Free some space")
    for port, owner, units in wanted.ports:
        for taken, process, unit in seen.listening:
            if taken == port and not any(fnmatch.fnmatch(unit, pattern) for pattern in units):
                holder = f"{process} ({unit or 'no unit'})"
                found.append(f"port {port}: wanted for {owner}, but {holder} listens there. Stop it or choose another port")
                break
    if seen.unknown:
        names = ", ".join(seen.unknown)
        found.append(f"packages: no archive of this host has {names}. Correct the name in `packages`, or /etc/apt/sources.list.d")
    for registry, authority in wanted.registries:
        reason = reach(registry, authority)
        if reason:
            found.append(f"slipway_registries {registry}: {reason}")
    return found


def _system(wanted: Wanted, seen: Seen) -> list[str]:
    found = []
    if seen.os_version not in wanted.distributions.get(seen.os_id, ()):
        known = "; ".join(f"{name} {', '.join(versions)}" for name, versions in wanted.distributions.items())
        found.append(f"distribution: {seen.os_name or 'unknown'} is not supported. Use one of: {known}")
    if not seen.apt:
        found.append("apt-get: not found. Use a Debian or Ubuntu host")
    if seen.systemd < LEAST_SYSTEMD:
        what = f"version {seen.systemd}" if seen.systemd else "not running"
        found.append(f"systemd: {what}, at least {LEAST_SYSTEMD} needed. Boot the host with a newer systemd")
    if seen.python < LEAST_PYTHON:
        have = ".".join(map(str, seen.python))
        found.append(f"python: {have}, at least 3.9 needed. Set ansible_python_interpreter to a newer one")
    if not seen.root:
        found.append("privileges: not root. Set ansible_become, and let the user run sudo")
    return found


def os_release(text: str) -> dict[str, str]:
    """Keys and values of /etc/os-release."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def memory_mb(root: Path = Path("/")) -> int:
    """Memory in MiB: the machine's, or what a control group allows this host, as that of a container does."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", read_text(root / "proc/meminfo") or "", re.MULTILINE)
    found = [int(match.group(1)) // 1024] if match else []
    first = re.search(r"^0::/(.*)$", read_text(root / "proc/1/cgroup") or "", re.MULTILINE)
    groups = root / "sys/fs/cgroup"
    group = groups / first.group(1) if first else groups
    for folder in (group, *group.parents):
        limit = (read_text(folder / "memory.max") or "").strip()
        found += [int(limit) >> 20] if limit.isdigit() else []
        if folder == groups:
            break
    return min(found, default=0)


def systemd_version(text: str) -> int:
    """Number in the first line of `systemctl --version`."""
    match = re.match(r"systemd (\d+)", text)
    return int(match.group(1)) if match else 0


def hard_nofile(limits: str) -> int:
    """Hard limit of open files from /proc/1/limits; 0 when unlimited or unknown."""
    match = re.search(r"^Max open files\s+\S+\s+(\d+)", limits, re.MULTILINE)
    return int(match.group(1)) if match else 0


def rotational(blocks: Path) -> bool:
    """True when every real disk below /sys/block turns; other devices and hosts without disks of their own do not count."""
    disks = [path for kind in ("sd", "hd", "nvme") for path in blocks.glob(f"{kind}*/queue/rotational")]
    return bool(disks) and all((read_text(path) or "").strip() == "1" for path in disks)


def listeners(text: str, cgroup: Callable[[int], str]) -> list[tuple[int, str, str]]:
    """(port, process, unit) from `ss -Hltnp`; `cgroup` gives the text of /proc/PID/cgroup."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4 or not fields[3].rpartition(":")[2].isdigit():
            continue
        owner = _OWNER.search(line)
        unit = unit_of(cgroup(int(owner.group(2)))) if owner else ""
        found.append((int(fields[3].rpartition(":")[2]), owner.group(1) if owner else "an unknown process", unit))
    return sorted(set(found))


def unit_of(cgroup: str) -> str:
    """The innermost systemd unit in the text of /proc/PID/cgroup."""
    units = [match for line in cgroup.splitlines() for match in _UNIT.findall(line)]
    return str(units[-1]) if units else ""


def reach(registry: str, authority: str, timeout: float = 5.0) -> str:
    """Why a registry cannot be used from here, or an empty text: TLS connection, then an answer to GET /v2/.

    `authority` is a CA certificate in PEM, or empty for the system's.
    """
    host, _colon, port = registry.partition(":")
    target = (host, int(port or 443))
    try:
        context = ssl.create_default_context(cadata=authority or None)
        with socket.create_connection(target, timeout) as plain, context.wrap_socket(plain, server_hostname=host) as secure:
            secure.sendall(f"GET /v2/ HTTP/1.1\r\nHost: {registry}\r\nConnection: close\r\n\r\n".encode())
            first = secure.recv(64).decode("latin-1")
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted ({error.verify_message}). Set `ca` of this registry to its CA certificate"
    except socket.gaierror:
        return "its name does not resolve on this host. Correct `host`, or the host's DNS"
    except (OSError, ValueError) as error:
        return f"no TLS connection ({error}). Check `host`, the registry itself and the network between them"
    return "" if first.startswith("HTTP/") else "it does not speak HTTP there. Check the port in `host`"


def facts(seen: Seen) -> dict[str, Any]:
    """What the plan wants to know of the host."""
    return {
        "memory_mb": seen.memory_mb,
        "cores": seen.cores,
        "disk_total_mb": seen.disk_total_mb,
        "disk_free_mb": seen.disk_free_mb,
        "nofile_hard": seen.nofile_hard,
        "container": seen.container,
        "rotational": seen.rotational,
        "versions": dict(seen.versions),
        "missing": list(seen.missing),
        "address": seen.network.address,
        "networks": list(seen.network.networks),
        "pooler": any(process == "pgbouncer" for _port, process, _unit in seen.listening),
        "cluster": dict(seen.cluster),
        "apps": list(seen.apps),
        "ran": list(seen.ran),
        "standing": dict(seen.standing),
    }


def observe(runner: Runner, packages: Sequence[str], refresh: bool, root: Path = Path("/")) -> Seen:
    """Look at this host. With `refresh` the archive's index is fetched when a package is not known to it yet."""
    release = os_release(read_text(root / "etc/os-release") or "")
    disk = os.statvfs(root / "var")
    apt = runner.run(["apt-get", "--version"]).ok
    return Seen(
        os_id=release.get("ID", ""),
        os_version=release.get("VERSION_ID", ""),
        os_name=release.get("PRETTY_NAME", ""),
        systemd=systemd_version(runner.run(["systemctl", "--version"]).out) if (root / "run/systemd/system").is_dir() else 0,
        python=tuple(sys.version_info[:3]),
        root=os.geteuid() == 0,
        memory_mb=memory_mb(root),
        cores=len(os.sched_getaffinity(0)),
        disk_total_mb=disk.f_frsize * disk.f_blocks >> 20,
        disk_free_mb=disk.f_frsize * disk.f_bavail >> 20,
        nofile_hard=hard_nofile(read_text(root / "proc/1/limits") or ""),
        container=runner.run(["systemd-detect-virt", "--quiet", "--container"]).ok,
        # Virtual disks often say without reason that they turn.
        rotational=rotational(root / "sys/block") and not runner.run(["systemd-detect-virt", "--quiet"]).ok,
        apt=apt,
        listening=listeners(runner.run(["ss", "-Hltnp"]).out, lambda pid: read_text(root / f"proc/{pid}/cgroup") or ""),
        network=observe_network(runner),
        cluster=cluster(runner, root),
        apps=sorted(path.stem for path in (root / "etc/slipway/apps").glob("*.json")),
        ran=sorted({path.parent.parent.name for path in (root / "var/lib/slipway").glob("*/slots/*.json")}),
        standing=standing.look(root),
        **(_packages(runner, packages, refresh) if packages and apt else {}),
    )


def cluster(runner: Runner, root: Path = Path("/")) -> dict[str, Any]:
    """The PostgreSQL cluster `main` of the newest version: whose copy it is, its timeline, and whether it follows another."""
    for path in sorted(
        root.glob("etc/postgresql/*/main/postgresql.conf"), key=lambda path: path.parts[-3].zfill(4), reverse=True
    ):
        directory = _DATA.search(read_text(path) or "")
        program = root / f"usr/lib/postgresql/{path.parts[-3]}/bin/pg_controldata"
        if not directory or not program.exists():
            continue
        data = root / directory.group(1).lstrip("/")
        said = dict(_CONTROL.findall(runner.run([str(program), "-D", str(data)]).out))
        if len(said) == len(_CONTROL_LINES):
            system, timeline = (said[line] for line in _CONTROL_LINES)
            return {"system": system, "timeline": int(timeline), "standby": (data / "standby.signal").exists()}
    return {}


def _packages(runner: Runner, names: Sequence[str], refresh: bool) -> dict[str, Any]:
    """Versions of packages, installed or the archive's candidates, and which of them are not there."""
    found = ensure_present(runner, names, check_mode=True)
    unknown: list[str] = []
    if refresh and len(found.versions) < len(names):
        update = runner.run(["apt-get", "--quiet", "--option=DPkg::Lock::Timeout=600", "update"], timeout=600)
        found = ensure_present(runner, names, check_mode=True)
        unknown = [name for name in names if name not in found.versions] if update.ok else []
    return {"versions": found.versions, "missing": found.changed, "unknown": unknown}
