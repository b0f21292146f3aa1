# SPDX-License-Identifier: GPL-3.0-or-later
"""The cross-checks: what no single role can see. Each rule compares two numbers of the final values, overrides included."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .model import App, Check, Facts, Host
from .sizing import SUPERUSER_RESERVED, HostSize, app_pool, backlogs, parallel_workers, pooler_descriptors, version

SESSION_MB = 5  # own: a session's process before any sort; pgtune's 10 MiB is a bound, not a need
RESTART_BUDGET = 30  # seconds a guarded restart may hold queries: PAUSE deadline, checkpoint, start
_UNITS = {"b": 1 / 1048576, "kb": 1 / 1024, "mb": 1.0, "gb": 1024.0, "tb": 1048576.0}
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Subject:
    """One host with all that the rules look at. `sessions` counts both slots at once; `pools` is one size for each database."""

    host: Host
    facts: Facts
    size: HostSize
    variables: Mapping[str, Any]
    apps: tuple[App, ...] = ()
    served: tuple[App, ...] = ()
    sessions: int = 0
    direct: int = 0
    containers: bool = False
    published: tuple[int, ...] = ()

    def setting(self, name: str, default: str) -> str:
        """A PostgreSQL setting as declared, else PostgreSQL's default."""
        return str(self.variables.get("postgresql_settings", {}).get(name, default))

    def pooler(self, name: str, default: str) -> str:
        """A pgbouncer setting as declared, else pgbouncer's default."""
        return str(self.variables.get("pgbouncer_settings", {}).get(name, default))


def size_mb(text: str, unit_kb: int) -> float:
    """A PostgreSQL size in MiB; a bare number counts in `unit_kb`. A value nobody can read counts as 0."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?[bB])?\s*", text)
    if not match:
        return 0.0
    number = float(match.group(1))
    return number * _UNITS[match.group(2).lower()] if match.group(2) else number * unit_kb / 1024


def seconds(text: str, unit: float = 0.001) -> float:
    """A PostgreSQL duration in seconds; a bare number counts in `unit` seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)?\s*", text)
    if not match:
        return 0.0
    return float(match.group(1)) * (_SECONDS[match.group(2)] if match.group(2) else unit)


def whole(value: Any) -> int:
    """A whole number as declared; 0 when it is none."""
    text = str(value).strip()
    return int(text) if text.lstrip("-").isdigit() else 0


def run(subject: Subject) -> list[Check]:
    """All rules that apply to the host."""
    found = [*_host_rules(subject)]
    if subject.host.has("database"):
        found += _postgresql_rules(subject)
        found += _pooler_rules(subject)
    for app in subject.apps:
        found += _app_rules(subject, app)
    found += _version_rules(subject)
    return found


def _check(subject: Subject, number: int, rule: str, ok: bool, have: str, limit: str, variable: str, remedy: str) -> Check:
    return Check(number, rule, subject.host.name, ok, have, limit, variable, remedy)


