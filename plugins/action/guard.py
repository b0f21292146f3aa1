# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin: a confirmation logs in anew, everything else is the module's."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.slipway.server.plugins.plugin_utils.guarded import GuardedAction


class ActionModule(GuardedAction):
    """slipway.server.guard."""

    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """The module's result."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        if self._task.args.get("state") == "confirmed" and not self._task.check_mode:
            return {**result, **self.confirm(self._task.args, variables)}
        return {**result, **self._execute_module("slipway.server.guard", self._task.args, task_vars=variables)}
