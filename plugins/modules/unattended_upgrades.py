#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: security updates by themselves, and proof that they come."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unattended_upgrades
short_description: Let security updates install themselves, each host of a group in its own turn
version_added: 0.1.0
description:
  - Configures the archive's unattended-upgrades and the timer that starts it, as one transaction.
  - Without O(origins) the security archives are those that C(apt-cache policy) of the host names for the distribution that
    C(os-release) names. A host whose archives carry no security updates is an error, since nothing would ever be installed.
  - A timer or service that was disabled or masked is put right.
  - A changed configuration is tried with C(unattended-upgrade --dry-run --debug). When that fails, or allows other origins than
    the declared ones, the old bytes come back.
author: slipway.server contributors
options:
  state:
    description:
      - V(absent) removes what V(present) wrote. Timers go on with the distribution's own settings, unless they were disabled or
        masked before.
      - V(verified) changes nothing, reads back, and lets the dry run prove the origins.
    type: str
    choices: [present, absent, verified]
    default: present
  origins:
    description: Patterns of the origins that are installed, in the form of C(Unattended-Upgrade::Origins-Pattern).
    type: list
    elements: str
    default: []
  hold:
    description: Regular expressions for the beginning of names of packages that are left alone.
    type: list
    elements: str
    default: []
  window:
    description: Begin of the first turn, as a calendar expression of systemd.
    type: str
    default: "*-*-* 04:00"
  spread:
    description: Length of a turn, in which the host has a fixed moment of its own.
    type: str
    default: 20min
  turn:
    description: How many turns of O(gap) minutes this host comes after the first.
    type: int
    default: 0
  gap:
    description: Minutes from one turn to the next.
    type: int
    default: 30
  reboot:
    description: Whether the host restarts when an upgrade asks for it.
    type: bool
    default: false
  reboot_time:
    description: When a host of the first turn restarts, C(HH:MM) or C(now). Others restart in their turn.
    type: str
    default: "05:30"
  mail:
    description: Address for reports. Empty sends none.
    type: str
    default: ""
  remove_unused:
    description: Whether dependencies that nothing needs any more, old kernels included, are removed.
    type: bool
    default: true
attributes:
  check_mode:
    description: Says what would be changed.
    support: full
  diff_mode:
    description: Shows the files before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install security updates, this host an hour after the first of its group
  slipway.server.unattended_upgrades:
    hold: [postgresql, pgbouncer]
    turn: 2
"""

RETURN = r"""
origins:
  description: Patterns of the origins that are installed.
  type: list
  elements: str
  returned: success
next_run:
  description: When the upgrades run next, as systemd says.
  type: str
  returned: success
actions:
  description: What was done to the timers, or in check mode would be.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.converge import ConvergeError
from ansible_collections.slipway.server.plugins.module_utils.settings.proof import end
from ansible_collections.slipway.server.plugins.module_utils.settings.updates import Updates, UpdatesError, Wanted

LIST = {"type": "list", "elements": "str", "default": []}
SPEC = {
    "state": {"type": "str", "choices": ["present", "absent", "verified"], "default": "present"},
    "origins": LIST,
    "hold": LIST,
    "window": {"type": "str", "default": "*-*-* 04:00"},
    "spread": {"type": "str", "default": "20min"},
    "turn": {"type": "int", "default": 0},
    "gap": {"type": "int", "default": 30},
    "reboot": {"type": "bool", "default": False},
    "reboot_time": {"type": "str", "default": "05:30"},
    "mail": {"type": "str", "default": ""},
    "remove_unused": {"type": "bool", "default": True},
}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    given = {key: value for key, value in module.params.items() if key != "state"}
    wanted = Wanted(**{**given, "origins": tuple(given["origins"]), "hold": tuple(given["hold"])})
    updates = Updates(Runner())
    result = {"changed": False, "actions": []}
    try:
        if module.params["state"] == "verified":
            seen = updates.verify(wanted)
        else:
            present = module.params["state"] == "present"
            done = updates.ensure(wanted, module.check_mode) if present else updates.remove(module.check_mode)
            result = {"changed": done.changed, "actions": done.actions, "diff": done.diff()}
            seen = done.seen
        result.update(origins=list(updates.origins(wanted)), next_run=updates.next_run())
    except (UpdatesError, ConvergeError, CommandFailed, OSError) as error:
        module.fail_json(msg=str(error))
    end(module, "unattended_upgrades", seen, result)


if __name__ == "__main__":
    main()
