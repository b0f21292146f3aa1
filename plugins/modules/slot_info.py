#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: what runs in the slots and where the traffic is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slot_info
short_description: Tell slots, releases, traffic and what waits for confirmation on a host
version_added: 0.1.0
description:
  - Reads flags, records and processes of one or of all applications of a host; changes nothing.
author: slipway.server contributors
options:
  app:
    description: Name of the application. All of the host when missing.
    type: str
  history:
    description: How many of the last events to return.
    type: int
    default: 5
  installed:
    description:
      - Whether the command C(slipway) of this version is on the host, as M(slipway.server.host_command) leaves it. It is asked
        then, which takes a fraction of the time. Where it gives no answer, or with O(history), the module itself looks.
    type: bool
    default: false
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Look where the traffic is
  slipway.server.slot_info:
    app: spotik
  register: found

- name: Show the slot a new release goes to
  ansible.builtin.debug:
    msg: "{{ found.apps.spotik.idle | first }}"
"""

RETURN = r"""
apps:
  description:
    - One entry for each application - active, previous, idle (managed slots without traffic), slots (release, state, members,
      instances, retire_in), transaction (that waits for confirmation), lease, bad (releases taken back), history, flags.
    - Empty when the application is not described on this host.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic import status
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str"},
            "history": {"type": "int", "default": 5},
            "installed": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    host = Host()
    names = [name for name in host.apps() if module.params["app"] in (None, name)]
    try:
        apps = {name: status.report(host, host.app(name), module.params["history"]) for name in names}
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    module.exit_json(changed=False, apps=apps)


if __name__ == "__main__":
    main()
