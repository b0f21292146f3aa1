# SPDX-License-Identifier: GPL-3.0-or-later
"""The primary that a standby follows: how it is named, reached and written down."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .postgresql import HEADER

SLOT = re.compile(r"[a-z0-9_]{1,63}")  # PostgreSQL documentation, 26.2.6.1: querying and manipulating replication slots
SSLMODES = ("require", "verify-ca", "verify-full")


@dataclass(frozen=True)
class Source:
    """The primary to follow. `ca` is the path of the certificate that must have signed its own, for verify-ca and verify-full."""

    host: str
    port: int = 5432
    user: str = "replicator"
    slot: str = "standby"
    sslmode: str = "require"
    ca: str = ""
    password: str = field(default="", repr=False)


def problems(source: Source) -> list[str]:
    """Every reason why `source` cannot be followed."""
    found = []
    if not source.host:
        found.append("primary.host: is missing; write the primary's address")
    if SLOT.fullmatch(source.slot) is None:
        found.append(f"slot `{source.slot}`: use lower-case letters, digits and _, at most 63")
    if source.sslmode not in SSLMODES:
        found.append(f"sslmode `{source.sslmode}`: choose from {', '.join(SSLMODES)}; the log must not travel in clear")
    elif source.sslmode != "require" and not source.ca:
        found.append(f"sslmode {source.sslmode}: needs `ca`, the certificate that signed the primary's")
    return found


def slot_name(host: str) -> str:
    """The slot of a standby called `host`."""
    return re.sub(r"[^a-z0-9_]", "_", host.lower())[:63]


def conninfo(source: Source, passfile: Path, database: str = "") -> str:
    """A connection string without a password; with `database` for SQL, else for replication."""
    values = {
        "host": source.host,
        "port": str(source.port),
        "user": source.user,
        "dbname": database,
        "passfile": str(passfile),
        "application_name": source.slot,
        "sslmode": source.sslmode,
        "sslrootcert": source.ca,
        "connect_timeout": "10",
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
    }

    def quoted(value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    return " ".join(f"{key}={quoted(value)}" for key, value in values.items() if value)


def render_passfile(source: Source) -> str:
    """One line of a password file (PostgreSQL documentation, 34.16), for every member: who is the primary changes."""

    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace(":", "\\:")

    return f"*:{source.port}:*:{escaped(source.user)}:{escaped(source.password)}\n"


def render_settings(source: Source, passfile: Path) -> str:
    """The drop-in of a standby; without meaning on a primary."""
    line = conninfo(source, passfile).replace("\\", "\\\\").replace("'", "''")
    return HEADER + f"primary_conninfo = '{line}'\nprimary_slot_name = '{source.slot}'\n"
