#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: a PostgreSQL cluster as standby: following, rewound, promoted, fenced, or judged by its lag."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_standby
short_description: Make, rejoin, promote, fence or judge a streaming standby of PostgreSQL
version_added: 0.1.0
description:
  - C(following) copies the primary with C(pg_basebackup) into a directory beside the old one and swaps them when the copy is
    whole. A standby that streams from this primary already is left alone, one of another primary is pointed to it.
  - A cluster with data of its own is refused. With O(replace) its directory is kept under another name.
  - C(rejoined) takes a former primary back with C(pg_rewind). C(promoted) makes a standby take writes. C(fenced) stops a server
    and masks its unit, so that it cannot come back as a second primary, also not by a reboot; C(unfenced) takes that back.
  - C(leading) gives a primary what it needs before another takes its place.
  - For C(rejoined) the role needs EXECUTE on C(pg_ls_dir), C(pg_stat_file) and C(pg_read_binary_file) and a C(hostssl) rule for
    the database C(postgres); the server needs checksums or C(wal_log_hints).
  - The slot is made at the primary by the standby itself. The password lies in a file of the server's user and is in no
    command line.
author: slipway.server contributors
options:
  state:
    description:
      - What the cluster has to be; C(judged) only looks.
      - C(marked) looks, and has a primary write a word into its log before, so that nobody has its RV(position) but who receives.
    type: str
    choices: [leading, following, rejoined, promoted, fenced, unfenced, judged, marked]
    default: following
  version:
    description: Major version of the cluster C(main); empty means the only one of the host.
    type: str
    default: ""
  primary:
    description: The server to follow, or with C(leading) this one itself; needed for both and for C(rejoined).
    type: dict
    suboptions:
      host: {description: Its address., type: str, required: true}
      port: {description: Its port., type: int, default: 5432}
      user: {description: Role with the right to replicate., type: str, default: replicator}
      sslmode:
        description: How its certificate is proven.
        type: str
        choices: [require, verify-ca, verify-full]
        default: require
      ca: {description: Path on the host of the certificate that signed the primary's., type: path, default: ""}
  password:
    description: Password of that role.
    type: str
    default: ""
  slot:
    description: Name of this standby, by which its slot at the primary is called; what a slot's name cannot have becomes C(_).
    type: str
    default: ""
  replace:
    description: Whether a cluster with data of its own may be replaced by a copy of the primary.
    type: bool
    default: false
  max_lag_bytes:
    description: Most bytes that a standby may have received and not replayed; -1 means that lag is not judged.
    type: int
    default: -1
  max_lag_seconds:
    description: Most seconds since its last replayed change, when it is behind; -1 means that this is not judged.
    type: float
    default: -1
  reached:
    description:
      - RV(position) of its primary, which the standby must have replayed but for O(max_lag_bytes); 0 judges nothing.
      - A standby that is cut off from a primary takes up to a minute to notice, and does not know what it lacks.
    type: int
    default: 0
  deadline:
    description: Seconds to wait until the lag is within these limits.
    type: int
    default: 60
attributes:
  check_mode:
    description: Says what would be done; on a host without PostgreSQL everything is new.
    support: full
  diff_mode:
    description: Nothing is shown.
    support: none
"""

EXAMPLES = r"""
- name: Follow the primary, not more than a second behind
  slipway.server.postgresql_standby:
    primary: {host: 10.0.0.5}
    password: "{{ vault_replication_password }}"
    slot: db2
    max_lag_seconds: 1

- name: Take writes
  slipway.server.postgresql_standby:
    state: promoted
"""

RETURN = r"""
steps: {description: "What was, or in check mode would be, done.", type: list, returned: success, sample: [copied]}
kept: {description: Where an old directory with data lies; empty when there is none., type: str, returned: success}
standby: {description: Whether the server is a standby; null when it was not asked., type: bool, returned: success}
lag_bytes: {description: Bytes received and not replayed; null on a primary., type: int, returned: success}
position:
  description: Where the log ends, in bytes; a standby's as replayed. Null for one that does not answer, or did not end in order.
  type: int
  returned: success
lag_seconds: {description: "Seconds since the last replayed change, 0 when nothing is behind.", type: float, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import postgresql_standby as library
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_cluster import (
    Cluster,
    ClusterError,
    only_version,
)
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_lag import Limits
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_source import (
    SSLMODES,
    Source,
    problems,
    slot_name,
)

PRIMARY = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "default": 5432},
    "user": {"type": "str", "default": "replicator"},
    "sslmode": {"type": "str", "choices": list(SSLMODES), "default": "require"},
    "ca": {"type": "path", "default": ""},
}
STATES = ["leading", "following", "rejoined", "promoted", "fenced", "unfenced", "judged", "marked"]
SPEC = {
    "state": {"type": "str", "choices": STATES, "default": "following"},
    "version": {"type": "str", "default": ""},
    "primary": {"type": "dict", "options": PRIMARY},
    "password": {"type": "str", "default": "", "no_log": True},
    "slot": {"type": "str", "default": ""},
    "replace": {"type": "bool", "default": False},
    "max_lag_bytes": {"type": "int", "default": -1},
    "max_lag_seconds": {"type": "float", "default": -1},
    "reached": {"type": "int", "default": 0},
    "deadline": {"type": "int", "default": 60},
}


def act(module: AnsibleModule, standby: library.Standby) -> library.Outcome:
    """Do what was asked for; raises StandbyError."""
    params, check = module.params, module.check_mode
    state = params["state"]
    simple = {"promoted": standby.promote, "fenced": standby.fence, "unfenced": standby.unfence, "marked": standby.mark}
    if state in simple:
        return simple[state](check)
    if state == "judged":
        return library.Outcome(state=standby.observe())
    source = Source(**params["primary"], slot=slot_name(params["slot"]), password=params["password"])
    found = problems(source)
    if found:
        raise library.StandbyError("nothing was changed:\n" + "\n".join(f"- {line}" for line in found))
    if state == "leading":
        return standby.lead(source, check)
    return standby.ensure(source, params["replace"], check) if state == "following" else standby.rejoin(source, check)


def main() -> None:
    """Read parameters, ask the library, answer."""
    needs = [("state", name, ("primary", "slot")) for name in ("leading", "following", "rejoined")]
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True, required_if=needs)
    runner, params = Runner(), module.params
    version, limits = params["version"], Limits(params["max_lag_bytes"], params["max_lag_seconds"], params["reached"])
    try:
        standby = library.Standby(Cluster(runner, version or only_version()), runner)
        done = act(module, standby)
        if limits.judges and not (module.check_mode and done.steps):
            done.state = standby.wait(limits, params["deadline"])
    except (library.StandbyError, ClusterError, OSError) as error:
        module.fail_json(msg=f"postgresql: {error}")
    seen = done.state
    module.exit_json(
        changed=bool(done.steps),
        steps=done.steps,
        kept=done.kept,
        standby=seen.standby if seen else None,
        lag_bytes=seen.lag_bytes if seen else None,
        lag_seconds=seen.lag_seconds if seen else None,
        position=seen.position if seen else done.ended,
    )


if __name__ == "__main__":
    main()
