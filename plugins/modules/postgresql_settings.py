#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: all settings of a PostgreSQL cluster in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_settings
short_description: Bring a PostgreSQL cluster's settings and access rules to what is declared, or leave it as it was
version_added: 0.1.0
description:
  - Reads C(pg_settings) and C(pg_file_settings) in one session and refuses unknown, removed, unavailable and out-of-range
    values before anything is written.
  - Has the server's own binary read the new files and map their memory in a scratch directory, then swaps one drop-in file,
    C(pg_hba.conf) and C(pg_ident.conf), and reloads. A restart is the business of M(slipway.server.postgresql_restart).
  - When the server does not take the change, the old bytes come back and the server runs with them.
  - Unchanged on the second run, also while a restart is pending.
author: slipway.server contributors
options:
  version:
    description: Major version of the cluster C(main).
    type: str
    required: true
  settings:
    description: Names and values as in postgresql.conf. A list becomes comma-separated; null leaves the setting out.
    type: dict
    default: {}
  listen:
    description: Addresses to listen on.
    type: list
    elements: str
    default: [localhost]
  port:
    description: TCP port, also part of the unix socket's name.
    type: int
    default: 5432
  data_checksums:
    description: Whether to warn of a cluster whose pages have no checksums.
    type: bool
    default: true
  hba:
    description: Access rules between the rule for C(postgres) and the rules for passwords on this host, in order.
    type: list
    elements: dict
    default: []
    suboptions:
      type: {description: Kind of connection., type: str, choices: [local, host, hostssl, hostnossl], default: host}
      database: {description: Database names or C(all)., type: list, elements: str, default: [all]}
      user: {description: Role names or C(all)., type: list, elements: str, default: [all]}
      address: {description: Network, address, C(samehost) or C(samenet)., type: str, default: ""}
      method:
        description: How the client proves who it is.
        type: str
        choices: [scram-sha-256, cert, peer, reject]
        default: scram-sha-256
  peers:
    description: >-
      Addresses of the primary and its standbys. Each may ask for replication over TLS, and for the database C(postgres), which
      C(pg_rewind) and a server that starts need.
    type: list
    elements: str
    default: []
  replication_user:
    description: Role by which they do.
    type: str
    default: replicator
  pooler_user:
    description: Role that a pooler on this host may use over the unix socket without password. Empty means none.
    type: str
    default: ""
  pooler_os_user:
    description: Operating system user of that pooler.
    type: str
    default: postgres
  prepared:
    description:
      - Files that were there before the package, such as those that say how it makes its cluster and when that starts. They are
        kept here, with the sandbox of the units, so that a run that changes nothing needs no task of its own for them.
      - Empty leaves such files, and the sandbox, alone.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path., type: path, required: true}
      content: {description: Text., type: str, required: true}
      effect:
        description: Whether systemd has to read its units again.
        type: str
        choices: [none, daemon-reload]
        default: none
  state:
    description:
      - C(absent) has the files as they were before the first run, and the running server load them. O(version) may be empty
        then. Data, databases and roles stay.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Refuses what would be refused and shows the files; on a host without PostgreSQL everything is new.
    support: full
  diff_mode:
    description: Shows each file.
    support: full
"""

EXAMPLES = r"""
- name: Size PostgreSQL 17 and let the application hosts in
  slipway.server.postgresql_settings:
    version: "17"
    settings:
      shared_buffers: 2GB
      max_connections: 60
      shared_preload_libraries: [pg_stat_statements]
    listen: [localhost, 10.0.0.5]
    hba:
      - {type: hostssl, database: [shop], user: [shop], address: 10.0.0.0/24}
"""

RETURN = r"""
started:
  description: Whether the server was not running and was started.
  type: bool
  returned: success
reloaded:
  description: Whether the server loaded its files again.
  type: bool
  returned: success
pending_restart:
  description: Settings that are written but wait for a restart.
  type: list
  returned: success
shadowed:
  description: Declared settings that a later file sets again, such as postgresql.auto.conf, and that file.
  type: dict
  returned: success
data_checksums:
  description: Whether data pages carry checksums; null when the server was not asked.
  type: bool
  returned: success
server_version:
  description: Version of the running server; empty when there is none.
  type: str
  returned: success
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import postgresql as conf
from ansible_collections.slipway.server.plugins.module_utils.settings import postgresql_gone, postgresql_prepared, sandbox
from ansible_collections.slipway.server.plugins.module_utils.settings.converge import ConvergeError, Outcome
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_cluster import Cluster, ClusterError, Wanted
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_cluster import Outcome as ClusterOutcome

