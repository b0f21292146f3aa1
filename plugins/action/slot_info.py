# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin: a host that has the command slipway of this version is asked through it, which carries nothing there."""

from __future__ import annotations

from typing import Any, Optional

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.server.plugins.plugin_utils.command import ask


class ActionModule(ActionBase):
    """slipway.server.slot_info."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """What the command says, or else the module."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if boolean(arguments.pop("installed", False)) and "history" not in arguments:
            rc, said, _words = ask(self, "status", *([arguments["app"]] if arguments.get("app") else []))
            reports = said if isinstance(said, list) else [said]
            if rc == 0 and all("app" in report for report in reports):
                return {**result, "changed": False, "apps": {report["app"]: report for report in reports}}
        return {**result, **self._execute_module("slipway.server.slot_info", arguments, task_vars=task_vars)}
