# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes from memory, cores and apps. Memory in MiB; every function names where its formula comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .model import App, Facts, Host, Inventory, Worker

RUBY_PROCESS_MB = 350  # own: resident size of one Ruby worker, unless `memory` says otherwise
POSTGRESQL_LEAST_MB = 256  # own: below this PostgreSQL's parts do not fit together
DIRECT_SESSIONS = 7  # own: migrations 2, monitoring 2, backup 2, administrator 1
SUPERUSER_RESERVED = 3  # PostgreSQL's default
NGINX_BACKLOG = 4096  # role nginx's default
USUAL_NOFILE = 65536


def runs_docker(host: Host, inventory: Inventory) -> bool:
    """True when a container of an app, or of a worker, belongs on this host."""
    return any(
        backend.runtime == "docker"
        for app in inventory.apps
        for backend in (
            *app.backends_on(host.name),
            *(app.backend_of(one, host.name) for one in app.workers if host.name in one.hosts),
        )
    )


@dataclass(frozen=True)
class HostSize:
    """How a host's memory is divided, and the app processes that follow. `roles` has the parts other than PostgreSQL."""

    memory_mb: int
    system_mb: int
    roles: Mapping[str, int]
    postgresql_mb: int
    processes: Mapping[str, int]

    def total_mb(self) -> int:
        """What all parts need together."""
        return self.system_mb + sum(self.roles.values()) + self.postgresql_mb


def version(text: str) -> tuple[int, ...]:
    """A dotted upstream version as numbers; empty when unknown."""
    parts = []
    for part in text.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def power_of_two(least: float) -> int:
    """The smallest power of two that is not below `least`."""
    size = 1
    while size < least:
        size *= 2
    return size


