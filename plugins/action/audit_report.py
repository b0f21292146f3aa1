# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin: judges an audit and writes its report on the controller, which is one more place to look from."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.server.plugins.module_utils.audit import accepted, judge, page, ports, report
from ansible_collections.slipway.server.plugins.module_utils.host.files import read_text
from ansible_collections.slipway.server.plugins.plugin_utils.written import write

DICTS = ("looks", "settings", "plans", "addresses", "minimum")
SPEC: dict[str, Any] = {
    "seen": {"type": "dict", "required": True},
    "accepted": {"type": "list", "elements": "dict", "default": []},
    "directory": {"type": "path", "default": "reports"},
    **{name: {"type": "dict", "default": {}} for name in DICTS},
}


class ActionModule(ActionBase):
    """slipway.server.audit_report."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Scores, problems, and where the report is."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _valid, options = self.validate_argument_spec(argument_spec=SPEC)
        try:
            limits, own = judge.minimum(options["minimum"]), accepted.declared(options["accepted"])
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        seen = {host: (said or {}).get("inside") for host, said in options["seen"].items()}
        evidence = [_evidence(host, inside, options) for host, inside in seen.items() if inside]
        directory = Path(options["directory"]).absolute()
        html, data = directory / "audit.html", directory / "audit.json"
        made = report.build(
            time.time(),
            [judge.judge(each, limits, own) for each in evidence],
            [host for host, inside in seen.items() if not inside],
            limits,
            report.earlier(_read(data)),
        )
        result.update(changed=False, lines=report.lines(made), problems=made.problems, page=str(html), data=str(data))
        try:
            result["changed"] = write(
                {html: page.page(made), data: json.dumps(report.document(made), indent=1, sort_keys=True) + "\n"},
                self._task.check_mode,
            )
        except (OSError, ValueError) as error:
            words = f"no report in {directory}: {error}. Set slipway_audit_dir to another directory."
            result.update(page="", data="", warnings=[words])
        return result


def _read(path: Path) -> Optional[str]:
    try:
        return read_text(path)
    except OSError:
        return None


def _evidence(host: str, inside: Mapping[str, Any], options: Mapping[str, Any]) -> judge.Evidence:
    outside = {
        who: said["outside"][host] for who, said in options["looks"].items() if said and host in (said.get("outside") or {})
    }
    address = options["addresses"].get(host)
    if address:
        wanted = [*ports.USUAL, *(row["port"] for row in inside["ports"])]
        outside["the controller"] = {"open": [each.as_dict() for each in ports.scan([str(address)], wanted)]}
    return judge.Evidence(host, inside, outside, options["settings"].get(host) or (), options["plans"].get(host) or {})
