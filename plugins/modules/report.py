#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the report of a transaction as a page. It runs on the controller, in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Write the report of a transaction on the controller
version_added: 0.1.0
description:
  - Puts together what M(slipway.server.run_info) returned from every host, and writes two files on the controller, one page
    that needs nothing else (no script, nothing from elsewhere) and the same as JSON.
  - The page shows the share of the traffic, requests, errors and latency of both slots over time with the events marked, the
    numbers of every verdict, the answers to the gate, and when each state was reached.
  - A directory that cannot be written to gives a warning, no failure - a report decides nothing.
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
  told:
    description: Results of M(slipway.server.run_info) by host; hosts without one are left out.
    type: dict
    required: true
  proved:
    description:
      - Results of M(slipway.server.slot) by host. They show how the release did before an edge was asked, and make a page when it
        failed there.
    type: dict
    default: {}
  directory:
    description: Where to write APP-TXN.html and APP-TXN.json, made when missing. Relative to where ansible-playbook was started.
    type: path
    default: reports
  owner:
    description: Who asked for it.
    type: str
    default: ""
  release:
    description: The release, where no line names it.
    type: str
    default: ""
attributes:
  check_mode:
    description: Tells the files and writes none.
    support: full
  diff_mode:
    description: A report is new or the same.
    support: none
"""

EXAMPLES = r"""
- name: Write the report
  slipway.server.report:
    app: spotik
    txn: "{{ deployed.txn }}"
    told: "{{ ansible_play_hosts_all | slipway.server.slipway_results(hostvars, 'told') }}"
    proved: "{{ ansible_play_hosts_all | slipway.server.slipway_results(hostvars, 'started') }}"
  run_once: true
"""

RETURN = r"""
page:
  description: Path of the page; empty when nothing moved.
  type: str
  returned: always
data:
  description: Path of the JSON file.
  type: str
  returned: always
outcome:
  description: V(confirmed), V(rolled back), V(failed) or V(not ended).
  type: str
  returned: when there is a page
"""
