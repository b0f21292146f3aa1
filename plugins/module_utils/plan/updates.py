# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages never upgrade themselves on a host, and when it has its turn for those that do."""

from __future__ import annotations

from . import poolers
from .model import Host, Inventory
from .sizing import runs_docker

HELD = {
    "postgresql": ("postgresql",),
    "pgbouncer": ("pgbouncer",),
    "redis": ("redis",),
    "docker": ("docker", "containerd", "runc"),
    "nginx": ("nginx", "libnginx-mod-"),
}
"""Beginnings of names of packages whose upgrade restarts a service that requests or queries go through."""
TOGETHER = ("edge", "app", "worker", "database", "redis")
"""Groups whose hosts stand in for one another, so that no two of them may be upgraded at once."""


def runs(host: Host, inventory: Inventory) -> list[str]:
    """The services of a host that are upgraded by maintenance only."""
    found = ["postgresql"] if host.serves_postgresql() else []
    found += ["pgbouncer"] if poolers.servers(host, inventory) else []
    found += ["redis"] if host.has("redis") else []
    found += ["docker"] if runs_docker(host, inventory) else []
    return found + (["nginx"] if host.has("edge") else [])


def hold(host: Host, inventory: Inventory) -> list[str]:
    """unattended_upgrades_hold of a host."""
    return [name for service in runs(host, inventory) for name in HELD[service]]


def turns(inventory: Inventory) -> dict[str, int]:
    """A turn for each host: the first that no host has with which it shares a group; standbys come before their primaries."""
    found: dict[str, int] = {}
    for host in sorted(inventory.hosts, key=lambda one: not one.has("replica")):
        mine = _groups(host)
        taken = {turn for name, turn in found.items() if mine & _groups(inventory.host(name))}
        found[host.name] = next(turn for turn in range(len(inventory.hosts)) if turn not in taken)
    return found


def _groups(host: Host) -> set[str]:
    return {group for group in TOGETHER if host.has(group)} | ({"database"} if host.has("replica") else set())