NAMES = {"type": "list", "elements": "str", "default": ["all"]}
HBA = {
    "type": {"type": "str", "choices": ["local", "host", "hostssl", "hostnossl"], "default": "host"},
    "database": NAMES,
    "user": NAMES,
    "address": {"type": "str", "default": ""},
    "method": {"type": "str", "choices": ["scram-sha-256", "cert", "peer", "reject"], "default": "scram-sha-256"},
}
PREPARED = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str", "required": True},
    "effect": {"type": "str", "choices": ["none", "daemon-reload"], "default": "none"},
}
SPEC = {
    "version": {"type": "str", "required": True},
    "settings": {"type": "dict", "default": {}},
    "listen": {"type": "list", "elements": "str", "default": ["localhost"]},
    "port": {"type": "int", "default": 5432},
    "data_checksums": {"type": "bool", "default": True},
    "hba": {"type": "list", "elements": "dict", "default": [], "options": HBA},
    "peers": {"type": "list", "elements": "str", "default": []},
    "replication_user": {"type": "str", "default": "replicator"},
    "pooler_user": {"type": "str", "default": ""},
    "pooler_os_user": {"type": "str", "default": "postgres"},
    "prepared": {"type": "list", "elements": "dict", "default": [], "options": PREPARED},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def wanted(params: dict[str, Any]) -> Wanted:
    """The parameters as the library takes them."""
    rules = [
        conf.HbaRule(rule["type"], tuple(rule["database"]), tuple(rule["user"]), rule["address"], rule["method"])
        for rule in params["hba"]
    ]
    rules += conf.peer_rules(params["peers"], params["replication_user"])
    problems = conf.hba_problems(rules)
    hba = "" if problems else conf.render_hba(rules, params["pooler_user"])
    settings = conf.texts(params["settings"])
    problems += [f"{name}: is not set here; {conf.MANAGED[name]}" for name in sorted(settings) if name in conf.MANAGED]
    settings.update(conf.texts({"listen_addresses": params["listen"], "port": params["port"]}))
    return Wanted(settings, hba, conf.render_ident(params["pooler_user"], params["pooler_os_user"]), tuple(problems))


def shown(path: Path, before: Any, after: Any) -> dict[str, str]:
    """One file as Ansible shows it."""
    return {"before_header": str(path), "after_header": str(path), "before": before or "", "after": after or ""}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    runner, params, prepared = Runner(), module.params, Outcome()
    present = params["state"] == "present"
    try:
        if not present:
            prepared = postgresql_prepared.let_go(runner, module.check_mode)
            version = postgresql_gone.version(params["version"])
            done = postgresql_gone.let_go(Cluster(runner, version), module.check_mode) if version else ClusterOutcome()
        else:
            if params["prepared"]:
                prepared, refused = postgresql_prepared.keep(runner, params["prepared"], module.check_mode)
                if refused:
                    module.warn(sandbox.warning(postgresql_prepared.UNIT, refused))
            done = Cluster(runner, params["version"]).ensure(wanted(params), module.check_mode)
    except (ClusterError, ConvergeError, OSError) as error:
        module.fail_json(msg=f"postgresql {module.params['version']}: {error}")
    for name, file in done.shadowed.items():
        module.warn(f"postgresql: {name} is set again in {file}, which wins; `ALTER SYSTEM RESET {name}` gives it back")
    for line in [*prepared.words, *done.words]:
        module.warn(line)
    if done.replaced:
        kept = f"/var/lib/slipway/originals/postgresql-{module.params['version']}"
        lines = "; ".join(done.replaced)
        module.warn(
            f"postgresql: replaced what others had set: {lines}. The old files are in {kept}; state absent brings them back"
        )
    if present and done.live and not done.live.checksums and module.params["data_checksums"]:
        module.warn(
            "postgresql: the cluster has no checksums on its pages; `pg_checksums --enable` makes them while it is stopped"
        )
    module.exit_json(
        changed=done.changed or prepared.changed,
        diff=[*prepared.diff(), *(shown(*change) for change in done.changes)],
        started=done.started,
        reloaded=done.reloaded,
        pending_restart=list(done.pending),
        shadowed=done.shadowed,
        data_checksums=done.live.checksums if done.live else None,
        server_version=done.live.version if done.live else "",
    )


if __name__ == "__main__":
    main()
