# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin: what a task of the same run has asked for already is answered here, without a round trip to the host."""

from __future__ import annotations

from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.server.plugins.plugin_utils import preload

REGISTERED = "slipway_packages"

# Most roles begin with it: what comes after finds everything loaded.
preload.once()


class ActionModule(ActionBase):
    """Looks at the registered result of an earlier task, then asks the host."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """The module's result, or what the earlier one says of these packages."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        arguments = dict(self._task.args)
        known = recall(variables.get(REGISTERED), arguments) or recall(installed(arguments.pop("seen", None)), arguments)
        return {**result, **(known or self._execute_module("slipway.server.packages", arguments, task_vars=variables))}


def installed(seen: Any) -> dict[str, Any]:
    """What M(slipway.server.preflight) saw, as a result that knows the packages that are there."""
    versions = seen.get("versions") if isinstance(seen, dict) else None
    there = {name: version for name, version in (versions or {}).items() if name not in seen.get("missing", ())}
    return {"asked": [*there], "versions": there}


def recall(earlier: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What an earlier result says of the packages of these arguments; nothing when it does not know all of them."""
    names, optional = arguments.get("names"), arguments.get("optional") or []
    plain = isinstance(earlier, dict) and isinstance(names, list) and isinstance(optional, list)
    if not plain or arguments.get("state", "present") != "present" or not {*names, *optional} <= set(earlier.get("asked", ())):
        return {}
    asked = [*names, *optional]
    versions = {name: earlier["versions"][name] for name in asked if name in earlier["versions"]}
    # Whoever asks learns that a package is new, though an earlier task has installed it.
    new = [name for name in earlier.get("packages_changed", ()) if name in asked]
    return {"changed": False, "versions": versions, "asked": asked, "packages_changed": new}
