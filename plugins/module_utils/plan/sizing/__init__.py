# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes from memory, cores and apps, one file for each part. Memory in MiB; every function names where its formula comes from."""

from __future__ import annotations

from .apps import (
    RUBY_PROCESS_MB,
    app_pool,
    from_limit,
    instance_mb,
    instances,
    limited,
    runs_docker,
    sessions,
    worker_pool,
    worker_processes,
    worker_sessions,
    worker_threads,
    workers_mb,
)
from .kernel import (
    USUAL_NOFILE,
    backlogs,
    kernel_sysctl,
    nofile,
)
from .memory import (
    POSTGRESQL_LEAST_MB,
    HostSize,
    divide,
    redis_size,
)
from .nginx import (
    NGINX_BACKLOG,
    nginx_mb,
    nginx_nofile,
    worker_connections,
)
from .numbers import (
    power_of_two,
    system_mb,
    version,
)
from .pooler import (
    max_client_conn,
    pgbouncer_mb,
    pool_size,
    pooler_descriptors,
    pooler_nofile,
    reserve_size,
)
from .postgresql import (
    DIRECT_SESSIONS,
    SUPERUSER_RESERVED,
    autovacuum_workers,
    max_connections,
    parallel_workers,
    postgresql_settings,
    work_mem_kb,
)
from .redis_server import (
    PURPOSES,
    REDIS_BACKLOG,
    REDIS_LEAST_MB,
    RESERVED_DESCRIPTORS,
    RedisSize,
    max_clients,
    redis,
    redis_descriptors,
)

__all__ = [
    "DIRECT_SESSIONS",
    "NGINX_BACKLOG",
    "POSTGRESQL_LEAST_MB",
    "PURPOSES",
    "REDIS_BACKLOG",
    "REDIS_LEAST_MB",
    "RESERVED_DESCRIPTORS",
    "RUBY_PROCESS_MB",
    "SUPERUSER_RESERVED",
    "USUAL_NOFILE",
    "HostSize",
    "RedisSize",
    "app_pool",
    "autovacuum_workers",
    "backlogs",
    "divide",
    "from_limit",
    "instance_mb",
    "instances",
    "kernel_sysctl",
    "limited",
    "max_client_conn",
    "max_clients",
    "max_connections",
    "nginx_mb",
    "nginx_nofile",
    "nofile",
    "parallel_workers",
    "pgbouncer_mb",
    "pool_size",
    "pooler_descriptors",
    "pooler_nofile",
    "postgresql_settings",
    "power_of_two",
    "redis",
    "redis_descriptors",
    "redis_size",
    "reserve_size",
    "runs_docker",
    "sessions",
    "system_mb",
    "version",
    "work_mem_kb",
    "worker_connections",
    "worker_pool",
    "worker_processes",
    "worker_sessions",
    "worker_threads",
    "workers_mb",
]
