# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads inventory and facts on the controller and answers with the plan; no host is contacted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.server.plugins.module_utils.plan import facts as seen
from ansible_collections.slipway.server.plugins.module_utils.plan.build import build
from ansible_collections.slipway.server.plugins.module_utils.plan.demands import demands
from ansible_collections.slipway.server.plugins.module_utils.plan.model import Problem
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import COLLECTION_VARIABLES, HOST_VARIABLES, Raw, parse
from ansible_collections.slipway.server.plugins.module_utils.plan.placeholders import Undefined, Unreadable
from ansible_collections.slipway.server.plugins.plugin_utils import arguments, preload

UNREADABLE = "its template, lookup or vault secret fails"

# The controlling process imports this file before it forks the first worker.
preload.filters()
preload.once()


class ActionModule(ActionBase):
    """slipway.server.plan."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """The plan, or one failure that lists every problem."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        _valid, options = self.validate_argument_spec(
            argument_spec={
                "stage": {"type": "str", "choices": ["inventory", "full"], "default": "full"},
                "enforce": {"type": "bool", "default": True},
                "all_apps": {"type": "bool", "default": False},
            },
        )
        raw = replace(self._raw(variables), all_apps=options["all_apps"])
        facts = {}
        if options["stage"] == "full":
            for host in raw.groups.get("all", ()):
                found = seen.read(self._host_value(variables, host, "ansible_facts") or {})
                if found:
                    facts[host] = found
        inventory, problems = parse(raw, facts if options["stage"] == "full" else None)
        authorities = self._authorities(raw.registries, problems)
        if options["stage"] == "inventory":
            problems += self._arguments(variables, raw.groups.get("all", ()), problems)
        if any(not problem.late for problem in problems):
            return self._failed(result, "inventory", [problem.line() for problem in problems])
        result.update(changed=False, hosts={}, checks=[], table=[])
        if options["stage"] == "inventory":
            result.update(hosts=demands(inventory, authorities))
            return result
        plan = build(inventory, facts)
        playing = set(variables.get("ansible_play_hosts_all", raw.groups.get("all", ())))
        found_problems = [problem.line() for problem in (*problems, *plan.problems)]
        violated = [check.line() for check in plan.violations() if check.host in playing]
        if found_problems or (violated and options["enforce"]):
            return self._failed(result, "plan", found_problems + violated)
        result.update(hosts=plan.hosts, checks=[asdict(check) for check in plan.checks], table=[asdict(row) for row in plan.rows])
        return result

    def _failed(self, result: dict[str, Any], what: str, lines: list[str]) -> dict[str, Any]:
        count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''}"
        result.update(failed=True, msg=f"The {what} has {count}; nothing was changed.\n" + "\n".join(lines))
        return result

    def _authorities(self, registries: Any, problems: list[Problem]) -> list[dict[str, str]]:
        """Registries with the text of their CA certificates, which lie on the controller."""
        found = []
        for index, entry in enumerate(registries if isinstance(registries, list) else []):
            path = entry.get("ca") if isinstance(entry, dict) else None
            if not isinstance(entry, dict) or not isinstance(path, (str, type(None))):
                continue
            text = ""
            try:
                text = Path(self._find_needle("files", path)).read_text(encoding="utf-8") if path else ""
            except (AnsibleError, OSError):
                what = "names a file that is not on the controller"
                problems.append(
                    Problem("inventory", f"slipway_registries[{index}].ca", what, "Write {{ inventory_dir }}/files/…")
                )
            found.append({"host": str(entry.get("host")), "ca": text})
        return found

    def _arguments(self, variables: dict[str, Any], hosts: Iterable[str], known: Iterable[Problem]) -> list[Problem]:
        """What hosts declare and roles would refuse; a value that cannot be resolved yet is left to the task that uses it."""
        specs = arguments.options()
        told = {(problem.where, problem.key) for problem in known}
        found = []
        for host in hosts:
            of_host = variables["hostvars"][host]
            names = [name for options in specs.values() for name in options if name in of_host]
            values = {name: self._host_value(variables, host, name) for name in names if (host, name) not in told}
            ready = {name: value for name, value in values.items() if not isinstance(value, Undefined)}
            found += arguments.problems(host, ready, specs)
        return found

    def _raw(self, variables: dict[str, Any]) -> Raw:
        """What the inventory declares, with templates resolved one by one so that every undefined variable is found."""
        groups = {name: [str(host) for host in hosts] for name, hosts in variables.get("groups", {}).items()}
        unknown: dict[str, str] = {}
        hostvars: dict[str, dict[str, Any]] = {}
        for host in groups.get("all", []):
            declared = {name: self._host_value(variables, host, name) for name in HOST_VARIABLES}
            hostvars[host] = {name: value for name, value in declared.items() if value is not None}
        for name in variables:
            if name.startswith("slipway_") and name not in COLLECTION_VARIABLES:
                unknown[name] = "inventory"
        return Raw(
            apps=self._resolve(variables.get("slipway_apps")),
            registries=self._resolve(variables.get("slipway_registries")),
            groups=groups,
            hostvars=hostvars,
            unknown=unknown,
        )

    def _host_value(self, variables: dict[str, Any], host: str, name: str) -> Any:
        try:
            of_host = variables["hostvars"][host]
            return _plain(of_host[name]) if name in of_host else None
        except AnsibleUndefinedVariable as error:
            return Undefined(_message(error))
        except AnsibleError:
            return Unreadable(UNREADABLE)

    def _resolve(self, value: Any) -> Any:
        """A plain copy with every template resolved; an undefined one becomes Undefined."""
        if isinstance(value, dict):
            return {(str(key) if isinstance(key, str) else key): self._resolve(below) for key, below in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._resolve(below) for below in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        try:
            resolved = self._templar.template(value)
        except AnsibleUndefinedVariable as error:
            return Undefined(_message(error))
        except AnsibleError:
            return Unreadable(UNREADABLE)
        if isinstance(resolved, (dict, list)):
            return _plain(resolved)
        return resolved if resolved is None or isinstance(resolved, (bool, int, float)) else str(resolved)


def _plain(value: Any) -> Any:
    """Plain Python containers and scalars of what templating returns."""
    if isinstance(value, dict):
        return {str(key): _plain(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(below) for below in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _message(error: Exception) -> str:
    """The first line of an undefined variable's message, which names the variable."""
    return str(error).splitlines()[0][:200]
