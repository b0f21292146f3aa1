#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: packages of the archive, all in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install or remove packages of the distribution's archive in one run
version_added: 0.1.0
description:
  - Asks dpkg what is missing and runs C(apt-get) once for the difference.
  - Fetches the archive's index only when a package has no candidate or its download fails.
  - A result of this module that was registered as C(slipway_packages) earlier in the same run, and was asked for all of these
    packages, answers without another round trip. So a playbook can install the packages of many roles in one go.
author: slipway.server contributors
options:
  names:
    description: Names of binary packages.
    type: list
    elements: str
    required: true
  optional:
    description: Packages that are installed too where the archive of this release has them.
    type: list
    elements: str
    default: []
  seen:
    description:
      - What M(slipway.server.preflight) returned as C(slipway_host) earlier in the same run. When all of the packages are there
        according to it, it answers without another round trip.
    type: dict
  sources:
    description: >-
      Files in C(/etc/apt/sources.list.d) whose index is fetched, when something is missing, before packages are chosen.
    type: list
    elements: path
    default: []
  state:
    description: Whether the packages are installed or removed. Configuration files stay when they are removed.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would be installed and returns candidate versions.
    support: full
  diff_mode:
    description: Lists the packages before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install nginx
  slipway.server.packages:
    names: [nginx]
  register: installed

- name: Show its version, without the distribution's suffix
  ansible.builtin.debug:
    msg: "{{ installed.versions.nginx }}"
"""

RETURN = r"""
versions:
  description: Upstream version of each package; the archive's candidate where it is not installed yet.
  type: dict
  returned: success
  sample: {nginx: 1.22.1}
asked:
  description: All packages that were asked for, optional ones included.
  type: list
  returned: success
packages_changed:
  description: Packages that were, or in check mode would be, installed or removed.
  type: list
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import packages


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "optional": {"type": "list", "elements": "str", "default": []},
            "seen": {"type": "dict"},
            "sources": {"type": "list", "elements": "path", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    present = module.params["state"] == "present"
    names, optional = module.params["names"], module.params["optional"]
    try:
        if present:
            found = packages.ensure_present(Runner(), names, module.check_mode, optional, module.params["sources"])
        else:
            found = packages.ensure_absent(Runner(), [*names, *optional], module.check_mode)
    except packages.PackageError as error:
        module.fail_json(msg=str(error))
    lines = "".join(f"{name}\n" for name in found.changed)
    module.exit_json(
        changed=bool(found.changed),
        versions=found.versions,
        asked=[*names, *optional],
        packages_changed=list(found.changed),
        diff={"before": "" if present else lines, "after": lines if present else ""},
    )


if __name__ == "__main__":
    main()