def _host_rules(subject: Subject) -> Iterable[Check]:
    size, variables = subject.size, subject.variables
    parts = ", ".join(f"{name} {mb}" for name, mb in size.roles.items())
    total = f"{size.total_mb()} MB (system {size.system_mb}{', ' + parts if parts else ''}"
    total += f", PostgreSQL {size.postgresql_mb})" if size.postgresql_mb else ")"
    largest = max(size.roles, key=lambda name: size.roles[name], default="")
    app = largest[4:] if largest.startswith("app ") else ""
    yield _check(
        subject,
        1,
        "memory of all roles <= memory",
        size.total_mb() <= size.memory_mb,
        total,
        f"{size.memory_mb} MB",
        f"slipway_apps.{app}.processes, replicas or memory" if app else "the host's memory",
        "run fewer processes, move a role to another host, or give the host more memory",
    )
    kernel = variables.get("kernel_sysctl", {})
    somaxconn = whole(kernel.get("net.core.somaxconn", 4096))
    asked = backlogs(subject.host, bool(subject.apps))
    for program in sorted(asked, key=lambda name: asked[name])[-1:]:
        yield _check(
            subject,
            9,
            "listen backlog <= somaxconn",
            asked[program] <= somaxconn,
            f"{asked[program]} asked by {program}",
            str(somaxconn),
            "kernel_sysctl net.core.somaxconn",
            f"set at least {asked[program]}",
        )
    overcommit = whole(kernel.get("vm.overcommit_memory", 0))
    shared = [group for group in ("edge", "app", "worker", "redis") if subject.host.has(group)]
    if "vm.overcommit_memory" in kernel:
        yield _check(
            subject,
            14,
            "vm.overcommit_memory 2 only on a dedicated database host",
            overcommit != 2 or not shared,
            str(overcommit),
            "0 or 1 beside " + ", ".join(shared) if shared else "any",
            "kernel_sysctl vm.overcommit_memory",
            "set 0, or 1 where Redis runs",
        )
    pages = whole(kernel.get("vm.nr_hugepages", 0))
    if pages:
        rest = (
            size.total_mb() - int(size_mb(subject.setting("shared_buffers", "128MB"), 8))
            if subject.host.has("database")
            else size.total_mb()
        )
        yield _check(
            subject,
            15,
            "huge pages + other memory <= memory",
            pages * 2 + rest <= size.memory_mb,
            f"{pages * 2} + {rest} MB",
            f"{size.memory_mb} MB",
            "kernel_sysctl vm.nr_hugepages",
            "set fewer pages",
        )
    connections = variables.get("nginx_worker_connections")
    if connections is not None:
        need = 2 * whole(connections) + 64
        yield _check(
            subject,
            8,
            "nginx descriptors <= nginx_nofile",
            need <= whole(variables["nginx_nofile"]),
            str(need),
            str(variables["nginx_nofile"]),
            "nginx_nofile or nginx_worker_connections",
            f"set nginx_nofile to at least {need}",
        )
    for name in ("nginx_nofile", "pgbouncer_nofile", "docker_nofile", "kernel_nofile"):
        if subject.facts.nofile_hard and name in variables:
            yield _check(
                subject,
                8,
                f"{name} <= hard limit of the host",
                whole(variables[name]) <= subject.facts.nofile_hard,
                str(variables[name]),
                str(subject.facts.nofile_hard),
                name,
                "set it lower, or raise the host's hard limit",
            )
    if subject.published:
        rules = variables.get("ufw_container_rules", [])
        published = set(subject.published)
        wide = [rule for rule in rules if _any(rule) and published.intersection(_ports(rule))]
        covered = published.intersection(port for rule in rules for port in _ports(rule))
        yield _check(
            subject,
            17,
            "published container ports have a firewall rule of their own",
            not wide and covered == published,
            f"{len(covered)} restricted" + (", some open to any" if wide else ""),
            f"{len(published)} published",
            "ufw_container_rules",
            "name the edges' addresses in `from`",
        )


def _any(rule: Mapping[str, Any]) -> bool:
    sources = rule.get("from") or ["any"]
    return any(str(source) in ("any", "0.0.0.0/0", "::/0") for source in ([sources] if isinstance(sources, str) else sources))


def _ports(rule: Mapping[str, Any]) -> range:
    low, _colon, high = str(rule.get("port", "")).partition(":")
    return range(whole(low), whole(high or low) + 1)


