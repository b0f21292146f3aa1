#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the right to change an application's traffic for a play of several tasks."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Take or give back the right to change an application's slots and traffic
version_added: 0.1.0
description:
  - A play of several tasks takes the lease on every host before it changes anything, and gives it back at its end.
  - While it binds, C(slot) and C(cutover) of other transactions are refused with the name of the holder.
  - Who comes again for a transaction that a unit of this host is moving right now gets it once that has ended.
  - A lease that expired, or that was taken before the host was restarted, is taken over, with a line in the history.
author: slipway.server contributors
options:
  app:
    description: Name of the application.
    type: str
    required: true
  state:
    description: Take (or prolong) the lease, or give it back.
    type: str
    choices: [present, absent]
    default: present
  txn:
    description: The transaction, the same on all hosts of one deployment.
    type: str
    required: true
  owner:
    description: Who does this.
    type: str
    default: ansible
  ttl:
    description: Seconds after which the lease expires by itself.
    type: float
    default: 1800
  release:
    description: The release that is deployed, so that a second run for the same one can go on where a dead one stopped.
    type: str
  force:
    description: Take or remove somebody else's lease too. The history tells so.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says whether the lease is free.
    support: full
  diff_mode:
    description: Shows the holder before and after.
    support: full
"""

EXAMPLES = r"""
- name: Be the only one
  slipway.server.lease:
    app: spotik
    txn: "{{ txn }}"
    owner: "{{ lookup('ansible.builtin.env', 'USER') }}"

- name: Let others in
  slipway.server.lease:
    app: spotik
    txn: "{{ txn }}"
    state: absent
"""

RETURN = r"""
holder:
  description: Who holds the lease now - txn, owner, expires_in (seconds), stale (why it binds nobody, or null).
  type: dict
  returned: when there is one
taken_over:
  description: The stale or forced lease that was replaced.
  type: dict
  returned: when there was one
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host
from ansible_collections.slipway.server.plugins.module_utils.traffic.lease import change
from ansible_collections.slipway.server.plugins.module_utils.traffic.under_way import let_end


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "txn": {"type": "str", "required": True},
            "owner": {"type": "str", "default": "ansible"},
            "ttl": {"type": "float", "default": 1800},
            "release": {"type": "str"},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given, host = module.params, Host()
    if module.check_mode and given["app"] not in host.apps():
        module.exit_json(changed=given["state"] == "present", msg=f"{given['app']} is not described on this host yet")
    try:
        app = host.app(given["app"])
        name = app.name
        leases, records = host.leases(name), host.records(name)
        ttl = given["ttl"] if given["state"] == "present" else None
        if ttl is not None and not module.check_mode:
            let_end(host, app, given["txn"])
        with host.lock(name).held(f"{given['owner']} changing the lease of {name}", wait=2.0):
            done = change(leases, given["txn"], given["owner"], ttl, given["force"], not module.check_mode, given["release"])
            if done.taken_over is not None and not module.check_mode:
                records.remember("lease_taken_over", txn=given["txn"], owner=given["owner"], before=done.taken_over)
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    module.exit_json(
        changed=done.changed,
        holder=done.after,
        taken_over=done.taken_over,
        diff={"before": f"{(done.before or {}).get('txn')}\n", "after": f"{(done.after or {}).get('txn')}\n"},
    )


if __name__ == "__main__":
    main()
