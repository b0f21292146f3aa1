# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes, sessions and memory of applications and their workers, both slots at once. Memory in MiB."""

from __future__ import annotations

from ..model import App, Host, Inventory, Worker

RUBY_PROCESS_MB = 350  # own: resident size of one Ruby worker, unless `memory` says otherwise


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


def limited(app: App, host: str) -> bool:
    """True when every instance of the app on a host has a declared limit of memory."""
    return all(backend.memory_mb or app.memory_mb for backend in app.backends_on(host))


def from_limit(app: App, host: str, cores: int) -> int:
    """P = min(C, M / RSS) inside the declared memory limit. Source: Puma documentation."""
    limit = min(backend.memory_mb or app.memory_mb for backend in app.backends_on(host))
    return max(1, min(cores, limit // RUBY_PROCESS_MB))
