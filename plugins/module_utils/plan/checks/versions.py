# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of versions: settings that the server of this version does not have, and values that it cannot read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...settings import pgbouncer
from ...settings.postgresql import MANAGED, REMOVED
from ..model import Check
from ..sizing import version
from .subject import Subject, is_duration, is_size, whole

LEAST_POSTGRESQL = 14
PREPARED = (1, 21)  # pgbouncer's changelog
SINCE = {  # release notes of 15 to 18
    "reserved_connections": 16,
    "transaction_timeout": 17,
    "summarize_wal": 17,
    "io_method": 18,
    "io_workers": 18,
    "io_max_concurrency": 18,
    "autovacuum_worker_slots": 18,
}
VALUES_SINCE = {("wal_compression", "lz4"): 15, ("wal_compression", "zstd"): 15}
SIZES = (
    "shared_buffers",
    "effective_cache_size",
    "work_mem",
    "maintenance_work_mem",
    "autovacuum_work_mem",
    "max_wal_size",
    "min_wal_size",
    "wal_keep_size",
    "max_slot_wal_keep_size",
)
DURATIONS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "checkpoint_timeout", "archive_timeout")
NUMBERS = (
    "max_connections",
    "superuser_reserved_connections",
    "reserved_connections",
    "max_worker_processes",
    "max_parallel_workers",
    "autovacuum_max_workers",
    "max_wal_senders",
    "max_replication_slots",
)
_REMOVED_IN = re.compile(r"\b(?:in|since) (\d+)")


def rules(subject: Subject) -> Iterator[Check]:
    """All of them."""
    yield from _pooler(subject)
    yield from _pooler_settings(subject)
    if subject.host.serves_postgresql():
        yield from _postgresql(subject)
        yield from _settings(subject)


def _pooler(subject: Subject) -> Iterator[Check]:
    found = version(subject.facts.pgbouncer)
    declared = whole(subject.pooler("max_prepared_statements", "0"))
    if found and declared:
        yield subject.check(
            "versions",
            "max_prepared_statements needs pgbouncer >= 1.21",
            found >= PREPARED,
            subject.facts.pgbouncer,
            "1.21",
            "pgbouncer_settings max_prepared_statements",
            "remove it, or install a newer pgbouncer",
        )
    for app in subject.pooled:
        if found and app.database and app.database.pooled and app.database.prepared_statements:
            yield subject.check(
                "versions",
                f"prepared statements of {app.name} need pgbouncer >= 1.21 and max_prepared_statements > 0",
                found >= PREPARED and declared > 0,
                f"{subject.facts.pgbouncer} with {declared}",
                "1.21 with 1 or more",
                f"slipway_apps.{app.name}.database.prepared_statements",
                "set it to false and switch them off in the app, or install a newer pgbouncer",
            )


def _pooler_settings(subject: Subject) -> Iterator[Check]:
    declared: Mapping[str, Any] = subject.host.overrides.get("pgbouncer_settings", {})
    if "pgbouncer_nofile" not in subject.variables or not declared:
        return
    faults = dict(pgbouncer.name_problems(declared, subject.facts.pgbouncer))
    for name, value in declared.items():
        what, _sign, remedy = faults.get(name, "known; ").partition("; ")
        yield subject.check(
            "settings",
            f"{name} is a setting of pgbouncer {subject.facts.pgbouncer}".rstrip(),
            name not in faults,
            f"{name} = {value}",
            what,
            f"pgbouncer_settings {name}",
            remedy,
        )


def _postgresql(subject: Subject) -> Iterator[Check]:
    major = (version(subject.facts.postgresql) or (0,))[0]
    if not major:
        return
    yield subject.check(
        "versions",
        f"PostgreSQL >= {LEAST_POSTGRESQL}",
        major >= LEAST_POSTGRESQL,
        subject.facts.postgresql,
        str(LEAST_POSTGRESQL),
        "the host's distribution",
        "install a supported PostgreSQL",
    )
    settings: Mapping[str, Any] = subject.variables.get("postgresql_settings", {})
    for name, value in settings.items():
        needed = SINCE.get(name) or VALUES_SINCE.get((name, str(value)), 0)
        if needed:
            what = name if name in SINCE else f"{name}={value}"
            yield subject.check(
                "versions",
                f"{what} needs PostgreSQL >= {needed}",
                major >= needed,
                subject.facts.postgresql,
                str(needed),
                f"postgresql_settings {name}",
                "remove it, or install a newer PostgreSQL",
            )


def _settings(subject: Subject) -> Iterator[Check]:
    major = (version(subject.facts.postgresql) or (0,))[0]
    settings: Mapping[str, Any] = subject.host.overrides.get("postgresql_settings", {})
    wrong = []
    for name, value in settings.items():
        remedy = _unknown(name, major) or _unreadable(name, str(value))
        if remedy:
            wrong.append((name, str(value), remedy))
    if settings and not wrong:
        yield subject.check(
            "settings",
            "declared settings have known names and readable values",
            True,
            f"{len(settings)} settings",
            "all of them",
            "postgresql_settings",
            "",
        )
    for name, value, remedy in wrong:
        yield subject.check(
            "settings",
            f"{name} is a setting of PostgreSQL {major or LEAST_POSTGRESQL} and its value can be read",
            False,
            f"{name} = {value}",
            "no such setting" if _unknown(name, major) else "a readable value",
            f"postgresql_settings {name}",
            remedy,
        )


def _unknown(name: str, major: int) -> str:
    if name in MANAGED:
        return MANAGED[name]
    text = REMOVED.get(name, "")
    gone = _REMOVED_IN.search(text)
    # Names that were removed later than the oldest supported version are fine before that.
    return "" if gone and int(gone.group(1)) > max(major, LEAST_POSTGRESQL) else text


def _unreadable(name: str, value: str) -> str:
    if name in SIZES and not is_size(value):
        return "write a number and one of kB, MB, GB, TB"
    if name in DURATIONS and not is_duration(value):
        return "write a number and one of ms, s, min, h, d"
    if name in NUMBERS and not value.strip().isdigit():
        return "write a whole number"
    return ""
