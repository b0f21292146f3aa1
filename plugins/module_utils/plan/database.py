# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL on primaries and standbys, and the poolers in front of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from . import checks, firewall, former, poolers, sizing
from .model import POSTGRESQL_PORT, App, Facts, Host, Inventory, Problem

SOCKETS = "/var/run/postgresql"
Reasoned = dict[str, tuple[str, str]]


class Fleet(Protocol):
    """What a build knows of the fleet."""

    inventory: Inventory
    facts: Mapping[str, Facts]
    network: str
    sizes: Mapping[str, sizing.HostSize]
    problems: list[Problem]

    def processes(self, app: App, host: str) -> int:
        """Processes of one instance; 0 when neither declared nor sized."""

    def sessions(self, app: App, hosts: Iterable[str]) -> int:
        """Sessions that an app can open from some hosts."""


class Databases:
    """The part of a build that knows databases and their poolers."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.inventory = fleet.inventory

    def served(self, server: Host) -> tuple[App, ...]:
        """Apps whose database is on this host."""
        return tuple(app for app in self.inventory.apps if app.database and app.database.host == server.name)

    def primary(self, host: Host) -> Host:
        """The database host whose load a host must carry: itself, or of a replica its primary."""
        return (self.inventory.primary(host) if host.has("replica") else None) or host

    def pooled_sessions(self, host: Host) -> int:
        """Sessions that apps can open towards the pooler of a host."""
        apps = poolers.apps(host, self.inventory)
        return sum(self.fleet.sessions(app, poolers.clients(app, host, self.inventory)) for app in apps)

    def direct_sessions(self, server: Host) -> int:
        """Sessions that reach a primary past the poolers, those of administrators included."""
        apps = [app for app in self.served(server) if app.database and not app.database.pooled]
        return sizing.DIRECT_SESSIONS + sum(self.fleet.sessions(app, app.everywhere()) for app in apps)

    def member(self, host: Host) -> dict[str, Any]:
        """What needs no sizes on a primary or a standby. All members are alike, so that a promotion changes no rule."""
        primary = self.primary(host)
        apps, peers = self.served(primary), firewall.peers(host, self.inventory)
        reached = peers or firewall.server_clients(host, self.inventory, self.fleet.network)
        asked = host == primary and (not peers or self.left(host)) and any(app.database and app.database.pooled for app in apps)
        values: dict[str, Any] = {
            "postgresql_listen": ["localhost"] + ([host.address] if reached else []),
            "postgresql_databases": _unique(
                {"name": app.database.name, "owner": app.database.user, "pooled": app.database.pooled}
                for app in apps
                if app.database
            ),
            "postgresql_roles": _unique(
                {
                    "name": app.database.user,
                    "statement_timeout": f"{app.database.statement_timeout}s",
                    "lock_timeout": f"{app.database.lock_timeout}s",
                }
                for app in apps
                if app.database
            ),
            "postgresql_hba": self._hba(host, primary, (*apps, *self._former(apps))),
            "postgresql_pooler_user": "pgbouncer_auth" if asked else "",
        }
        if host == primary:
            values["served_apps"] = [app.name for app in apps]
        if peers:
            held = [] if host != primary else [one.name for one in poolers.hosts(primary, self.inventory) if one != host]
            values.update(postgresql_peers=peers, postgresql_poolers=held, postgresql_standby_of={})
        if host != primary:
            declared = host.overrides.get("postgresql_standby_of", {})
            values["postgresql_standby_of"] = {
                "sslmode": "require",
                **declared,
                "host": primary.address,
                "port": POSTGRESQL_PORT,
            }
        return values

    def left(self, host: Host) -> bool:
        """Whether a pooler runs beside a database that got a standby: instances from before use it until they are replaced."""
        seen = self.fleet.facts.get(host.name)
        return bool(seen and seen.pooler and self.inventory.replicas(host) and host not in poolers.hosts(host, self.inventory))

    def pooler(self, host: Host) -> dict[str, Any]:
        """What needs no sizes of the pooler on a host."""
        reached = firewall.pooler_clients(host, self.inventory, self.fleet.network)
        remote = any(self.inventory.replicas(server) for server in poolers.servers(host, self.inventory))
        return {
            "pooled_apps": [app.name for app in poolers.apps(host, self.inventory)],
            "pgbouncer_auth_user": "" if remote else "pgbouncer_auth",
            "pgbouncer_listen": ["127.0.0.1"] + ([host.address] if reached else []),
            "pgbouncer_port": poolers.port(host),
        }

    def pools(self, host: Host) -> list[dict[str, Any]]:
        """The databases of the pooler on a host."""
        return [entry for server in poolers.servers(host, self.inventory) for entry in self._entries(server, host)]

    def pooler_settings(self, host: Host, facts: Facts, pools: list[int]) -> Reasoned:
        """Settings of the pooler on a host."""
        sessions = self.pooled_sessions(host)
        clients = sizing.max_client_conn(sessions)
        found = {
            "pool_mode": ("transaction", "many clients, few sessions"),
            "max_client_conn": (str(clients), f"1.25 x {sessions} sessions of both slots, and 10"),
            "default_pool_size": (str(max(pools, default=1)), "2 x cores of the database + 1, at most the apps' threads"),
            "reserve_pool_size": (str(sizing.reserve_size(max(pools, default=1))), "a fifth"),
            "reserve_pool_timeout": ("3", "seconds before the reserve opens"),
            "query_wait_timeout": ("120", "longer than a guarded restart"),
            "server_login_retry": ("1", "a restart is noticed within a second"),
            "listen_backlog": (str(sizing.listen_backlog(clients)), "all clients may knock at once, at most 4096"),
        }
        if sizing.version(facts.pgbouncer) >= (1, 21):
            found["max_prepared_statements"] = ("200", f"pgbouncer {facts.pgbouncer}")
        return found

    def settings(self, host: Host, facts: Facts) -> Reasoned | None:
        """PostgreSQL's settings on a host, for the load of its primary; None while that cannot be sized."""
        primary = self.primary(host)
        if not self.known(primary, host):
            return None
        kept = primary.overrides.get("postgresql_settings", {})
        reserved = checks.whole(kept.get("superuser_reserved_connections", sizing.SUPERUSER_RESERVED))
        reserved += checks.whole(kept.get("reserved_connections", 0))
        direct = self.direct_sessions(primary)
        count, entries = len(self.poolers(primary)), self._entries(primary, primary)
        pooled = count * sum(entry["max_db_connections"] for entry in entries)
        connections = checks.whole(kept.get("max_connections", 0)) or sizing.max_connections(pooled, direct, reserved)
        active = count * sum(entry["pool_size"] for entry in entries) + direct
        replicas = self.inventory.replicas(primary)
        cores = max(self.fleet.facts[one.name].cores for one in (primary, *replicas) if one.name in self.fleet.facts)
        size = self.fleet.sizes[host.name]
        found = sizing.postgresql_settings(size, facts, active, connections, len(replicas), cores)
        if host != primary:
            found.update({name: (str(kept[name]), f"as on {primary.name}") for name in checks.STANDBY_NEEDS if name in kept})
        return found

    def known(self, server: Host, host: Host) -> bool:
        """Whether all is known by which `server`, and with it `host`, is sized; what is not becomes a problem."""
        found = []
        if server.name not in self.fleet.facts:
            what = "its replica" if host.has("replica") and server == self.primary(host) else "the pooler on"
            found.append(
                Problem(
                    server.name,
                    "facts",
                    f"are not known, so {what} {host.name} cannot be sized",
                    "Run without --limit, or with both hosts",
                )
            )
        for app in self.served(server):
            found += [
                Problem(
                    name,
                    "facts",
                    f"are not known, so the pools of {server.name} cannot be sized for app {app.name}",
                    f"Run without --limit, or set slipway_apps.{app.name}.processes",
                )
                for name in app.hosts()
                if not self.fleet.processes(app, name)
            ]
        self.fleet.problems += [problem for problem in found if problem not in self.fleet.problems]
        return not found

    def poolers(self, server: Host) -> list[str]:
        """All hosts whose pooler leads to a server: by the plan, by their own variables, and one that is left from before."""
        found = [host.name for host in poolers.hosts(server, self.inventory)] + ([server.name] if self.left(server) else [])
        declared = [
            host.name
            for host in self.inventory.hosts
            if host != server and any(leads_to(entry, server) for entry in host.overrides.get("pgbouncer_databases", ()))
        ]
        return list(dict.fromkeys(found + declared))

    def _entries(self, server: Host, host: Host) -> list[dict[str, Any]]:
        """The databases on `server` in the pooler of `host`, each with its share of the server's sessions."""
        threads: dict[str, int] = {}
        for app in self.served(server):
            if app.database and app.database.pooled:
                here = sum(self.fleet.processes(app, name) * app.threads * sizing.instances(app, name) for name in app.hosts())
                here += sum(sizing.worker_threads(app, name) for name in app.everywhere())
                threads[app.database.name] = threads.get(app.database.name, 0) + here
                for other in self._former((app,)):
                    threads.setdefault(other.database.name, here)  # type: ignore[union-attr]
        declared = host.overrides.get("pgbouncer_settings", {})
        count, cores = max(1, len(self.poolers(server))), self.fleet.facts[server.name].cores
        found = []
        for name, total in threads.items():
            pool = checks.whole(declared.get("default_pool_size", 0)) or sizing.pool_size(total, cores, count)
            reserve = checks.whole(declared.get("reserve_pool_size", sizing.reserve_size(pool)))
            found.append(
                {
                    "name": name,
                    "host": server.address if self.inventory.replicas(server) else SOCKETS,
                    "port": POSTGRESQL_PORT,
                    "pool_size": pool,
                    "reserve_pool": reserve,
                    "max_db_connections": pool + reserve,
                }
            )
        return found

    def _former(self, apps: Iterable[App]) -> tuple[App, ...]:
        return tuple(other for app in apps for other in former.apps(app, self.fleet.facts))

    def _hba(self, host: Host, primary: Host, apps: tuple[App, ...]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for app in apps:
            if not app.database:
                continue
            entry = {"database": [app.database.name], "user": [app.database.user], "method": "scram-sha-256"}
            found.append({"type": "local", **entry})
            for address in firewall.app_addresses(app, host, primary, self.inventory, self.fleet.network):
                # Containers of this host are networks; what comes from another host has to be encrypted.
                elsewhere = "/" not in address
                kind, network = ("hostssl", f"{address}/{_bits(address)}") if elsewhere else ("host", address)
                found.append({"type": kind, **entry, "address": network})
            if not app.database.pooled or app.migrations:
                found.append({"type": "host", **entry, "address": "127.0.0.1/32"})
        return list(_unique(found))

    def in_front(self, server: Host, hosts: Mapping[str, dict[str, Any]]) -> tuple[checks.Pooler, ...]:
        """All poolers of a server with their final variables."""
        found = []
        for name in self.poolers(server):
            declared = hosts[name].get("pgbouncer_databases", ())
            others = [host for host in self.inventory.hosts if host.name not in (server.name, name)]
            own = name == server.name
            mine = [
                entry
                for entry in declared
                if leads_to(entry, server) or (own and not any(leads_to(entry, other) for other in others))
            ]
            found.append(checks.Pooler(name, mine, hosts[name].get("pgbouncer_settings", {})))
        return tuple(found)


def leads_to(entry: Any, server: Host) -> bool:
    """Whether a database of a pooler is on a server."""
    return isinstance(entry, dict) and str(entry.get("host", "")) in (server.address or server.name, server.name)


def _unique(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for entry in entries:
        if entry not in found:
            found.append(entry)
    return found


def _bits(address: str) -> int:
    return 128 if ":" in address else 32
