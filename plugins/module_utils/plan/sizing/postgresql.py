# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's settings from its share of the memory, cores, disk and version. Memory in MiB."""

from __future__ import annotations

from ..model import Facts
from .memory import HostSize
from .numbers import version

DIRECT_SESSIONS = 7  # own: migrations 2, monitoring 2, backup 2, administrator 1
SUPERUSER_RESERVED = 3  # PostgreSQL's default


def max_connections(pooled: int, direct: int, reserved: int = SUPERUSER_RESERVED) -> int:
    """max_db_connections of all poolers, direct sessions and the reserved ones, rounded up to 10, at least 20. Source: own."""
    return max(20, -(-(pooled + direct + reserved) // 10) * 10)


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


def wal_senders(replicas: int) -> int:
    """WAL senders and slots: two for each standby (one streams, one makes it anew) and two for backups. Source: own."""
    return 2 * replicas + 2


def huge_pages(shared_mb: int, connections: int) -> int:
    """Huge pages of 2 MB for PostgreSQL's shared memory: 1.03 shared_buffers, 50 MiB, and 1 MiB for 20 connections.

    Source: own, 1 % above shared_memory_size_in_huge_pages as measured on 17 with 2, 8 and 64 GB, 100 and 500 connections.
    """
    return (shared_mb * 103 // 100 + 50 + connections // 20) // 2 + 1


def postgresql_settings(
    size: HostSize, facts: Facts, active: int, connections: int, replicas: int = 0, cores_of_all: int = 0
) -> dict[str, tuple[str, str]]:
    """PostgreSQL settings as name to (value, reason). Sources: PostgreSQL documentation, pgtune, timescaledb-tune.

    `active` is the sum of all pool sizes, `connections` max_connections, `cores_of_all` the most that the primary or one of its
    `replicas` has: workers must be alike on all of them. What depends on the version is left to the server's default while that
    is unknown. So are wal_buffers (3 % of shared_buffers by itself) and the checkpoint's target and interval.
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
        "idle_in_transaction_session_timeout": ("5min", "a forgotten transaction keeps a pooled connection and dead rows"),
    }
    if replicas:
        kept = largest_wal if facts.disk_total_mb else 4096
        found["max_slot_wal_keep_size"] = (f"{kept}MB", "a standby that is away longer is made anew; the disk stays free")
        # pg_rewind reads the log of a former primary from the last checkpoint before it parted from the new one.
        found["wal_keep_size"] = (f"{max(128, kept // 4)}MB", "a former primary comes back without a new copy")
        if wal_senders(replicas) > 10:
            for name in ("max_wal_senders", "max_replication_slots"):
                found[name] = (str(wal_senders(replicas)), f"{replicas} standbys")
    if major >= 18:
        found["io_method"] = ("worker", "io_uring only where the server was built with it")
        found["io_workers"] = (str(max(3, min(32, cores // 4))), f"{cores} cores")
    if major >= 15:
        found["wal_compression"] = ("lz4", f"version {major}")
    elif major:
        found["wal_compression"] = ("on", f"version {major}")
    most = max(cores, cores_of_all)
    if most >= 4:
        found["max_worker_processes"] = (str(max(8, most)), f"{most} cores")
    if cores >= 4:
        gather = str(min(-(-cores // 2), 4))
        found["max_parallel_workers"] = (str(cores), f"{cores} cores")
        found["max_parallel_workers_per_gather"] = (gather, "half the cores, at most 4")
        found["max_parallel_maintenance_workers"] = (gather, "half the cores, at most 4")
    return found
