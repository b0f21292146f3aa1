#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: roles, databases and extensions of a PostgreSQL cluster in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_objects
short_description: Roles, databases, extensions and the pooler's lookup function of a PostgreSQL cluster in one round trip
version_added: 0.1.0
description:
  - Reads everything in one psql process over the unix socket and runs only the difference.
  - A password reaches the server as a SCRAM verifier made on the managed host, and only when the stored verifier does not
    belong to it. It is in no command line, no log of the server and no result.
  - Objects that are not declared are left alone, and so is an attribute that is not given.
  - A new database is open to its owner and to granted roles only.
author: slipway.server contributors
options:
  version:
    description: Major version of the cluster C(main).
    type: str
    required: true
  roles:
    description: Roles that have to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the role., type: str, required: true}
      login: {description: Whether it may log in., type: bool, default: true}
      replication: {description: Whether it may stream the write-ahead log., type: bool, default: false}
      connection_limit: {description: Greatest number of sessions; -1 means no limit., type: int}
      statement_timeout: {description: Longest time of a statement, such as 30s; C(default) takes the server's value., type: str}
      lock_timeout: {description: Longest wait for a lock., type: str}
      idle_in_transaction_session_timeout: {description: Longest pause inside a transaction., type: str}
      settings: {description: More settings of the role., type: dict, default: {}}
      member_of: {description: Roles whose rights it gets., type: list, elements: str, default: []}
  passwords:
    description: Password or SCRAM verifier by role. A role without one can log in only where no password is asked.
    type: dict
    default: {}
  databases:
    description: Databases that have to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the database., type: str, required: true}
      owner: {description: Role that owns it., type: str, default: postgres}
      encoding: {description: Encoding of a new database., type: str, default: UTF8}
      locale: {description: Collation and character classes of a new database., type: str, default: C.UTF-8}
      extensions: {description: Extensions it has to have., type: list, elements: str, default: []}
      pooled: {description: Whether the pooler may look up users in it., type: bool, default: true}
  pooler_user:
    description: Role with which a pooler looks up verifiers through C(pgbouncer.user_lookup(text)). Empty means no pooler.
    type: str
    default: ""
  readback:
    description: What has to be true in the end. Each is a check as M(slipway.server.readback) takes it.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    description: Shows what would be done; on a host without PostgreSQL everything is new.
    support: full
  diff_mode:
    description: One line for each object or attribute; no secrets.
    support: full
"""

EXAMPLES = r"""
- name: Keep the shop's database and its role
  slipway.server.postgresql_objects:
    version: "17"
    roles:
      - {name: shop, connection_limit: 40, statement_timeout: 30s, lock_timeout: 10s}
    passwords:
      shop: "{{ vault_shop_database_password }}"
    databases:
      - {name: shop_production, owner: shop, extensions: [pg_trgm]}
    pooler_user: pgbouncer_auth
"""

RETURN = r"""
steps:
  description: What was, or in check mode would be, done.
  type: list
  returned: success
  sample: ["role shop: present", "database shop_production: owner shop, UTF8, C.UTF-8"]
mismatches:
  description: One sentence for each value of O(readback) that is not effective.
  type: list
  returned: always
"""

from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import postgresql_objects as objects
from ansible_collections.slipway.server.plugins.module_utils.settings import proof
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql import texts
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_cluster import Cluster
from ansible_collections.slipway.server.plugins.module_utils.settings.psql import Psql, SqlError, running_port
from ansible_collections.slipway.server.plugins.module_utils.settings.readback import look

TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
NAME, NAMES = {"type": "str", "required": True}, {"type": "list", "elements": "str", "default": []}
ROLE = {
    "name": NAME,
    "login": {"type": "bool", "default": True},
    "replication": {"type": "bool", "default": False},
    "connection_limit": {"type": "int"},
    "settings": {"type": "dict", "default": {}},
    "member_of": NAMES,
    **dict.fromkeys(TIMEOUTS, {"type": "str"}),
}
DATABASE = {
    "name": NAME,
    "owner": {"type": "str", "default": "postgres"},
    "encoding": {"type": "str", "default": "UTF8"},
    "locale": {"type": "str", "default": "C.UTF-8"},
    "extensions": NAMES,
    "pooled": {"type": "bool", "default": True},
}
SPEC = {
    "version": {"type": "str", "required": True},
    "roles": {"type": "list", "elements": "dict", "default": [], "options": ROLE},
    "passwords": {"type": "dict", "default": {}, "no_log": True},
    "databases": {"type": "list", "elements": "dict", "default": [], "options": DATABASE},
    "pooler_user": {"type": "str", "default": ""},
    "readback": proof.OPTION,
}


def wanted(params: dict[str, Any]) -> objects.Wanted:
    """The parameters as the library takes them."""
    passwords = {name: str(value) for name, value in params["passwords"].items() if value is not None}
    roles = tuple(
        objects.Role(
            name=role["name"],
            login=role["login"],
            connection_limit=role["connection_limit"],
            replication=role["replication"],
            settings=texts({**{key: role[key] for key in TIMEOUTS}, **role["settings"]}),
            member_of=tuple(role["member_of"]),
            password=passwords.get(role["name"], ""),
        )
        for role in params["roles"]
    )
    databases = tuple(objects.Database(**{**item, "extensions": tuple(item["extensions"])}) for item in params["databases"])
    pooler = params["pooler_user"]
    return objects.Wanted(roles, databases, pooler, passwords.get(pooler, ""))


def main() -> None:
    """Read parameters, compare, run the difference, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True)
    declared, version, runner = wanted(module.params), module.params["version"], Runner()
    cluster = Cluster(runner, version)
    port = running_port(cluster.data_directory())
    psql, state = Psql(runner, version, port or 5432), objects.State()
    problems = objects.problems(declared)
    try:
        if not problems and (port is not None or not module.check_mode):
            state = objects.parse_state(psql.must(objects.observation(declared)))
        problems += objects.conflicts(declared, state)
        steps = [] if problems else objects.plan(declared, state)
        if steps and not module.check_mode:
            objects.apply(psql, steps)
    except SqlError as error:
        module.fail_json(msg=f"postgresql {version}: {error}")
    if problems:
        module.fail_json(msg="postgresql: nothing was changed:\n" + "\n".join(f"- {line}" for line in problems))
    sides = {side: "".join(f"{getattr(step, side)}\n" for step in steps if getattr(step, side)) for side in ("before", "after")}
    result = {"changed": bool(steps), "steps": [step.after for step in steps], "diff": sides}
    proof.end(module, "postgresql", look(runner, proof.given(module.params["readback"])), result)


if __name__ == "__main__":
    main()
