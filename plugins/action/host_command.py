# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin: digests of the command's files go to the host, and the files themselves only where one differs."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.server.plugins.module_utils.host.payload import closure
from ansible_collections.slipway.server.plugins.module_utils.traffic import install

LIBRARY = Path(install.__file__).parents[1]


def source(name: str) -> Optional[str]:
    """The text of a module of the library on this controller, by its dotted name."""
    path = LIBRARY.joinpath(*name.split(".")).with_suffix(".py")
    return path.read_text(encoding="utf-8") if path.is_file() else None


def pack(items: list[install.InstalledFile]) -> str:
    """The texts of files as one argument of a module."""
    return base64.b64encode(zlib.compress(json.dumps({item.path: item.text for item in items}).encode())).decode()


class ActionModule(ActionBase):
    """slipway.server.host_command."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """The module's result, where a quick look finds that something differs."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        items = install.files(closure(source, install.ENTRY))
        wanted = install.expected(items)
        present = self._task.args.get("state", "present") == "present"
        if present and self._same(install.proof(wanted)):
            return {**result, "changed": False, "files_changed": []}
        arguments = {**self._task.args, "files": [asdict(each) for each in wanted], "texts": pack(items) if present else ""}
        return {**result, **self._execute_module("slipway.server.host_command", arguments, task_vars=task_vars)}

    def _same(self, proof: str) -> bool:
        return bool(self._low_level_execute_command(proof)["rc"] == 0)
