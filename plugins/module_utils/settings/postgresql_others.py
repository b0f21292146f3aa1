# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else has set in a cluster: what a takeover replaces, and what would win over the declared. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .postgresql import DROP_IN

PACKAGED_RULES = frozenset(
    {
        "local all postgres peer",
        "local all all peer",
        "host all all 127.0.0.1/32 scram-sha-256",
        "host all all ::1/128 scram-sha-256",
        "local replication all peer",
        "host replication all 127.0.0.1/32 scram-sha-256",
        "host replication all ::1/128 scram-sha-256",
    }
)
PACKAGED_SETTINGS = {"port": "5432", "max_connections": "100", "shared_buffers": "128MB", "listen_addresses": "localhost"}
SET_ELSEWHERE = """
SELECT jsonb_build_array(name, setting, sourcefile, sourceline) FROM pg_file_settings
WHERE name IS NOT NULL ORDER BY seqno
"""


def own_rules(text: str) -> list[str]:
    """Lines of a pg_hba.conf or pg_ident.conf that somebody added to the package's."""
    lines = (" ".join(line.split("#", 1)[0].split()) for line in text.splitlines())
    return [line for line in lines if line and line not in PACKAGED_RULES]


def overriding(rows: Sequence[Sequence[Any]], declared: Mapping[str, str], main: str, included: int) -> list[str]:
    """What is read after the drop-in and sets a declared setting otherwise, with the remedy.

    `rows` are (name, value, file, line); `included`: the line of the file `main` that reads the folder of the drop-in.
    """
    found = []
    for name, value, file, line in rows:
        if name not in declared or value == declared[name]:
            continue
        folder, _slash, base = file.rpartition("/")
        if base == "postgresql.auto.conf":
            found.append(f"{name}: ALTER SYSTEM has set {value}, which wins over a file; run `ALTER SYSTEM RESET {name}`")
        elif (file == main and line > included) or (folder.endswith("/conf.d") and base > DROP_IN):
            found.append(f"{name}: {file} line {line} sets {value} and is read later; take that line out")
    return found


def overruled(rows: Sequence[Sequence[Any]], declared: Mapping[str, str]) -> list[str]:
    """What others had set, as (name, value, file, line), and a declared setting replaces, but for the package's own values."""
    last = {name: (value, file) for name, value, file, _line in rows if not file.endswith(("postgresql.auto.conf", DROP_IN))}
    return [
        f"{file}: {name} = {value}, now {declared[name]}"
        for name, (value, file) in last.items()
        if name in declared and value not in (declared[name], PACKAGED_SETTINGS.get(name))
    ]
