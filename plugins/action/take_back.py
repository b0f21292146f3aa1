# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin: one step of a rollback over all hosts, made by each host's own command, so that no module is carried there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from ansible.plugins.action import ActionBase
from ansible_collections.slipway.server.plugins.module_utils.traffic import fleet
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.layout import COMMAND
from ansible_collections.slipway.server.plugins.plugin_utils.command import ask

SEEN, MOVED = "__app_seen", "__app_step"
UNKNOWN, MISSING = 2, 127
OLD = "invalid choice", "unrecognized arguments"


class ActionModule(ActionBase):
    """slipway.server.take_back."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """The step that is asked for."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        _valid, given = self.validate_argument_spec(
            argument_spec={
                "app": {"type": "str", "required": True},
                "step": {"type": "str", "choices": ["look", "move", "settle"], "required": True},
                "hosts": {"type": "list", "elements": "str"},
                "to": {"type": "str", "default": ""},
                "reason": {"type": "str", "default": ""},
                "force": {"type": "bool", "default": False},
                "owner": {"type": "str", "default": "ansible"},
                "started": {"type": "bool", "default": False},
            },
        )
        steps = {"look": self._look, "move": self._move, "settle": self._settle}
        try:
            return {**result, "changed": False, **steps[given["step"]](given, variables)}
        except SlipwayError as error:
            return {**result, "changed": False, **error.facts, "failed": True, "msg": str(error)}

    def _look(self, given: dict[str, Any], _variables: dict[str, Any]) -> dict[str, Any]:
        """What this host says of the application; nothing when it does not know it."""
        if not given["app"]:
            raise SlipwayError("a rollback needs the application: -e app=APP. The playbook status.yml shows them all.")
        rc, said, text = ask(self, "status", given["app"])
        if rc == MISSING or (rc == UNKNOWN and said):
            return {"apps": {}}
        return {"apps": {given["app"]: self._good(rc, said, text)}}

    def _move(self, given: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Choose as every other host does, then move the traffic of this one; `asleep` when something must be started first."""
        seen = self._of_all(given, variables, SEEN)
        reports = {host: found["apps"][given["app"]] for host, found in seen.items() if (found or {}).get("apps")}
        choice = fleet.choose_back(given["app"], given["to"], reports)
        asleep = [] if given["started"] else fleet.asleep(choice.target, reports)
        result: dict[str, Any] = {"choice": choice.as_dict(), "asleep": asleep}
        if asleep or not reports.get(variables["inventory_hostname"], {}).get("edge"):
            return result
        options = ["--to", choice.target, "--owner", given["owner"]]
        options += ["--reason", given["reason"]] if given["reason"] else []
        options += ["--force"] if given["force"] else []
        options += ["--dry-run"] if self._task.check_mode else []
        done = self._good(*ask(self, "rollback", given["app"], *options))
        diff = {"before": f"active: {done.get('from')}\n", "after": f"active: {done.get('to')}\n"}
        return {**result, **done, "diff": diff}

    def _settle(self, given: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Stop everywhere when an edge stayed where it was; else mark the slots of this host."""
        moved = self._of_all(given, variables, MOVED)
        failed = fleet.failures(moved, silent_too=False)
        if failed:
            raise SlipwayError("\n".join(failed))
        here = variables["inventory_hostname"]
        choice = moved[here]["choice"]
        report = self._of_all(given, variables, SEEN)[here]["apps"].get(given["app"]) or {"slots": {}}
        if choice["unchanged"] or self._task.check_mode or not any(slot["instances"] for slot in report["slots"].values()):
            return {"skipped": True}
        slots = ["--active", choice["target"], "--standby", choice["active"]]
        return self._good(*ask(self, "settle", given["app"], *slots, "--owner", given["owner"]))

    def _of_all(self, given: dict[str, Any], variables: dict[str, Any], name: str) -> dict[str, Any]:
        """The registered result `name` of each host that the application is on; None of one that did not answer."""
        hosts = given["hosts"] or variables["ansible_play_hosts_all"]
        hostvars: Mapping[str, Any] = variables["hostvars"]
        return {host: hostvars[host].get(name) for host in hosts}

    def _good(self, rc: int, said: dict[str, Any], text: str) -> dict[str, Any]:
        """The answer; raises SlipwayError when it is none."""
        if rc == 0 and said:
            return said
        if said.get("message"):
            facts = {key: value for key, value in said.items() if key not in ("failed", "message")}
            raise SlipwayError(str(said["message"]), facts)
        if rc == MISSING or any(word in text for word in OLD):
            text = "the command slipway is missing or too old for this. Bring it up: run site.yml with --tags app"
        raise SlipwayError(f"{COMMAND} failed with status {rc}: {text or 'it said nothing'}")
