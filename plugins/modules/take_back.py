#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of the same name, which asks the command of each host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: take_back
short_description: Take an application back on all hosts of a play
version_added: 0.1.0
author:
  - slipway.server contributors (@slipway-server)
description:
  - The three steps of C(rollback.yml), each in one round trip to all hosts at once. The command C(slipway) of each host does the
    work, so nothing is carried there.
  - V(look) asks every host where the traffic is. V(move) chooses the slot from all answers, on every host the same, and moves the
    traffic of edges. V(settle) stops on all hosts when one edge stayed where it was, and else keeps the slot that was left warm.
  - A host that does not answer stops no rollback; edges look whether the slot they go to is well.
  - On a single edge M(slipway.server.rollback) does the same for that host alone.
options:
  app:
    description: Name of the application.
    type: str
    required: true
  step:
    description: What to do. Later steps read what V(look) registered as C(__app_seen) and V(move) as C(__app_step).
    type: str
    choices: [look, move, settle]
    required: true
  hosts:
    description: Hosts of the application; those of the play when missing.
    type: list
    elements: str
  to:
    description: Slot to go to; the one that had the traffic before when empty.
    type: str
    default: ''
  reason:
    description: Why. Marks the release that loses the traffic as bad, so that it is not deployed again without force.
    type: str
    default: ''
  force:
    description: Also go to a release that was taken back before, or to one from before a destructive migration.
    type: bool
    default: false
  owner:
    description: Who does this, for the journal and the history.
    type: str
    default: ansible
  started:
    description: Whether the slot was started where it did not run. V(move) otherwise names these hosts and moves nothing.
    type: bool
    default: false
attributes:
  check_mode:
    description: Looks at the slot and returns the plan; V(settle) is skipped.
    support: full
  diff_mode:
    description: Shows the active slot before and after.
    support: full
  action:
    description: Runs on the controller and asks the command of the host.
    support: full
seealso:
  - module: slipway.server.rollback
  - module: slipway.server.slot_info
"""

EXAMPLES = r"""
- name: Look at the slots of every host
  slipway.server.take_back:
    app: spotik
    step: look
  register: __app_seen

- name: Move traffic back
  slipway.server.take_back:
    app: spotik
    step: move
    reason: orders fail since the deployment
  register: __app_step

- name: Keep the slot that was left for a while
  slipway.server.take_back:
    app: spotik
    step: settle
"""

RETURN = r"""
apps:
  description: The application as this host knows it, like the result of M(slipway.server.slot_info).
  type: dict
  returned: step is look
choice:
  description: active, target, release and unchanged; the same on every host.
  type: dict
  returned: step is move
asleep:
  description: Hosts on which the slot to go to does not run; nothing was moved then.
  type: list
  elements: str
  returned: step is move
outcome:
  description: V(rolled_back), V(unchanged), V(planned), or V(aborted) for a cutover that had not moved traffic yet.
  type: str
  returned: step is move, on edges
switch_ms:
  description: Milliseconds of the one file operation that moved the traffic.
  type: float
  returned: step is move, when traffic moved
"""
