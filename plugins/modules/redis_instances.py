#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: all Redis instances of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_instances
short_description: Bring the Redis instances of a host, and their users, to a declared state
version_added: 0.1.0
description:
  - Starts the installed server with each configuration first, without network and data, so that unknown directives and bad values
    are refused before anything is written, all at once.
  - Values are compared with the running server. What it takes while it runs is changed so; it is restarted only for the rest, and
    then only when its append-only file is sound.
  - When an instance does not come up with what was declared, the old files and the old values are put back.
  - Instances that are no longer declared are stopped; their data stays in C(/var/lib/redis).
  - The package's own instance is stopped, unless it holds keys, which is refused.
  - The account C(slipway) administers each instance; its password is made on the host and is root's alone.
author: slipway.server contributors
options:
  instances:
    description: The instances, each the unit C(redis-server@NAME.service) of the package.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the instance., type: str, required: true}
      purpose:
        description:
          - C(cache) evicts any key and keeps nothing on disk. C(queue) evicts nothing and syncs its append-only file each second.
            C(limits) evicts keys with a time to live and keeps snapshots.
        type: str
        choices: [cache, queue, limits]
        required: true
      port: {description: TCP port; with a certificate it speaks TLS only., type: int, required: true}
      maxmemory_mb: {description: Memory for data in MiB., type: int, required: true}
      listen: {description: Addresses., type: list, elements: str, default: [127.0.0.1]}
      max_clients: {description: Connections; 32 descriptors more are asked for., type: int, default: 1000}
      certificate: {description: Certificate on this host., type: path}
      key: {description: Its key on this host., type: path}
      plaintext: {description: Whether other hosts may connect without TLS., type: bool, default: false}
      settings: {description: Further directives., type: dict, default: {}}
  users:
    description: The logins. The user C(default) is off.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the user., type: str, required: true}
      instance: {description: Name of an instance., type: str, required: true}
      password: {description: Its password; only the SHA-256 hash is written., type: str, required: true}
      keys: {description: Patterns of keys., type: list, elements: str, default: ["*"]}
      channels: {description: Patterns of channels., type: list, elements: str, default: []}
      commands: {description: Rules of ACL SETUSER for commands., type: str, default: +@all -@admin -@dangerous +info}
  sandbox:
    description: Whether the units are denied what the package leaves them. A running instance gets it with its next start.
    type: bool
    default: true
  state:
    description: C(absent) stops all instances, whose data stays, and has the package's own one as it was before the first run.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Says what would change; configurations are tried where the server is installed.
    support: full
  diff_mode:
    description: Shows each file; users and keys stay hidden.
    support: full
"""

EXAMPLES = r"""
- name: A cache for one application
  slipway.server.redis_instances:
    instances:
      - {name: cache, purpose: cache, port: 6379, maxmemory_mb: 256}
    users:
      - {name: shop, instance: cache, password: "{{ vault_shop_redis }}", keys: ["shop:*"]}
"""

RETURN = r"""
files_changed:
  description: Paths that were, or in check mode would be, changed.
  type: list
  returned: success
actions:
  description: What was done to units, in order.
  type: list
  returned: success
live:
  description: Directives that the running servers took, or in check mode differ, by instance.
  type: dict
  returned: success
restarted:
  description: Units that were restarted.
  type: list
  returned: success
"""

from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import redis
from ansible_collections.slipway.server.plugins.module_utils.settings.converge import ConvergeError
from ansible_collections.slipway.server.plugins.module_utils.settings.redis_server import RedisFailed, Server

NAME = {"type": "str", "required": True}
INSTANCE = {
    "name": NAME,
    "purpose": {"type": "str", "choices": list(redis.PURPOSES), "required": True},
    "port": {"type": "int", "required": True},
    "maxmemory_mb": {"type": "int", "required": True},
    "listen": {"type": "list", "elements": "str", "default": ["127.0.0.1"]},
    "max_clients": {"type": "int", "default": 1000},
    "certificate": {"type": "path"},
    "key": {"type": "path", "no_log": False},
    "plaintext": {"type": "bool", "default": False},
    "settings": {"type": "dict", "default": {}},
}
USER = {
    "name": NAME,
    "instance": NAME,
    "password": {"type": "str", "required": True, "no_log": True},
    "keys": {"type": "list", "elements": "str", "default": ["*"], "no_log": False},
    "channels": {"type": "list", "elements": "str", "default": []},
    "commands": {"type": "str", "default": redis.COMMANDS},
}
SPEC = {
    "instances": {"type": "list", "elements": "dict", "required": True, "options": INSTANCE},
    "users": {"type": "list", "elements": "dict", "default": [], "options": USER},
    "sandbox": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True)
    declared, logins = redis.instances(module.params["instances"]), redis.users(module.params["users"])
    try:
        server = Server(Runner(), sandbox=module.params["sandbox"])
        present = module.params["state"] == "present"
        done = server.run(declared, logins, module.check_mode) if present else server.let_go(module.check_mode)
    except (RedisFailed, ConvergeError, CommandFailed, OSError) as error:
        module.fail_json(msg=str(error))
    for line in done.warnings:
        module.warn(line)
    module.exit_json(
        changed=done.changed,
        diff=[entry for outcome in done.outcomes for entry in outcome.diff()],
        files_changed=[str(change.path) for outcome in done.outcomes for change in outcome.changes],
        actions=[action for outcome in done.outcomes for action in outcome.actions],
        live=done.live,
        restarted=done.restarted,
    )


if __name__ == "__main__":
    main()
