# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of a host as Ansible and the preflight module gather them, in the plan's types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ..host.network import BRIDGES
from .model import Cluster, Facts
from .reader import ip_address

_CONTAINERS = ("docker", "podman", "lxc", "container", "containerd", "systemd-nspawn", "openvz")
_DATA = "/var/lib/postgresql"


def read(found: Mapping[str, Any]) -> Optional[Facts]:
    """Facts from `ansible_facts` of one host; None while memory and cores are unknown.

    What the preflight module saw (`slipway_host`) comes before the general facts: it asks the plan's own questions.
    """
    own = _mapping(found.get("slipway_host"))
    memory = _number(own.get("memory_mb")) or _number(found.get("memtotal_mb"))
    cores = _number(own.get("cores")) or _number(found.get("processor_nproc")) or _number(found.get("processor_vcpus"))
    if not memory or not cores:
        return None
    guest = found.get("virtualization_role") == "guest"
    versions = _mapping(own.get("versions"))
    total, free = _disk(found)
    return Facts(
        memory_mb=memory,
        cores=cores,
        address=str(own["address"]) if "address" in own else address(found),
        networks=tuple(map(str, own["networks"])) if "networks" in own else _networks(found),
        rotational=bool(own["rotational"]) if "rotational" in own else not guest and _rotational(found),
        container=bool(own["container"]) if "container" in own else guest and found.get("virtualization_type") in _CONTAINERS,
        nofile_hard=_number(own.get("nofile_hard")),
        disk_total_mb=_number(own.get("disk_total_mb")) or total,
        disk_free_mb=_number(own.get("disk_free_mb")) or free,
        postgresql=str(versions.get("postgresql", "")),
        pgbouncer=str(versions.get("pgbouncer", "")),
        pooler=own.get("pooler") is True,
        cluster=_cluster(_mapping(own.get("cluster"))),
        apps=tuple(map(str, own.get("apps") or ())),
        ran=tuple(map(str, own.get("ran") or ())),
        standing={str(app): _mapping(slots) for app, slots in _mapping(own.get("standing")).items()},
    )


def address(found: Mapping[str, Any]) -> str:
    """The address of the default route's interface, or an empty string."""
    return ip_address(_mapping(found.get("default_ipv4")).get("address")) or ip_address(
        _mapping(found.get("default_ipv6")).get("address")
    )


def _cluster(seen: Mapping[str, Any]) -> Optional[Cluster]:
    return Cluster(str(seen["system"]), _number(seen["timeline"]), seen["standby"] is True) if seen else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> int:
    return int(value) if isinstance(value, (int, float, str)) and str(value).isdigit() else 0


def _networks(found: Mapping[str, Any]) -> tuple[str, ...]:
    """IPv4 networks the host is in, without those that container engines made."""
    networks = []
    for name in found.get("interfaces") or ():
        if not str(name).startswith(BRIDGES):
            first = _mapping(_mapping(found.get(str(name).replace("-", "_"))).get("ipv4"))
            if first.get("network") and first.get("prefix"):
                networks.append(f"{first['network']}/{first['prefix']}")
    return tuple(sorted(networks))


def _rotational(found: Mapping[str, Any]) -> bool:
    """True when every real disk turns; virtual machines often say so without reason and are not asked."""
    disks = [
        str(_mapping(disk).get("rotational"))
        for name, disk in _mapping(found.get("devices")).items()
        if str(name).startswith(("sd", "nvme", "hd"))
    ]
    return bool(disks) and all(value == "1" for value in disks)


def _disk(found: Mapping[str, Any]) -> tuple[int, int]:
    """Total and free MiB of the file system that will hold the database."""
    best: Mapping[str, Any] = {}
    for mount in found.get("mounts") or ():
        point = str(_mapping(mount).get("mount", "")).rstrip("/")
        if (point == _DATA or _DATA.startswith(point + "/")) and len(point) >= len(str(best.get("mount", "")).rstrip("/")):
            best = mount
    return _number(best.get("size_total")) >> 20, _number(best.get("size_available")) >> 20
