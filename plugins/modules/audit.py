#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: everything that an audit wants to know of a host, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit
short_description: Look at a host, or from a host at its neighbours, for an audit
version_added: 0.1.0
description:
  - Without O(peers), runs Lynis and C(systemd-analyze security) where they are installed, lists the ports that listen or that
    containers publish, services that do not run, and files of this collection that were changed by hand.
  - With O(peers), tells which of their ports answer here, and what ssh-audit says of them.
  - Judges nothing; M(slipway.server.audit_report) does. Installs nothing, changes nothing, and returns no content of any file.
author: slipway.server contributors
options:
  scanners:
    description: Scanners to run; our own checks always are.
    type: list
    elements: str
    choices: [lynis, ssh-audit, systemd]
    default: [lynis, ssh-audit, systemd]
  peers:
    description: Hosts to look at from this one.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the host., type: str, required: true}
      addresses: {description: Where it is asked; ssh-audit asks the first., type: list, elements: str, required: true}
      ports: {description: "TCP ports to try, with the usual ones; none when empty.", type: list, elements: int, default: []}
      ssh_ports: {description: Ports to ask with ssh-audit., type: list, elements: int, default: []}
      ssh_audit: {description: Version of the ssh-audit of this host., type: str, default: ""}
attributes:
  check_mode:
    description: Changes nothing anyway.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
seealso:
  - module: slipway.server.audit_report
"""

EXAMPLES = r"""
- name: Look at the host
  slipway.server.audit:
  register: seen

- name: Look at another host from here
  slipway.server.audit:
    peers:
      - {name: web2, addresses: [192.0.2.12], ports: [3000], ssh_ports: [22], ssh_audit: 3.3.0}
"""

RETURN = r"""
inside:
  description: What the host says of itself, in C(lynis), C(exposure), C(off), C(ports), C(drift) and others.
  type: dict
  returned: without O(peers)
outside:
  description: By name of the peer, C(open) (ports that answer, and the address they were asked from) and C(ssh).
  type: dict
  returned: with O(peers)
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.audit import look
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner

PEER = {
    "name": {"type": "str", "required": True},
    "addresses": {"type": "list", "elements": "str", "required": True},
    "ports": {"type": "list", "elements": "int", "default": []},
    "ssh_ports": {"type": "list", "elements": "int", "default": []},
    "ssh_audit": {"type": "str", "default": ""},
}
SPEC = {
    "scanners": {"type": "list", "elements": "str", "choices": list(look.SCANNERS), "default": list(look.SCANNERS)},
    "peers": {"type": "list", "elements": "dict", "default": [], "options": PEER},
}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    if module.params["peers"]:
        module.exit_json(changed=False, outside=look.outside(Runner(), module.params["peers"]))
    module.exit_json(changed=False, inside=look.inside(Runner(), module.params["scanners"]))


if __name__ == "__main__":
    main()
