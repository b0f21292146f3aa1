#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: what every server needs, and its hardening, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: base
short_description: Time, journal, archive, passwords, sudo, permissions and options of a server in one call, without locking out
version_added: 0.1.0
description:
  - Brings everything that role base keeps to what is declared, mostly with files of its own. Files of others are changed only
    after their originals were kept, and go back to them once they are not declared any more.
  - PAM is changed through profiles of C(pam-auth-update), whose work is seen in a folder of its own first.
  - What a login depends on - PAM, sudo, C(login.defs) - is armed. A timer on the host puts the old bytes back unless a login over
    a new connection confirms it, with sudo where the run uses it. This module's action plugin does that.
    See M(slipway.server.guard). When nothing of it differs, nothing is armed.
  - Effective settings are read back in the same call.
author: slipway.server contributors
options:
  state:
    description:
      - C(present) applies. C(absent) takes everything away again, and the original bytes come back; packages stay.
      - C(verified) reads everything back and fails with what is not as declared.
    type: str
    choices: [present, absent, verified]
    default: present
  timezone: {description: Time zone as a path below C(/usr/share/zoneinfo)., type: str, default: Etc/UTC}
  hostname: {description: Host name to be read back; none when empty., type: str, default: ""}
  time_sync: {description: Whether systemd-timesyncd keeps the clock., type: bool, default: true}
  ntp_servers: {description: Time servers; those of the distribution when empty., type: list, elements: str, default: []}
  journal_max_use: {description: Most that the journal takes on disk., type: str, default: 500M}
  journal_keep_free: {description: What the journal leaves free on its disk., type: str, default: 1G}
  journal_max_age: {description: Age after which entries go; none when empty., type: str, default: ""}
  install_recommends: {description: Whether apt installs what packages recommend., type: bool, default: false}
  needrestart: {description: What needrestart does after an upgrade., type: str, choices: [list, restart], default: list}
  banner: {description: Text of C(/etc/issue) and C(/etc/issue.net); they stay as they are when empty., type: str, default: ""}
  umask: {description: Umask of logins in octal digits; as it is when empty., type: str, default: "027"}
  passwords:
    description: Rules for passwords. What is left out has its default; what is empty, or 0, is off.
    type: dict
    default: {}
    suboptions:
      quality:
        description: Settings of pwquality.conf(5).
        type: dict
        default: {minlen: 14, minclass: 4, maxrepeat: 3, retry: 3, dictcheck: true, enforce_for_root: true}
      history: {description: How many old passwords are not taken again., type: int, default: 5}
      lockout:
        description: Options of pam_faillock(8).
        type: dict
        default: {deny: 5, unlock_time: 900, fail_interval: 900, even_deny_root: true}
      ageing:
        description: Lines of login.defs(5) for new users and new hashes.
        type: dict
        default:
          PASS_MAX_DAYS: 365
          PASS_MIN_DAYS: 1
          PASS_WARN_AGE: 7
          YESCRYPT_COST_FACTOR: 7
          SHA_CRYPT_MIN_ROUNDS: 65536
          SHA_CRYPT_MAX_ROUNDS: 65536
  sudo: {description: Settings of sudo as its lines C(Defaults) have them., type: list, elements: str, default: []}
  session_timeout: {description: Seconds after which an idle shell ends; never when 0., type: int, default: 0}
  core_dumps: {description: Whether programs may leave their memory on disk., type: bool, default: false}
  modules_off: {description: Kernel modules that are not to be loaded., type: list, elements: str, default: []}
  services_off: {description: Units that are not to run., type: list, elements: str, default: []}
  cron_users: {description: Users who may have jobs of cron and at., type: list, elements: str, default: [root]}
  permissions:
    description: Which files of others get less rights.
    type: list
    elements: str
    choices: [cron, homes, noexec, sudoers]
    default: [cron, sudoers]
  auditd: {description: Whether changes of users - rights - modules - the clock - Docker are audited., type: bool, default: false}
  fail2ban: {description: Whether hosts that guess at sshd are refused., type: bool, default: false}
  fail2ban_ignore: {description: Addresses and networks that never are., type: list, elements: str, default: []}
  aide: {description: Whether AIDE looks for changed files every day., type: bool, default: false}
  seconds: {description: How long a change waits for its confirmation., type: float, default: 120}
attributes:
  check_mode:
    description: Says what would change; what sudo would not take is found, too.
    support: full
  diff_mode:
    description: Shows every file.
    support: full
seealso:
  - module: slipway.server.guard
"""

EXAMPLES = r"""
- name: Have longer passwords, and no DCCP
  slipway.server.base:
    passwords: {quality: {minlen: 20, minclass: 3}}
    sudo: [use_pty, ignore_dot]
    modules_off: [dccp]
"""

RETURN = r"""
files_changed:
  description: Files that were, or in check mode would be, changed.
  type: list
  elements: str
  returned: success
