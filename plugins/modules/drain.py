#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: drain a slot of this host, then stop it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drain
short_description: Let the requests and WebSockets of a slot end, then stop it
version_added: 0.1.0
description:
  - Runs on a host of the application, for a slot that has no traffic any more. A slot with the traffic is refused.
  - Requests may end until O(http) seconds have passed. What is open then are WebSockets and other long connections; they may
    stay until O(websockets) seconds have passed. Over the last O(pace) of these seconds the instances are stopped one after the
    other, so that clients connect anew in a spread; stopping an application makes it close its WebSockets properly.
  - As soon as nobody is connected the slot is stopped. Idle connections that nginx keeps are not counted.
  - The host does it in a unit of its own, which goes on when the connection to it is lost, and after a restart. Run again,
    the module drains what still runs.
  - New requests, from an edge elsewhere that went back to the slot, call the drain off, and so does a rollback on this host.
    Instances that were stopped already are then started again, and the module fails.
author: slipway.server contributors
options:
  app:
    description: Name of the application.
    type: str
    required: true
  slot:
    description: The slot.
    type: str
    required: true
  active:
    description: The slot that the edges serve now, where this host is no edge itself.
    type: str
  http:
    description: Seconds for requests. The application's own setting when missing.
    type: float
  websockets:
    description: Seconds for WebSockets, from the beginning too. The application's own setting when missing.
    type: float
  pace:
    description: Seconds over which instances are stopped. The application's own setting when missing.
    type: float
  txn:
    description: The transaction whose lease allows this.
    type: str
  owner:
    description: Who does this, for the history.
    type: str
    default: ansible
attributes:
  check_mode:
    description: Counts the connections and leaves them alone.
    support: full
  diff_mode:
    description: Shows the state of the slot before and after.
    support: full
"""

EXAMPLES = r"""
- name: Stop the former release, WebSockets within two minutes
  slipway.server.drain:
    app: spotik
    slot: blue
    active: green
    websockets: 120
"""

RETURN = r"""
slot:
  description: The slot.
  type: str
  returned: success
state:
  description: V(stopped); in check mode V(draining) when it would be drained.
  type: str
  returned: success
release:
  description: The release in the slot.
  type: str
  returned: success
peak:
  description: Most connections that were open at once, idle ones apart.
  type: int
  returned: when it was drained
drained:
  description: How many of them ended by themselves.
  type: int
  returned: when it was drained
remaining:
  description: How many were open when their instance was stopped. In check mode, how many are open now.
  type: int
  returned: success
seconds:
  description: How long it took.
  type: float
  returned: when it was drained
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host
from ansible_collections.slipway.server.plugins.module_utils.traffic.retire import attend, limits
from ansible_collections.slipway.server.plugins.module_utils.traffic.slots import Request, Slots


def main() -> None:
    """Read parameters, ask the library, answer."""
    times = ("http", "websockets", "pace")
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "slot": {"type": "str", "required": True},
            "active": {"type": "str"},
            **{name: {"type": "float"} for name in times},
            "txn": {"type": "str"},
            "owner": {"type": "str", "default": "ansible"},
        },
        supports_check_mode=True,
    )
    given, host = module.params, Host()
    if module.check_mode and given["app"] not in host.apps():
        text = f"{given['app']} is not described on this host yet"
        module.exit_json(changed=False, slot=given["slot"], state="stopped", release=None, remaining=0, msg=text)
    try:
        app = host.app(given["app"])
        request = Request(given["slot"], None, given["active"], given["txn"], given["owner"])
        chosen = limits(app, {name: given[name] for name in times})
        result = Slots(host, app).drain(request, chosen, not module.check_mode)
        if result["changed"] and not module.check_mode:
            result.update(attend(host, app, given["slot"]))
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    before = "running" if result["changed"] else "stopped"
    module.exit_json(diff={"before": f"{before}\n", "after": "stopped\n"}, **result)


if __name__ == "__main__":
    main()
