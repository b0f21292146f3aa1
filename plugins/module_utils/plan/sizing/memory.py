# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host's memory is divided over its roles. Memory in MiB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from ..model import Facts, Host, Inventory
from .apps import RUBY_PROCESS_MB, from_limit, instance_mb, instances, limited, runs_docker, workers_mb
from .nginx import nginx_mb, worker_connections
from .numbers import system_mb
from .pooler import pgbouncer_mb
from .redis_server import RedisSize, redis

POSTGRESQL_LEAST_MB = 256  # own: below this PostgreSQL's parts do not fit together


@dataclass(frozen=True)
class HostSize:
    """How a host's memory is divided, and the app processes that follow. `roles` has the parts other than PostgreSQL."""

    memory_mb: int
    system_mb: int
    roles: Mapping[str, int]
    postgresql_mb: int
    processes: Mapping[str, int]
    redis: Optional[RedisSize] = None

    def total_mb(self) -> int:
        """What all parts need together."""
        return self.system_mb + sum(self.roles.values()) + self.postgresql_mb


def divide(host: Host, facts: Facts, inventory: Inventory, most_clients: int, redis_sessions: int = 0) -> HostSize:
    """Split a host's memory over its roles first, then see how many app processes fit.

    Fixed parts come first; of what is left, apps without a declared size and PostgreSQL share: apps get at most half where a
    database lives too, and never more than one process for each core and instance needs. Source: own; no anchor splits at all.
    """
    roles: dict[str, int] = {}
    if host.has("edge"):
        roles["nginx"] = nginx_mb(facts.cores, worker_connections(facts.memory_mb))
    if most_clients:
        roles["pgbouncer"] = pgbouncer_mb(most_clients)
    cache = redis_size(host, facts, inventory, redis_sessions) if host.has("redis") else None
    if cache:
        roles["redis"] = cache.total_mb
    if host.has("monitor"):
        roles["monitoring"] = 300
    here = [app for app in inventory.apps if app.backends_on(host.name)]
    if runs_docker(host, inventory):
        roles["docker"] = 150
    for app in inventory.apps:
        if app.workers_on(host.name):
            roles["workers of " + app.name] = workers_mb(app, host.name)
    open_apps = [app for app in here if not app.processes and not limited(app, host.name)]
    processes = {}
    for app in here:
        if app in open_apps:
            continue
        processes[app.name] = app.processes or from_limit(app, host.name, facts.cores)
        roles["app " + app.name] = instance_mb(app, host.name, processes[app.name])
    rest = max(0, facts.memory_mb - system_mb(facts.memory_mb) - sum(roles.values()))
    wanted = sum(instances(app, host.name) for app in open_apps)
    share = min(rest // 2 if host.serves_postgresql() else rest, wanted * facts.cores * RUBY_PROCESS_MB)
    for app in open_apps:
        processes[app.name] = max(1, min(facts.cores, share // (wanted * RUBY_PROCESS_MB)))
        roles["app " + app.name] = instance_mb(app, host.name, processes[app.name])
    postgresql = 0
    if host.serves_postgresql():
        apps = max(share, sum(roles["app " + app.name] for app in open_apps))
        fixed = sum(size for name, size in roles.items() if name not in {"app " + app.name for app in open_apps})
        postgresql = max(POSTGRESQL_LEAST_MB, facts.memory_mb - system_mb(facts.memory_mb) - fixed - apps)
    return HostSize(facts.memory_mb, system_mb(facts.memory_mb), roles, postgresql, processes, cache)


def redis_size(host: Host, facts: Facts, inventory: Inventory, sessions: int) -> RedisSize:
    """All Redis instances of a host; one that forks counts for all. The inventory may set maxmemory."""
    asked = [app.redis.purpose for app in inventory.apps if app.redis and app.redis.host == host.name]
    usual = next((purpose for purpose in asked if purpose != "cache"), "cache")
    return redis(
        facts.memory_mb,
        purpose=usual,
        sessions=sessions,
        shared=len(host.groups) > 1,
        declared_mb=int(host.overrides.get("redis_maxmemory_mb", 0)),
        hard=facts.nofile_hard,
    )
