#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: changes that take themselves back unless they are confirmed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guard
short_description: Arm, confirm or take back a change that could cut the operator off
version_added: 0.1.0
description:
  - C(armed) saves what stands at some paths and sets a timer on the host that puts it back byte for byte, with modes and owners,
    and removes what was not there before. Whatever changes these paths afterwards has until then to prove itself.
  - C(confirmed) makes the change final. It is asked over a connection that is opened for this purpose, with the inventory's user,
    key and port, and shares nothing with the connections before. When none can be opened, the change is taken back and the task
    fails.
  - The timer needs neither a session nor the control node. A restart of the host in the meantime takes the change back as well,
    before anything is started that reads the paths.
  - On the host C(slipway guard status), C(slipway guard confirm NAME) and C(slipway guard revert NAME) do the same.
author: slipway.server contributors
options:
  name:
    description: What is guarded. One change at a time can be armed under a name, and only one for a path.
    type: str
    required: true
  state:
    description: What to do. C(status) only looks, and fails when O(txn) is given and waits no longer.
    type: str
    choices: [armed, confirmed, reverted, status]
    default: status
  paths:
    description: Files, links and directories that are put back; none of them has to be there.
    type: list
    elements: path
    default: []
  back:
    description: Commands that make the old bytes effective, tried several times.
    type: list
    elements: list
    default: []
  seconds:
    description: How long the change waits for its confirmation.
    type: float
    default: 120
  txn:
    description: Name of this one change; made up when absent. With the other states only this change is meant.
    type: str
    default: ""
  reason:
    description: Why it is taken back.
    type: str
    default: by a task
attributes:
  check_mode:
    description: Says whether something would be armed or ended.
    support: full
  diff_mode:
    description: Nothing is shown.
    support: none
seealso:
  - module: slipway.server.sshd
"""

EXAMPLES = r"""
- name: Save the network's configuration
  slipway.server.guard:
    name: network
    state: armed
    paths: [/etc/network/interfaces.d/lan]
    back: [[systemctl, restart, networking.service]]
    seconds: 60

- name: Keep the change, if the host can still be reached
  slipway.server.guard:
    name: network
    state: confirmed
"""

RETURN = r"""
txn:
  description: Name of the change.
  type: str
  returned: success
outcome:
  description: C(armed), C(confirmed), C(reverted), or C(nothing) when nothing is armed.
  type: str
  returned: success
left:
  description: Seconds until an armed change takes itself back.
  type: float
  returned: success
last:
  description: How the last change ended, with C(outcome), C(reason), C(txn), C(paths) and C(faults).
  type: dict
  returned: success
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.guard import armed, install
from ansible_collections.slipway.server.plugins.module_utils.guard.carried import carried
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed
from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner

SPEC: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["armed", "confirmed", "reverted", "status"], "default": "status"},
    "paths": {"type": "list", "elements": "path", "default": []},
    "back": {"type": "list", "elements": "list", "default": []},
    "seconds": {"type": "float", "default": 120},
    "txn": {"type": "str", "default": ""},
    "reason": {"type": "str", "default": "by a task"},
}


def change(module: AnsibleModule, guard: armed.Guard) -> bool:
    """Do what is asked for; True when something changed."""
    params, state = module.params, module.params["state"]
    record = guard.record()
    if state == "status":
        if params["txn"] and (record is None or record.txn != params["txn"]):
            raise armed.GuardError(
                f"change {params['txn']} of {guard.name} waits no longer: {guard.last().get('reason', 'unknown')}"
            )
        return False
    if module.check_mode:
        return state == "armed" or record is not None
    if state == "armed":
        install.ensure(carried(), guard.runner)
        back = [[str(word) for word in argv] for argv in params["back"]]
        txn = params["txn"] or os.urandom(4).hex()
        guard.arm(txn, [Path(path) for path in params["paths"]], back, params["seconds"], "a playbook")
    elif state == "confirmed":
        guard.confirm(params["txn"])
    else:
        return guard.revert(params["txn"], params["reason"]) is not None
    return True


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, required_if=[("state", "armed", ["paths"])])
    try:
        guard = armed.Guard(module.params["name"], Runner())
        changed = change(module, guard)
        record, last = guard.record(), guard.last()
    except (armed.GuardError, ArmingFailed, CommandFailed, OSError) as error:
        module.fail_json(msg=str(error))
    ended = module.params["state"] if module.params["state"] in ("confirmed", "reverted") and changed else "nothing"
    module.exit_json(
        changed=changed,
        txn=record.txn if record else last.get("txn", ""),
        outcome="armed" if record else ended,
        left=guard.left(record) if record else 0.0,
        last=last,
    )


if __name__ == "__main__":
    main()
