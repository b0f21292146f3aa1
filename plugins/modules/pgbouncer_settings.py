#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: a whole pooler in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_settings
short_description: Bring pgbouncer's settings, databases and users to what is declared, or leave it as it was
version_added: 0.1.0
description:
  - Refuses unknown settings, settings that the installed version does not have, settings that are not used, and clients and pools
    that do not fit into the descriptors of the host, all at once and before anything is written.
  - Swaps each file atomically, then reloads, and reads the running pooler back. What does not arrive takes the old bytes back.
  - Only what C(SHOW CONFIG) calls not changeable needs a restart. More descriptors are given to the running process.
  - A restart first lets running transactions end, then closes the connection of every client; pgbouncer has no way to keep
    them that works on all versions. It is refused while a transaction does not end.
  - Unchanged on the second run, also while a restart is pending.
author: slipway.server contributors
options:
  settings:
    description: Settings of C([pgbouncer]) by name. A list becomes comma-separated; null leaves the setting out.
    type: dict
    default: {}
  databases:
    description: Databases as clients name them, C(name) and keys of a connection such as C(host), C(port), C(pool_size).
    type: list
    elements: dict
    default: []
  users:
    description: Users with settings of their own, or with a password for a pooler that cannot look them up.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the role., type: str, required: true}
      password: {description: Password or SCRAM verifier., type: str}
      settings:
        description: Keys of C([users]) such as C(pool_mode) and C(max_user_connections).
        type: dict
        default: {}
  listen:
    description: Addresses to listen on. One that is not there yet at boot is waited for.
    type: list
    elements: str
    default: [127.0.0.1]
  port:
    description: TCP port, also part of the unix socket's name.
    type: int
    default: 6432
  nofile:
    description: Limit of open descriptors. More than the host grants is refused.
    type: int
    default: 4096
  auth_user:
    description: Role that looks users up. Empty leaves C(auth_user) and C(auth_query) out.
    type: str
    default: pgbouncer_auth
  auth_query:
    description: How it looks them up.
    type: str
    default: SELECT uname, phash FROM pgbouncer.user_lookup($1)
  auth_password:
    description: Password of that role for servers on other hosts.
    type: str
    default: ""
  tls:
    description: What clients see of TLS. A certificate that was renewed is read again.
    type: dict
    suboptions:
      certificate: {description: Certificate and chain., type: path, required: true}
      key: {description: Its key., type: path, required: true}
      required:
        description: Who has to use it, clients on other hosts, all over TCP, or nobody.
        type: str
        choices: [remote, all, none]
        default: remote
  logins:
    description: Logins that must work through the pooler, each tried with C(SELECT 1).
    type: list
    elements: dict
    default: []
    suboptions:
      database: {description: Database as clients name it., type: str, required: true}
      user: {description: Name of the role., type: str, required: true}
      password: {description: Its password., type: str, required: true}
  instance:
    description: Name of a further pooler on the host, C(pgbouncer@NAME.service). Empty is the package's own.
    type: str
    default: ""
  version:
    description: Version to judge by where none is installed yet, in check mode.
    type: str
    default: ""
  restart:
    description: C(now) restarts when a setting needs it, C(idle) only while no client is connected, C(never) leaves it pending.
    type: str
    choices: [now, idle, never]
    default: now
  sandbox:
    description: Whether the unit is denied what a pooler does without. A running one gets it by a restart, as O(restart) allows.
    type: bool
    default: true
  state:
    description: C(absent) has the files as they were before the first run, which takes a restart, as O(restart) allows.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Refuses what would be refused and shows the files; on a host without pgbouncer everything is new.
    support: full
  diff_mode:
    description: Shows each file; the one with passwords stays hidden.
    support: full
"""

EXAMPLES = r"""
- name: Pool a database of this host for clients of other hosts
  slipway.server.pgbouncer_settings:
    listen: [127.0.0.1, 10.0.0.5]
    databases:
      - {name: shop, host: /var/run/postgresql, port: 5432, pool_size: 10, reserve_pool: 2, max_db_connections: 12}
    settings: {max_client_conn: 1000, query_wait_timeout: 120}
    nofile: 2048
    restart: idle
"""

RETURN = r"""
version:
  description: Version of pgbouncer; empty when there is none.
  type: str
  returned: success
