#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: traffic back to the last good slot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback
short_description: Move an application's traffic back to the slot that had it before
version_added: 0.1.0
description:
  - Runs on an edge. Takes back a switch that waits for its confirmation, or else goes to the slot that had the traffic before.
  - Looks briefly whether the target answers, moves the flag, and asks through nginx on fresh connections.
  - Leaves the traffic where it is, and fails, when the target does not answer.
  - Does not wait for a running cutover or a lease - that run notices and stops.
author: slipway.server contributors
options:
  app:
    description: Name of the application.
    type: str
    required: true
  to:
    description: V(previous), or the name of a slot.
    type: str
    default: previous
  reason:
    description: Why. Marks the release that loses the traffic as bad, so that it is not deployed again without force.
    type: str
  txn:
    description: Take back only what this transaction moved. On a host where it moved nothing, nothing happens.
    type: str
  owner:
    description: Who does this, for the journal and the history.
    type: str
    default: ansible
  force:
    description: Also go to a release that was taken back before, or to one from before a destructive migration.
    type: bool
    default: false
attributes:
  check_mode:
    description: Looks at the target slot and returns the plan.
    support: full
  diff_mode:
    description: Shows the active slot before and after.
    support: full
"""

EXAMPLES = r"""
- name: Back to the last good release
  slipway.server.rollback:
    app: spotik
    reason: orders fail since the deployment
"""

RETURN = r"""
outcome:
  description: V(rolled_back), V(unchanged), V(planned), or V(aborted) for a cutover that had not moved traffic yet.
  type: str
  returned: always
from:
  description: The slot that had the traffic.
  type: str
  returned: success
to:
  description: The slot that has it now.
  type: str
  returned: success
release:
  description: The release in that slot.
  type: str
  returned: when known
switch_ms:
  description: Milliseconds of the one file operation that moved the traffic.
  type: float
  returned: when traffic moved
verified_ms:
  description: Milliseconds until all looks through nginx had come from the slot.
  type: float
  returned: when traffic moved
recorded:
  description: False when the disk is full, so that journal and history do not tell of it.
  type: bool
  returned: when traffic moved
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host
from ansible_collections.slipway.server.plugins.module_utils.traffic.rollback import PREVIOUS, Request, Rollback


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "to": {"type": "str", "default": PREVIOUS},
            "reason": {"type": "str"},
            "txn": {"type": "str"},
            "owner": {"type": "str", "default": "ansible"},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given, host = module.params, Host()
    if module.check_mode and given["app"] not in host.apps():
        module.exit_json(changed=False, outcome="unchanged", msg=f"{given['app']} is not described on this host yet")
    try:
        rollback = Rollback(host, host.app(given["app"]))
        request = Request(given["to"], given["reason"], given["txn"], given["owner"], given["force"])
        result = rollback.preview(request) if module.check_mode else rollback.run(request)
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    module.exit_json(diff={"before": f"active: {result['from']}\n", "after": f"active: {result['to']}\n"}, **result)


if __name__ == "__main__":
    main()
