# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin: reads the given certificates and keys on the controller, vaulted or not, and hands their text to the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

PEM = "-----BEGIN "


class ActionModule(ActionBase):
    """Replaces paths on the controller by the text they hold."""

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """All files that cannot be read are reported together, before the host is contacted."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        problems: list[str] = []
        arguments = dict(self._task.args)
        entries = [dict(entry) for entry in arguments.get("entries") or []]
        for entry in entries:
            for option in ("certificate", "key"):
                value = str(entry.get(option) or "")
                if entry.get("source") == "files" and value and PEM not in value:
                    entry[option] = self._read(entry, option, value, problems)
        if problems:
            lines = "\n".join(f"- {problem}" for problem in problems)
            return {**result, "failed": True, "msg": f"No certificate was replaced:\n{lines}"}
        arguments["entries"] = entries
        result.update(self._execute_module("slipway.server.certificates", arguments, task_vars=task_vars))
        return result

    def _read(self, entry: dict[str, Any], option: str, path: str, problems: list[str]) -> str:
        try:
            found = self._find_needle("files", path)
            readable = self._loader.get_real_file(found, decrypt=True)
            text = Path(readable).read_text(encoding="utf-8")
            self._loader.cleanup_tmp_file(readable)
        except (AnsibleError, OSError, UnicodeDecodeError):
            name = entry.get("name", "without a name")
            problems.append(
                f"certificate {name}: its {option} is neither PEM text nor a readable file on the controller;"
                " give a path that is relative to the playbook or absolute"
            )
            return ""
        return text
