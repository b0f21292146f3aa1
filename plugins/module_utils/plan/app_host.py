# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host needs to know of one app: its slots and members, how it runs here, its gate and its plain environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Optional

from ..health.limits import DECIMALS
from ..settings.sandbox import USUAL
from ..traffic.config import ABORTABLE
from . import poolers, redis
from .firewall import local_only
from .held import Held
from .model import (
    MANAGED_SLOTS,
    POSTGRESQL_PORT,
    App,
    Backend,
    Box,
    Database,
    Facts,
    Health,
    Host,
    Inventory,
    Migrations,
    Worker,
)
from .sizing import app_pool, version, worker_pool

STATE = "/var/lib/slipway"
UPSTREAM_KEEPALIVE = 4  # the default of nginx_upstream_keepalive_timeout


def app_host(
    app: App,
    host: Host,
    inventory: Inventory,
    reached: Mapping[str, list[str]],
    processes: int,
    pooler_facts: Optional[Facts],
    network: str = "",
    held: Optional[Held] = None,
) -> dict[str, Any]:
    """The description written to /etc/slipway/apps/<app>.json (schema 1).

    `reached` has the members of every slot, `processes` is 0 when this host was not sized, `held` knows what runs.
    """
    backend = next((one for one in app.backends_on(host.name) if one.managed), None)
    return {
        "schema": 1,
        "app": app.name,
        "domain": app.domain,
        "edge": host.has("edge"),
        "host": host.name,
        "hosts": sorted({*app.everywhere(), *(edge.name for edge in inventory.group("edge"))}),
        "edges": sorted(edge.name for edge in inventory.group("edge")),
        "longest_move": longest_move(app),
        "default_slot": app.slot_order()[0],
        "slot_order": list(app.slot_order()),
        "slots": {slot: _slot(app, slot, host, inventory, reached[slot], held) for slot in app.slot_order()},
        "runtime": _runtime(app, backend) if backend else None,
        "gate": gate(app, app.health),
        "canary": {
            "steps": list(app.canary.steps),
            "dwell": app.canary.dwell,
            "patience": app.canary.patience,
            "synthetic": list(app.canary.synthetic),
        },
        "failover": app.failover,
        "verdict": _verdict(app, inventory),
        "bake": app.bake,
        "standby": app.standby,
        "confirm_deadline": app.confirm_deadline,
        "drain": {
            "http": app.drain.http,
            "websockets": app.drain.websockets,
            "pace": app.drain.pace,
            "keepalive": max((_idle(edge) for edge in inventory.group("edge")), default=UPSTREAM_KEEPALIVE),
        },
        "environment": _environment(app, host, inventory, processes, pooler_facts, network),
        **_change(app, inventory),
        "workers": [_worker(app, worker, slot, host) for worker, slot in _crews(app)],
    }


def longest_move(app: App) -> int:
    """Seconds that an edge may need from its gate to the end of its bake with all hooks, 15 of them for proofs. Source: own."""
    gates = [app.health, *(backend.health for backend in app.backends if backend.health)]
    steps = len(app.canary.steps)
    waited = sum(
        hook.timeout * (steps if state == "canary" else 1)
        for state, listed in app.hooks.items()
        if state in ABORTABLE
        for hook in listed
    )
    return max(gate.deadline for gate in gates) + steps * app.canary.patience + app.bake + 15 + waited


def _verdict(app: App, inventory: Inventory) -> dict[str, Any]:
    """Each edge judges for itself, and one of them takes all back: together they may be wrong as often as one alone."""
    edges = max(len(inventory.group("edge")), 1)
    return {**asdict(app.verdict), "alpha": max(app.verdict.alpha / edges, DECIMALS["alpha"][0])}


def members(app: App, slot: str, inventory: Inventory) -> list[str]:
    """ADDRESS:PORT of every instance of a slot, as the edges reach them."""
    local = local_only(app, inventory)
    return [
        f"{'127.0.0.1' if local else _bracketed(inventory.host(name).address)}:{port}"
        for backend in app.backends
        if slot in backend.slots()
        for name in backend.hosts
        for port in backend.ports(slot)
    ]


