#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: traffic to another slot, proven or taken back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cutover
short_description: Move an application's traffic to another slot, prove it, and hold it until it is confirmed
version_added: 0.1.0
description:
  - Runs on an edge, a host with nginx that holds the application's flag files.
  - With O(state=switched) gates every member of the slot from this edge, arms a timer on the host that takes the traffic
    back, moves it in the steps of the application's canary while its requests are judged against those of the former slot,
    then moves all of it in one file operation, asks through nginx on fresh connections whether the new slot answers, watches
    and judges it for the time C(bake) of the application, and then holds it there with the timer still armed.
  - All of that happens in a unit of its own on the host. The task follows it and prints a line for whatever happens; it finds
    it again after a lost connection, and so does a second run with the same O(txn).
  - Takes the traffic back and fails when anything goes wrong after the first request moved. When the unit, its host's
    connection or the control node dies, the host takes the traffic back by itself at the deadline.
  - With O(state=prepared) makes sure, before a candidate is started in the slot, that it stands in for no other any more.
  - With O(state=confirmed) makes the switch final and stops the timer. As a task of its own it comes over a fresh connection.
  - No nginx is reloaded and no connection is closed.
author: slipway.server contributors
options:
  app:
    description: Name of the application, as in C(/etc/slipway/apps/).
    type: str
    required: true
  to:
    description: The slot that gets the traffic. Needed for all states but V(confirmed).
    type: str
  release:
    description: The release that runs in that slot. It is checked where the application tells it, and remembered.
    type: str
  state:
    description:
      - Whether to get a slot ready for a candidate (V(prepared)), to switch and hold, or to make a switch final.
      - V(joined) brings an edge that never served the application to the slot that its other edges serve.
    type: str
    choices: [prepared, switched, confirmed, joined]
    default: switched
  txn:
    description:
      - Name of the transaction, the same on all hosts of one deployment. A run with the same name goes on where an interrupted
        one stopped.
      - Made up when missing; for O(state=confirmed) then the switch that waits is meant.
    type: str
  owner:
    description: Who does this, for the lease, the journal and the history.
    type: str
    default: ansible
  force:
    description: Also move to a release that was taken back before.
    type: bool
    default: false
  migrations:
    description:
      - What the release did to the database. After V(contract) the former release cannot serve any more, so there is no canary,
        no dead man, no failover and no way back without force.
    type: str
    choices: [none, expand, contract]
    default: none
  wait:
    description: Seconds that other edges of the same deployment may still need before this one can be confirmed.
    type: float
    default: 0
  peers:
    description:
      - Hosts of the play that move together with this one, itself among them. When one of them refuses the release, the others
        take their traffic back at the next word from their host, about 5 seconds later, instead of after their own verdict.
    type: list
    elements: str
    default: []
  offset:
    description: Number of the line of the run's progress to go on from. The task sets it while it follows a run.
    type: int
attributes:
  action:
    description: Runs on the controller and asks the host again and again, so that progress is seen while it happens.
    support: full
  check_mode:
    description: Looks at the target slot and returns the plan.
    support: full
  diff_mode:
    description: Shows the active slot before and after.
    support: full
"""

EXAMPLES = r"""
- name: Move the traffic and hold it
  slipway.server.cutover:
    app: spotik
    to: green
    release: v42
    txn: "{{ txn }}"
  register: moved

- name: Make it final
  slipway.server.cutover:
    app: spotik
    state: confirmed
    txn: "{{ moved.txn }}"
"""

RETURN = r"""
outcome:
  description:
    - V(switched), V(confirmed), V(unchanged), V(prepared), V(planned), or V(adopted) when traffic was there and its release is
      now known.
    - In failures V(aborted), V(rolled_back), V(failed) when nothing may be taken back, or V(died) when the run was killed.
  type: str
  returned: always
guilty:
  description: Whether the release itself failed and is marked bad. A hook that aborts, or nginx that ends, is no fault of it.
  type: bool
  returned: when traffic was taken back
txn:
  description: The transaction.
  type: str
  returned: when there is one
from:
  description: The slot that had the traffic.
  type: str
  returned: success
to:
  description: The slot that has it now.
  type: str
  returned: success
switch_ms:
  description: Milliseconds of the one file operation that moved the traffic.
  type: float
  returned: when traffic moved
durable_ms:
  description: The same with its fsync.
  type: float
  returned: when traffic moved
verified_ms:
  description: Milliseconds until all looks through nginx had come from the new slot.
  type: float
  returned: when traffic moved
gate:
  description: How the gate went - attempts, seconds, latency_ms, last_answers.
  type: dict
  returned: when the target was gated
verdicts:
  description: What the jury ruled, step by step.
  type: list
  returned: when traffic moved
progress:
  description: What happened - at, host, state, text, and figures.
  type: list
  returned: when a run was followed
plan:
  description: The steps, in check mode.
  type: list
  returned: check mode
"""

import uuid
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.detached import PATIENCE, PATIENCE_TOGETHER, Detached
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request


def answer(host: Host, given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """What the library says to the parameters; raises SlipwayError."""
    app = host.app(given["app"])
    cutover = Cutover(host, app)
    if given["state"] == "confirmed":
        return cutover.check_confirm(given["txn"]) if check_mode else cutover.confirm(given["txn"], given["owner"])
    txn = given["txn"] or uuid.uuid4().hex[:12]
    request = Request(given["to"], given["release"], txn, given["owner"], given["force"], given["migrations"], given["wait"])
    if given["state"] in ("prepared", "joined"):
        step = cutover.prepare if given["state"] == "prepared" else cutover.join
        return step(request, write=not check_mode)
    if check_mode:
        return cutover.preview(request)
    run = Detached(host, app)
    if given["offset"] is None:
        run.start(request)
    patience = PATIENCE_TOGETHER if len(given["peers"]) > 1 else PATIENCE
    news = run.follow(txn, given["offset"] or 0, patience)
    if news.ended:
        return {**news.facts, "progress": list(news.lines)}
    going_on = {"running": True, "changed": True, "outcome": "running", "txn": txn}
    return {**going_on, "offset": news.offset, "progress": list(news.lines)}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "to": {"type": "str"},
            "release": {"type": "str"},
            "state": {"type": "str", "choices": ["prepared", "switched", "confirmed", "joined"], "default": "switched"},
            "txn": {"type": "str"},
            "owner": {"type": "str", "default": "ansible"},
            "force": {"type": "bool", "default": False},
            "migrations": {"type": "str", "choices": ["none", "expand", "contract"], "default": "none"},
            "wait": {"type": "float", "default": 0},
            "peers": {"type": "list", "elements": "str", "default": []},
            "offset": {"type": "int"},
        },
        required_if=[("state", "switched", ["to"]), ("state", "prepared", ["to"]), ("state", "joined", ["to", "release"])],
        supports_check_mode=True,
    )
    given, host = module.params, Host()
    if module.check_mode and given["app"] not in host.apps():
        text = f"{given['app']} is not described on this host yet; would gate {given['to'] or 'the slot'} and move its traffic"
        module.exit_json(changed=True, outcome="planned", to=given["to"], plan=[text], msg=text)
    try:
        result = answer(host, given, module.check_mode)
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    except OSError as error:
        module.fail_json(msg=f"this host failed: {error}. Traffic stays as its flags say: slipway status {given['app']}.")
    if result.get("running"):
        module.exit_json(**result)
    before = result["to"] if given["state"] == "confirmed" else result["from"]
    module.exit_json(diff={"before": f"active: {before}\n", "after": f"active: {result['to']}\n"}, **result)


if __name__ == "__main__":
    main()
