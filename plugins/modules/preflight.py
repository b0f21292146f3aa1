#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: everything that stands against a host, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Look at a host before the first change and list everything that stands against it
version_added: 0.1.0
description:
  - Checks distribution, systemd, Python, memory, disk, ports held by foreign processes and TLS connections to registries.
  - Returns all problems of the host instead of failing at the first, so that a play can show those of all hosts together.
  - Returns what was seen as the fact C(slipway_host), which M(slipway.server.plan) uses, and all addresses under the names that
    M(ansible.builtin.setup) gives them, so that no further facts have to be gathered.
  - Fetches the archive's index when a package of O(packages) is not known to it yet; changes nothing else.
author: slipway.server contributors
options:
  distributions:
    description: Supported distributions, C(ID) of C(/etc/os-release) to a list of C(VERSION_ID).
    type: dict
    default: {debian: ["12", "13"], ubuntu: ["22.04", "24.04"]}
  memory_mb:
    description: Least memory in MiB.
    type: int
    default: 900
  disk_free_mb:
    description: Least free space in MiB of the file system with C(/var).
    type: int
    default: 1024
  ports:
    description: Ports the host will need.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: TCP port.
        type: int
        required: true
      owner:
        description: What will listen there, for the message.
        type: str
        required: true
      units:
        description: Patterns of systemd units that may listen there already.
        type: list
        elements: str
        default: []
  registries:
    description: Image registries that must answer over TLS.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Host name, with a port when it is not 443.
        type: str
        required: true
      ca:
        description: CA certificate in PEM; empty for the system's.
        type: str
        default: ""
  packages:
    description: Packages whose version, installed or candidate, is wanted. One that no archive has is a problem of the host.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Looks the same way, but never fetches the archive's index.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
seealso:
  - module: slipway.server.plan
"""

EXAMPLES = r"""
- name: Look at the host
  slipway.server.preflight:
    memory_mb: 1800
    ports:
      - {port: 443, owner: nginx, units: [nginx.service]}
    registries:
      - {host: "registry.acme.org:5000", ca: "{{ lookup('ansible.builtin.file', 'files/ca.pem') }}"}
  register: preflight
"""

RETURN = r"""
problems:
  description: Everything that stands against the host, one line each with the remedy.
  type: list
  elements: str
  returned: success
  sample: ["port 80: wanted for nginx, but apache2 (apache2.service) listens there. Stop it or choose another port"]
ansible_facts:
  description: What was seen.
  type: dict
  returned: success
  contains:
    slipway_host:
      description:
        - Memory, cores, disk, limits, versions, network, C(missing), the packages that are not installed, and C(apps), the
          applications that are described on the host.
      type: dict
    ansible_all_ipv4_addresses:
      description: IPv4 addresses without those of the loopback.
      type: list
    ansible_all_ipv6_addresses:
      description: IPv6 addresses without those of the loopback.
      type: list
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.host import preflight
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner

DISTRIBUTIONS = {"debian": ["12", "13"], "ubuntu": ["22.04", "24.04"]}


def main() -> None:
    """Read parameters, ask the library, answer."""
    port = {
        "port": {"type": "int", "required": True},
        "owner": {"type": "str", "required": True},
        "units": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "distributions": {"type": "dict", "default": DISTRIBUTIONS},
            "memory_mb": {"type": "int", "default": 900},
            "disk_free_mb": {"type": "int", "default": 1024},
            "ports": {"type": "list", "elements": "dict", "default": [], "options": port},
            "registries": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"host": {"type": "str", "required": True}, "ca": {"type": "str", "default": ""}},
            },
            "packages": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = preflight.Wanted(
        distributions={name: [str(version) for version in versions] for name, versions in module.params["distributions"].items()},
        memory_mb=module.params["memory_mb"],
        disk_free_mb=module.params["disk_free_mb"],
        ports=[(entry["port"], entry["owner"], entry["units"]) for entry in module.params["ports"]],
        registries=[(entry["host"], entry["ca"]) for entry in module.params["registries"]],
    )
    seen = preflight.observe(Runner(), module.params["packages"], refresh=not module.check_mode)
    module.exit_json(
        changed=False,
        problems=preflight.problems(wanted, seen, preflight.reach),
        ansible_facts={
            "slipway_host": preflight.facts(seen),
            "ansible_all_ipv4_addresses": list(seen.network.ipv4),
            "ansible_all_ipv6_addresses": list(seen.network.ipv6),
        },
    )


if __name__ == "__main__":
    main()
