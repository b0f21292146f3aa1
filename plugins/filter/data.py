# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of the data roles; their documentation lies beside them, one file for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.server.plugins.module_utils.settings import pgbouncer, postgresql


def postgresql_checks(settings: Mapping[str, Any], **options: Any) -> list[dict[str, Any]]:
    """What has to be read back from PostgreSQL."""
    return postgresql.checks(settings, **options)


def _pooler(settings: Mapping[str, Any], options: Mapping[str, Any]) -> pgbouncer.Wanted:
    wanted = pgbouncer.Wanted(settings=settings, **options)
    problems = pgbouncer.problems(wanted)
    if problems:
        lines = "\n".join(f"- {line}" for line in problems)
        raise AnsibleFilterError(f"pgbouncer: nothing was changed; {len(problems)} value(s) cannot be taken:\n{lines}")
    return wanted


def pgbouncer_files(settings: Mapping[str, Any], **options: Any) -> dict[str, str]:
    """The texts of pgbouncer's files; fails with every value that this version cannot take."""
    return pgbouncer.render(_pooler(settings, options))


def pgbouncer_checks(
    settings: Mapping[str, Any], logins: Sequence[Mapping[str, str]] = (), **options: Any
) -> list[dict[str, Any]]:
    """What has to be read back from pgbouncer."""
    return pgbouncer.checks(pgbouncer.Wanted(settings=settings, **options), logins)


class FilterModule:
    """Where Ansible finds the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "postgresql_checks": postgresql_checks,
            "pgbouncer_files": pgbouncer_files,
            "pgbouncer_checks": pgbouncer_checks,
        }
