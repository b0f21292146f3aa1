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
  - Each answer has one limit for all of it, in time and in bytes, and no redirect is followed unless O(redirects) says so.
  - Fails at once when the process behind the target dies or restarts, and shows the last answers and its last log lines.
  - Needs nothing on the host but Python. PostgreSQL and Redis are asked by their own protocols.
author: slipway.server contributors
options:
  target:
    description:
      - What to look at. Not for O(type=exec), required for all others.
      - For O(type=http) and O(type=websocket) a URL, for O(type=tcp) C(ADDRESS:PORT).
      - For O(type=unix) and O(type=unix_http) the path of a socket.
      - For O(type=unit) and O(type=container) its name.
      - For O(type=redis) a URL such as V(redis://user@127.0.0.1:6379/0), V(rediss://…) with TLS, or
        V(unix:///run/redis/redis.sock).
      - For O(type=postgresql) a URL such as V(postgresql://user@127.0.0.1:5432/database?sslmode=require), or with
        V(?host=/run/postgresql).
      - For O(type=pgbouncer) the socket of the pooler, such as V(/var/run/postgresql/.s.PGSQL.6432).
      - A password never belongs into it, but into O(password).
    type: str
  type:
    description:
      - How to look, and what a good answer proves.
      - V(http) and V(unix_http), one request whose answer is as O(status), O(json), O(body), O(response_headers) and
        O(max_latency_ms) say.
      - V(tcp) and V(unix), something accepts the connection; not that it works.
      - V(websocket), status 101 with the accept key that belongs to the key sent, and a ping that comes back as a pong.
      - V(exec), O(command) ends in time with O(exit_status) and O(output); after O(timeout) all of its process group is killed.
      - V(unit), active and running, and the same process since the first look.
      - V(container), running, the same process since the first look, and C(healthy) where it has a health check
        of its own.
      - V(redis), PING is answered by PONG, after AUTH with O(password).
      - V(postgresql), C(SELECT 1) is answered as that user in that database. Where the server asks for a password and
        there is none, that it takes connections, which C(last_answers) then says. C(scram-sha-256), C(md5), and with TLS or
        on the host itself C(password) are understood.
      - V(pgbouncer), nothing is paused or disabled and no client waits for a session, as the pooler's own console says.
    type: str
    choices: [http, tcp, unix, unix_http, websocket, exec, unit, container, postgresql, redis, pgbouncer]
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
  redirects:
    description: How many redirects to follow, within O(timeout) for all of them.
    type: int
    default: 0
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
    description: Regular expression that the body must contain. The first 256 KiB of a body are judged.
    type: str
  response_headers:
    description: Regular expressions that headers of the answer must match, by name.
    type: dict
    default: {}
  max_latency_ms:
    description: Slowest answer that is well, in milliseconds.
    type: float
  validate_certs:
    description: Whether the certificate must be valid for the name in the URL. For PostgreSQL C(sslmode) in the URL says so.
    type: bool
    default: true
  ca_path:
    description: Certificates to trust instead of the system's.
    type: path
  password:
    description: Password for O(type=redis) and O(type=postgresql). It is in no command line and in no message.
    type: str
  command:
    description: Command of O(type=exec), a list of words; no shell. It runs in check mode, too, so it must only look.
    type: list
    elements: str
  exit_status:
    description: Exit statuses of the command that are well.
    type: list
    elements: int
    default: [0]
  output:
    description: Regular expression that the output of the command, both streams, must contain.
    type: str
  warmup:
    description:
      - URLs, or paths on the site of O(target), that are requested once after the first good answer, before the
        counting begins.
      - Their answers are not judged; a request that got none is shown. For O(type=http).
    type: list
    elements: str
    default: []
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
  start_period:
    description: Seconds that a start may take. The deadline runs from the first good answer, at the latest from the end of these.
    type: float
    default: 0
  unit:
    description: The systemd unit behind the target.
    type: str
  container:
    description: The Docker container behind the target.
    type: str
  log_lines:
    description: How many of the last log lines to show.
    type: int
    default: 20
  hide:
    description: Texts that must not be seen in answers and log lines, as secrets of the application.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Really looks, once, and reports without failing. Nothing is warmed up.
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

- name: See that WebSockets go through the proxy
  slipway.server.health_gate:
    type: websocket
    target: wss://api.spotik.example/ws
    connect: 127.0.0.1:443
    validate_certs: false

- name: Wait for Redis, as its ACL user
  slipway.server.health_gate:
    type: redis
    target: redis://spotik@127.0.0.1:6379/0
    password: "{{ vault_redis_password }}"

- name: See that the application's user can use its database
  slipway.server.health_gate:
    type: postgresql
    target: postgresql://spotik@127.0.0.1:6432/spotik
    password: "{{ vault_database_password }}"
    successes: 1
    min_healthy: 0

- name: Ask a program
  slipway.server.health_gate:
    type: exec
    command: [nginx, -t]
    output: syntax is ok

- name: Wait for a container and its own health check
  slipway.server.health_gate:
    type: container
    target: search
    start_period: 60
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
warmup:
  description: Answers to the warm-up requests, one a line.
  type: list
  returned: always
logs:
  description: Last log lines of the unit or container.
  type: list
  returned: failure
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.health import declared, gate, process
from ansible_collections.slipway.server.plugins.module_utils.health import pgbouncer as pooler
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner

KINDS = ["http", "tcp", "unix", "unix_http", "websocket", "exec", "unit", "container", "postgresql", "redis", "pgbouncer"]
SPEC = {
    "target": {"type": "str"},
    "type": {"type": "str", "choices": KINDS, "default": "http"},
    "path": {"type": "str", "default": "/"},
    "method": {"type": "str", "default": "GET"},
    "headers": {"type": "dict", "default": {}},
    "connect": {"type": "str"},
    "redirects": {"type": "int", "default": 0},
    "status": {"type": "list", "elements": "int", "default": [200]},
    "json": {"type": "dict", "default": {}},
    "body": {"type": "str"},
    "response_headers": {"type": "dict", "default": {}},
    "max_latency_ms": {"type": "float"},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "password": {"type": "str", "no_log": True},
    "command": {"type": "list", "elements": "str"},
    "exit_status": {"type": "list", "elements": "int", "default": [0]},
    "output": {"type": "str"},
    "warmup": {"type": "list", "elements": "str", "default": []},
    "successes": {"type": "int", "default": 3},
    "interval": {"type": "float", "default": 1},
    "timeout": {"type": "float", "default": 5},
    "min_healthy": {"type": "float", "default": 5},
    "deadline": {"type": "float", "default": 60},
    "start_period": {"type": "float", "default": 0},
    "unit": {"type": "str"},
    "container": {"type": "str"},
    "log_lines": {"type": "int", "default": 20},
    "hide": {"type": "list", "elements": "str", "default": [], "no_log": True},
}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec=SPEC,
        mutually_exclusive=[("unit", "container")],
        required_if=[("type", kind, ["command" if kind == "exec" else "target"]) for kind in KINDS],
        supports_check_mode=True,
    )
    given, runner = module.params, Runner()
    behind = None
    if given["unit"] or (given["type"] == "unit" and given["target"]):
        behind = process.UnitProcess(runner, given["unit"] or given["target"])
    elif given["container"] or given["type"] == "container":
        behind = process.ContainerProcess(runner, given["container"] or given["target"])
    watched = [behind] if given["unit"] or given["container"] else []
    try:
        if given["type"] == "pgbouncer":
            probe, warmup = pooler.make(given["target"], runner), []
        else:
            probe, warmup = declared.of_module(given, runner)
    except declared.BadTarget as error:
        module.fail_json(msg=f"{error}.")
    if module.check_mode:
        rules, warmup = gate.GateRules(successes=1, min_healthy=0, deadline=0), []
    else:
        rules = gate.GateRules(*(given[name] for name in declared.RULES))
    report = gate.run([probe], rules, Clock(), process.Watcher(watched).died, warmup)
    result = report.as_dict()
    if report.healthy or module.check_mode:
        module.exit_json(changed=False, **result)
    logs = behind.logs(given["log_lines"]) if behind else []
    text = "\n  ".join([f"{probe.name} is not healthy: {report.reason}. Last answers:", *report.lines()])
    if behind:
        text += "\n" + "\n  ".join([f"Last log lines of {behind.name}:", *logs])
    module.fail_json(msg=text, logs=logs, **result)


if __name__ == "__main__":
    main()