files_changed:
  description: Paths that were, or in check mode would be, changed.
  type: list
  returned: success
actions:
  description: What was done to the unit and the process, in order.
  type: list
  returned: success
reloaded:
  description: Whether the configuration was loaded again.
  type: bool
  returned: success
restarted:
  description: Whether the pooler was restarted.
  type: bool
  returned: success
clients_closed:
  description: How many clients lost their connection by that.
  type: int
  returned: success
pending_restart:
  description: Settings that are written but wait for a restart, with the running and the declared value.
  type: list
  returned: success
mismatches:
  description: What was read back and is not as declared.
  type: list
  returned: success
"""

from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import pgbouncer as conf
from ansible_collections.slipway.server.plugins.module_utils.settings import sandbox, taken
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_pooler import POLICIES, Pooler, PoolerError

NAME = {"type": "str", "required": True}
SECRET = {"type": "str", "no_log": True}
DICTS = {"type": "list", "elements": "dict", "default": []}
SPEC = {
    "settings": {"type": "dict", "default": {}},
    "databases": DICTS,
    "users": {**DICTS, "options": {"name": NAME, "password": SECRET, "settings": {"type": "dict", "default": {}}}},
    "listen": {"type": "list", "elements": "str", "default": ["127.0.0.1"]},
    "port": {"type": "int", "default": 6432},
    "nofile": {"type": "int", "default": 4096},
    "auth_user": {"type": "str", "default": "pgbouncer_auth"},
    "auth_query": {"type": "str", "default": conf.LOOKUP},
    "auth_password": {**SECRET, "default": ""},
    "tls": {
        "type": "dict",
        "options": {
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True, "no_log": False},
            "required": {"type": "str", "choices": list(conf.TLS_REQUIRED), "default": "remote"},
        },
    },
    "logins": {**DICTS, "options": {"database": NAME, "user": NAME, "password": {**SECRET, "required": True}}},
    "instance": {"type": "str", "default": ""},
    "version": {"type": "str", "default": ""},
    "restart": {"type": "str", "choices": list(POLICIES), "default": "now"},
    "sandbox": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def wanted(params: dict[str, Any]) -> conf.Wanted:
    """The parameters as the library takes them."""
    given = {name: params[name] for name in SPEC if name not in ("logins", "restart", "sandbox", "state", "tls", "users")}
    users = [{**user["settings"], "name": user["name"], "password": user["password"]} for user in params["users"]]
    return conf.Wanted(tls=conf.Tls(**params["tls"]) if params["tls"] else None, users=users, **given)


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True)
    given, pooler = module.params, Pooler(Runner())
    try:
        if given["state"] == "absent":
            done = pooler.let_go(wanted(given), given["restart"], module.check_mode)
        else:
            done = pooler.ensure(wanted(given), given["logins"], given["restart"], module.check_mode, given["sandbox"])
    except (PoolerError, OSError) as error:
        module.fail_json(msg=str(error))
    taken.tell(module.warn, "pgbouncer", done.converged)
    if done.lost:
        module.warn(f"pgbouncer: served databases that are not declared, and are gone for its clients: {', '.join(done.lost)}")
    if done.refused:
        module.warn(sandbox.warning("pgbouncer", done.refused))
    if done.pending:
        module.warn(f"pgbouncer: waits for a restart: {', '.join(done.pending)}")
    if done.clients:
        module.warn(f"pgbouncer: the restart closed the connections of {done.clients} client(s)")
    result = {"version": done.version, "reloaded": bool(done.converged.reloaded), "restarted": done.restarted}
    result |= {"clients_closed": done.clients, "pending_restart": list(done.pending), "mismatches": list(done.mismatches)}
    result |= {"actions": [*([done.raised] if done.raised else []), *done.converged.actions], "diff": done.converged.diff()}
    result["files_changed"] = [str(change.path) for change in done.converged.changes]
    if done.mismatches and not module.check_mode:
        lines = "\n".join(f"- {line}" for line in done.mismatches)
        module.fail_json(
            msg=f"pgbouncer: {len(done.mismatches)} value(s) did not arrive:\n{lines}", changed=done.changed, **result
        )
    module.exit_json(changed=done.changed, **result)


if __name__ == "__main__":
    main()