def gate(app: App, health: Health) -> dict[str, Any]:
    """The gate of an app or a slot."""
    found: dict[str, Any] = {
        "path": health.path,
        "method": health.method,
        "headers": {"Host": app.domain, **health.headers},
        "status": list(health.status),
        "json": dict(health.json),
        "body": health.body,
        "response_headers": dict(health.response_headers),
        "max_latency_ms": health.max_latency_ms,
        "warmup": list(health.warmup),
        "also": [dict(one) for one in health.also],
        "successes": health.successes,
        "interval": health.interval,
        "timeout": health.timeout,
        "min_healthy": health.min_healthy,
        "start_period": health.start_period,
        "deadline": health.deadline,
    }
    if health.version_path:
        found["version"] = {"path": health.version_path, "key": health.version_key}
    return found


def unit_name(app: App) -> str:
    """The template of an app's units; systemd instances are called <slot>-<n>."""
    return f"{app.name}@.service"


def unit(app: App, backend: Backend, nofile: int) -> dict[str, Any]:
    """The template unit of a systemd backend, as role systemd_units takes it; slots/<slot>-<n> leads to its release."""
    memory = backend.memory_mb or app.memory_mb
    found: dict[str, Any] = {
        "name": unit_name(app),
        "description": f"{app.name} ({app.domain}), instance %i",
        "user": backend.user.split(":")[0] or app.name,
        "create_user": not backend.user,
        "command": backend.command,
        "working_directory": f"/opt/{app.name}/slots/%i",
        "environment_files": [env_file(app, "systemd"), f"/etc/slipway/env/{app.name}@%i.env"],
        "limits": {"nofile": nofile},
        "restart": "always",
        "stop_timeout": backend.stop_timeout,
        **_box(backend.box),
    }
    if memory:
        found["memory_max"] = f"{memory}M"
    return found


def _box(box: Box) -> dict[str, Any]:
    """What differs from the usual sandbox, as role systemd_units takes it."""
    found = {
        "hardening": box.profile if box.profile != USUAL else "",
        "read_write_paths": list(box.write),
        "capabilities": list(box.capabilities),
        "address_families": list(box.families),
        "extra": {"Service": dict(box.loosen)} if box.loosen else {},
    }
    return {key: value for key, value in found.items() if value}


def worker_unit(app: App, worker: Worker, host: str, nofile: int) -> dict[str, Any]:
    """The template unit of a worker: the app's own with another command, from the same releases and environment."""
    name = f"{app.name}-{worker.name}"
    return {
        **unit(app, app.backend_of(worker, host), nofile),
        "name": f"{name}@.service",
        "description": f"{app.name} ({app.domain}), worker {worker.name}, instance %i",
        "command": worker.command,
        "environment_files": [env_file(app, "systemd"), f"/etc/slipway/env/{name}@%i.env"],
        "stop_timeout": worker.stop_timeout,
        "kill_signal": f"SIG{worker.stop_signal}",
        **({"memory_max": f"{worker.memory_mb}M"} if worker.memory_mb else {}),
    }


def _crews(app: App) -> list[tuple[Worker, str]]:
    """Every worker with every slot it belongs to."""
    own = [(worker, slot) for worker in app.workers for slot in MANAGED_SLOTS]
    return own + [(worker, backend.name) for backend in app.backends for worker in backend.workers or ()]


