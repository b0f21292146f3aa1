# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin: writes the report of a transaction on the controller; no host is contacted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.server.plugins.module_utils.traffic import report
from ansible_collections.slipway.server.plugins.plugin_utils.written import write


class ActionModule(ActionBase):
    """slipway.server.report."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """The paths of what was written, or a warning."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _valid, options = self.validate_argument_spec(
            argument_spec={
                "app": {"type": "str", "required": True},
                "txn": {"type": "str", "required": True},
                "told": {"type": "dict", "required": True},
                "proved": {"type": "dict", "default": {}},
                "directory": {"type": "path", "default": "reports"},
                "owner": {"type": "str", "default": ""},
                "release": {"type": "str", "default": ""},
            },
        )
        told = {host: lines["lines"] for host, lines in options["told"].items() if isinstance(lines, dict) and lines.get("lines")}
        told = report.proved(options["proved"], told)
        run = report.build(options["app"], options["txn"], told, options["owner"], options["release"])
        if run is None:
            result.update(changed=False, page="", data="")
            return result
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{options['app']}-{options['txn']}")
        base = Path(options["directory"]).absolute() / name
        page, data = base.with_name(f"{name}.html"), base.with_name(f"{name}.json")
        texts = {page: report.render(run), data: json.dumps(report.document(run), indent=1, sort_keys=True) + "\n"}
        result.update(changed=False, page=str(page), data=str(data), outcome=run.outcome)
        try:
            result["changed"] = write(texts, self._task.check_mode)
        except (OSError, ValueError) as error:
            result.update(
                page="", data="", warnings=[f"no report in {base.parent}: {error}. Set app_reports to another directory."]
            )
        return result
