#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the whole firewall of a host in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ufw_rules
short_description: Keep a host's ufw to exactly the declared rules
version_added: 0.1.0
description:
  - Compares the declared rule set with the one in the kernel and in ufw's files, shows one difference of effective rules and
    brings both to it. Rules that are not declared are removed.
  - The kernel takes the first rule that matches, so the rules are sorted; the one with the narrower source, then with the
    narrower destination, then with fewer ports comes first. Their order in the inventory means nothing.
  - SSH stays open. The port of the connection this run came in by and O(ssh_ports) are opened to everybody unless
    O(rules) opens them to fewer; a rule set that would cut the connection is refused before anything is touched.
  - Published ports of Docker containers, which pass ufw by, are closed except for O(container_rules). Docker need not be
    installed.
  - Empties E(IPT_SYSCTL) in C(/etc/default/ufw), because ufw would otherwise set kernel values at each reload.
author: slipway.server contributors
options:
  rules:
    description: Every rule for traffic to this host.
    type: list
    elements: dict
    default: []
    suboptions:
      port: {description: "A port (C(443)), a range (C(3000:3009)), or nothing for all ports.", type: str}
      proto: {description: "C(tcp), C(udp) or C(any); C(tcp) where a port is given.", type: str}
      from: {description: "Sources: addresses, networks or C(any), one or a list of them; C(any) when absent.", type: raw}
      to: {description: "Own address or network; C(any) when absent.", type: str}
      action: {description: "C(allow), C(deny), C(reject) or C(limit); C(allow) when absent.", type: str}
      direction: {description: "C(in) or C(out); C(in) when absent.", type: str}
      comment: {description: Shown by C(ufw status)., type: str}
  container_rules:
    description: Published container ports that are reachable from outside.
    type: list
    elements: dict
    default: []
    suboptions:
      port: {description: "The published port (or range), as clients see it.", type: str}
      proto: {description: "C(tcp), C(udp) or C(any); C(tcp) when absent.", type: str}
      from: {description: "Sources, as in O(rules[].from).", type: raw}
      comment: {description: For people., type: str}
  close_containers:
    description: Whether chain DOCKER-USER is managed. When not, Docker publishes ports to everybody.
    type: bool
    default: true
  container_interfaces:
    description: Interfaces whose forwarded traffic is left alone; a C(+) at the end stands for any rest of the name.
    type: list
    elements: str
    default: [docker+, br-+]
  ssh_ports:
    description: Ports on which the SSH server listens.
    type: list
    elements: int
    default: [22]
  connection_port:
    description: Port of the connection as Ansible knows it; counts only where the host does not know the connection itself.
    type: int
  incoming:
    description: What happens to incoming traffic without a rule.
    type: str
    choices: [allow, deny, reject]
    default: deny
  outgoing:
    description: What happens to outgoing traffic without a rule.
    type: str
    choices: [allow, deny, reject]
    default: allow
  routed:
    description: What happens to forwarded traffic without a rule.
    type: str
    choices: [allow, deny, reject]
    default: deny
  ipv6:
    description: Whether rules are for IPv6 too. When not, all IPv6 but loopback is dropped.
    type: bool
    default: true
  logging: {description: How much ufw logs., type: str, choices: ["off", low, medium, high, full], default: low}
  state:
    description:
      - C(enabled) brings the host to the rules.
      - C(absent) takes the firewall away again. Files of ufw get the bytes that they had before the first change, and what they
        say is in force; ports of containers are open then. It is armed and confirmed like any change.
      - C(verified) only compares with the kernel and fails with every difference; in check mode it warns.
    type: str
    choices: [enabled, absent, verified]
    default: enabled
  seconds:
    description:
      - How long a change waits for its confirmation over a new connection; see M(slipway.server.guard).
      - What was changed in the kernel by hand, beside files that are as declared, is repaired without.
    type: float
    default: 60
attributes:
  check_mode:
    description: Says what would change, on a host without ufw too.
    support: full
  diff_mode:
    description: Effective rules before and after.
    support: full
"""

EXAMPLES = r"""
- name: Open the web to everybody and the pooler to the application's hosts
  slipway.server.ufw_rules:
    rules:
      - {port: 80, comment: HTTP}
      - {port: 443, comment: HTTPS}
      - {port: 6432, from: [10.0.0.5, 10.0.1.0/24], comment: pgbouncer}
      - {from: 203.0.113.0/24, action: deny, comment: abuse}
    container_rules:
      - {port: 3000, from: 10.0.0.2, comment: from the edge}
"""

RETURN = r"""
faults:
  description: What the kernel did not have of the declared rules, one sentence each.
  type: list
  elements: str
  returned: success
