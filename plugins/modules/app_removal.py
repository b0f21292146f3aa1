#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: applications that go from this host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_removal
short_description: Take applications off this host, with all that was made for them
version_added: 0.1.0
description:
  - Takes the site off nginx, lets requests end, stops slots and workers, and removes units, environment files, releases, state
    and description. Units of external slots are somebody else's and stay.
  - Databases, their users, Redis data, system users, certificates and container images stay, since they hold data, or may be
    shared.
  - Refused while a transaction is not confirmed or somebody holds the lease. A removal that was killed goes on when it is run
    again.
author: slipway.server contributors
options:
  apps:
    description: Names of the applications. One that is not described on the host is gone already.
    type: list
    elements: str
    required: true
  keep_edge:
    description: An edge that the application has left goes on sending requests elsewhere; only what runs of it here ends.
    type: bool
    default: false
  owner:
    description: Who does this, for the system log.
    type: str
    default: ansible
attributes:
  check_mode:
    description: Says what would end and what would be removed.
    support: full
  diff_mode:
    description: Shows what ended and what was removed.
    support: full
"""

EXAMPLES = r"""
- name: Take an application off
  slipway.server.app_removal:
    apps: [shop]
"""

RETURN = r"""
ended:
  description: Units and containers that ran.
  type: list
  elements: str
  returned: success
removed:
  description: Files and directories that were removed.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host
from ansible_collections.slipway.server.plugins.module_utils.traffic.removal import Removal


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "apps": {"type": "list", "elements": "str", "required": True},
            "keep_edge": {"type": "bool", "default": False},
            "owner": {"type": "str", "default": "ansible"},
        },
        supports_check_mode=True,
    )
    host = Host()
    ended: list[str] = []
    removed: list[str] = []
    try:
        for name in (name for name in module.params["apps"] if name in host.apps()):
            done = Removal(host, host.app(name)).run(module.params["owner"], not module.check_mode, module.params["keep_edge"])
            ended += done.ended
            removed += done.removed
    except SlipwayError as error:
        module.fail_json(msg=str(error), ended=ended, removed=removed, **error.facts)
    before = "".join(f"{line}\n" for line in (*ended, *removed))
    module.exit_json(changed=bool(ended or removed), ended=ended, removed=removed, diff={"before": before, "after": ""})


if __name__ == "__main__":
    main()
