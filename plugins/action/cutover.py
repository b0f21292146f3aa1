# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Follows a cutover that runs on the host, line by line, and finds it again when the connection is lost meanwhile."""

from __future__ import annotations

import time
from typing import Any, Optional

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

LOST = 120.0
"""Seconds for which a lost connection is tried again; the host goes on by itself, and its dead man decides in the end."""
PAUSE = 3.0

display = Display()


class ActionModule(ActionBase):
    """slipway.server.cutover."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """The result of the module once the run has ended."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        arguments = dict(self._task.args)
        lost_since: Optional[float] = None
        told: list[dict[str, Any]] = []
        while True:
            try:
                answer = self._execute_module(module_name="slipway.server.cutover", module_args=arguments, task_vars=variables)
            except AnsibleConnectionFailure as error:
                now = time.monotonic()
                lost_since = lost_since or now
                if "offset" not in arguments or now - lost_since > LOST:
                    raise
                self._say(variables, f"connection lost, the run goes on there: {error}")
                self._connection.reset()
                time.sleep(PAUSE)
                continue
            lost_since = None
            lines = answer.pop("progress", None) or []
            told += lines
            for line in lines:
                self._say(variables, f"{line.get('state', '')}: {line.get('text', '')}")
            if not answer.pop("running", False):
                result.update(answer)
                if told:
                    result["progress"] = told
                return result
            arguments.update(offset=answer["offset"], txn=answer["txn"])

    def _say(self, variables: dict[str, Any], text: str) -> None:
        display.display(f"  {variables.get('inventory_hostname', 'host')}  {text}")