def _worker(app: App, worker: Worker, slot: str, host: Host) -> dict[str, Any]:
    """One worker of one slot; without instances where it runs on other hosts (`at`)."""
    found: dict[str, Any] = {
        "name": worker.name,
        "slot": slot,
        "singleton": worker.singleton,
        "at": list(worker.hosts),
        "instances": [],
        "stop_timeout": worker.stop_timeout,
        "min_healthy": worker.min_healthy,
        "quiet_signal": worker.quiet_signal or None,
    }
    if worker.unit:
        found.update(unit=worker.unit, quiet=worker.quiet or None)
    if host.name not in worker.hosts:
        return found
    if worker.unit:
        return {**found, "instances": [worker.unit]}
    backend = app.backend_of(worker, host.name)
    called = (
        f"slipway-{app.name}-{worker.name}-{slot}-%d"
        if backend.runtime == "docker"
        else f"{app.name}-{worker.name}@{slot}-%d.service"
    )
    own = {"SLIPWAY_WORKER": worker.name, "RAILS_MAX_THREADS": str(worker.threads)}
    if app.database and "DB_POOL" not in app.env:
        own["DB_POOL"] = str(worker_pool(worker))
    runtime = {
        **_runtime(app, backend),
        "command": worker.command,
        "stop_timeout": worker.stop_timeout,
        "unit": f"{app.name}-{worker.name}@{{slot}}-{{n}}.service",
    }
    if worker.memory_mb:
        runtime["memory"] = f"{worker.memory_mb}M"
    return {
        **found,
        "instances": [called % number for number in range(1, worker.replicas + 1)],
        "stop_signal": worker.stop_signal,
        "environment": own,
        "runtime": runtime,
    }


def env_file(app: App, kind: str) -> str:
    """Where the environment shared by all instances of a runtime lives."""
    return f"/etc/slipway/env/{app.name}.{kind}.env"


def _idle(edge: Host) -> int:
    """Seconds for which nginx of an edge keeps an idle connection to an app."""
    return int(edge.overrides.get("nginx_upstream_keepalive_timeout", UPSTREAM_KEEPALIVE))


def acme_peers(edge: Host, inventory: Inventory) -> list[str]:
    """Where the answer to a challenge may lie that this edge does not have: at the other edges."""
    if not any(app.tls.source == "acme" for app in inventory.apps):
        return []
    others = [host for host in inventory.group("edge") if host.name != edge.name]
    # An authority asks on port 80 whatever the sites do (RFC 8555, 8.3).
    return [f"{_bracketed(host.address)}:80" for host in others if host.address]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _slot(app: App, slot: str, host: Host, inventory: Inventory, of_slot: list[str], held: Optional[Held]) -> dict[str, Any]:
    local = local_only(app, inventory)
    instances = []
    external = None
    for backend in app.backends:
        if slot not in backend.slots():
            continue
        external = backend if backend.unit else None
        if host.name in backend.hosts:
            instances += [
                {"name": _instance(app, backend, slot, number), "address": "127.0.0.1" if local else host.address, "port": port}
                for number, port in enumerate(backend.ports(slot), start=1)
            ]
    planned = instances
    if held and external is None:
        instances = held.instances(app, slot, host, planned, any(one.managed for one in app.backends_on(host.name)), of_slot)
    found: dict[str, Any] = {"managed": external is None, "members": list(of_slot), "instances": instances}
    if external is None and (instances != planned or set(of_slot) != set(members(app, slot, inventory))):
        found["held"] = True
    if external:
        found["unit"] = external.unit
        if external.health:
            found["gate"] = gate(app, external.health)
    return found


def _instance(app: App, backend: Backend, slot: str, number: int) -> str:
    if backend.unit:
        return backend.unit
    if backend.runtime == "docker":
        return f"slipway-{app.name}-{slot}-{number}"
    return f"{app.name}@{slot}-{number}.service"


def _runtime(app: App, backend: Backend) -> dict[str, Any]:
    memory = backend.memory_mb or app.memory_mb
    found: dict[str, Any] = {
        "kind": backend.runtime,
        "user": backend.user or ("1000:1000" if backend.runtime == "docker" else app.name),
        "memory": f"{memory}M" if memory else None,
        "stop_timeout": backend.stop_timeout,
        "env_file": env_file(app, backend.runtime),
    }
    if backend.runtime == "docker":
        found.update(container_port=backend.container_port, read_only=backend.read_only, command=backend.command or None)
        found.update(pids=backend.box.pids, tmpfs=list(backend.box.write))
    else:
        found.update(unit=f"{app.name}@{{slot}}-{{n}}.service", root=f"/opt/{app.name}", packages=list(backend.packages))
    return found


