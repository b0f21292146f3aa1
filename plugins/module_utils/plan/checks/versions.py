# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of versions: settings that the server of this version does not have, and values that it cannot read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from ...settings import pgbouncer, postgresql
from ...settings import postgresql_known as known
from ..model import Check
from ..sizing import version
from .subject import Subject, whole

LEAST_POSTGRESQL = 14
PREPARED = (1, 21)  # pgbouncer's changelog
VALUES_SINCE = {("wal_compression", "lz4"): 15, ("wal_compression", "zstd"): 15}
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
    faults = dict(pgbouncer.setting_problems(declared, subject.facts.pgbouncer))
    for name, value in declared.items():
        what, _sign, remedy = faults.get(name, "known; ").partition("; ")
        yield subject.check(
            "settings",
            f"{name} is a setting of pgbouncer {subject.facts.pgbouncer}".rstrip() + " and its value can be read",
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
        needed = known.SINCE.get(name) or VALUES_SINCE.get((name, str(value)), 0)
        if needed:
            what = name if name in known.SINCE else f"{name}={value}"
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
    settings = postgresql.texts(subject.host.overrides.get("postgresql_settings", {}))
    faults = {name: fault for name, value in settings.items() if (fault := _fault(name, value, major))}
    if settings and not faults:
        yield subject.check(
            "settings",
            "declared settings have known names and readable values",
            True,
            f"{len(settings)} settings",
            "all of them",
            "postgresql_settings",
            "",
        )
    for name, (what, remedy) in faults.items():
        yield subject.check(
            "settings",
            f"{name} is a setting of PostgreSQL {major or LEAST_POSTGRESQL} and its value can be read",
            False,
            f"{name} = {settings[name]}",
            what,
            f"postgresql_settings {name}",
            remedy,
        )


def _fault(name: str, value: str, major: int) -> Optional[tuple[str, str]]:
    """What is wrong with a setting, and its remedy. Of versions newer than what is known here the server is asked later."""
    unknown = _unknown(name, major)
    parameter = known.PARAMETERS.get(name)
    if unknown:
        return "no such setting", unknown
    if parameter is None:
        newer = "." in name or name in known.SINCE or major > known.NEWEST
        return None if newer else ("no such setting", postgresql.closest(name, known.PARAMETERS))
    if parameter.context == "internal":
        return "no such setting", "leave it out: it is fixed when the server is built or the cluster is made"
    try:
        postgresql.canonical(value, parameter)
    except ValueError as error:
        return None if parameter.vartype == "enum" and major > known.NEWEST else ("a readable value", str(error))
    return None


def _unknown(name: str, major: int) -> str:
    if name in postgresql.MANAGED:
        return postgresql.MANAGED[name]
    text = postgresql.REMOVED.get(name, "")
    gone = _REMOVED_IN.search(text)
    # Names that were removed later than the oldest supported version are fine before that.
    return "" if gone and int(gone.group(1)) > max(major, LEAST_POSTGRESQL) else text
