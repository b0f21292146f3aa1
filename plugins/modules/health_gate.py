#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: wait until something is proven healthy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_gate
short_description: Wait until a target has proven itself healthy
version_added: 0.1.0
description:
  - Asks for O(successes) good answers in a row, the first and the last at least O(min_healthy) seconds apart.
  - No redirect is followed, and each answer has one limit for all of it.
  - Fails at once when the process behind the target dies or restarts, and shows its last log lines.
author: slipway.server contributors
options:
  target:
    description:
      - For O(type=http) a URL, for O(type=tcp) C(ADDRESS:PORT), for O(type=unix) and O(type=unix_http) the path of a socket.
    type: str
    required: true
  type:
    description: How to look.
    type: str
    choices: [http, tcp, unix, unix_http]
    default: http
  path:
    description: What to ask for through a unix socket.
    type: str
    default: /
  method:
    description: HTTP method.
    type: str
    default: GET
  headers:
    description: HTTP headers of the request; C(Host) may be among them.
    type: dict
    default: {}
  connect:
    description: Connect to this C(ADDRESS:PORT) instead of what the URL says.
    type: str
  status:
    description: HTTP status codes that are well.
    type: list
    elements: int
    default: [200]
  json:
    description: Values that the JSON answer must have, by path; C(*) stands for all members, as in C(checks.*.status).
    type: dict
    default: {}
  body:
    description: Regular expression that the body must contain.
    type: str
  response_headers:
    description: Regular expressions that headers of the answer must match, by name.
    type: dict
    default: {}
  max_latency_ms:
    description: Slowest answer that is well, in milliseconds.
    type: float
  validate_certs:
    description: Whether the certificate must be valid for the name in the URL.
    type: bool
    default: true
  ca_path:
    description: Certificates to trust instead of the system's.
    type: path
  successes:
    description: Good answers in a row.
    type: int
    default: 3
  interval:
    description: Seconds between two looks.
    type: float
    default: 1
  timeout:
    description: Seconds for one look.
    type: float
    default: 5
  min_healthy:
    description: Seconds between the first and the last of the good answers, at least.
    type: float
    default: 5
  deadline:
    description: Seconds after which the target has failed.
    type: float
    default: 60
  unit:
    description: The systemd unit behind the target.
    type: str
  container:
    description: The Docker container behind the target.
    type: str
attributes:
  check_mode:
    description: Really looks, once, and reports without failing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Wait until the application and all that it needs are well
  slipway.server.health_gate:
    target: http://127.0.0.1:3000/health
    headers: {Host: api.spotik.example}
    json: {"checks.*.status": ok}
    unit: spotik.service
"""

RETURN = r"""
healthy:
  description: The verdict.
  type: bool
  returned: always
reason:
  description: Why.
  type: str
  returned: always
attempts:
  description: How often it looked.
  type: int
  returned: always
consecutive:
  description: Good answers in a row at the end.
  type: int
  returned: always
seconds:
  description: How long that took.
  type: float
  returned: always
first_healthy_after:
  description: Seconds until the first good answer.
  type: float
  returned: when there was one
latency_ms:
  description: p50, p95 and max of the good answers.
  type: dict
  returned: always
last_answers:
  description: The last answers, one a line.
  type: list
  returned: always
logs:
  description: Last log lines of the unit or container.
  type: list
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.health import gate, probes, process
from ansible_collections.slipway.server.plugins.module_utils.health.http import Expectation
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner

SPEC = {
    "target": {"type": "str", "required": True},
    "type": {"type": "str", "choices": ["http", "tcp", "unix", "unix_http"], "default": "http"},
    "path": {"type": "str", "default": "/"},
    "method": {"type": "str", "default": "GET"},
    "headers": {"type": "dict", "default": {}},
    "connect": {"type": "str"},
    "status": {"type": "list", "elements": "int", "default": [200]},
    "json": {"type": "dict", "default": {}},
    "body": {"type": "str"},
    "response_headers": {"type": "dict", "default": {}},
    "max_latency_ms": {"type": "float"},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "successes": {"type": "int", "default": 3},
    "interval": {"type": "float", "default": 1},
    "timeout": {"type": "float", "default": 5},
    "min_healthy": {"type": "float", "default": 5},
    "deadline": {"type": "float", "default": 60},
    "unit": {"type": "str"},
    "container": {"type": "str"},
}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, mutually_exclusive=[("unit", "container")], supports_check_mode=True)
    given, runner = module.params, Runner()
    answers = {name: str(value) for name, value in given["response_headers"].items()}
    expected = Expectation(tuple(given["status"]), given["json"], given["body"], answers, given["max_latency_ms"])
    asked = {name: str(value) for name, value in given["headers"].items()}
    options = probes.ProbeOptions(
        expected,
        asked,
        given["timeout"],
        given["path"],
        given["method"],
        given["connect"],
        given["validate_certs"],
        given["ca_path"],
    )
    behind = None
    if given["unit"]:
        behind = process.UnitProcess(runner, given["unit"])
    elif given["container"]:
        behind = process.ContainerProcess(runner, given["container"])
    watcher = process.Watcher([behind] if behind else [])
    rules = gate.GateRules(given["successes"], given["interval"], given["min_healthy"], given["deadline"])
    if module.check_mode:
        rules = gate.GateRules(successes=1, min_healthy=0, deadline=0)
    try:
        report = gate.run([probes.make(given["type"], given["target"], options)], rules, Clock(), watcher.died)
    except probes.BadTarget as error:
        module.fail_json(msg=f"{error}.")
    result = report.as_dict()
    if report.healthy or module.check_mode:
        module.exit_json(changed=False, **result)
    logs = behind.logs() if behind else []
    text = "\n  ".join([f"{given['target']} is not healthy: {report.reason}. Last answers:", *report.lines()])
    if behind:
        text += "\n" + "\n  ".join([f"Last log lines of {behind.name}:", *logs])
    module.fail_json(msg=text, logs=logs, **result)


if __name__ == "__main__":
    main()
