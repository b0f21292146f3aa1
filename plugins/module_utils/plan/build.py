# SPDX-License-Identifier: GPL-3.0-or-later
"""From a checked inventory and facts to the variables of every role on every host. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from . import app_host as description
from . import checks, firewall, redis, sizing, updates
from .model import App, Check, Facts, Host, Inventory, Plan, Problem, Row
from .parse import DICT_OVERRIDES, LIST_OVERRIDES

Sized = dict[str, tuple[Any, str]]


class Builder:
    """One build; the steps share what is known of the fleet."""

    def __init__(self, inventory: Inventory, facts: Mapping[str, Facts]) -> None:
        """Only hosts with facts are sized."""
        self.inventory = inventory
        self.facts = facts
        self.network = firewall.docker_network(
            [host.address for host in inventory.hosts] + [net for one in facts.values() for net in one.networks]
        )
        self.sizes = {
            host.name: sizing.divide(
                host, facts[host.name], inventory, self._most_clients(host), self._most_sessions(inventory.apps)
            )
            for host in inventory.hosts
            if host.name in facts
        }
        self.members = {
            app.name: {slot: description.members(app, slot, inventory) for slot in app.slot_order()} for app in inventory.apps
        }
        self.turns = updates.turns(inventory)
        self.rows: list[Row] = []
        self.problems: list[Problem] = []

    def served(self, server: Host) -> tuple[App, ...]:
        """Apps whose database is on this host."""
        return tuple(app for app in self.inventory.apps if app.database and app.database.host == server.name)

    def processes(self, app: App, host: str) -> int:
        """Processes of one instance; 0 when neither declared nor sized."""
        size = self.sizes.get(host)
        return size.processes.get(app.name, 0) if size else app.processes

    def primary(self, host: Host) -> Host:
        """The database host whose load a host must carry: itself, or of a replica its primary."""
        return (self.inventory.primary(host) if host.has("replica") else None) or host

    def _most_clients(self, server: Host) -> int:
        """Upper bound of the pooler's clients, for its memory: every app with a process for each core."""
        if not server.serves_postgresql():
            return 0
        return sizing.max_client_conn(self._most_sessions(self.served(self.primary(server))))

    def _most_sessions(self, apps: tuple[App, ...]) -> int:
        """Upper bound of the sessions that apps can open, both slots running, with a process for each core."""
        total = 0
        for app in apps:
            for name in app.hosts():
                most = app.processes or (self.facts[name].cores if name in self.facts else 1)
                total += sizing.sessions(app, most) * sizing.instances(app, name)
            total += sum(sizing.worker_sessions(app, name) for name in app.everywhere())
        return total

    def sessions(self, server: Host, pooled: bool) -> int:
        """Sessions all apps can open at once towards a server, both slots running."""
        return sum(
            sizing.sessions(app, self.processes(app, name)) * sizing.instances(app, name) + sizing.worker_sessions(app, name)
            for app in self.served(server)
            if app.database and app.database.pooled is pooled
            for name in app.everywhere()
        )

    def _redis_sessions(self, apps: Iterable[App]) -> int:
        """Sessions that apps can open towards a Redis server at once, both slots running."""
        return sum(
            sizing.sessions(app, self.processes(app, name)) * sizing.instances(app, name) + sizing.worker_sessions(app, name)
            for app in apps
            for name in app.everywhere()
        )

    def host(self, host: Host) -> dict[str, Any]:
        """All variables of one host, overrides merged, rows and checks recorded."""
        docker = sizing.runs_docker(host, self.inventory)
        sized: Sized = {}
        values: dict[str, Any] = {
            "ufw_ssh_ports": list(host.ssh_ports),
            "unattended_upgrades_hold": updates.hold(host, self.inventory),
            "unattended_upgrades_turn": self.turns[host.name],
            "ufw_rules": firewall.rules(host, self.inventory, self.network) + redis.rules(host, self.inventory, self.network),
            "ufw_container_rules": firewall.container_rules(host, self.inventory),
            "app_apps": {
                app.name: description.app_host(
                    app,
                    host,
                    self.inventory,
                    self.members[app.name],
                    self.processes(app, host.name),
                    self.facts.get(app.database.host) if app.database else None,
                    self.network,
                )
                for app in self.inventory.apps
                if host.has("edge") or host.name in app.everywhere()
            },
        }
        if docker:
            values["docker_bip"], values["docker_address_pool"] = firewall.docker_addresses(self.network)
        if host.has("edge"):
            values["nginx_sites"] = [self._site(app) for app in self.inventory.apps]
            values["certificates_entries"] = [_certificate(app) for app in self.inventory.apps]
            values["certificates_acme_group"] = "www-data"
        facts = self.facts.get(host.name)
        if host.has("database"):
            values.update(self._database(host, facts, sized))
        elif host.has("replica"):
            values.update(self._standby(host, facts))
        if facts:
            sized["kernel_nofile"] = (sizing.nofile(facts), "limit for logins")
            final = {**values.get("postgresql_settings", {}), **host.overrides.get("postgresql_settings", {})}
            pages = _huge_pages(final, self.sizes[host.name].postgresql_mb)
            kernel = sizing.kernel_sysctl(host, facts, docker, self.sizes[host.name], pages)
            values["kernel_sysctl"] = self._reasoned(host, "kernel_sysctl", kernel)
            if docker:
                sized["docker_nofile"] = (sizing.nofile(facts), "limit in containers")
            if host.has("edge"):
                connections = int(host.overrides.get("nginx_worker_connections", sizing.worker_connections(facts.memory_mb)))
                sized["nginx_worker_connections"] = (connections, f"{facts.memory_mb} MB memory")
                sized["nginx_nofile"] = (sizing.nginx_nofile(connections), "two for each connection, and 64")
        nofile = int(host.overrides.get("kernel_nofile", sized.get("kernel_nofile", (16384, ""))[0]))
        units, packages = self._units(host, nofile)
        if units:
            values["systemd_units_units"] = units
            values["systemd_units_packages"] = packages
        if host.has("redis"):
            values.update(self._redis(host))
            secured = redis.certificate(host, self.inventory, self.network)
            values["certificates_entries"] = values.get("certificates_entries", []) + secured
        for name, (value, reason) in sized.items():
            values[name] = value
            if name not in host.overrides:
                self.rows.append(Row(host.name, name, str(value), reason))
        for app in self.inventory.apps if facts else ():
            self._app_rows(app, host)
        merged = _override(values, host.overrides)
        self.rows += [Row(host.name, name, _short(value), "set in the inventory") for name, value in host.overrides.items()]
        return merged

    def _redis(self, host: Host) -> dict[str, Any]:
        """The Redis instances of a host; those that keep something on disk leave room for the copy that a fork may make."""
        size = self.sizes[host.name].redis if host.name in self.sizes else None
        values = redis.variables(host, self.inventory, self.network, size)
        for entry in values["redis_instances"] if size else ():
            named = f"Redis {entry['name']}"
            why = "a fork may copy every page" if size and size.forks else "a cache is never saved"
            self.rows.append(Row(host.name, f"{named} maxmemory", f"{entry['maxmemory_mb']} MB", why))
            self.rows.append(
                Row(host.name, f"{named} clients", str(entry["max_clients"]), "1.25 x sessions of both slots, and 10")
            )
        return values

    def _units(self, host: Host, nofile: int) -> tuple[list[dict[str, Any]], list[str]]:
        """Template units of web instances and workers on a host, and the packages they need."""
        units: list[dict[str, Any]] = []
        packages: list[str] = []
        for app in self.inventory.apps:
            for backend in app.backends_on(host.name):
                packages += backend.packages
                if backend.managed and backend.runtime == "systemd":
                    units.append(description.unit(app, backend, nofile))
            for worker in app.workers:
                if host.name in worker.hosts and app.backend_of(worker, host.name).runtime == "systemd":
                    packages += app.backend_of(worker, host.name).packages
                    units.append(description.worker_unit(app, worker, host.name, nofile))
        return units, _unique(packages)

    def _app_rows(self, app: App, host: Host) -> None:
        for worker in app.workers_on(host.name):
            each = "on this host alone" if worker.singleton else "of each slot, both run while they are handed over"
            what = worker.unit or f"{worker.replicas} x {worker.threads} threads"
            self.rows.append(Row(host.name, f"app {app.name} worker {worker.name}", what, each))
        processes = self.processes(app, host.name)
        if not app.backends_on(host.name) or not processes:
            return
        size = self.sizes[host.name]
        why = "declared" if app.processes else f"{self.facts[host.name].cores} cores and memory"
        name = f"app {app.name}"
        self.rows.append(Row(host.name, f"{name} processes", str(processes), why))
        self.rows.append(Row(host.name, f"{name} threads", str(app.threads), "of each process"))
        if app.database:
            self.rows.append(
                Row(host.name, f"{name} pool", app.env.get("DB_POOL", str(sizing.app_pool(app))), "threads + 1, of each process")
            )
        both = f"{sizing.instances(app, host.name)} instances, both slots"
        self.rows.append(Row(host.name, f"{name} memory", f"{size.roles[name]} MB", both))

    def _reasoned(self, host: Host, variable: str, found: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
        declared = host.overrides.get(variable, {})
        self.rows += [
            Row(host.name, f"{variable} {key}", str(value), reason)
            for key, (value, reason) in found.items()
            if key not in declared
        ]
        return {key: value for key, (value, _reason) in found.items()}

    def _site(self, app: App) -> dict[str, Any]:
        return {
            "name": app.name,
            "domain": app.domain,
            "aliases": list(app.aliases),
            "certificate": f"/etc/slipway/tls/{app.name}/fullchain.pem",
            "key": f"/etc/slipway/tls/{app.name}/privkey.pem",
            "certificate_reread": app.tls.source == "acme",
            "slots": [{"name": slot, "members": list(self.members[app.name][slot])} for slot in app.slot_order()],
            "flags": f"{description.STATE}/{app.name}/flags",
            "websockets": list(app.websockets),
            "max_body": app.max_body,
            "read_timeout": app.read_timeout,
            "health_path": app.health.path,
            "rate_limits": [{"path": one.path, "per_minute": one.per_minute} for one in app.rate_limits],
            "restricted": [{"path": one.path, "from": list(one.sources)} for one in app.restricted],
            "canary": {"by": app.canary.by, "cookie": app.canary.cookie},
        }

    def _database(self, host: Host, facts: Facts | None, sized: Sized) -> dict[str, Any]:
        """PostgreSQL and its pooler on one host."""
        apps = self.served(host)
        pooled, direct = firewall.clients(host, self.inventory, self.network)
        values: dict[str, Any] = {
            "served_apps": [app.name for app in apps],
            "postgresql_listen": ["localhost"] + ([host.address] if direct else []),
            "postgresql_databases": _unique(
                [
                    {"name": app.database.name, "owner": app.database.user, "pooled": app.database.pooled}
                    for app in apps
                    if app.database
                ]
            ),
            "postgresql_roles": _unique(
                [
                    {
                        "name": app.database.user,
                        "statement_timeout": f"{app.database.statement_timeout}s",
                        "lock_timeout": f"{app.database.lock_timeout}s",
                    }
                    for app in apps
                    if app.database
                ]
            ),
            "postgresql_hba": self._hba(host, apps),
            "pgbouncer_listen": ["127.0.0.1"] + ([host.address] if pooled else []),
            "pgbouncer_port": firewall.pooler_port(host),
        }
        if not facts or not self._processes_known(host, apps):
            return values
        databases = self._pooler_databases(host, facts, apps)
        pools = [entry["pool_size"] for entry in databases]
        clients = sizing.max_client_conn(self.sessions(host, pooled=True))
        declared = host.overrides.get("pgbouncer_settings", {})
        final = checks.whole(declared.get("max_client_conn", clients))
        pooler: dict[str, tuple[Any, str]] = {
            "pool_mode": ("transaction", "many clients, few sessions"),
            "max_client_conn": (str(clients), f"1.25 x {self.sessions(host, pooled=True)} sessions of both slots, and 10"),
            "default_pool_size": (str(max(pools, default=1)), f"2 x {facts.cores} cores + 1, at most the apps' threads"),
            "reserve_pool_size": (str(sizing.reserve_size(max(pools, default=1))), "a fifth"),
            "reserve_pool_timeout": ("3", "seconds before the reserve opens"),
            "query_wait_timeout": ("120", "longer than a guarded restart"),
            "server_login_retry": ("1", "a restart is noticed within a second"),
            "listen_backlog": (str(sizing.listen_backlog(clients)), "all clients may knock at once, at most 4096"),
        }
        if sizing.version(facts.pgbouncer) >= (1, 21):
            pooler["max_prepared_statements"] = ("200", f"pgbouncer {facts.pgbouncer}")
        values["pgbouncer_databases"] = databases
        values["pgbouncer_settings"] = self._reasoned(host, "pgbouncer_settings", pooler)
        sized["pgbouncer_nofile"] = (
            sizing.pooler_nofile(sizing.pooler_descriptors(final, pools), facts.nofile_hard),
            f"{sizing.pooler_descriptors(final, pools)} needed",
        )
        values["postgresql_settings"] = self._reasoned(host, "postgresql_settings", self._settings(host, host, facts, databases))
        return values

    def _settings(self, host: Host, primary: Host, facts: Facts, databases: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
        """PostgreSQL's settings on a host that carries the load of `primary`: its own, or that of the one it follows."""
        kept = primary.overrides.get("postgresql_settings", {})
        reserved = checks.whole(kept.get("superuser_reserved_connections", sizing.SUPERUSER_RESERVED))
        reserved += checks.whole(kept.get("reserved_connections", 0))
        direct = sizing.DIRECT_SESSIONS + self.sessions(primary, pooled=False)
        poolers = 1 + len(self._other_poolers(primary))
        pooled = poolers * sum(entry["max_db_connections"] for entry in databases)
        connections = checks.whole(kept.get("max_connections", 0)) or sizing.max_connections(pooled, direct, reserved)
        active = poolers * sum(entry["pool_size"] for entry in databases) + direct
        replicas = self.inventory.replicas(primary)
        cores = max(self.facts[one.name].cores for one in (primary, *replicas) if one.name in self.facts)
        found = sizing.postgresql_settings(self.sizes[host.name], facts, active, connections, len(replicas), cores)
        if host != primary:
            found.update({name: (str(kept[name]), f"as on {primary.name}") for name in checks.STANDBY_NEEDS if name in kept})
        return found

    def _standby(self, host: Host, facts: Facts | None) -> dict[str, Any]:
        """Settings of a replica, which has to carry its primary's load one day."""
        primary = self.primary(host)
        if not facts or primary == host:
            return {}
        known = self.facts.get(primary.name)
        if known is None:
            what = f"are not known, so its replica {host.name} cannot be sized"
            self.problems.append(Problem(primary.name, "facts", what, "Run without --limit, or with both hosts"))
            return {}
        apps = self.served(primary)
        if not self._processes_known(primary, apps):
            return {}
        settings = self._settings(host, primary, facts, self._pooler_databases(primary, known, apps))
        return {"postgresql_settings": self._reasoned(host, "postgresql_settings", settings)}

    def _other_poolers(self, server: Host) -> list[str]:
        """Other hosts whose pooler has databases on this server."""
        return [
            host.name
            for host in self.inventory.hosts
            if host != server and any(_leads_to(entry, server) for entry in host.overrides.get("pgbouncer_databases", ()))
        ]

    def _pooler_databases(self, server: Host, facts: Facts, apps: tuple[App, ...]) -> list[dict[str, Any]]:
        threads: dict[str, int] = {}
        for app in apps:
            if app.database and app.database.pooled:
                here = sum(self.processes(app, name) * app.threads * sizing.instances(app, name) for name in app.hosts())
                here += sum(sizing.worker_threads(app, name) for name in app.everywhere())
                threads[app.database.name] = threads.get(app.database.name, 0) + here
        declared = server.overrides.get("pgbouncer_settings", {})
        poolers = 1 + len(self._other_poolers(server))
        found = []
        for name, total in threads.items():
            pool = checks.whole(declared.get("default_pool_size", 0)) or sizing.pool_size(total, facts.cores, poolers)
            reserve = checks.whole(declared.get("reserve_pool_size", sizing.reserve_size(pool)))
            found.append(
                {
                    "name": name,
                    "host": "/var/run/postgresql",
                    "port": 5432,
                    "pool_size": pool,
                    "reserve_pool": reserve,
                    "max_db_connections": pool + reserve,
                }
            )
        return found

    def _processes_known(self, server: Host, apps: tuple[App, ...]) -> bool:
        """Pools can be sized only when every app host that uses them is known or declares its processes."""
        missing = [(app, name) for app in apps for name in app.hosts() if not self.processes(app, name)]
        self.problems += [
            Problem(
                name,
                "facts",
                f"are not known, so the pools on {server.name} cannot be sized for app {app.name}",
                f"Run without --limit, or set slipway_apps.{app.name}.processes",
            )
            for app, name in missing
        ]
        return not missing

    def _hba(self, server: Host, apps: tuple[App, ...]) -> list[dict[str, str]]:
        found = []
        for app in apps:
            if not app.database:
                continue
            entry = {"database": [app.database.name], "user": [app.database.user], "method": "scram-sha-256"}
            found.append({"type": "local", **entry})
            if not app.database.pooled or app.migrations:
                only = Inventory(apps=(app,), hosts=self.inventory.hosts)
                bare = Host(server.name, server.groups, server.address)
                for address in firewall.clients(bare, only, self.network)[1]:
                    # Containers of this host are networks; what comes from another host has to be encrypted.
                    elsewhere = "/" not in address
                    kind, network = ("hostssl", f"{address}/{_bits(address)}") if elsewhere else ("host", address)
                    found.append({"type": kind, **entry, "address": network})
                found.append({"type": "host", **entry, "address": "127.0.0.1/32"})
        return _unique(found)

    def check(self, host: Host, hosts: Mapping[str, dict[str, Any]]) -> list[Check]:
        """All rules on one host, given the final variables of all."""
        published = tuple(
            port
            for app in self.inventory.apps
            if not firewall.local_only(app, self.inventory)
            for backend in app.backends_on(host.name)
            if backend.runtime == "docker"
            for port in backend.all_ports()
        )
        elsewhere = any(edge.name != host.name for edge in self.inventory.group("edge"))
        primary = self.primary(host)
        return checks.run(
            checks.Subject(
                host=host,
                facts=self.facts[host.name],
                size=self.sizes[host.name],
                variables=hosts[host.name],
                apps=tuple(app for app in self.inventory.apps if app.backends_on(host.name)),
                served=self.served(host),
                poolers=self._poolers(primary, hosts) if host.serves_postgresql() else (),
                sessions=self.sessions(host, pooled=True),
                direct=sizing.DIRECT_SESSIONS + self.sessions(primary, pooled=False),
                redis_sessions=self._redis_sessions(app for app in self.inventory.apps if "REDIS_URL" in app.env),
                containers=sizing.runs_docker(host, self.inventory),
                published=published if elsewhere else (),
                primary=hosts[primary.name].get("postgresql_settings", {}) if primary != host else None,
                replicas=tuple(one.name for one in self.inventory.replicas(host)),
            )
        )

    def _poolers(self, server: Host, hosts: Mapping[str, dict[str, Any]]) -> tuple[checks.Pooler, ...]:
        """All poolers in front of a server: its own, and those of other hosts with databases on it."""
        found = []
        for name in (server.name, *self._other_poolers(server)):
            declared = hosts[name].get("pgbouncer_databases", ())
            others = [host for host in self.inventory.hosts if host.name not in (server.name, name)]
            own = name == server.name
            mine = [
                entry
                for entry in declared
                if _leads_to(entry, server) or (own and not any(_leads_to(entry, other) for other in others))
            ]
            found.append(checks.Pooler(name, mine, hosts[name].get("pgbouncer_settings", {})))
        return tuple(found)


def build(inventory: Inventory, facts: Mapping[str, Facts]) -> Plan:
    """Variables, checks and rows for every host of the inventory; hosts without facts get only what needs none."""
    chosen = {host.name: str(host.overrides.get("postgresql_version") or "") for host in inventory.hosts}
    facts = {name: replace(one, postgresql=chosen.get(name) or one.postgresql) for name, one in facts.items()}
    builder = Builder(inventory, facts)
    hosts = {host.name: builder.host(host) for host in inventory.hosts}
    found = [check for host in inventory.hosts if host.name in facts for check in builder.check(host, hosts)]
    return Plan(hosts=hosts, checks=tuple(found), rows=tuple(builder.rows), problems=tuple(builder.problems))


def _leads_to(entry: Any, server: Host) -> bool:
    return isinstance(entry, dict) and str(entry.get("host", "")) in (server.address or server.name, server.name)


def _huge_pages(final: Mapping[str, Any], memory_mb: int) -> int:
    """Huge pages for PostgreSQL's settings; none below 2 GB of shared_buffers (pgtune) and beyond half of its memory."""
    shared = int(checks.size_mb(str(final.get("shared_buffers", "")), 8))
    if not 2048 <= shared <= memory_mb // 2 or str(final.get("huge_pages", "try")) == "off":
        return 0
    return sizing.huge_pages(shared, checks.whole(final.get("max_connections", 100)))


def _certificate(app: App) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": app.name, "domains": [app.domain, *app.aliases], "source": app.tls.source}
    if app.tls.source == "files":
        entry.update(certificate=app.tls.certificate, key=app.tls.key)
    return entry


def _override(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What the inventory sets wins: mappings by key, lists by name where entries have one, else added."""
    merged = dict(values)
    for name, value in overrides.items():
        if name in DICT_OVERRIDES:
            merged[name] = {**merged.get(name, {}), **value}
        elif name in LIST_OVERRIDES:
            merged[name] = _joined(merged.get(name, []), value)
        else:
            merged[name] = value
    return merged


def _joined(planned: list[Any], declared: list[Any]) -> list[Any]:
    names = {entry.get("name"): entry for entry in declared if isinstance(entry, dict) and entry.get("name")}
    kept = [
        {**entry, **names.pop(entry["name"])} if isinstance(entry, dict) and entry.get("name") in names else entry
        for entry in planned
    ]
    added = [entry for entry in declared if not isinstance(entry, dict) or not entry.get("name") or entry.get("name") in names]
    return _unique(kept + added)


def _unique(entries: list[Any]) -> list[Any]:
    found: list[Any] = []
    for entry in entries:
        if entry not in found:
            found.append(entry)
    return found


def _short(value: Any) -> str:
    """A declared value for the printed plan: settings as they are, lists only by their number of entries."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={below}" for key, below in value.items())
    return f"{len(value)} entries" if isinstance(value, list) else str(value)


def _bits(address: str) -> int:
    return 128 if ":" in address else 32