def _postgresql_rules(subject: Subject) -> Iterable[Check]:
    size, memory = subject.size, subject.size.postgresql_mb
    shared = size_mb(subject.setting("shared_buffers", "128MB"), 8)
    cache = size_mb(subject.setting("effective_cache_size", "4GB"), 8)
    others = size.total_mb() - memory
    yield _check(
        subject,
        2,
        "shared_buffers <= 40 % of PostgreSQL's memory",
        shared <= 0.4 * memory,
        f"{shared:.0f} MB",
        f"{0.4 * memory:.0f} MB",
        "postgresql_settings shared_buffers",
        f"set at most {0.4 * memory:.0f}MB, or leave it to the plan",
    )
    yield _check(
        subject,
        2,
        "effective_cache_size <= memory of the other roles taken off",
        cache <= max(size.memory_mb - others, memory),
        f"{cache:.0f} MB",
        f"{max(size.memory_mb - others, memory)} MB",
        "postgresql_settings effective_cache_size",
        "leave it to the plan",
    )
    sort = size_mb(subject.setting("work_mem", "4MB"), 1)
    workers = whole(subject.setting("autovacuum_max_workers", "3"))
    vacuum_text = subject.setting("autovacuum_work_mem", "-1")
    vacuum = size_mb(subject.setting("maintenance_work_mem", "64MB") if vacuum_text == "-1" else vacuum_text, 1)
    active = sum(_pools(subject)) + subject.direct
    parallel = whole(subject.setting("max_parallel_workers", str(parallel_workers(1))))
    connections = whole(subject.setting("max_connections", "100"))
    least = connections * SESSION_MB + shared + workers * vacuum
    yield _check(
        subject,
        1,
        "PostgreSQL's sessions fit into its memory",
        least <= 0.9 * memory,
        f"{least:.0f} MB ({connections} x {SESSION_MB} + {shared:.0f} + {workers} x {vacuum:.0f})",
        f"{0.9 * memory:.0f} MB",
        "slipway_apps database.pooled, processes or threads; the host's memory",
        "let apps go through the pooler, run fewer threads, or give the host more memory",
    )
    used = shared + (active + parallel) * 3 * sort + workers * vacuum
    yield _check(
        subject,
        3,
        "shared_buffers + sorts + autovacuum <= 90 % of PostgreSQL's memory",
        used <= 0.9 * memory + 1,
        f"{used:.0f} MB ({shared:.0f} + {active + parallel} x 3 x {sort:.1f} + {workers} x {vacuum:.0f})",
        f"{0.9 * memory:.0f} MB",
        "postgresql_settings work_mem, autovacuum_work_mem or shared_buffers",
        "leave them to the plan",
    )
    usable = (
        whole(subject.setting("max_connections", "100"))
        - whole(subject.setting("superuser_reserved_connections", str(SUPERUSER_RESERVED)))
        - whole(subject.setting("reserved_connections", "0"))
    )
    largest = sum(_most(entry, subject) for entry in subject.variables.get("pgbouncer_databases", ()))
    pools = sum(_pools(subject)) + sum(_reserve(entry, subject) for entry in subject.variables.get("pgbouncer_databases", ()))
    need = pools + subject.direct
    yield _check(
        subject,
        4,
        "pools + reserve + direct sessions <= usable max_connections",
        need <= usable,
        str(need),
        str(usable),
        "postgresql_settings max_connections or pgbouncer_settings default_pool_size",
        f"set max_connections so that {need} fit",
    )
    yield _check(
        subject,
        5,
        "max_db_connections of all databases <= the pooler's share",
        largest <= max(0, usable - subject.direct),
        str(largest),
        str(max(0, usable - subject.direct)),
        "pgbouncer_databases max_db_connections",
        "lower it, or raise max_connections",
    )
    if subject.facts.disk_free_mb:
        wal = size_mb(subject.setting("max_wal_size", "1GB"), 1024) + max(
            0.0, size_mb(subject.setting("max_slot_wal_keep_size", "0"), 1024)
        )
        yield _check(
            subject,
            12,
            "WAL <= 50 % of free disk",
            wal <= subject.facts.disk_free_mb * 0.5,
            f"{wal:.0f} MB",
            f"{subject.facts.disk_free_mb * 0.5:.0f} MB",
            "postgresql_settings max_wal_size",
            "lower it, or free disk space",
        )


def _pools(subject: Subject) -> list[int]:
    default = whole(subject.pooler("default_pool_size", "20"))
    return [whole(entry.get("pool_size", default)) for entry in subject.variables.get("pgbouncer_databases", ())]


def _reserve(entry: Mapping[str, Any], subject: Subject) -> int:
    return whole(entry.get("reserve_pool", subject.pooler("reserve_pool_size", "0")))


def _most(entry: Mapping[str, Any], subject: Subject) -> int:
    declared = whole(entry.get("max_db_connections", subject.pooler("max_db_connections", "0")))
    return declared or whole(entry.get("pool_size", subject.pooler("default_pool_size", "20"))) + _reserve(entry, subject)


