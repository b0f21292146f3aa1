#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: hold the clients of a pgbouncer for a short while, and let them go."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_hold
short_description: Hold the clients of a pgbouncer while its database restarts or moves, and let them go
version_added: 0.1.0
description:
  - C(held) waits until running transactions have ended; clients that ask for more wait, and none gets an error. Before that a
    timer of systemd is armed on this host, which lets them go after O(seconds), whatever becomes of the playbook.
  - When transactions do not end in time, clients go on as before and this module fails, naming the server processes.
  - C(released) lets clients go; nothing happens when none is held.
  - C(pointed) leads its databases on O(old) to O(new), in its file and in the running process; clients stay as they are, held
    or not.
  - A pooler that somebody else has paused is left as it is, and C(held) fails.
  - Without a pooler on the host there is nothing to do.
author: slipway.server contributors
options:
  state:
    description: Whether clients are held, or where their databases are.
    type: str
    choices: [held, released, pointed]
    required: true
  old:
    description: For C(pointed), address of the server that is left, as the pooler's file has it.
    type: str
    default: ""
  new:
    description: For C(pointed), address of the server that takes its place.
    type: str
    default: ""
  config:
    description: For C(pointed), the pooler's file.
    type: path
    default: /etc/pgbouncer/pgbouncer.ini
  seconds:
    description: Longest time to hold them. Less than the pooler's C(query_wait_timeout).
    type: float
    default: 60
  pause:
    description: Seconds in which running transactions have to end.
    type: float
    default: 5
  port:
    description: Port of the pooler, part of its socket's name.
    type: int
    default: 6432
  os_user:
    description: Operating system user of the pooler.
    type: str
    default: postgres
attributes:
  check_mode:
    description: Says whether there is a pooler whose clients would be held.
    support: full
  diff_mode:
    description: There are no files to compare.
    support: none
seealso:
  - module: slipway.server.postgresql_restart
"""

EXAMPLES = r"""
- name: Restart the database while a pooler on another host holds its clients
  block:
    - name: Hold clients
      slipway.server.pgbouncer_hold:
        state: held
      delegate_to: pool1

    - name: Restart PostgreSQL
      slipway.server.postgresql_restart:
        wait: 10
  always:
    - name: Let clients go
      slipway.server.pgbouncer_hold:
        state: released
      delegate_to: pool1
"""

RETURN = r"""
pooler:
  description: Whether a pooler runs on the host.
  type: bool
  returned: success
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_console import Console, ConsoleError
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_hold import Hold
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_point import PointError, point

SPEC = {
    "state": {"type": "str", "choices": ["held", "released", "pointed"], "required": True},
    "old": {"type": "str", "default": ""},
    "new": {"type": "str", "default": ""},
    "config": {"type": "path", "default": "/etc/pgbouncer/pgbouncer.ini"},
    "seconds": {"type": "float", "default": 60},
    "pause": {"type": "float", "default": 5},
    "port": {"type": "int", "default": 6432},
    "os_user": {"type": "str", "default": "postgres"},
}


def act(module: AnsibleModule, hold: Hold, there: bool) -> bool:
    """Do what was asked for; whether something changed."""
    wanted, check = module.params, module.check_mode
    if wanted["state"] == "pointed":
        return point(hold.console, Path(wanted["config"]), wanted["old"], wanted["new"], check)
    if not there or check:
        return there and wanted["state"] == "held"
    if wanted["state"] == "released":
        return hold.release()
    hold.take(wanted["pause"])
    return True


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, required_if=[("state", "pointed", ("old", "new"))])
    wanted = module.params
    hold = Hold(Console(Runner(), port=wanted["port"], os_user=wanted["os_user"]), Clock(), wanted["seconds"])
    try:
        there = hold.there()
        changed = act(module, hold, there)
    except (ConsoleError, ArmingFailed, PointError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, pooler=there)


if __name__ == "__main__":
    main()