files_changed:
  description: Files of ufw that were, or in check mode would be, changed.
  type: list
  elements: str
  returned: success
actions:
  description: What was done to make the rules effective, in order.
  type: list
  elements: str
  returned: success
guard:
  description: The armed change with C(name), C(txn) and C(outcome) C(confirmed), C(reverted) or C(waiting); empty without one.
  type: dict
  returned: success
ssh_ports:
  description: Ports that were held open for SSH.
  type: list
  elements: int
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.guard import install
from ansible_collections.slipway.server.plugins.module_utils.guard.armed import Arming, Guard, GuardError, TakenBack, tell
from ansible_collections.slipway.server.plugins.module_utils.guard.carried import carried
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed
from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import ufw, ufw_remove
from ansible_collections.slipway.server.plugins.module_utils.settings.ufw_model import LOG_LEVELS, POLICIES, RuleError, build

TEXT = {"type": "str"}
CONTAINER = {"port": TEXT, "proto": TEXT, "from": {"type": "raw"}, "comment": TEXT}
RULE = {**CONTAINER, "to": TEXT, "action": TEXT, "direction": TEXT}
SPEC: dict[str, Any] = {
    "rules": {"type": "list", "elements": "dict", "default": [], "options": RULE},
    "container_rules": {"type": "list", "elements": "dict", "default": [], "options": CONTAINER},
    "close_containers": {"type": "bool", "default": True},
    "container_interfaces": {"type": "list", "elements": "str", "default": ["docker+", "br-+"]},
    "ssh_ports": {"type": "list", "elements": "int", "default": [22]},
    "connection_port": {"type": "int"},
    "incoming": {"type": "str", "choices": list(POLICIES), "default": "deny"},
    "outgoing": {"type": "str", "choices": list(POLICIES), "default": "allow"},
    "routed": {"type": "str", "choices": list(POLICIES), "default": "deny"},
    "ipv6": {"type": "bool", "default": True},
    "logging": {"type": "str", "choices": list(LOG_LEVELS), "default": "low"},
    "state": {"type": "str", "choices": ["enabled", "absent", "verified"], "default": "enabled"},
    "seconds": {"type": "float", "default": 60},
}


def verify(module: AnsibleModule, host: ufw.Ufw, firewall: Any) -> None:
    """Fail, or in check mode warn, with every difference between the declared rules and the kernel."""
    live = host.observe()
    faults, _reframe = ufw.effective_faults(firewall, live)
    if faults and not module.check_mode:
        lines = "\n".join(f"- {fault}" for fault in faults)
        module.fail_json(
            msg=f"ufw: {len(faults)} difference(s) between the declared rules and the kernel:\n{lines}", faults=faults
        )
    if faults:
        module.warn(f"ufw: {len(faults)} chain(s) are not as declared yet")
    module.exit_json(changed=False, faults=faults, files_changed=[], actions=[])


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    session = ufw.session_of(ufw.ancestors())
    port = session.port or params["connection_port"]
    ports = sorted({*params["ssh_ports"], *([port] if port else [])})
    runner = Runner()
    host = ufw.Ufw(runner)
    arming = Arming(Guard("ufw", runner), lambda: install.ensure(carried(), runner), params["seconds"], "a playbook")
    try:
        tell(arming.guard, module.warn, not module.check_mode)
        firewall, warnings = build(
            [{key: value for key, value in rule.items() if value is not None} for rule in params["rules"]],
            [{key: value for key, value in rule.items() if value is not None} for rule in params["container_rules"]],
            ports,
            session,
            container_interfaces=tuple(params["container_interfaces"]),
            **{key: params[key] for key in ("close_containers", "incoming", "outgoing", "routed", "ipv6", "logging")},
        )
        if params["state"] == "verified":
            verify(module, host, firewall)
        if params["state"] == "absent":
            done = ufw_remove.remove(host, ports, module.check_mode, arming)
        else:
            done = host.apply(firewall, ports, module.check_mode, arming)
        waits = arming.waiting()
    except RuleError as error:
        module.fail_json(msg=f"The rule set is refused, nothing was changed:\n{error}")
    except (ufw.UfwError, TakenBack, GuardError, ArmingFailed, CommandFailed, OSError) as error:
        module.fail_json(msg=str(error))
    for warning in [*warnings, *done.words]:
        module.warn(f"ufw: {warning}")
    module.exit_json(
        changed=done.changed,
        diff={"before": done.before, "after": done.after} if done.changed else {"before": "", "after": ""},
        faults=done.faults,
        files_changed=[f"/{path}" for path in done.files],
        actions=done.actions,
        ssh_ports=ports,
        guard=waits,
    )


if __name__ == "__main__":
    main()