actions:
  description: What was done to units.
  type: list
  elements: str
  returned: success
mismatches:
  description: One sentence for each setting that is not effective.
  type: list
  elements: str
  returned: always
pending:
  description: One sentence for each value that a running process gets at its next start only.
  type: list
  elements: str
  returned: always
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
from ansible_collections.slipway.server.plugins.module_utils.settings import base, proof
from ansible_collections.slipway.server.plugins.module_utils.settings.base_pam import PamError
from ansible_collections.slipway.server.plugins.module_utils.settings.base_parts import PERMISSIONS, BaseError, Settings
from ansible_collections.slipway.server.plugins.module_utils.settings.converge import ConvergeError
from ansible_collections.slipway.server.plugins.module_utils.settings.packages import PackageError

TEXT: dict[str, Any] = {"type": "str", "default": ""}
WORDS: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
ON: dict[str, Any] = {"type": "bool", "default": True}
OFF: dict[str, Any] = {"type": "bool", "default": False}
QUALITY = {"minlen": 14, "minclass": 4, "maxrepeat": 3, "retry": 3, "dictcheck": True, "enforce_for_root": True}
LOCKOUT = {"deny": 5, "unlock_time": 900, "fail_interval": 900, "even_deny_root": True}
AGEING = {"PASS_MAX_DAYS": 365, "PASS_MIN_DAYS": 1, "PASS_WARN_AGE": 7, "YESCRYPT_COST_FACTOR": 7}
AGEING = {**AGEING, "SHA_CRYPT_MIN_ROUNDS": 65536, "SHA_CRYPT_MAX_ROUNDS": 65536}
PASSWORDS: dict[str, Any] = {
    "quality": {"type": "dict", "default": QUALITY},
    "history": {"type": "int", "default": 5},
    "lockout": {"type": "dict", "default": LOCKOUT},
    "ageing": {"type": "dict", "default": AGEING},
}
SETTINGS: dict[str, Any] = {
    "timezone": {"type": "str", "default": "Etc/UTC"},
    "hostname": TEXT,
    "time_sync": ON,
    "ntp_servers": WORDS,
    "journal_max_use": {"type": "str", "default": "500M"},
    "journal_keep_free": {"type": "str", "default": "1G"},
    "journal_max_age": TEXT,
    "install_recommends": OFF,
    "needrestart": {"type": "str", "choices": ["list", "restart"], "default": "list"},
    "banner": TEXT,
    "umask": {"type": "str", "default": "027"},
    "passwords": {"type": "dict", "default": {}, "options": PASSWORDS, "no_log": False},
    "sudo": WORDS,
    "session_timeout": {"type": "int", "default": 0},
    "core_dumps": OFF,
    "modules_off": WORDS,
    "services_off": WORDS,
    "cron_users": {**WORDS, "default": ["root"]},
    "permissions": {**WORDS, "choices": list(PERMISSIONS), "default": ["cron", "sudoers"]},
    "auditd": OFF,
    "fail2ban": OFF,
    "fail2ban_ignore": WORDS,
    "aide": OFF,
}
SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent", "verified"], "default": "present"},
    "seconds": {"type": "float", "default": 120},
    **SETTINGS,
}
FAULTS = (
    BaseError,
    PamError,
    TakenBack,
    GuardError,
    ArmingFailed,
    CommandFailed,
    ConvergeError,
    PackageError,
    OSError,
    ValueError,
)


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    settings = Settings(**{name: params[name] for name in SETTINGS})
    connection = login(ancestors())
    runner = Runner()
    owner = f"a playbook as {connection.user or 'root'}"
    arming = Arming(Guard(base.NAME, runner), lambda: install.ensure(carried(), runner), params["seconds"], owner)
    try:
        tell(arming.guard, module.warn, not module.check_mode)
        host = base.Base(runner, connection)
        if params["state"] == "verified":
            nothing = {"changed": False, "files_changed": [], "actions": [], "guard": {}}
            proof.end(module, base.NAME, host.verify(settings), nothing)
        done = host.converge(settings, params["state"] == "present", None if module.check_mode else arming)
        waits = arming.waiting()
    except FAULTS as error:
        module.fail_json(msg=f"base: {str(error).removeprefix('base: ')}", changed=False, mismatches=[], pending=[])
    for warning in done.warnings:
        module.warn(f"base: {warning}")
    for name in done.outcome.unmet:
        module.warn(f"{name} stays off: a condition of its own is not met on this host (see `systemctl status {name}`)")
    result = {
        "changed": done.changed,
        "diff": done.diff(),
        "files_changed": [str(change.path) for change in done.shown],
        "actions": done.outcome.actions,
        "guard": {**waits, "log": base.LOG} if waits else {},
    }
    proof.end(module, base.NAME, done.outcome.seen, result)


if __name__ == "__main__":
    main()
