# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order hosts are maintained, and what proves each of them. From the groups alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

RANKS = {"monitor": 0, "backup": 0, "replica": 1, "database": 2, "redis": 3, "worker": 4, "app": 5, "edge": 6}
"""Standbys before their primaries; what others need before those; a host of several groups goes with the last of them."""
EVERYWHERE = ("base", "kernel", "unattended_upgrades", "ufw")
ROLES = {
    "database": ("postgresql",),
    "replica": ("postgresql",),
    "redis": ("certificates", "redis"),
    "app": ("systemd_units", "app"),
    "worker": ("systemd_units", "app"),
    "edge": ("certificates", "nginx", "app"),
}


def order(groups: Mapping[str, Sequence[str]], hosts: Iterable[str]) -> list[str]:
    """`hosts` in the order of maintenance; within a rank, as given."""
    return sorted(hosts, key=lambda host: max((rank for name, rank in RANKS.items() if host in groups.get(name, ())), default=0))


def leases(plans: Mapping[str, Mapping[str, Any]], hosts: Collection[str]) -> list[tuple[str, str]]:
    """Each of `hosts` with each application on it, from the plans of all hosts."""
    return [(host, app) for host, plan in plans.items() if host in hosts for app in plan.get("app_apps") or {}]


def proofs(groups: Sequence[str], docker: bool, sshd: bool = True, pooler: bool = False) -> list[str]:
    """Roles whose entry `verify` proves a host of `groups`."""
    found = [*EVERYWHERE, *(["sshd"] if sshd else []), *(["docker"] if docker else [])]
    found += [role for group, roles in ROLES.items() if group in groups for role in roles]
    found += ["pgbouncer"] if pooler else []
    return list(dict.fromkeys(found))
