#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: a restart of PostgreSQL that loses no query of the pooler's clients."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_restart
short_description: Restart PostgreSQL for settings that wait for it, while the pooler holds its clients
version_added: 0.1.0
description:
  - Restarts only when a setting waits for it (or with O(force)) and when O(policy) allows it at this time.
  - Waits until no old transaction is open, writes a checkpoint, has the pooler on this host finish what runs and hold everybody
    else, restarts, waits for an answer, and lets clients go. They see one slow query.
  - Clients go on in any case. A timer of systemd, armed before they are held, lets them go when this module dies.
  - When the server stays busy, nothing is restarted, and the failure names process, user, age and start of what it waited for,
    never a query.
  - When the server does not come up with the new settings, it runs with the old ones again and this module fails.
  - Sessions that do not come through the pooler are ended by the restart, as by any other.
author: slipway.server contributors
options:
  version:
    description: Major version of the cluster C(main). Without it the only one on the host.
    type: str
    default: ""
  state:
    description:
      - C(ready) changes nothing; it waits until nothing stands against a restart and says in RV(due) whether one is to be made.
        For poolers on other hosts, which are held in between (M(slipway.server.pgbouncer_hold)).
      - C(serving) comes after a restart that was cut off. It waits until the server answers, and lets the clients of the pooler
        on this host go in any case.
    type: str
    choices: [restarted, ready, serving]
    default: restarted
  policy:
    description: C(now), C(never), or C(window) for the times in O(windows) on the host's own clock.
    type: str
    choices: [now, window, never]
    default: now
  windows:
    description: Times of the week, such as C(02:00-04:00), C(Mon-Fri 01:30-02:30) or C(Sat,Sun 22:00-03:00).
    type: list
    elements: str
    default: []
  force:
    description: Restart although nothing waits for it. O(policy) counts all the same.
    type: bool
    default: false
  longest_transaction:
    description: Seconds; older transactions are waited for before clients are held.
    type: float
    default: 5
  wait:
    description: Seconds to wait for them, for the pooler, and with C(serving) for the server, before giving up.
    type: float
    default: 60
  pause:
    description: Seconds that one attempt to hold clients may take. They wait meanwhile.
    type: float
    default: 5
  hold:
    description: Seconds after which the timer lets clients go. Less than the pooler's C(query_wait_timeout).
    type: float
    default: 60
  pooler_port:
    description: Port of a pgbouncer on this host, part of its socket's name. Without a pooler the server restarts all the same.
    type: int
    default: 6432
  pooler_os_user:
    description: Operating system user of that pooler.
    type: str
    default: postgres
attributes:
  check_mode:
    description: Says whether a restart would be made, and what it would wait for.
    support: full
  diff_mode:
    description: There are no files to compare.
    support: none
seealso:
  - module: slipway.server.postgresql_settings
  - module: slipway.server.pgbouncer_hold
"""

EXAMPLES = r"""
- name: Restart PostgreSQL for what waits for it, on Sunday nights only
  slipway.server.postgresql_restart:
    policy: window
    windows: ["Sun 02:00-04:00"]

- name: Restart it now in any case
  slipway.server.postgresql_restart:
    force: true
"""

RETURN = r"""
due:
  description: Whether a restart was to be made.
  type: bool
  returned: success
restarted:
  description: Whether it was made.
  type: bool
  returned: always
pending_restart:
  description: Settings that still wait for a restart.
  type: list
  returned: always
reason:
  description: Why nothing was to be done; empty otherwise.
  type: str
  returned: success
poolers:
  description: Number of poolers on this host whose clients were held.
  type: int
  returned: success
stall:
  description: Seconds from the beginning of the pause until clients went on.
  type: float
  returned: success
waits_for:
  description: Open transactions that stand against the restart.
  type: list
  returned: always
  sample: [{pid: 4711, user: shop, database: shop, state: idle in transaction, age: 65.2, query_start: "2026-11-25 02:03:04"}]
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_console import Console, ConsoleError
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_hold import Hold
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_cluster import (
    Cluster,
    ClusterError,
    only_version,
)
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_restart import GaveUp, Request, Restart

SPEC = {
    "version": {"type": "str", "default": ""},
    "state": {"type": "str", "choices": ["restarted", "ready", "serving"], "default": "restarted"},
    "policy": {"type": "str", "choices": ["now", "window", "never"], "default": "now"},
    "windows": {"type": "list", "elements": "str", "default": []},
    "force": {"type": "bool", "default": False},
    "longest_transaction": {"type": "float", "default": 5},
    "wait": {"type": "float", "default": 60},
    "pause": {"type": "float", "default": 5},
    "hold": {"type": "float", "default": 60},
    "pooler_port": {"type": "int", "default": 6432},
    "pooler_os_user": {"type": "str", "default": "postgres"},
}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    wanted, runner, clock = module.params, Runner(), Clock()
    request = Request(
        policy=wanted["policy"],
        windows=tuple(wanted["windows"]),
        force=wanted["force"],
        longest=wanted["longest_transaction"],
        wait=wanted["wait"],
        pause=wanted["pause"],
    )
    try:
        cluster = Cluster(runner, wanted["version"] or only_version(), clock)
        console = Console(runner, port=wanted["pooler_port"], os_user=wanted["pooler_os_user"])
        restart = Restart(cluster, [Hold(console, clock, wanted["hold"])], clock)
        if module.check_mode or wanted["state"] == "restarted":
            done = restart.run(request, act=not module.check_mode)
        else:
            done = restart.wait(request) if wanted["state"] == "ready" else restart.recover(request.wait)
    except GaveUp as error:
        left = cluster.observe()
        module.fail_json(
            msg=f"postgresql {cluster.version}: {error}",
            restarted=False,
            pending_restart=list(left.pending) if left else [],
            waits_for=[asdict(one) for one in error.waits_for],
        )
    except (ClusterError, ConsoleError, ArmingFailed, ValueError) as error:
        module.fail_json(msg=f"postgresql {wanted['version']}: {error}", restarted=False, pending_restart=[], waits_for=[])
    for note in done.notes:
        module.warn(f"postgresql: {note}")
    would = module.check_mode and done.due and wanted["state"] == "restarted"
    answer = {**asdict(done), "pending_restart": list(done.pending), "stall": round(done.stall, 2)}
    module.exit_json(changed=done.restarted or would, **{key: answer[key] for key in answer if key not in ("pending", "notes")})


if __name__ == "__main__":
    main()
