#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the SSH server, its users and their keys, without a way to lock oneself out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd
short_description: Harden the SSH server and keep named users, their keys and sudo, without locking the operator out
version_added: 0.1.0
description:
  - Brings the SSH server to a policy with one drop-in that comes before every other setting, and named users to their keys and
    rights, in one call.
  - Nothing is changed before sshd itself has judged the new configuration in a folder of its own, and before the connecting
    user's way in has been found in it - a usable key in a file that StrictModes accepts, AllowUsers, AllowGroups,
    PermitRootLogin.
  - Then the change is armed. A timer on the host puts the old bytes back unless a login over a new connection confirms it, with
    the inventory's user, key and port. This module's action plugin does that. See M(slipway.server.guard).
  - Every setting is read back from C(sshd -T), and the algorithms from the beginning of a connection to every port.
  - Accounts that were made for a change stay when it is taken back; their keys and rights go.
author: slipway.server contributors
options:
  state:
    description:
      - C(present) applies the policy. C(absent) takes the collection's files away again.
      - C(verified) reads everything back and fails with what is not as declared.
    type: str
    choices: [present, absent, verified]
    default: present
  profile:
    description:
      - C(strict) has only what ssh-audit neither fails nor warns, so clients need post-quantum key exchange (OpenSSH 8.5).
      - C(compatible) adds curve25519, and ECDSA keys of users.
    type: str
    choices: [strict, compatible]
    default: strict
  ports:
    description: Ports; those that sshd has when empty. That of this run's own connection stays open beside them.
    type: list
    elements: int
    default: []
  root_login:
    description: PermitRootLogin.
    type: str
    choices: [prohibit-password, "no", forced-commands-only]
    default: prohibit-password
  allow_users:
    description: Only these users, as patterns of AllowUsers; everybody when empty.
    type: list
    elements: str
    default: []
  allow_groups:
    description: Only members of these groups; everybody when empty.
    type: list
    elements: str
    default: []
  forwarding:
    description: Whether TCP, agent, X11 and socket forwarding are allowed.
    type: bool
    default: false
  banner:
    description: Text shown before the login; none when empty.
    type: str
    default: ""
  settings:
    description: Further keywords of sshd_config, or other values for those of the profile. A list gives a keyword several lines.
    type: dict
    default: {}
  users:
    description: Named users.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name., type: str, required: true}
      state: {description: Whether there is such a user; its home stays., type: str, choices: [present, absent], default: present}
      keys: {description: Public keys., type: list, elements: str, default: []}
      exclusive: {description: Whether other keys of the user go., type: bool, default: true}
      groups: {description: Further groups; made where missing., type: list, elements: str, default: []}
      sudo: {description: Rights with sudo., type: str, choices: [none, password, nopassword], default: none}
      password_hash: {description: For C(/etc/shadow); left alone when absent., type: str, default: ""}
      shell: {description: Login shell., type: str, default: /bin/bash}
  seconds:
    description: How long a change waits for its confirmation.
    type: float
    default: 120
attributes:
  check_mode:
    description: Judges the new configuration too; refuses what a run would refuse.
    support: full
  diff_mode:
    description: Shows every file but private keys.
    support: full
seealso:
  - module: slipway.server.guard
"""

EXAMPLES = r"""
- name: Let ann in by her key, and nobody by a password
  slipway.server.sshd:
    ports: [22]
    users:
      - name: ann
        keys: ["{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"]
        sudo: nopassword
"""

RETURN = r"""
files_changed:
  description: Files that were, or in check mode would be, written or removed.
  type: list
  elements: str
  returned: success
actions:
  description: What was done to accounts.
  type: list
  elements: str
  returned: success
ports:
  description: Ports on which sshd listens.
  type: list
  elements: int
  returned: success
guard:
  description: The armed change with C(name), C(txn) and C(outcome) C(confirmed), C(reverted) or C(waiting); empty without one.
  type: dict
  returned: success
