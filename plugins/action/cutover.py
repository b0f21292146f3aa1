# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Follows a cutover that runs on the host, line by line, and finds it again when the connection is lost meanwhile.

Edges that move together are followed by processes of one run. The first whose edge refuses leaves word for the others.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ansible import constants
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
        word = _word(arguments) if len(arguments.get("peers") or []) > 1 and not self._task.check_mode else None
        while True:
            if word is not None and word.exists():
                return {
                    **result,
                    **self._take_back(arguments, word.read_text(), variables),
                    **({"progress": told} if told else {}),
                }
            try:
                answer = self._execute_module(module_name="slipway.server.cutover", module_args=arguments, task_vars=variables)
            except AnsibleConnectionFailure as error:
                now = time.monotonic()
                lost_since = lost_since or now
                if "offset" not in arguments or now - lost_since > LOST:
                    self._leave(word, variables)
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
                if answer.get("failed"):
                    self._leave(word, variables)
                if told:
                    result["progress"] = told
                return result
            arguments.update(offset=answer["offset"], txn=answer["txn"])

    def _leave(self, word: Optional[Path], variables: dict[str, Any]) -> None:
        if word is not None:
            draft = word.with_name(f"{word.name}.{os.getpid()}")
            draft.write_text(str(variables.get("inventory_hostname", "another edge")))
            draft.rename(word)

    def _take_back(self, arguments: Mapping[str, Any], refused: str, variables: dict[str, Any]) -> dict[str, Any]:
        """What became of this edge, whose traffic another one does not let stay; a failure in any case."""
        self._say(variables, f"{refused} refused the release: taking the traffic back here, too")
        which = {key: arguments[key] for key in ("app", "txn", "owner") if arguments.get(key)}
        done = self._execute_module(module_name="slipway.server.rollback", module_args=which, task_vars=variables)
        if done.get("failed"):
            return done
        return {**done, "failed": True, "msg": f"{refused} refused the release, so this edge did not wait for its own verdict."}

    def _say(self, variables: dict[str, Any], text: str) -> None:
        display.display(f"  {variables.get('inventory_hostname', 'host')}  {text}")


def _word(arguments: Mapping[str, Any]) -> Path:
    """Where the name of the edge stands that refused the transaction: in the directory of this run, so it goes with it."""
    which = hashlib.sha256(f"{arguments.get('app')} {arguments.get('txn')}".encode()).hexdigest()[:16]
    return Path(constants.DEFAULT_LOCAL_TMP) / f"slipway-refused-{which}"
