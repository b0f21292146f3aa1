# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters over the plan; their documentation lies beside them, one file for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.server.plugins.module_utils.plan import env, table


def slipway_env(app: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, str]:
    """Env files of an app on a host, one text for each consumer."""
    try:
        values = env.variables(app, host)
        return {consumer: env.render(values, consumer) for consumer in env.CONSUMERS}
    except env.BadValue as error:
        raise AnsibleFilterError(f"slipway_env: app {host.get('app', '')}: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"slipway_env: needs an entry of slipway_apps and the plan's app_apps entry; missing: {error}") from error


def slipway_plan_table(plan: Mapping[str, Any], hosts: Sequence[str] = ()) -> list[str]:
    """The plan as lines of text."""
    return table.text(plan, hosts)


class FilterModule:
    """Where Ansible finds the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"slipway_env": slipway_env, "slipway_plan_table": slipway_plan_table}
