#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the changes that a release wants to make to its database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: migrations
short_description: Ask a release which changes of the database it needs, and apply them exactly once
version_added: 0.1.0
description:
  - Runs on the one host that the application's description names. The candidate in O(slot) must run there already.
  - Its C(check) is run in the candidate's own image or directory, as its user and with its environment.
    It says by exit status what is pending - nothing (0), only additions (10, expand), or what the release before cannot live with
    (20, contract).
  - A contract needs a backup that is younger than the description demands, or it is refused. From then on RV(rollback_allowed) is
    false, and nothing may take traffic back by itself.
  - C(apply) runs in a transient unit, which a killed module or a lost connection does not stop. The next run, of the same
    transaction or of another one, waits for it and looks how it ended, instead of running it twice.
author: slipway.server contributors
options:
  app:
    description: Name of the application.
    type: str
    required: true
  slot:
    description: The slot of the candidate.
    type: str
    required: true
  release:
    description: The candidate.
    type: str
    required: true
  txn:
    description: The transaction whose lease allows this.
    type: str
    required: true
  state:
    description: Whether to ask only, or to apply what is pending.
    type: str
    choices: [checked, applied]
    default: applied
  active:
    description: The slot that the edges serve now, where this host is no edge itself.
    type: str
  backup:
    description: The record of the newest backup as JSON, where it was read on another host. It replaces the file and the command.
    type: str
  owner:
    description: Who does this, for the history.
    type: str
    default: ansible
attributes:
  check_mode:
    description: Asks the candidate, if it runs, and returns what would be applied.
    support: full
  diff_mode:
    description: Shows what is pending before and after.
    support: full
"""

EXAMPLES = r"""
- name: Apply what the candidate needs
  slipway.server.migrations:
    app: spotik
    slot: green
    release: v42
    txn: "{{ txn }}"
  register: migrated
"""

RETURN = r"""
pending:
  description: What the check said - V(none), V(expand) or V(contract). Nothing in check mode while the candidate does not run.
  type: str
  returned: success
migrations:
  description:
    - V(none), V(expand) or V(contract), for the transaction that moves traffic. It is V(contract) also when nothing is pending
      any more, but what serves now was started before the last contract.
  type: str
  returned: when the candidate was asked
rollback_allowed:
  description: Whether the release that serves now could get its traffic back.
  type: bool
  returned: when the candidate was asked
applied:
  description: Whether migrations were applied, now or by an interrupted run of this transaction.
  type: bool
  returned: success
backup:
  description: The backup that allows a contract.
  type: str
  returned: success
attached:
  description: True when they had been started by an interrupted run.
  type: bool
  returned: when they were applied
seconds:
  description: How long they took.
  type: float
  returned: when they were applied
output:
  description: Their last lines, secrets masked.
  type: list
  returned: when they were applied
logs:
  description: Last log lines by unit, secrets masked.
  type: dict
  returned: failure of the migrations
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host
from ansible_collections.slipway.server.plugins.module_utils.traffic.migrations import Migrator, Request


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "slot": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "txn": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["checked", "applied"], "default": "applied"},
            "active": {"type": "str"},
            "backup": {"type": "str"},
            "owner": {"type": "str", "default": "ansible"},
        },
        supports_check_mode=True,
    )
    given, host = module.params, Host()
    if module.check_mode and given["app"] not in host.apps():
        text = f"{given['app']} is not described on this host yet; its migrations would be asked for"
        module.exit_json(changed=False, pending=None, applied=False, backup=None, msg=text)
    request = Request(given["slot"], given["release"], given["txn"], given["active"], given["backup"], given["owner"])
    try:
        migrator = Migrator(host, host.app(given["app"]))
        result = migrator.apply(request) if given["state"] == "applied" and not module.check_mode else migrator.look(request)
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    if given["state"] == "checked":
        result["changed"] = False
    after = "none" if result["changed"] else result["pending"]
    module.exit_json(diff={"before": f"pending: {result['pending']}\n", "after": f"pending: {after}\n"}, **result)


if __name__ == "__main__":
    main()