def system_mb(memory_mb: int) -> int:
    """Operating system: the larger of 512 MiB and 8 % of memory. Source: own."""
    return max(512, memory_mb * 8 // 100)


def worker_connections(memory_mb: int) -> int:
    """Connections of one nginx worker: two for each MiB of the host, from 1024 to 4096. Source: own, nginx's default is 512.

    Without a step, so that a little more memory never takes from the other roles more than it brings.
    """
    return max(1024, min(4096, 2 * memory_mb))


def nginx_mb(cores: int, connections: int) -> int:
    """Memory of nginx: 32 MiB and 8 KiB for each connection of each worker. Source: own."""
    return 32 + cores * connections * 8 // 1024


def nginx_nofile(connections: int) -> int:
    """Descriptors of an nginx worker: at least two for each connection (client, upstream) and 64. Source: nginx documentation."""
    return power_of_two(2 * connections + 64)


def pgbouncer_mb(clients: int) -> int:
    """Memory of the pooler: 8 MiB and 10 KiB for each client. Source: measured upstream figure, base own."""
    return 8 + -(-clients * 10 // 1024)


def instances(app: App, host: str) -> int:
    """Instances of the app on a host while both slots run, as they do during a cutover."""
    return sum(backend.replicas * len(backend.slots()) for backend in app.backends_on(host))


def instance_mb(app: App, host: str, processes: int) -> int:
    """Memory of all instances of an app on a host, both slots: the declared limit, else 350 MiB a process. Source: own."""
    total = 0
    for backend in app.backends_on(host):
        each = backend.memory_mb or app.memory_mb or processes * RUBY_PROCESS_MB
        total += backend.replicas * len(backend.slots()) * each
    return total


def sessions(app: App, processes: int) -> int:
    """Database sessions one instance can open: P (T + 1). Source: Rails' pool rule."""
    return processes * (app.threads + 1)


def worker_pool(worker: Worker) -> int:
    """Database sessions one worker process can open: U + 2. Source: own, Rails' pool rule and Solid Queue's pollers."""
    return worker.threads + 2


def worker_processes(worker: Worker) -> int:
    """Processes of a worker on each of its hosts while it is handed over: of both slots, but a singleton has no second one."""
    return worker.replicas * (1 if worker.singleton or worker.unit else 2)


def worker_sessions(app: App, host: str) -> int:
    """Database sessions all workers of an app on a host can open while they are handed over."""
    return sum(worker_processes(worker) * worker_pool(worker) for worker in app.workers_on(host))


def worker_threads(app: App, host: str) -> int:
    """Jobs all workers of an app on a host can work on at once while they are handed over."""
    return sum(worker_processes(worker) * worker.threads for worker in app.workers_on(host))


def workers_mb(app: App, host: str) -> int:
    """Memory of all workers of an app on a host: the declared limit, else 350 MiB a process. Source: own."""
    total = 0
    for worker in app.workers_on(host):
        each = worker.memory_mb
        if not worker.unit:
            each = each or app.backend_of(worker, host).memory_mb or app.memory_mb
        total += worker_processes(worker) * (each or RUBY_PROCESS_MB)
    return total


def app_pool(app: App) -> int:
    """Connection pool of one process: its threads and one for background work. Source: Rails documentation."""
    return app.threads + 1


def divide(host: Host, facts: Facts, inventory: Inventory, most_clients: int) -> HostSize:
    """Split a host's memory over its roles first, then see how many app processes fit.

    Fixed parts come first; of what is left, apps without a declared size and PostgreSQL share: apps get at most half where a
    database lives too, and never more than one process for each core and instance needs. Source: own; no anchor splits at all.
    """
    roles: dict[str, int] = {}
    if host.has("edge"):
        roles["nginx"] = nginx_mb(facts.cores, worker_connections(facts.memory_mb))
    if host.has("database"):
        roles["pgbouncer"] = pgbouncer_mb(most_clients)
    if host.has("monitor"):
        roles["monitoring"] = 300
    here = [app for app in inventory.apps if app.backends_on(host.name)]
    if runs_docker(host, inventory):
        roles["docker"] = 150
    for app in inventory.apps:
        if app.workers_on(host.name):
            roles["workers of " + app.name] = workers_mb(app, host.name)
    open_apps = [app for app in here if not app.processes and not _limited(app, host.name)]
    processes = {}
    for app in here:
        if app in open_apps:
            continue
        processes[app.name] = app.processes or _from_limit(app, host.name, facts.cores)
        roles["app " + app.name] = instance_mb(app, host.name, processes[app.name])
    rest = max(0, facts.memory_mb - system_mb(facts.memory_mb) - sum(roles.values()))
    wanted = sum(instances(app, host.name) for app in open_apps)
    share = min(rest // 2 if host.has("database") else rest, wanted * facts.cores * RUBY_PROCESS_MB)
    for app in open_apps:
        processes[app.name] = max(1, min(facts.cores, share // (wanted * RUBY_PROCESS_MB)))
        roles["app " + app.name] = instance_mb(app, host.name, processes[app.name])
    postgresql = 0
    if host.has("database"):
        apps = max(share, sum(roles["app " + app.name] for app in open_apps))
        fixed = sum(size for name, size in roles.items() if name not in {"app " + app.name for app in open_apps})
        postgresql = max(POSTGRESQL_LEAST_MB, facts.memory_mb - system_mb(facts.memory_mb) - fixed - apps)
    return HostSize(facts.memory_mb, system_mb(facts.memory_mb), roles, postgresql, processes)


def _limited(app: App, host: str) -> bool:
    return all(backend.memory_mb or app.memory_mb for backend in app.backends_on(host))


def _from_limit(app: App, host: str, cores: int) -> int:
    """P = min(C, M / RSS) inside the declared memory limit. Source: Puma documentation."""
    limit = min(backend.memory_mb or app.memory_mb for backend in app.backends_on(host))
    return max(1, min(cores, limit // RUBY_PROCESS_MB))


def pool_size(threads: int, cores: int, poolers: int = 1) -> int:
    """Server connections for one (database, user): min(threads, 2 C + 1), divided by the poolers. Source: PostgreSQL wiki."""
    return max(1, min(threads, 2 * cores + 1) // poolers)


def reserve_size(pool: int) -> int:
    """Extra server connections for bursts: 20 % of the pool, at least one. Source: own, idea of pgbouncer's documentation."""
    return max(1, -(-pool // 5))


def max_client_conn(total_sessions: int) -> int:
    """Client connections: 1.25 times the sessions of old and new release together, and 10 for administration. Source: own."""
    return -(-total_sessions * 5 // 4) + 10


def pooler_descriptors(clients: int, pools: Iterable[int]) -> int:
    """Descriptors the pooler needs. Source: pgbouncer's check_limits()."""
    return clients + 10 + sum(pools)


def pooler_nofile(need: int, hard: int = 0) -> int:
    """LimitNOFILE with a fifth to spare, as a power of two; the unit's default of 1024 is the least. Source: own.

    Where the host's `hard` limit (0: unknown) leaves no such room, it is that limit, as long as it is enough.
    """
    size = max(1024, power_of_two(need * 1.2))
    return hard if need <= hard < size else size


def max_connections(pooled: int, direct: int, reserved: int = SUPERUSER_RESERVED) -> int:
    """max_db_connections of all poolers, direct sessions and the reserved ones, rounded up to 10, at least 20. Source: own."""
    return max(20, -(-(pooled + direct + reserved) // 10) * 10)


def nofile(facts: Facts) -> int:
    """Descriptors for logins and containers: 65536, or what the host's hard limit allows; 16384 while that is unknown."""
    if not facts.nofile_hard:
        return USUAL_NOFILE // 4
    size = USUAL_NOFILE
    while size > facts.nofile_hard:
        size //= 2
    return size


def autovacuum_workers(cores: int) -> int:
    """3, from 16 cores 4, from 32 cores 5. Source: pgtune."""
    return 5 if cores >= 32 else 4 if cores >= 16 else 3


def parallel_workers(cores: int) -> int:
    """max_parallel_workers: the cores from four on, PostgreSQL's default of 8 below. Source: pgtune."""
    return cores if cores >= 4 else 8


def work_mem_kb(memory: int, shared: int, vacuum: int, connections: int, active: int, cores: int, halve: bool) -> int:
    """Memory of one sort or hash in KiB.

    (0.9 M - shared_buffers - autovacuum - 10 MiB max_connections) / ((active + max_parallel_workers) 3), halved from 15 on, where
    hash_mem_multiplier is 2; never below 4 MiB unless that would not fit. Source: pgtune with M of the split; floor and fit own.
    """
    slots = (active + parallel_workers(cores)) * 3
    free_kb = (memory * 9 // 10 - shared - vacuum) * 1024
    ideal = (free_kb - 10 * 1024 * connections) // slots // (2 if halve else 1)
    fits = free_kb // slots
    return max(64, ideal, min(4096, fits))


def postgresql_settings(size: HostSize, facts: Facts, active: int, connections: int) -> dict[str, tuple[str, str]]:
    """PostgreSQL settings as name to (value, reason). Sources: PostgreSQL documentation, pgtune, timescaledb-tune.

    `active` is the sum of all pool sizes, `connections` max_connections. What depends on the version is left
    to the server's default while that is unknown.
    """
    memory, cores, major = size.postgresql_mb, facts.cores, (version(facts.postgresql) or (0,))[0]
    shared = memory * 15 // 100 if facts.memory_mb < 1024 else memory // 4
    workers = autovacuum_workers(cores)
    maintenance = max(16, min(memory // 16, 2047 if major >= 17 else 1024))
    vacuum = max(1, min(maintenance, memory // 16 // workers, 2047))
    sort_kb = work_mem_kb(memory, shared, vacuum * workers, connections, active, cores, halve=major == 0 or major >= 15)
    largest_wal = 4096 if not facts.disk_total_mb else max(256, min(4096, facts.disk_total_mb // 10))
    found = {
        "max_connections": (str(connections), "pools, direct sessions and reserved ones"),
        "shared_buffers": (
            f"{shared}MB",
            f"a quarter of PostgreSQL's {memory} MB" if shared == memory // 4 else "15 % below 1 GB",
        ),
        "effective_cache_size": (f"{memory * 3 // 4}MB", f"three quarters of PostgreSQL's {memory} MB"),
        "work_mem": (
            f"{sort_kb}kB",
            f"what is left for {active} sessions and {parallel_workers(cores)} parallel workers, 3 sorts each",
        ),
        "maintenance_work_mem": (f"{maintenance}MB", "a sixteenth, capped"),
        "autovacuum_work_mem": (f"{vacuum}MB", f"a sixteenth over {workers} workers"),
        "autovacuum_max_workers": (str(workers), f"{cores} cores"),
        "min_wal_size": (f"{max(80, min(1024, largest_wal // 4))}MB", "a quarter of max_wal_size"),
        "max_wal_size": (f"{largest_wal}MB", "web load, at most a tenth of the disk"),
        "random_page_cost": ("4" if facts.rotational else "1.1", "rotating disk" if facts.rotational else "solid state disk"),
        "effective_io_concurrency": (
            "2" if facts.rotational else "200",
            "rotating disk" if facts.rotational else "solid state disk",
        ),
        "jit": ("off", "short queries"),
    }
    if major >= 15:
        found["wal_compression"] = ("lz4", f"version {major}")
    elif major:
        found["wal_compression"] = ("on", f"version {major}")
    if cores >= 4:
        gather = str(min(-(-cores // 2), 4))
        found["max_worker_processes"] = (str(max(8, cores)), f"{cores} cores")
        found["max_parallel_workers"] = (str(cores), f"{cores} cores")
        found["max_parallel_workers_per_gather"] = (gather, "half the cores, at most 4")
        found["max_parallel_maintenance_workers"] = (gather, "half the cores, at most 4")
    return found


def backlogs(host: Host, apps: bool) -> dict[str, int]:
    """What the programs of a host ask of listen(2). Sources: role nginx, Puma's and pgbouncer's defaults."""
    asked = {}
    if host.has("edge"):
        asked["nginx"] = int(host.overrides.get("nginx_listen_backlog", NGINX_BACKLOG))
    if apps:
        asked["puma"] = 1024
    if host.has("database"):
        asked["pgbouncer"] = 128
    return asked


def kernel_sysctl(host: Host, facts: Facts, docker: bool) -> dict[str, tuple[Any, str]]:
    """Kernel settings as key to (value, reason). A container can only set its own network's keys, so others are left out there.

    somaxconn = max(4096, all listen backlogs), tcp_max_syn_backlog not below it: kernel documentation. vm.*: PostgreSQL
    documentation on kernel resources and autobase, on dedicated database hosts only.
    """
    backlog = max([4096, *backlogs(host, docker).values()])
    found: dict[str, tuple[Any, str]] = {
        "net.core.somaxconn": (backlog, "listen backlogs of nginx, Puma, pgbouncer"),
        "net.ipv4.tcp_max_syn_backlog": (backlog, "not below somaxconn"),
        "net.ipv4.tcp_slow_start_after_idle": (0, "idle keep-alive connections stay fast"),
        "net.ipv4.tcp_keepalive_time": (600, "dead peers are noticed within minutes"),
        "net.ipv4.ip_local_port_range": ("16384 60999", "connections to backends and databases"),
    }
    if docker:
        found["net.ipv4.ip_forward"] = (1, "containers")
    if facts.container:
        return found
    if host.has("database") and not any(host.has(group) for group in ("edge", "app", "worker", "redis")):
        found["vm.swappiness"] = (10, "dedicated database host")
        found["vm.dirty_background_bytes"] = (64 << 20, "dedicated database host")
        found["vm.dirty_bytes"] = (512 << 20, "dedicated database host")
    if host.has("redis"):
        found["vm.overcommit_memory"] = (1, "Redis forks to save")
    return found
