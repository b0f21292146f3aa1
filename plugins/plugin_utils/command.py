# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a host's own command slipway, so that no module is carried there."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.traffic.layout import COMMAND

ANSWER = re.compile(r"^(\{|\[\]?$)", re.MULTILINE)
"""Where the answer begins: a terminal that ssh or sudo asks for mixes other words into it, before and after."""


def ask(action: Any, *arguments: str) -> tuple[int, Any, str]:
    """Exit status, answer (empty when there is none) and all words of the host's command, asked by an action plugin."""
    command = " ".join(shlex.quote(word) for word in (COMMAND, *arguments, "--json"))
    done = action._low_level_execute_command(command)
    said: Any = {}
    text = done["stdout"].replace("\r\n", "\n")
    found = ANSWER.search(text)
    if found:
        with contextlib.suppress(ValueError):
            said = json.JSONDecoder().raw_decode(text, found.start())[0]
    return int(done["rc"]), said, "\n".join(part.strip() for part in (done["stdout"], done["stderr"]) if part.strip())
