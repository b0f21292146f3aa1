#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: default resource limits of services and logins."""

from __future__ import annotations

DOCUMENTATION = r"""
module: limits_settings
short_description: Set the default resource limits of services and logins alike
version_added: 0.1.0
description:
  - Writes the drop-ins of systemd, of its user managers and of PAM as one transaction.
  - Starts a service with the limits before, because a limit above what the host grants is cut without a word for services and
    locks users out at login. Such a limit is refused and nothing is written.
  - Services that run already keep their limits until they are started again. Units with limits of their own keep those.
author: slipway.server contributors
options:
  limits:
    description:
      - Name to C(soft) or C(soft:hard), with the names C(nofile), C(nproc), C(core) and C(memlock).
      - A lone number means both, but for C(nofile) the soft limit only, because services may raise theirs up to the hard one.
    type: dict
    required: true
  readback:
    description: What has to be true in the end. Each is a check as M(slipway.server.readback) takes it.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    description: Says what would change; whether the host grants it is not tried.
    support: full
  diff_mode:
    description: Shows the drop-ins.
    support: full
"""

EXAMPLES = r"""
- name: Give services and logins 8192 open files and no core dumps
  slipway.server.limits_settings:
    limits:
      nofile: 8192
      core: 0
"""

RETURN = r"""
files_changed:
  description: Drop-ins that were, or in check mode would be, changed.
  type: list
  returned: success
mismatches:
  description: One sentence for each value of O(readback) that is not effective.
  type: list
  returned: always
"""

from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import converge, limits, proof
from ansible_collections.slipway.server.plugins.module_utils.settings.readback import look

SPEC = {"limits": {"type": "dict", "required": True}, "readback": proof.OPTION}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True)
    runner = Runner()
    try:
        declared = limits.parse(module.params["limits"])
        transaction = limits.transaction(declared)
        if not module.check_mode and converge.plan(transaction):
            limits.refuse_what_the_host_cuts(runner, declared)
        done = converge.Converger(runner).run(transaction, module.check_mode)
    except (limits.LimitError, converge.ConvergeError, CommandFailed, OSError) as error:
        module.fail_json(msg=str(error))
    result = {"changed": done.changed, "diff": done.diff(), "files_changed": [str(change.path) for change in done.changes]}
    proof.end(module, "kernel", look(runner, proof.given(module.params["readback"])), result)


if __name__ == "__main__":
    main()
