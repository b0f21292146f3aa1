#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the command slipway on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_command
short_description: Install the command slipway and its recovery at boot
version_added: 0.1.0
description:
  - Installs the sources that the command C(slipway) needs below C(/usr/lib/slipway), taken from this module's own payload, the
    command itself as C(/usr/local/sbin/slipway), and the unit C(slipway-recover.service), which runs at boot.
  - Nothing is downloaded, and the command needs nothing but the distribution's Python.
author: slipway.server contributors
options:
  state:
    description: Whether the command is installed. What it remembers in C(/var/lib/slipway) stays in either case.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Compares every file.
    support: full
  diff_mode:
    description: Lists the files that differ.
    support: full
"""

EXAMPLES = r"""
- name: Be able to roll back without Ansible
  slipway.server.host_command:
"""

RETURN = r"""
files_changed:
  description: Files that were, or in check mode would be, written or removed.
  type: list
  returned: success
"""

import importlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.traffic import cli, install

ROOT = cli.__name__.rpartition(".traffic.")[0]


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={"state": {"type": "str", "choices": ["present", "absent"], "default": "present"}},
        supports_check_mode=True,
    )
    wanted = install.files(install.closure(install.loaded(importlib.import_module, ROOT)))
    installer = install.Installer(Runner())
    plan = installer.plan(wanted if module.params["state"] == "present" else [])
    if not module.check_mode:
        try:
            installer.apply(plan)
        except (OSError, CommandFailed) as error:
            module.fail_json(msg=f"the command slipway could not be installed: {error}")
    module.exit_json(
        changed=plan.changed,
        files_changed=plan.names,
        diff={"before": "".join(f"{name}\n" for name in plan.before), "after": "".join(f"{name}\n" for name in plan.after)},
    )


if __name__ == "__main__":
    main()
