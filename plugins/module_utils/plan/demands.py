# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host must offer before anything is changed on it: ports, packages, registries within reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import poolers, redis
from .model import POSTGRESQL_PORT, Host, Inventory
from .sizing import runs_docker

PACKAGES: Mapping[str, Sequence[str]] = {
    "base": (
        *("ca-certificates", "cracklib-runtime", "iproute2", "libpam-pwquality", "logrotate", "procps", "systemd-timesyncd"),
        "tzdata",
    ),
    "unattended_upgrades": ("unattended-upgrades",),
    "ufw": ("iptables", "ufw"),
    "sshd": ("openssh-server", "sudo"),
    "postgresql": ("postgresql",),
    "pgbouncer": ("pgbouncer", "postgresql-client"),
    "docker": ("apparmor", "ca-certificates", "docker.io", "iptables"),
    "certificates": ("openssl",),
    "redis": ("redis-server", "redis-tools"),
    "nginx": ("logrotate", "nginx", "openssl"),
}
"""What each role installs by itself; known here so that all of a host can be looked up, and installed, in one go."""
OPTIONS: Mapping[str, Sequence[str]] = {
    "base_auditd": ("auditd",),
    "base_fail2ban": ("fail2ban", "nftables", "python3-systemd"),
    "base_hostname": ("libnss-myhostname",),
}
"""What role base installs besides when the inventory switches an option on."""
EVERYWHERE = ("base", "unattended_upgrades", "ufw", "sshd")


def demands(inventory: Inventory, registries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Variables of the preflight role for every host. `units` are patterns of services that may hold a port already."""
    return {host.name: _of_host(host, inventory, registries) for host in inventory.hosts}


def _of_host(host: Host, inventory: Inventory, registries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ports: list[dict[str, Any]] = []
    roles = list(EVERYWHERE)
    if host.has("edge"):
        ports += [_port(port, "nginx", ["nginx.service"]) for port in (80, 443)]
        roles += ["certificates", "nginx"]
    if host.serves_postgresql():
        ports.append(_port(POSTGRESQL_PORT, "PostgreSQL", ["postgresql*.service"]))
        roles.append("postgresql")
    if poolers.servers(host, inventory):
        ports.append(_port(poolers.port(host), "pgbouncer", ["pgbouncer.service"]))
        roles.append("pgbouncer")
    purposes = redis.purposes(host, inventory)
    ports += [_port(redis.PORTS[name], f"Redis {name}", ["redis-server@*.service", "redis-server.service"]) for name in purposes]
    if host.has("redis"):
        roles += ["redis"] + (["certificates"] if redis.certificate(host, inventory, "") else [])
    packages = {"certbot"} if host.has("edge") and any(app.tls.source == "acme" for app in inventory.apps) else set()
    for app in inventory.apps:
        for backend in app.backends_on(host.name):
            units = [backend.unit] if backend.unit else [f"{app.name}@*.service"]
            if backend.runtime == "docker":
                units = ["docker.service", "docker-*.scope", "containerd.service", f"{app.name}@*.service"]
            ports += [_port(port, f"app {app.name}", units) for port in backend.all_ports()]
            packages |= set(backend.packages)
    docker = runs_docker(host, inventory)
    if docker:
        roles.append("docker")
    packages |= {name for role in roles for name in PACKAGES[role]}
    packages |= {name for option, names in OPTIONS.items() if host.overrides.get(option) for name in names}
    packages |= {str(name) for name in host.overrides.get("base_packages") or ()}  # a wrong one is told as a missing package
    if host.overrides.get("postgresql_version"):
        packages -= set(PACKAGES["postgresql"])  # the role installs the chosen one, from a repository that it adds first
    wanted = [{"host": str(entry["host"]), "ca": str(entry.get("ca") or "")} for entry in registries] if docker else []
    found = {"preflight_ports": ports, "preflight_packages": sorted(packages), "preflight_registries": wanted}
    return {**found, **_held(host, inventory)}


def _held(host: Host, inventory: Inventory) -> dict[str, Any]:
    """Hosts whose poolers hold their clients while PostgreSQL on this one restarts, and while it is promoted."""
    primary = inventory.primary(host) if host.has("replica") else host
    there = [one.name for one in poolers.hosts(primary, inventory)] if primary and primary.has("database") else []
    restart = [] if host.has("replica") else [name for name in there if name != host.name]
    return {
        "address": host.address,
        "poolers_of_restart": restart,
        # Of any member: whoever promotes may have changed slipway_primary already, or not yet.
        "poolers_of_promotion": there if primary and inventory.replicas(primary) else [],
    }


def _port(port: int, owner: str, units: list[str]) -> dict[str, Any]:
    return {"port": port, "owner": owner, "units": units}
