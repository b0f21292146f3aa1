#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Check the inventory and size every role of the fleet
version_added: 0.1.0
author:
  - slipway.server contributors (@slipway-server)
description:
  - Reads C(slipway_apps), C(slipway_registries), groups, host variables and facts, and answers with the variables of every role
    on every host, sized so that they fit together.
  - All problems are reported in one failure, each with host or app, key and remedy. Values of secrets are never shown.
  - Runs on the controller and contacts no host. Role variables that the inventory sets itself win and are checked too.
options:
  stage:
    description:
      - V(inventory) only checks what the inventory declares and needs no facts; it answers with the variables of the role
        P(slipway.server.preflight#role).
      - V(full) checks, sizes and cross-checks. Hosts without facts get only the variables that need none.
    type: str
    choices: [inventory, full]
    default: full
  enforce:
    description:
      - Whether a violated cross-check fails the task. V(false) is for printing a plan that does not fit.
    type: bool
    default: true
  all_apps:
    description:
      - Whether C(slipway_apps) names all applications of the fleet, so that one that a host has besides them is a problem.
    type: bool
    default: false
attributes:
  check_mode:
    description: Runs the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  action:
    description: Runs on the controller.
    support: full
notes:
  - Run it once for the play (C(run_once)), after M(slipway.server.preflight) and facts of the subset C(network).
  - What the preflight module returned is used first, versions of packages among it. Without it the subsets C(hardware) and
    C(virtual) are needed, too.
seealso:
  - module: slipway.server.preflight
"""

EXAMPLES = r"""
- name: Refuse an unfinished inventory before any host is contacted
  slipway.server.plan:
    stage: inventory
  run_once: true

- name: Plan the fleet
  slipway.server.plan:
  run_once: true
  register: slipway_plan

- name: Show the limits of this host
  ansible.builtin.debug:
    var: slipway_plan.hosts[inventory_hostname].kernel_sysctl
"""

RETURN = r"""
hosts:
  description: Role variables by host, free of secrets.
  returned: success
  type: dict
  sample: {"db1": {"postgresql_settings": {"shared_buffers": "1900MB"}}}
checks:
  description: Every cross-check with its two numbers.
  returned: success
  type: list
  elements: dict
  contains:
    number:
      description: Number of the rule.
      type: int
    id:
      description: Name of the rule; docs/plan.md lists them.
      type: str
    rule:
      description: The relation that must hold.
      type: str
    host:
      description: Host it was checked on.
      type: str
    ok:
      description: Whether it holds.
      type: bool
    have:
      description: The number found.
      type: str
    limit:
      description: The number it is compared with.
      type: str
    variable:
      description: What to change when it does not hold.
      type: str
    remedy:
      description: How to change it.
      type: str
table:
  description: Sizes for printing, with the reason of each.
  returned: success
  type: list
  elements: dict
"""
