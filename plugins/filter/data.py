# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of the data roles; their documentation lies beside them, one file for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.settings import postgresql, redis


def postgresql_checks(settings: Mapping[str, Any], **options: Any) -> list[dict[str, Any]]:
    """What has to be read back from PostgreSQL."""
    return postgresql.checks(settings, **options)


def redis_checks(instances: Sequence[Mapping[str, Any]], users: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """What has to be read back from Redis."""
    return redis.checks(redis.instances(instances), redis.users(users))


class FilterModule:
    """Where Ansible finds the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"postgresql_checks": postgresql_checks, "redis_checks": redis_checks}
