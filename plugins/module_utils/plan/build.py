# SPDX-License-Identifier: GPL-3.0-or-later
"""From a checked inventory and facts to the variables of every role on every host. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from . import app_host as description
from . import checks, firewall, former, poolers, redis, sizing, standbys, updates
from .database import Databases
from .held import Held
from .model import App, Check, Facts, Host, Inventory, Plan, Problem, Row
from .parse import DICT_OVERRIDES, LIST_OVERRIDES

Sized = dict[str, tuple[Any, str]]


class Builder:
    """One build; the steps share what is known of the fleet."""

    def __init__(self, inventory: Inventory, facts: Mapping[str, Facts]) -> None:
        """Only hosts with facts are sized."""
        self.inventory = inventory
        self.facts = facts
        self.databases = Databases(self)
        self.network = firewall.docker_network(
            [host.address for host in inventory.hosts] + [net for one in facts.values() for net in one.networks]
        )
        self.sizes = {
            host.name: sizing.divide(
                host,
                facts[host.name],
                inventory,
                self._most_clients(host),
                sum(self._most_sessions(app, app.everywhere()) for app in inventory.apps),
            )
            for host in inventory.hosts
            if host.name in facts
        }
        self.held = Held(inventory, facts)
        self.members = {
            app.name: {slot: self.held.members(app, slot, description.members(app, slot, inventory)) for slot in app.slot_order()}
            for app in inventory.apps
        }
        self.turns = updates.turns(inventory)
        self.rows: list[Row] = []
        self.problems: list[Problem] = []

    def processes(self, app: App, host: str) -> int:
        """Processes of one instance; 0 when neither declared nor sized."""
        size = self.sizes.get(host)
        return size.processes.get(app.name, 0) if size else app.processes

    def _most_clients(self, host: Host) -> int:
        """Upper bound of the clients of a host's pooler, for its memory: every app with a process for each core."""
        if not poolers.servers(host, self.inventory):
            return 0
        return sizing.max_client_conn(
            sum(
                self._most_sessions(app, poolers.clients(app, host, self.inventory)) for app in poolers.apps(host, self.inventory)
            )
        )

    def _most_sessions(self, app: App, hosts: Iterable[str]) -> int:
        """Upper bound of the sessions that an app can open from some hosts, both slots running, with a process for each core."""
        total = 0
        for name in hosts:
            most = app.processes or (self.facts[name].cores if name in self.facts else 1)
            total += sizing.sessions(app, most) * sizing.instances(app, name) + sizing.worker_sessions(app, name)
        return total

    def sessions(self, app: App, hosts: Iterable[str]) -> int:
        """Sessions that an app can open at once from some hosts, both slots running."""
        return sum(
            sizing.sessions(app, self.processes(app, name)) * sizing.instances(app, name) + sizing.worker_sessions(app, name)
            for name in hosts
        )

    def _redis_sessions(self, apps: Iterable[App]) -> int:
        """Sessions that apps can open towards a Redis server at once, both slots running."""
        return sum(self.sessions(app, app.everywhere()) for app in apps)

    def host(self, host: Host) -> dict[str, Any]:
        """All variables of one host, overrides merged, rows and checks recorded."""
        docker = sizing.runs_docker(host, self.inventory)
        sized: Sized = {}
        values: dict[str, Any] = {
            "ufw_ssh_ports": list(host.ssh_ports),
            "unattended_upgrades_hold": updates.hold(host, self.inventory),
            "unattended_upgrades_turn": self.turns[host.name],
            "ufw_rules": _unique(
                firewall.rules(host, self.inventory, self.network)
                + [firewall.rule(*opening) for opening in self.held.openings(host, "systemd")]
                + redis.rules(host, self.inventory, self.network)
            ),
            "ufw_container_rules": _unique(
                firewall.container_rules(host, self.inventory)
                + [firewall.container_rule(*opening) for opening in self.held.openings(host, "docker")]
            ),
            "app_apps": {
                app.name: description.app_host(
                    app,
                    host,
                    self.inventory,
                    self.members[app.name],
                    self.processes(app, host.name),
                    self.facts.get(poolers.serving(app, host.name, self.inventory).name) if app.database else None,
                    self.network,
                    self.held,
                )
                for app in self.inventory.apps
                if host.has("edge") or host.name in app.everywhere()
            },
        }
        described = self.facts[host.name].apps if host.name in self.facts else ()
        gone = [name for name in described if name not in values["app_apps"]]
        values["app_absent"] = [name for name in gone if name in self.inventory.absent]
        left = [app for app in self.inventory.apps if app.name in gone or self.held.left(host, app)]
        values["app_left"] = [app.name for app in left if not self.held.reached(host, self.members[app.name])]
        if docker:
            values["docker_bip"], values["docker_address_pool"] = firewall.docker_addresses(self.network)
        if host.has("edge"):
            values["nginx_sites"] = [self._site(app) for app in self.inventory.apps]
            values["certificates_entries"] = [_certificate(app) for app in self.inventory.apps]
            values["certificates_acme_group"] = "www-data"
            values["nginx_acme_peers"] = description.acme_peers(host, self.inventory)
        facts = self.facts.get(host.name)
        if host.serves_postgresql():
            values.update(self._database(host, facts))
        if self.databases.left(host):
            values["ufw_rules"] = values["ufw_rules"] + firewall.left_rules(host, self.inventory)
        if poolers.servers(host, self.inventory):
            values.update(self._pooler(host, facts, sized))
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
        kept = [name for name in self.held.kept_units(host) if name not in [unit["name"] for unit in units]]
        if kept:
            values["systemd_units_kept"] = kept
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
        declared = {name: value for name, value in host.overrides.items() if name != "postgresql_standby_of"}
        merged = _override(values, declared)
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

    def _database(self, host: Host, facts: Facts | None) -> dict[str, Any]:
        """PostgreSQL on one host."""
        values = self.databases.member(host)
        settings = self.databases.settings(host, facts) if facts else None
        if settings is not None:
            values["postgresql_settings"] = self._reasoned(host, "postgresql_settings", settings)
        return values

    def _pooler(self, host: Host, facts: Facts | None, sized: Sized) -> dict[str, Any]:
        """The pooler on one host."""
        values = self.databases.pooler(host)
        known = [self.databases.known(server, host) for server in poolers.servers(host, self.inventory)] if facts else []
        if not facts or not all(known):
            return values
        databases = self.databases.pools(host)
        pools = [entry["pool_size"] for entry in databases]
        settings = self.databases.pooler_settings(host, facts, pools)
        declared = host.overrides.get("pgbouncer_settings", {})
        need = sizing.pooler_descriptors(checks.whole(declared.get("max_client_conn", settings["max_client_conn"][0])), pools)
        values["pgbouncer_databases"] = databases
        values["pgbouncer_settings"] = self._reasoned(host, "pgbouncer_settings", settings)
        sized["pgbouncer_nofile"] = (sizing.pooler_nofile(need, facts.nofile_hard), f"{need} needed")
        return values

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
        primary = self.databases.primary(host)
        return checks.run(
            checks.Subject(
                host=host,
                facts=self.facts[host.name],
                size=self.sizes[host.name],
                variables=hosts[host.name],
                apps=tuple(app for app in self.inventory.apps if app.backends_on(host.name)),
                served=self.databases.served(host),
                pooled=poolers.apps(host, self.inventory),
                poolers=self.databases.in_front(primary, hosts) if host.serves_postgresql() else (),
                sessions=self.databases.pooled_sessions(host),
                direct=self.databases.direct_sessions(primary),
                redis_sessions=self._redis_sessions(app for app in self.inventory.apps if "REDIS_URL" in app.env),
                containers=sizing.runs_docker(host, self.inventory),
                published=published if elsewhere else (),
                primary=hosts[primary.name].get("postgresql_settings", {}) if primary != host else None,
                replicas=tuple(one.name for one in self.inventory.replicas(host)),
            )
        )


def build(inventory: Inventory, facts: Mapping[str, Facts]) -> Plan:
    """Variables, checks and rows for every host of the inventory; hosts without facts get only what needs none."""
    chosen = {host.name: str(host.overrides.get("postgresql_version") or "") for host in inventory.hosts}
    facts = {name: replace(one, postgresql=chosen.get(name) or one.postgresql) for name, one in facts.items()}
    builder = Builder(inventory, facts)
    builder.problems += standbys.disagreements(inventory, facts) + former.problems(inventory, facts)
    hosts = {host.name: builder.host(host) for host in inventory.hosts}
    found = [check for host in inventory.hosts if host.name in facts for check in builder.check(host, hosts)]
    return Plan(hosts=hosts, checks=tuple(found), rows=tuple(builder.rows), problems=tuple(builder.problems))


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
