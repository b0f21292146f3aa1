# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules look at, and how they read values that people wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..model import App, Check, Facts, Host
from ..sizing import HostSize
from .rules import BY_ID

_UNITS = {"b": 1 / 1048576, "kb": 1 / 1024, "mb": 1.0, "gb": 1024.0, "tb": 1048576.0}
_SECONDS = {"us": 0.000001, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?[bB])?\s*")
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)?\s*")


@dataclass(frozen=True)
class Pooler:
    """A pooler in front of a server: its databases there, and its settings."""

    host: str
    databases: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]

    def pools(self) -> list[int]:
        """pool_size of each database."""
        return [self.pool(entry) for entry in self.databases]

    def pool(self, entry: Mapping[str, Any]) -> int:
        """pool_size of a database, else the default of the pooler, else pgbouncer's."""
        return whole(entry.get("pool_size", self.settings.get("default_pool_size", 20)))

    def reserve(self, entry: Mapping[str, Any]) -> int:
        """reserve_pool of a database, else that of the pooler."""
        return whole(entry.get("reserve_pool", self.settings.get("reserve_pool_size", 0)))

    def needed(self) -> int:
        """Server connections of all pools with their reserves."""
        return sum(self.pool(entry) + self.reserve(entry) for entry in self.databases)

    def most(self) -> int:
        """Server connections that it may open: max_db_connections, else pool and reserve."""
        return sum(
            whole(entry.get("max_db_connections", self.settings.get("max_db_connections", 0)))
            or self.pool(entry) + self.reserve(entry)
            for entry in self.databases
        )


@dataclass(frozen=True)
class Subject:
    """One host with all that the rules look at. `sessions` counts both slots at once.

    `pooled` are the apps that go through the pooler of this host, `poolers` all in front of its PostgreSQL. `primary` has the
    final settings of a replica's primary, `replicas` the names of those that follow this host.
    """

    host: Host
    facts: Facts
    size: HostSize
    variables: Mapping[str, Any]
    apps: tuple[App, ...] = ()
    served: tuple[App, ...] = ()
    pooled: tuple[App, ...] = ()
    poolers: tuple[Pooler, ...] = ()
    sessions: int = 0
    direct: int = 0
    redis_sessions: int = 0
    containers: bool = False
    published: tuple[int, ...] = ()
    primary: Optional[Mapping[str, Any]] = None
    replicas: tuple[str, ...] = ()

    def check(self, rule: str, relation: str, ok: bool, have: str, limit: str, variable: str, remedy: str) -> Check:
        """The rule called `rule` applied to this host."""
        return Check(BY_ID[rule].number, rule, relation, self.host.name, ok, have, limit, variable, remedy)

    def setting(self, name: str, default: str) -> str:
        """A PostgreSQL setting as declared, else PostgreSQL's default."""
        return str(self.variables.get("postgresql_settings", {}).get(name, default))

    def pooler(self, name: str, default: str) -> str:
        """A pgbouncer setting as declared, else pgbouncer's default."""
        return str(self.variables.get("pgbouncer_settings", {}).get(name, default))

    def kernel(self, name: str, default: int) -> int:
        """A sysctl key as declared, else the kernel's default."""
        return whole(self.variables.get("kernel_sysctl", {}).get(name, default))

    def usable(self) -> int:
        """Connections that ordinary users may open."""
        taken = whole(self.setting("superuser_reserved_connections", "3")) + whole(self.setting("reserved_connections", "0"))
        return whole(self.setting("max_connections", "100")) - taken

    def limits(self) -> Iterator[tuple[str, int]]:
        """Descriptor limits of the programs on this host."""
        for name in ("nginx_nofile", "pgbouncer_nofile", "docker_nofile", "kernel_nofile"):
            if name in self.variables:
                yield name, whole(self.variables[name])


def size_mb(text: str, unit_kb: int) -> float:
    """A PostgreSQL size in MiB; a bare number counts in `unit_kb`. A value nobody can read counts as 0."""
    match = _SIZE.fullmatch(text)
    if not match:
        return 0.0
    number = float(match.group(1))
    return number * _UNITS[match.group(2).lower()] if match.group(2) else number * unit_kb / 1024


def seconds(text: str, unit: float = 0.001) -> float:
    """A PostgreSQL duration in seconds; a bare number counts in `unit` seconds."""
    match = _DURATION.fullmatch(text)
    if not match:
        return 0.0
    return float(match.group(1)) * (_SECONDS[match.group(2)] if match.group(2) else unit)


def whole(value: Any) -> int:
    """A whole number as declared; 0 when it is none."""
    text = str(value).strip()
    return int(text) if text.lstrip("-").isdigit() else 0
