# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis: data, forks, clients and descriptors. Memory in MiB."""

from __future__ import annotations

from dataclasses import dataclass

from .numbers import system_mb
from .pooler import pooler_nofile

PURPOSES = ("cache", "queue", "limits")
REDIS_LEAST_MB = 16  # own: below this a data set is of no use
REDIS_BACKLOG = 511  # redis.conf's default tcp-backlog
RESERVED_DESCRIPTORS = 32  # CONFIG_MIN_RESERVED_FDS of the server
_BASE_MB = 10
_CLIENT_KB = 20


@dataclass(frozen=True)
class RedisSize:
    """What a Redis server may use. `total_mb` has room for fragmentation, clients and, where it `forks` to save, the copy."""

    purpose: str
    maxmemory_mb: int
    total_mb: int
    max_clients: int
    nofile: int
    forks: bool


def redis(
    memory_mb: int, purpose: str = "cache", sessions: int = 0, shared: bool = True, declared_mb: int = 0, hard: int = 0
) -> RedisSize:
    """Size of the Redis server on a host with `memory_mb`, for `sessions` client sessions of old and new release together.

    A host that carries other roles too (`shared`) gives it a quarter of what the system leaves, otherwise nine tenths. Of that
    maxmemory is what remains after 10 % for fragmentation, and half of it where AOF or RDB is written (queue, limits), because a
    fork may copy every page; `declared_mb` is a maxmemory that was set by hand. `hard` is the host's limit of descriptors (0:
    unknown).
    Sources: redis.io administration (fork, overcommit), redis.conf (maxclients and 32 descriptors), shares own.
    """
    clients = max_clients(sessions, hard)
    extra = _BASE_MB + -(-clients * _CLIENT_KB // 1024)
    forks = purpose != "cache"
    room = memory_mb - system_mb(memory_mb)
    share = room // 4 if shared else room * 9 // 10
    tenths = 22 if forks else 11
    data = declared_mb or max(REDIS_LEAST_MB, (share - extra) * 10 // tenths)
    return RedisSize(
        purpose=purpose,
        maxmemory_mb=data,
        total_mb=extra + -(-data * tenths // 10),
        max_clients=clients,
        nofile=pooler_nofile(redis_descriptors(clients), hard),
        forks=forks,
    )


def max_clients(sessions: int, hard: int = 0) -> int:
    """maxclients: 1.25 times the sessions of both slots and 10, at least 128, within the host's limit. Source: own."""
    wanted = max(128, -(-sessions * 5 // 4) + 10)
    return min(wanted, hard - RESERVED_DESCRIPTORS) if hard else wanted


def redis_descriptors(clients: int) -> int:
    """Descriptors the server needs: one for each client and 32 of its own, else it lowers maxclients. Source: redis.conf."""
    return clients + RESERVED_DESCRIPTORS
