# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin: the module arms and applies the change, then a new login confirms it, or it is taken back."""

from __future__ import annotations

from typing import Any, Optional

from ansible_collections.slipway.server.plugins.plugin_utils.guarded import GuardedAction


class ActionModule(GuardedAction):
    """slipway.server.base."""

    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """The module's result, confirmed."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        done = self._execute_module("slipway.server.base", self._task.args, task_vars=variables)
        return {**result, **self.confirmed(done, variables)}