"""

from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.guard import install
from ansible_collections.slipway.server.plugins.module_utils.guard.armed import Arming, Guard, GuardError, TakenBack, tell
from ansible_collections.slipway.server.plugins.module_utils.guard.carried import carried
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed
from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.host.session import ancestors, login
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import sshd
from ansible_collections.slipway.server.plugins.module_utils.settings.converge import ConvergeError
from ansible_collections.slipway.server.plugins.module_utils.settings.sshd_accounts import SUDO, User
from ansible_collections.slipway.server.plugins.module_utils.settings.sshd_policy import PROFILES, Policy, SshdError

WORDS: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
USER: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "keys": {**WORDS, "no_log": False},
    "exclusive": {"type": "bool", "default": True},
    "groups": WORDS,
    "sudo": {"type": "str", "choices": list(SUDO), "default": "none"},
    "password_hash": {"type": "str", "default": "", "no_log": True},
    "shell": {"type": "str", "default": "/bin/bash"},
}
SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent", "verified"], "default": "present"},
    "profile": {"type": "str", "choices": list(PROFILES), "default": "strict"},
    "ports": {"type": "list", "elements": "int", "default": []},
    "root_login": {"type": "str", "choices": ["prohibit-password", "no", "forced-commands-only"], "default": "prohibit-password"},
    "allow_users": WORDS,
    "allow_groups": WORDS,
    "forwarding": {"type": "bool", "default": False},
    "banner": {"type": "str", "default": ""},
    "settings": {"type": "dict", "default": {}},
    "users": {"type": "list", "elements": "dict", "default": [], "options": USER},
    "seconds": {"type": "float", "default": 120},
}


def policy(params: dict[str, Any]) -> Policy:
    """The parameters as the library takes them."""
    lists = {key: value if isinstance(value, list) else [value] for key, value in params["settings"].items()}
    settings = {
        key: [{True: "yes", False: "no"}.get(v, str(v)) if isinstance(v, bool) else str(v) for v in given]
        for key, given in lists.items()
    }
    names = {key: tuple(params[key]) for key in ("ports", "allow_users", "allow_groups")}
    same = {key: params[key] for key in ("profile", "root_login", "forwarding", "banner")}
    return Policy(settings=settings, **names, **same)


def users(params: dict[str, Any]) -> list[User]:
    """The same for users."""
    return [
        User(
            u["name"],
            u["state"] == "present",
            tuple(u["keys"]),
            u["exclusive"],
            tuple(u["groups"]),
            u["sudo"],
            u["password_hash"],
            u["shell"],
        )
        for u in params["users"]
    ]


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    connection = login(ancestors())
    runner = Runner()
    host = sshd.Sshd(runner, connection)
    owner = f"a playbook as {connection.user or 'root'}"
    arming = Arming(Guard(sshd.NAME, runner), lambda: install.ensure(carried(), runner), params["seconds"], owner)
    try:
        tell(arming.guard, module.warn, not module.check_mode)
        if params["state"] == "verified":
            module.exit_json(changed=False, files_changed=[], actions=[], ports=host.verify(policy(params)), guard={})
        wanted = policy(params) if params["state"] == "present" else None
        done = host.converge(wanted, users(params), None if module.check_mode else arming)
        waits = arming.waiting()
    except (SshdError, TakenBack, GuardError, ArmingFailed, CommandFailed, ConvergeError, OSError) as error:
        module.fail_json(msg=f"sshd: {error}")
    for warning in done.warnings:
        module.warn(f"sshd: {warning}")
    module.exit_json(
        changed=done.changed,
        diff=done.diff(),
        files_changed=[str(change.path) for change in done.changes],
        actions=done.actions,
        ports=done.ports,
        guard={**waits, "ports": done.ports, "session_port": connection.port, "log": sshd.LOG} if waits else {},
    )


if __name__ == "__main__":
    main()
