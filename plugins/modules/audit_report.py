#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the report of an audit. It runs on the controller, in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_report
short_description: Judge what an audit saw, and write its report on the controller
version_added: 0.1.0
description:
  - Tries the ports of every host from the controller, too, and compares all that answer with what the plan's firewall opens.
  - Makes scores of what M(slipway.server.audit) and the roles' own reading back found, and writes C(audit.html), a page that
    needs nothing else, and C(audit.json) with the scores of earlier audits.
  - What remains is listed with the reason why it is accepted, or with what to do.
author: slipway.server contributors
options:
  seen:
    description: Results of M(slipway.server.audit) without peers, by host; none where there is none.
    type: dict
    required: true
  looks:
    description: Results of M(slipway.server.audit) with peers, by the host that looked.
    type: dict
    default: {}
  settings:
    description: By host, what its roles could not read back, as mappings with C(role), C(msg) and C(mismatches).
    type: dict
    default: {}
  plans:
    description: The plan of each host; its firewall says which ports are declared.
    type: dict
    default: {}
  addresses:
    description: Addresses under which the controller reaches each host.
    type: dict
    default: {}
  minimum:
    description:
      - The least Lynis index (V(lynis)), and the most of V(ssh_fail), V(ssh_warn), of the exposure of V(app), V(nginx) and
        V(postgresql), and of V(services) that do not run, V(settings), V(drift) and V(ports).
    type: dict
    default: {}
  accepted:
    description: Findings that stay, with C(id) (a pattern) and C(reason), narrowed by C(check), C(text) and C(host).
    type: list
    elements: dict
    default: []
  directory:
    description: Where to write, made when missing. Relative to where ansible-playbook was started.
    type: path
    default: reports
attributes:
  check_mode:
    description: Judges as ever, writes nothing.
    support: full
  diff_mode:
    description: A report is always new.
    support: none
seealso:
  - module: slipway.server.audit
"""

EXAMPLES = r"""
- name: Write the report
  slipway.server.audit_report:
    seen: "{{ ansible_play_hosts_all | slipway.server.slipway_results(hostvars, 'seen') }}"
    plans: "{{ slipway_plan.hosts }}"
    minimum: {lynis: 90}
    accepted:
      - {id: "FILE-6310", reason: one disk by contract}
  run_once: true
"""

RETURN = r"""
lines:
  description: The scores as a table.
  type: list
  elements: str
  returned: success
problems:
  description: What is below the minimum, a sentence each.
  type: list
  elements: str
  returned: success
page:
  description: Path of the page; empty when it could not be written.
  type: str
  returned: success
data:
  description: Path of the JSON file.
  type: str
  returned: success
"""