def _pooler_rules(subject: Subject) -> Iterable[Check]:
    clients = whole(subject.pooler("max_client_conn", "100"))
    yield _check(
        subject,
        6,
        "app sessions of both slots <= max_client_conn",
        subject.sessions <= clients,
        str(subject.sessions),
        str(clients),
        "pgbouncer_settings max_client_conn",
        f"set at least {subject.sessions}, or leave it to the plan",
    )
    need = pooler_descriptors(clients, _pools(subject))
    limit = whole(subject.variables.get("pgbouncer_nofile", 1024))
    yield _check(
        subject,
        8,
        "pgbouncer descriptors <= its LimitNOFILE",
        need <= limit,
        f"{need} ({clients} clients + 10 + pools)",
        str(limit),
        "pgbouncer_nofile or pgbouncer_settings max_client_conn",
        f"set pgbouncer_nofile to at least {need}",
    )
    wait = seconds(subject.pooler("query_wait_timeout", "120"), 1.0)
    yield _check(
        subject,
        10,
        "query_wait_timeout > time of a guarded restart",
        wait == 0 or wait > RESTART_BUDGET,
        f"{wait:.0f} s",
        f"{RESTART_BUDGET} s",
        "pgbouncer_settings query_wait_timeout",
        f"set more than {RESTART_BUDGET}",
    )


def _app_rules(subject: Subject, app: App) -> Iterable[Check]:
    if not app.database:
        return
    pool = whole(app.env.get("DB_POOL", app_pool(app)))
    yield _check(
        subject,
        7,
        f"pool of {app.name} >= threads of its process",
        pool >= app.threads,
        f"{pool}",
        f"{app.threads} threads",
        f"slipway_apps.{app.name}.env.DB_POOL",
        f"set at least {app.threads + 1}, or leave it to the plan",
    )
    for worker in app.workers if "DB_POOL" in app.env else ():
        yield _check(
            subject,
            7,
            f"pool of {app.name} >= threads of its worker {worker.name}",
            pool >= worker.threads,
            f"{pool}",
            f"{worker.threads} threads",
            f"slipway_apps.{app.name}.env.DB_POOL",
            f"set at least {worker.threads + 2}, or leave it to the plan",
        )
    lock, statement = app.database.lock_timeout, app.database.statement_timeout
    yield _check(
        subject,
        11,
        f"lock_timeout < statement_timeout < read_timeout of {app.name}",
        lock < statement < app.read_timeout,
        f"{lock} < {statement} s",
        f"{app.read_timeout} s",
        f"slipway_apps.{app.name}.database.statement_timeout or read_timeout",
        "keep them in this order",
    )


def _version_rules(subject: Subject) -> Iterable[Check]:
    found = version(subject.facts.pgbouncer)
    declared = whole(subject.pooler("max_prepared_statements", "0"))
    if found and declared:
        yield _check(
            subject,
            16,
            "max_prepared_statements needs pgbouncer >= 1.21",
            found >= (1, 21),
            subject.facts.pgbouncer,
            "1.21",
            "pgbouncer_settings max_prepared_statements",
            "remove it, or install a newer pgbouncer",
        )
    for app in subject.served:
        if found and app.database and app.database.pooled and app.database.prepared_statements:
            yield _check(
                subject,
                16,
                f"prepared statements of {app.name} need pgbouncer >= 1.21 and max_prepared_statements > 0",
                found >= (1, 21) and declared > 0,
                f"{subject.facts.pgbouncer} with {declared}",
                "1.21 with 1 or more",
                f"slipway_apps.{app.name}.database.prepared_statements",
                "set it to false and switch them off in the app, or install a newer pgbouncer",
            )
    major = (version(subject.facts.postgresql) or (0,))[0]
    if major and subject.host.has("database"):
        yield _check(
            subject,
            16,
            "PostgreSQL >= 14",
            major >= 14,
            subject.facts.postgresql,
            "14",
            "the host's distribution",
            "install a supported PostgreSQL",
        )
