#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: pgbouncer's admin console."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_console
short_description: Look at a pooler, hold its clients for a while and let them go, load its configuration
version_added: 0.1.0
description:
  - Talks to the console of the pooler on this host, over its unix socket as the user of the service; no password is needed.
  - A pause waits until running transactions have ended. When they do not within O(timeout), the pooler goes on as before and the
    module fails, naming the sessions that were busy.
  - A paused pooler goes on by itself after O(resume_after), by a timer on its host, whatever happens to the play.
author: slipway.server contributors
options:
  command:
    description:
      - V(look) changes nothing. V(pause) holds clients, V(resume) lets them go; both change nothing when it is so already.
      - V(reload) loads the configuration again. V(reconnect) replaces each server session as soon as it is free.
    type: str
    choices: [look, pause, resume, reload, reconnect]
    default: look
  database:
    description: Only this database, as clients name it. Not for V(reload).
    type: str
  timeout:
    description: Seconds for running transactions to end.
    type: float
    default: 10
  resume_after:
    description: Seconds until a paused pooler goes on by itself; 0 means never.
    type: float
    default: 60
  port:
    description: Port of the pooler, part of its socket's name.
    type: int
    default: 6432
  socket_dir:
    description: Directory of its socket.
    type: path
    default: /var/run/postgresql
  os_user:
    description: Operating system user of the service.
    type: str
    default: postgres
attributes:
  check_mode:
    description: Looks only. On a host without a pooler nothing is told of it.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
"""

EXAMPLES = r"""
- name: Hold the clients of one database for two minutes at most
  slipway.server.pgbouncer_console:
    command: pause
    database: shop
    resume_after: 120

- name: Let them go
  slipway.server.pgbouncer_console:
    command: resume

- name: Expect that nobody waits
  slipway.server.pgbouncer_console:
  register: pooler
  until: pooler.clients.waiting == 0
  retries: 10
  delay: 1
"""

RETURN = r"""
version:
  description: Version of the running pooler; empty without one, in check mode.
  type: str
  returned: success
clients:
  description: Clients that are C(connected), how many of them are C(waiting), and for how many seconds at most (C(max_wait)).
  type: dict
  returned: success
pools:
  description: One for each pair of database and user, with its clients and server sessions.
  type: list
  elements: dict
  returned: success
databases:
  description: Databases with their server, their sizes, their open connections, and whether they are paused or disabled.
  type: list
  elements: dict
  returned: success
paused:
  description: Whether clients of all databases, or of O(database), are held; null when this version cannot tell.
  type: bool
  returned: success
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed, Timer
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_console import Console, ConsoleError

SPEC = {
    "command": {"type": "str", "choices": ["look", "pause", "resume", "reload", "reconnect"], "default": "look"},
    "database": {"type": "str"},
    "timeout": {"type": "float", "default": 10},
    "resume_after": {"type": "float", "default": 60},
    "port": {"type": "int", "default": 6432},
    "socket_dir": {"type": "path", "default": "/var/run/postgresql"},
    "os_user": {"type": "str", "default": "postgres"},
}


def look(console: Console, database: Optional[str]) -> dict[str, Any]:
    """What the console tells."""
    clients = console.clients()
    return {
        "version": console.version(),
        "clients": {**asdict(clients), "connected": clients.connected},
        "pools": [asdict(pool) for pool in console.pools()],
        "databases": [asdict(entry) for entry in console.databases()],
        "paused": console.paused(database),
    }


def act(console: Console, params: dict[str, Any], timer: Timer) -> bool:
    """Give the command; True when it changed something."""
    command, database = params["command"], params["database"]
    if command == "pause":
        earlier = timer.armed()
        if params["resume_after"] > 0:
            timer.arm(params["resume_after"], console.resume_command(database), "let the pooler's clients go", insist=True)
        try:
            held = console.pause(database, params["timeout"])
        except ConsoleError as error:
            if "RESUME" not in str(error):  # else clients may be held still, and the timer goes on
                timer.disarm()
            raise
        if not held and not earlier:  # somebody else holds them, and means to let them go
            timer.disarm()
        return held
    if command == "resume":
        resumed = console.resume(database)
        timer.disarm()
        return resumed
    if command == "reload":
        console.reload()
    else:
        console.reconnect(database)
    return True


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    runner, clock = Runner(), Clock()
    console = Console(runner, params["socket_dir"], params["port"], params["os_user"], clock)
    timer = Timer(runner, clock, f"slipway-pooler-console-{params['port']}")
    if module.check_mode and not Path(params["socket_dir"], f".s.PGSQL.{params['port']}").is_socket():
        nobody = {"active": 0, "waiting": 0, "connected": 0, "max_wait": 0.0}
        nothing: dict[str, Any] = {"version": "", "clients": nobody, "pools": [], "databases": [], "paused": None}
        module.exit_json(changed=params["command"] != "look", **nothing)
    try:
        if params["command"] == "look":
            changed = False
        elif module.check_mode:
            held = console.paused(params["database"])
            changed = held is not (params["command"] == "pause") if params["command"] in ("pause", "resume") else True
        else:
            changed = act(console, params, timer)
        module.exit_json(changed=changed, **look(console, params["database"]))
    except (ConsoleError, ArmingFailed) as error:
        module.fail_json(msg=str(error), blocking=list(getattr(error, "blocking", ())))


if __name__ == "__main__":
    main()