def _change(app: App, inventory: Inventory) -> dict[str, Any]:
    """Migrations, hooks and notification, each only where the entry has it."""
    found: dict[str, Any] = {}
    if app.migrations:
        found["migrations"] = _migrations(app, app.migrations, inventory)
    if app.hooks:
        found["hooks"] = {state: [asdict(hook) for hook in listed] for state, listed in app.hooks.items()}
    if app.notify:
        url_file = f"/etc/slipway/env/{app.name}.notify" if app.notify.url else None
        found["notify"] = {"command": app.notify.command or None, "url_file": url_file, "timeout": app.notify.timeout}
    return found


def _migrations(app: App, declared: Migrations, inventory: Inventory) -> dict[str, Any]:
    """A migration goes past the pooler: it may run for long, and its session has timeouts of its own."""
    name = app.migration_host()
    # The role looks where this says, also when there is nothing to be read: delegation is worked out before `when`.
    backup: dict[str, Any] = {"max_age": declared.backup_max_age, "host": name}
    if declared.backup_command:
        backup["command"] = declared.backup_command
    elif declared.backup_file or app.database:
        backup["file"] = declared.backup_file or f"{STATE}/backups/{app.database.name if app.database else app.name}.json"
        backup["host"] = app.database.host if app.database else name
    found: dict[str, Any] = {
        "host": name,
        "check": declared.check,
        "apply": declared.apply,
        "timeout": declared.timeout,
        "lock_timeout": declared.lock_timeout,
        "direct": app.database is not None,
        "backup": backup,
    }
    if app.database and app.database.pooled and app.database.host and name:
        server = inventory.host(app.database.host)
        found["env_file"] = f"/etc/slipway/env/{app.name}.migrations.env"
        found["database"] = _database(app, app.database, inventory.host(name), server, POSTGRESQL_PORT)
    return found


def _database(app: App, database: Database, host: Host, server: Host, port: int) -> dict[str, Any]:
    backends = [backend for backend in app.backends_on(host.name) if backend.managed]
    backends += [app.backend_of(worker, host.name) for worker in app.workers if host.name in worker.hosts]
    docker = any(backend.runtime == "docker" for backend in backends)
    return {
        "name": database.name,
        "user": database.user,
        "host": "127.0.0.1" if server.name == host.name and not docker else server.address,
        "port": port,
    }


def _environment(
    app: App, host: Host, inventory: Inventory, processes: int, pooler_facts: Optional[Facts], network: str
) -> dict[str, Any]:
    """Plain values for every process of the app here, and how it reaches its database. Secrets are joined by slipway_env."""
    values = {"RAILS_MAX_THREADS": str(app.threads)}
    if app.redis and app.redis.prefix:
        values["REDIS_PREFIX"] = app.redis.prefix
    if processes:
        values["WEB_CONCURRENCY"] = str(processes)
    found: dict[str, Any] = {"values": values}
    if app.redis and app.redis.host:
        found["redis"] = redis.address(app, app.redis, host, inventory, network)
    if not app.database or not app.database.host:
        return found
    server = inventory.host(app.database.host)
    found["server"] = {"name": server.name, "address": server.address}
    prepared = app.database.prepared_statements
    if prepared is None:
        seen = version(pooler_facts.pgbouncer) if pooler_facts else ()
        prepared = not app.database.pooled or seen >= (1, 21)
    values["DB_POOL"] = str(app_pool(app))
    values["DB_PREPARED_STATEMENTS"] = "true" if prepared else "false"
    if app.database.pooled:
        server = poolers.serving(app, host.name, inventory)
    port = poolers.port(server) if app.database.pooled else POSTGRESQL_PORT
    found["database"] = _database(app, app.database, host, server, port)
    return found
