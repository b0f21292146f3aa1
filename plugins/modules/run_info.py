#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: what one transaction told on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_info
short_description: Return what a transaction told on a host while it ran
version_added: 0.1.0
description:
  - Reads the lines that a move of traffic wrote - states, steps of the canary, verdicts, requests per second. Changes nothing.
  - M(slipway.server.report) makes a page of them.
author: slipway.server contributors
options:
  app:
    description: Name of the application.
    type: str
    required: true
  txn:
    description: The transaction.
    type: str
    required: true
  limit:
    description: How many lines to return at most, the newest ones.
    type: int
    default: 2000
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Read what the last deployment told
  slipway.server.run_info:
    app: spotik
    txn: "{{ deployed.txn }}"
  register: told
"""

RETURN = r"""
lines:
  description: One for each thing that happened, with at (seconds since the epoch), host, state, text and others where they apply.
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.traffic.disk import Disk
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.layout import Layout
from ansible_collections.slipway.server.plugins.module_utils.traffic.progress import Progress


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "txn": {"type": "str", "required": True},
            "limit": {"type": "int", "default": 2000},
        },
        supports_check_mode=True,
    )
    given, layout = module.params, Layout()
    if not layout.config(given["app"]).is_file():
        module.exit_json(changed=False, lines=[])
    try:
        lines, _next = Progress(Disk(), Clock(), layout.runs(given["app"]), given["txn"], "").lines()
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    module.exit_json(changed=False, lines=lines[-given["limit"] :])


if __name__ == "__main__":
    main()
