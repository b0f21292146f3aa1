# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of Redis: clients of each instance; the role derives descriptors from them. Their memory is part of the host's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..model import Check
from .subject import Subject, whole


def rules(subject: Subject) -> Iterator[Check]:
    """All of them; nothing on hosts without Redis."""
    if not subject.size.redis:
        return
    instances: Sequence[Mapping[str, Any]] = subject.variables.get("redis_instances", ())
    found = [(f"Redis {one.get('name', '')}", whole(one.get("max_clients", 10000))) for one in instances]
    if "redis_max_clients" in subject.variables and not found:
        found = [("Redis", whole(subject.variables["redis_max_clients"]))]
    for name, clients in found:
        yield subject.check(
            "client-sessions",
            f"app sessions of both slots <= redis_max_clients of {name}",
            subject.redis_sessions <= clients,
            str(subject.redis_sessions),
            str(clients),
            "redis_max_clients",
            f"set at least {subject.redis_sessions}, or leave it to the plan",
        )
