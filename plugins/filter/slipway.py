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
        wanted = "an entry of slipway_apps and the same app's entry in the plan's app_apps"
        raise AnsibleFilterError(f"slipway_env: needs {wanted}; missing: {error}") from error


def slipway_database_passwords(apps: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, str]:
    """Passwords of database users on a host."""
    return env.passwords(apps, host)


def slipway_pooler_logins(apps: Mapping[str, Any], host: Mapping[str, Any]) -> list[dict[str, str]]:
    """Logins that must work through the pooler of a host."""
    return env.logins(apps, host)


def slipway_pooler_users(apps: Mapping[str, Any], host: Mapping[str, Any]) -> list[dict[str, str]]:
    """Users of a pooler whose databases are on other hosts."""
    return env.pooler_users(apps, host)


def slipway_redis_users(apps: Mapping[str, Any], host: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Users of the Redis instances of a host, with their passwords."""
    return env.redis_users(apps, host)


def slipway_plan_table(plan: Mapping[str, Any], hosts: Sequence[str] = ()) -> list[str]:
    """The plan as lines of text."""
    return table.text(plan, hosts)


def slipway_problems(hostvars: Mapping[str, Any], hosts: Sequence[str], name: str) -> list[str]:
    """What the preflight module found on all hosts, one line each; `name` is the variable it was registered in."""
    lines = []
    for host in hosts:
        found = hostvars[host].get(name) or {}
        if found.get("unreachable"):
            reason = str(found.get("msg", "")).rstrip(".")
            lines.append(f"{host}: cannot be reached: {reason}. Check ansible_host, ansible_user and the key")
        elif found and "problems" not in found:  # the module ended before its answer; the task itself never counts as failed
            last = str(found.get("module_stderr", "")).strip().rpartition("\n")[2]
            lines.append(f"{host}: could not be looked at: {found.get('msg', '')}{f' ({last})' if last else ''}")
        lines += [f"{host}: {problem}" for problem in found.get("problems", [])]
    return lines


class FilterModule:
    """Where Ansible finds the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "slipway_database_passwords": slipway_database_passwords,
            "slipway_env": slipway_env,
            "slipway_plan_table": slipway_plan_table,
            "slipway_pooler_logins": slipway_pooler_logins,
            "slipway_pooler_users": slipway_pooler_users,
            "slipway_redis_users": slipway_redis_users,
            "slipway_problems": slipway_problems,
        }
