#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: compare declared settings with the effective ones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: readback
short_description: Compare declared settings with what running processes really use
version_added: 0.1.0
description:
  - Reads all given settings back in one round trip and fails with every mismatch at once.
  - In check mode mismatches are returned and shown as warnings, because nothing may have been applied yet.
author: slipway.server contributors
options:
  name:
    description: What is read back, for messages.
    type: str
    required: true
  checks:
    description:
      - One mapping for each value, with a C(kind) and what the kind needs.
      - C(sysctl) takes O(checks[].key), O(checks[].value) and O(checks[].live).
      - C(limit) takes O(checks[].unit) or O(checks[].process), O(checks[].name), O(checks[].value) and O(checks[].at_least);
        with O(checks[].children) it looks at the children of that process. A template unit means each of its running
        instances; neither unit nor process means a newly started service.
      - C(unit) takes O(checks[].unit) and O(checks[].properties) of C(systemctl show).
      - C(listen) takes O(checks[].port), and optionally O(checks[].address), O(checks[].only) or O(checks[].closed).
      - C(command) takes O(checks[].argv) and one of O(checks[].equals), O(checks[].matches), O(checks[].table), O(checks[].rc).
      - C(file) takes O(checks[].path) and O(checks[].mode), O(checks[].owner), O(checks[].group).
      - C(http) takes O(checks[].url), O(checks[].status), O(checks[].headers), O(checks[].host), O(checks[].connect),
        O(checks[].ca), O(checks[].insecure), O(checks[].certificate), O(checks[].connections), O(checks[].refused).
      - C(reach) takes O(checks[].address), O(checks[].port) and O(checks[].closed), and connects from the host of the task.
      - C(redis) takes O(checks[].what), O(checks[].socket) or O(checks[].address) and O(checks[].port), with O(checks[].tls) and
        O(checks[].ca), logs in as O(checks[].user) with O(checks[].input) or O(checks[].password_file), and compares
        O(checks[].config) with CONFIG GET and O(checks[].acl) with ACL LIST.
    type: list
    elements: dict
    required: true
    suboptions:
      kind:
        description: What is compared.
        type: str
        required: true
        choices: [sysctl, limit, unit, listen, command, file, http, reach, redis, sandbox]
      key: {description: Name of a kernel setting., type: str}
      value: {description: Declared value., type: str}
      live:
        description: C(auto) leaves out what a container shares with its machine, C(false) everything.
        type: str
        choices: ["auto", "true", "false"]
        default: "true"
      optional: {description: Whether the kernel need not have the setting., type: bool, default: false}
      unit: {description: A systemd unit., type: str}
      process: {description: Name of a process where there is no unit., type: str}
      name: {description: Name of a limit, type: str, choices: [nofile, nproc, core, memlock]}
      at_least: {description: Whether a higher limit is accepted., type: bool, default: true}
      children: {description: Regular expression for the command lines of child processes., type: str}
      properties: {description: Unit properties and their values., type: dict}
      port: {description: A TCP port., type: int}
      address: {description: Address that has to listen., type: str}
      only: {description: Whether other addresses are a mismatch., type: bool, default: false}
      closed: {description: Whether nothing may listen., type: bool, default: false}
      argv: {description: A command without shell., type: list, elements: str}
      what: {description: How the command is called in messages., type: str}
      input: {description: Standard input of the command; shown nowhere., type: str}
      equals: {description: Exact output., type: str}
      table: {description: Output with C(|) between cells and a header; by first cell a mapping of columns to values., type: dict}
      matches: {description: Regular expression searched in the output., type: str}
      rc: {description: Exit status., type: int, default: 0}
      remedy: {description: What to do on a mismatch., type: str}
      path: {description: A file or directory., type: path}
      mode: {description: Permission bits in four octal digits., type: str}
      owner: {description: Name of the owner., type: str}
      group: {description: Name of the group., type: str}
      url: {description: Address of a request., type: str}
      status: {description: Status of the answer., type: int, default: 200}
      headers: {description: Header names and regular expressions., type: dict}
      host: {description: Host name to ask for., type: str}
      connect: {description: Address to connect to., type: str}
      ca: {description: Certificate authority file., type: path}
      insecure: {description: Whether any certificate is accepted., type: bool, default: false}
      certificate: {description: PEM file whose first certificate has to be the one that is shown., type: path}
      socket: {description: A unix socket., type: path}
      user: {description: Who logs in., type: str}
      password_file: {description: File that holds the password., type: path}
      tls: {description: Whether TLS is spoken., type: bool, default: false}
      config: {description: Directives and their values., type: dict}
      acl: {description: Users and their rules., type: dict}
      connections: {description: Number of new connections that must all give this answer., type: int, default: 1}
      refused: {description: Whether there must be no answer., type: bool, default: false}
      timeout: {description: Seconds., type: float, default: 10}
attributes:
  check_mode:
    description: Reads; does not fail on mismatches.
    support: full
  diff_mode:
    description: Nothing is changed.
    support: none
"""

EXAMPLES = r"""
- name: Prove that the limits reached nginx
  slipway.server.readback:
    name: nginx
    checks:
      - {kind: limit, unit: nginx.service, name: nofile, value: "8192"}
      - {kind: listen, port: 443}
      - {kind: sysctl, key: net.core.somaxconn, value: "4096"}
"""

RETURN = r"""
mismatches:
  description: One sentence for each declared value that is not effective.
  type: list
  returned: always
pending:
  description: One sentence for each value that a running process gets at its next start only.
  type: list
  returned: always
checked:
  description: Number of values that were read.
  type: int
  returned: always
"""

from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import proof
from ansible_collections.slipway.server.plugins.module_utils.settings.readback import look


def main() -> None:
    """Read parameters, ask the library, answer."""
    checks = {key: value for key, value in proof.OPTION.items() if key != "default"}
    module = QuietModule(
        argument_spec={"name": {"type": "str", "required": True}, "checks": {**checks, "required": True}},
        supports_check_mode=True,
    )
    given = proof.given(module.params["checks"])
    proof.end(module, module.params["name"], look(Runner(), given), {"changed": False, "checked": len(given)})


if __name__ == "__main__":
    main()
