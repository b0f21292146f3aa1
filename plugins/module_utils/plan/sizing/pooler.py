# SPDX-License-Identifier: GPL-3.0-or-later
"""pgbouncer: clients, pools, descriptors, memory in MiB."""

from __future__ import annotations

from collections.abc import Iterable

from .numbers import power_of_two


def pgbouncer_mb(clients: int) -> int:
    """Memory of the pooler: 8 MiB and 10 KiB for each client. Source: measured upstream figure, base own."""
    return 8 + -(-clients * 10 // 1024)


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


def listen_backlog(clients: int) -> int:
    """Clients that may knock at once, all of them up to 4096, at least pgbouncer's default of 128. Source: own."""
    return max(128, min(4096, power_of_two(clients)))
