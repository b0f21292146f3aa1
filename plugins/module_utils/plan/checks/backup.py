# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of backups: what is promised must be reachable."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Check
from .subject import Subject, seconds, whole


def rules(subject: Subject) -> Iterator[Check]:
    """Only where the inventory promises something: slipway_rpo in seconds, slipway_pitr_days."""
    if not subject.host.has("database"):
        return
    rpo = whole(subject.host.overrides.get("slipway_rpo", 0))
    if rpo:
        archives = subject.setting("archive_mode", "off") in ("on", "always")
        every = seconds(subject.setting("archive_timeout", "0"), 1.0)
        yield subject.check(
            "backup-promise",
            "archive_timeout <= slipway_rpo",
            archives and 0 < every <= rpo,
            f"{every:.0f} s" if archives and every else "WAL is not archived" if not archives else "no archive_timeout",
            f"{rpo} s",
            "postgresql_settings archive_mode, archive_command, archive_timeout",
            f"archive WAL at least every {rpo} s, or promise less",
        )
    window = whole(subject.host.overrides.get("slipway_pitr_days", 0))
    if window:
        kept = whole(subject.host.overrides.get("slipway_backup_days", 0))
        yield subject.check(
            "backup-promise",
            "slipway_pitr_days <= slipway_backup_days",
            window <= kept,
            f"{window} days",
            f"{kept} days",
            "slipway_backup_days or slipway_pitr_days",
            f"keep full backups for at least {window} days",
        )
