# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of PostgreSQL: memory, connections, disk, standbys."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Check
from ..sizing import parallel_workers, wal_senders
from .subject import Subject, size_mb, whole

SESSION_MB = 5  # own: a session's process before any sort; pgtune's 10 MiB is a bound, not a need
STANDBY_NEEDS = {  # PostgreSQL documentation, hot standby: a standby needs at least the primary's values
    "max_connections": "100",
    "max_worker_processes": "8",
    "max_wal_senders": "10",
    "max_prepared_transactions": "0",
    "max_locks_per_transaction": "64",
}


def rules(subject: Subject) -> Iterator[Check]:
    """All of them; nothing on hosts without PostgreSQL."""
    if subject.host.serves_postgresql():
        yield from _memory(subject)
        yield from _sorts(subject)
        yield from _connections(subject)
        yield from _disk(subject)
        yield from _standby(subject)


def _memory(subject: Subject) -> Iterator[Check]:
    size, memory = subject.size, subject.size.postgresql_mb
    shared = size_mb(subject.setting("shared_buffers", "128MB"), 8)
    cache = size_mb(subject.setting("effective_cache_size", "4GB"), 8)
    free = max(size.memory_mb - (size.total_mb() - memory), memory)
    yield subject.check(
        "postgresql-cache",
        "shared_buffers <= 40 % of PostgreSQL's memory",
        shared <= 0.4 * memory,
        f"{shared:.0f} MB",
        f"{0.4 * memory:.0f} MB",
        "postgresql_settings shared_buffers",
        f"set at most {0.4 * memory:.0f}MB, or leave it to the plan",
    )
    yield subject.check(
        "postgresql-cache",
        "effective_cache_size <= memory of the other roles taken off",
        cache <= free,
        f"{cache:.0f} MB",
        f"{free} MB",
        "postgresql_settings effective_cache_size",
        "leave it to the plan",
    )


def _sorts(subject: Subject) -> Iterator[Check]:
    memory = subject.size.postgresql_mb
    shared = size_mb(subject.setting("shared_buffers", "128MB"), 8)
    sort = size_mb(subject.setting("work_mem", "4MB"), 1)
    workers = whole(subject.setting("autovacuum_max_workers", "3"))
    text = subject.setting("autovacuum_work_mem", "-1")
    vacuum = size_mb(subject.setting("maintenance_work_mem", "64MB") if text == "-1" else text, 1)
    active = sum(sum(one.pools()) for one in subject.poolers) + subject.direct
    parallel = whole(subject.setting("max_parallel_workers", str(parallel_workers(1))))
    connections = whole(subject.setting("max_connections", "100"))
    least = connections * SESSION_MB + shared + workers * vacuum
    yield subject.check(
        "host-memory",
        "PostgreSQL's sessions fit into its memory",
        least <= 0.9 * memory,
        f"{least:.0f} MB ({connections} x {SESSION_MB} + {shared:.0f} + {workers} x {vacuum:.0f})",
        f"{0.9 * memory:.0f} MB",
        "slipway_apps database.pooled, processes or threads; max_connections or shared_buffers where set; the host's memory",
        "let apps go through the pooler, run fewer threads, or give the host more memory",
    )
    used = shared + (active + parallel) * 3 * sort + workers * vacuum
    yield subject.check(
        "postgresql-work",
        "shared_buffers + sorts + autovacuum <= 90 % of PostgreSQL's memory",
        used <= 0.9 * memory + 1,
        f"{used:.0f} MB ({shared:.0f} + {active + parallel} x 3 x {sort:.1f} + {workers} x {vacuum:.0f})",
        f"{0.9 * memory:.0f} MB",
        "postgresql_settings work_mem, autovacuum_work_mem or shared_buffers",
        "leave them to the plan",
    )


def _connections(subject: Subject) -> Iterator[Check]:
    usable = subject.usable()
    need = sum(one.needed() for one in subject.poolers) + subject.direct
    largest = sum(one.most() for one in subject.poolers)
    where = f" of {len(subject.poolers)} poolers" if len(subject.poolers) > 1 else ""
    yield subject.check(
        "connections",
        f"pools{where} + reserve + direct sessions <= usable max_connections",
        need <= usable,
        str(need),
        str(usable),
        "postgresql_settings max_connections or pgbouncer_settings default_pool_size",
        f"set max_connections so that {need} fit, or smaller pools",
    )
    yield subject.check(
        "pool-share",
        "max_db_connections of all databases <= the pooler's share",
        largest <= max(0, usable - subject.direct),
        str(largest),
        str(max(0, usable - subject.direct)),
        "pgbouncer_databases max_db_connections",
        "lower it, or raise max_connections",
    )


def _disk(subject: Subject) -> Iterator[Check]:
    slots = size_mb(subject.setting("max_slot_wal_keep_size", "0"), 1024)
    if subject.replicas:
        yield subject.check(
            "wal-disk",
            "max_slot_wal_keep_size is limited where a standby has a slot",
            slots > 0,
            subject.setting("max_slot_wal_keep_size", "-1"),
            "a size",
            "postgresql_settings max_slot_wal_keep_size",
            "leave it to the plan: -1 lets a standby that is away fill the disk",
        )
    if not subject.facts.disk_free_mb:
        return
    kept = max(slots, size_mb(subject.setting("wal_keep_size", "0"), 1024))
    wal = size_mb(subject.setting("max_wal_size", "1GB"), 1024)
    yield subject.check(
        "wal-disk",
        "WAL <= 50 % of free disk",
        wal + kept <= subject.facts.disk_free_mb * 0.5,
        f"{wal + kept:.0f} MB" + (f" ({wal:.0f} + {kept:.0f} kept for standbys)" if kept else ""),
        f"{subject.facts.disk_free_mb * 0.5:.0f} MB",
        "postgresql_settings max_wal_size" + (", max_slot_wal_keep_size" if kept else ""),
        "lower it, or free disk space",
    )


def _standby(subject: Subject) -> Iterator[Check]:
    if subject.primary is not None:
        for name, default in STANDBY_NEEDS.items():
            own, wanted = whole(subject.setting(name, default)), whole(subject.primary.get(name, default))
            yield subject.check(
                "standby",
                f"{name} of the primary <= that of its standby",
                wanted <= own,
                str(wanted),
                str(own),
                f"postgresql_settings {name}",
                f"set {wanted} or more here, or the same for both in group_vars",
            )
    if subject.replicas:
        need = wal_senders(len(subject.replicas))
        for name in ("max_wal_senders", "max_replication_slots"):
            yield subject.check(
                "standby",
                f"senders and slots for {len(subject.replicas)} standbys <= {name}",
                need <= whole(subject.setting(name, "10")),
                str(need),
                subject.setting(name, "10"),
                f"postgresql_settings {name}",
                f"set at least {need}, or leave it to the plan",
            )
