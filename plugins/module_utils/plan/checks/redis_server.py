# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of Redis: clients and descriptors. Its memory is part of the host's."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Check
from ..sizing import redis_descriptors
from .subject import Subject, whole


def rules(subject: Subject) -> Iterator[Check]:
    """All of them; nothing on hosts without Redis."""
    if not subject.size.redis:
        return
    clients = whole(subject.variables.get("redis_max_clients", 0))
    yield subject.check(
        "client-sessions",
        "app sessions of both slots <= redis_max_clients",
        subject.redis_sessions <= clients,
        str(subject.redis_sessions),
        str(clients),
        "redis_max_clients",
        f"set at least {subject.redis_sessions}, or leave it to the plan",
    )
    need = redis_descriptors(clients)
    limit = whole(subject.variables.get("redis_nofile", 1024))
    yield subject.check(
        "descriptors",
        "Redis descriptors <= its LimitNOFILE",
        need <= limit,
        f"{need} ({clients} clients + 32)",
        str(limit),
        "redis_nofile or redis_max_clients",
        f"set redis_nofile to at least {need}",
    )
