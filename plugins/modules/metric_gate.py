#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: a verdict on live traffic."""

from __future__ import annotations

DOCUMENTATION = r"""
module: metric_gate
short_description: Judge a slot by the live traffic that it serves
version_added: 0.1.0
description:
  - Reads the access log that nginx writes for an application, probes left out and rotations followed, and judges the requests of
    a slot against limits and against another slot in the same time.
  - Fails when the verdict, or the policy for an inconclusive one, is V(fail). Errors and slowness that the other slot has, too,
    condemn nobody.
author: slipway.server contributors
options:
  app:
    description: Name of the application, as described on this edge.
    type: str
    required: true
  slot:
    description: The slot to judge.
    type: str
    required: true
  control:
    description: The slot to compare with. Limits alone decide when missing.
    type: str
  seconds:
    description: How long to watch. Ends at once when as many requests in a row fail as are never too few.
    type: float
    default: 30
  since:
    description:
      - Judge what came after this as well, a RV(position) that an earlier call returned. Otherwise what comes from now on.
    type: dict
  log_path:
    description: The access log, when it is not the one that the role nginx sets up.
    type: path
  look:
    description: Which of O(looks) this one is.
    type: int
    default: 1
  looks:
    description: How often a release is judged at most. Each look must be so much surer that all together err no more than one.
    type: int
    default: 1
  limits:
    description: Other limits than C(cutover.verdict) of the application says.
    type: dict
    default: {}
    suboptions:
      error_percent:
        description: Share of 5xx answers that is too much.
        type: float
      usual_error_percent:
        description: Share of 5xx answers that is nobody's fault.
        type: float
      mean_ms:
        description: Mean latency that is too much, in milliseconds.
        type: float
      mean_warning_ms:
        description: Mean latency that is worth a warning, in milliseconds.
        type: float
      p95_ms:
        description: Latency that 95 of 100 answers must keep, in milliseconds.
        type: float
      p99_ms:
        description: Latency that 99 of 100 answers must keep, in milliseconds.
        type: float
      ratio:
        description: How many times slower or more faulty than the control is a fault.
        type: float
      alpha:
        description: Chance that a good release is condemned, over all looks.
        type: float
      min_samples:
        description: Requests before anything is said.
        type: int
      burst:
        description: Failed requests in a row that need no more samples.
        type: int
      on_inconclusive:
        description: What to do when there is no telling.
        type: str
        choices: [hold, pass, fail]
attributes:
  check_mode:
    description: Really watches, and reports without failing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Judge the new slot beside the old one for a minute
  slipway.server.metric_gate:
    app: spotik
    slot: green
    control: blue
    seconds: 60

- name: Remember where the log ends now
  slipway.server.metric_gate:
    app: spotik
    slot: green
    seconds: 0
  register: start

- name: Judge all requests since then, the first of three looks
  slipway.server.metric_gate:
    app: spotik
    slot: green
    control: blue
    since: "{{ start.position }}"
    seconds: 0
    looks: 3
    limits: {p99_ms: 900, on_inconclusive: fail}
"""

RETURN = r"""
outcome:
  description: V(pass), V(fail) or V(inconclusive).
  type: str
  returned: always
action:
  description: V(pass), V(fail) or V(hold), which is the policy's word on an inconclusive outcome.
  type: str
  returned: always
reasons:
  description: Why, each with what was seen and what it is held against.
  type: list
  returned: always
warnings_seen:
  description: What else was seen.
  type: list
  returned: always
lines:
  description: The whole verdict for people.
  type: list
  returned: always
candidate:
  description: Figures of the slot - requests, errors, error_percent, mean_ms, p50_ms, p95_ms, p99_ms.
  type: dict
  returned: always
control:
  description: The same of the slot beside it.
  type: dict
  returned: always
error_p:
  description: P-value of Fisher's exact test that the slot fails more often than the control.
  type: float
  returned: when compared
error_ratio:
  description: How many times as often it fails.
  type: float
  returned: when compared and the control failed at all
latency_p:
  description: P-value of the rank sum test, endpoint by endpoint, that it is slower.
  type: float
  returned: when compared
latency_ratio:
  description: How many times as long a typical answer takes.
  type: float
  returned: when compared
threshold:
  description: What the p-values are held against.
  type: float
  returned: always
position:
  description: Where the log ended, for O(since).
  type: dict
  returned: always
foreign:
  description: Lines that could not be read.
  type: int
  returned: always
lost:
  description: Files of the log that were gone before they had been read.
  type: int
  returned: always
"""

from dataclasses import replace
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.health.access_log import AccessLog, Position
from ansible_collections.slipway.server.plugins.module_utils.health.limits import COUNTS, DECIMALS, POLICIES
from ansible_collections.slipway.server.plugins.module_utils.health.samples import Figures
from ansible_collections.slipway.server.plugins.module_utils.health.verdict import judge
from ansible_collections.slipway.server.plugins.module_utils.health.watch import watch
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host

LIMITS = {name: {"type": "float"} for name in DECIMALS}
LIMITS.update({name: {"type": "int"} for name in COUNTS})
SPEC = {
    "app": {"type": "str", "required": True},
    "slot": {"type": "str", "required": True},
    "control": {"type": "str"},
    "seconds": {"type": "float", "default": 30},
    "since": {"type": "dict"},
    "log_path": {"type": "path"},
    "look": {"type": "int", "default": 1},
    "looks": {"type": "int", "default": 1},
    "limits": {
        "type": "dict",
        "default": {},
        "options": {**LIMITS, "on_inconclusive": {"type": "str", "choices": list(POLICIES)}},
    },
}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    given, host = module.params, Host()
    try:
        app = host.app(given["app"])
        slot, control = (app.slot(name).name if name else "" for name in (given["slot"], given["control"]))
        limits = replace(app.verdict, **{name: value for name, value in given["limits"].items() if value is not None})
        problem = limits.problem()
        if problem:
            module.fail_json(msg=f"limits.{problem[0]} must be {problem[1]}.")
        log = AccessLog(Path(given["log_path"] or host.layout.access_log(app.name)), app.members())
        since = Position.of(given["since"]) if given["since"] else log.position()
        figures, position = watch(
            log, since, given["seconds"], host.clock, lambda now: now.get(slot, Figures()).burst >= limits.burst
        )
        verdict = judge(
            figures.get(slot, Figures(slot)),
            figures.get(control, Figures(control)) if control else None,
            limits,
            given["look"],
            given["looks"],
        )
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    except (ValueError, OSError) as error:
        module.fail_json(msg=f"{given['app']}: {error}.")
    result = verdict.as_dict()
    result.update(
        warnings_seen=result.pop("warnings"),
        lines=verdict.lines(),
        position=position.as_dict(),
        foreign=log.foreign,
        lost=log.lost,
    )
    if verdict.action == "fail" and not module.check_mode:
        text = "\n  ".join([f"Slot {slot} of {app.name} does not prove itself on live traffic.", *verdict.lines()])
        module.fail_json(msg=text, **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
