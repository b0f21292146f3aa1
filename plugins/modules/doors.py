#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: ports of this host's applications shut to new requests for a while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: doors
short_description: Take the slots of this host out of traffic for a while, and put them back
version_added: 0.1.0
description:
  - New connections to the applications' ports are refused, so that every edge asks another host of the application at once.
    Nothing is reloaded and no connection is closed. Then connections may end until O(drain) seconds have passed.
  - An application that no other host serves stays open.
  - V(open) gates every slot that serves here first, and leaves the doors shut when one is not well.
  - A timer of systemd opens them after O(seconds) whatever becomes of the run; so does a restart of the host.
author: slipway.server contributors
options:
  state:
    description:
      - V(shut), V(open), or V(kept), which leaves shut what is shut until somebody opens it.
      - V(gated) changes nothing and fails when a service or a slot of this host is not well, or a deployment is under way.
    type: str
    choices: [shut, open, kept, gated]
    default: shut
  seconds:
    description: When the timer opens them.
    type: float
    default: 900
  drain:
    description: Seconds that connections get to end.
    type: float
    default: 25
attributes:
  check_mode:
    description: Says what would be shut.
    support: full
  diff_mode:
    description: There are no files to compare.
    support: none
"""

EXAMPLES = r"""
- name: Take this host out of traffic
  slipway.server.doors:
    state: shut

- name: Put it back once everything on it is well
  slipway.server.doors:
    state: open
"""

RETURN = r"""
elsewhere:
  description: Whether other hosts serve everything that this host serves.
  type: bool
  returned: success
apps:
  description: Applications that serve here, with their active slot.
  type: dict
  returned: success
remaining:
  description: Connections that were open when their time was over; WebSockets mostly.
  type: int
  returned: when they were shut
shut:
  description: Whether doors were shut, by a run that failed or was killed.
  type: bool
  returned: for V(open) and V(gated)
gated:
  description: Slots that passed their gate.
  type: list
  elements: str
  returned: for V(open) and V(gated)
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed
from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed
from ansible_collections.slipway.server.plugins.module_utils.traffic import doors, host_gate
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["shut", "open", "kept", "gated"], "default": "shut"},
            "seconds": {"type": "float", "default": 900},
            "drain": {"type": "float", "default": 25},
        },
        supports_check_mode=True,
    )
    host = Host()
    try:
        module.exit_json(**act(module, host, module.params["state"]))
    except (SlipwayError, ArmingFailed, CommandFailed) as error:
        module.fail_json(msg=str(error))


def act(module: AnsibleModule, host: Host, state: str) -> dict:
    """Do it and say what was done."""
    found = host_gate.serving(host)
    away = [(app, active) for app, active in found if doors.served_elsewhere(app, active)]
    result = {"changed": False, "apps": {app.name: active for app, active in found}, "elsewhere": len(away) == len(found)}
    entrance = doors.Doors(host.runner, host.clock)
    if state in ("gated", "open"):
        well = host_gate.judge(host)
        problems = well.problems + (host_gate.under_way(host) if state == "gated" else [])
        if problems:
            module.fail_json(msg="this host is not well:\n" + "\n".join(f"- {line}" for line in problems), **result)
        result["gated"] = well.gated
        result["shut"] = entrance.are_shut()
    if module.check_mode or state == "gated":
        return {**result, "changed": state == "shut" and bool(away)}
    if state == "shut" and away:
        rules = doors.rules(doors.places([app for app, _active in away]), "refused")
        result["changed"] = entrance.shut(rules, module.params["seconds"])
        result["remaining"] = host_gate.drained(host, away, module.params["drain"])
    elif state == "open":
        result["changed"] = entrance.open()
    elif state == "kept":
        entrance.keep()
        result["by_hand"] = entrance.by_hand() if entrance.are_shut() else ""
    return result


if __name__ == "__main__":
    main()
