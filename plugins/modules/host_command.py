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
  - Installs the sources that the command C(slipway) needs below C(/usr/lib/slipway), the command itself as
    C(/usr/local/sbin/slipway), and the unit C(slipway-recover.service), which runs at boot.
  - The sources are those of this collection on the controller. They are sent only when a file on the host differs.
  - Nothing is downloaded, and the command needs nothing but the distribution's Python.
author: slipway.server contributors
options:
  state:
    description: Whether the command is installed. What it remembers in C(/var/lib/slipway) stays in either case.
    type: str
    choices: [present, absent]
    default: present
  files:
    description: Set by the action plugin. Path, mode and SHA-256 of each file.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      mode: {description: Permission bits., type: int, required: true}
      digest: {description: SHA-256 of the text., type: str, required: true}
  texts:
    description: Set by the action plugin. Texts by path, packed.
    type: str
    default: ""
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

import base64
import json
import zlib

from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.traffic import install

FILE = {
    "path": {"type": "path", "required": True},
    "mode": {"type": "int", "required": True},
    "digest": {"type": "str", "required": True},
}
SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE},
    "texts": {"type": "str", "default": ""},
}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True)
    present, packed = module.params["state"] == "present", module.params["texts"]
    installer = install.Installer(Runner())
    plan = installer.plan([install.Expected(**item) for item in module.params["files"]] if present else [])
    if not module.check_mode:
        try:
            installer.apply(plan, json.loads(zlib.decompress(base64.b64decode(packed))) if packed else {})
        except (OSError, CommandFailed) as error:
            module.fail_json(msg=f"the command slipway could not be installed: {error}")
    module.exit_json(
        changed=plan.changed,
        files_changed=plan.names,
        diff={"before": "".join(f"{name}\n" for name in plan.before), "after": "".join(f"{name}\n" for name in plan.after)},
    )


if __name__ == "__main__":
    main()
