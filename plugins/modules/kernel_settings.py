#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: all kernel settings of one drop-in, and the default limits, at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_settings
short_description: Set kernel settings, live and on disk, and the default limits of services and logins
version_added: 0.1.0
description:
  - Compares the declared settings with the running kernel and with the drop-in, and writes the difference to both or to neither.
  - A setting that is no longer declared leaves the drop-in, and the kernel gets back what other files give it, or else what it
    had before.
  - Values are compared without regard to white space.
  - The default limits are drop-ins of systemd, of its user managers and of PAM, written as one transaction. Before that a service
    is started with them, because a limit above what the host grants is cut without a word for services and locks users out at
    login. Such a limit is refused, and nothing is changed.
  - Services that run already keep their limits until they are started again. Units with limits of their own keep those.
author: slipway.server contributors
options:
  state:
    description: V(absent) removes the drop-ins; the kernel gets back what other files give it, or else what it had before.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The drop-in. It belongs to this module entirely.
    type: path
    default: /etc/sysctl.d/60-slipway.conf
  settings:
    description: Keys and values; required when O(state=present).
    type: dict
  live:
    description:
      - Whether the running kernel is changed too. C(auto) writes everything on a host with a kernel of its own, and in a
        container only the keys of its network namespace; the others belong to the machine below and stand in the drop-in as a
        comment. C(false) writes the drop-in only, as for an image.
    type: str
    choices: ["auto", "true", "false"]
    default: auto
  optional:
    description:
      - Keys of O(settings) that this kernel need not have. They are left out where it does not.
      - A file read later at boot that sets one differently is a warning, whatever O(strict) says.
    type: list
    elements: str
    default: []
  strict:
    description:
      - Whether a setting that this kernel does not have, or that a file read later at boot sets differently, is an error.
      - Otherwise both are warnings.
    type: bool
    default: true
  router:
    description:
      - Whether this host forwards packets. With C(auto) C(net.ipv4.ip_forward=0) is refused where Docker is installed, because
        its containers would lose their network; C(false) lets it through; C(true) demands C(1).
    type: str
    choices: ["auto", "true", "false"]
    default: auto
  limits:
    description:
      - Name to C(soft) or C(soft:hard), with the names C(nofile), C(nproc), C(core) and C(memlock).
      - A lone number means both, but for C(nofile) the soft limit only, because services may raise theirs up to the hard one.
      - Without this option limits are left alone; with an empty one the drop-ins are removed.
    type: dict
  readback:
    description: What has to be true in the end. Each is a check as M(slipway.server.readback) takes it.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    description: Says what would change; a value that the kernel would refuse, or a limit that the host cuts, is not found.
    support: full
  diff_mode:
    description: Shows the drop-ins and the running kernel.
    support: full
"""

EXAMPLES = r"""
- name: Let a web server take bursts of connections, give programs 8192 open files and no core dumps
  slipway.server.kernel_settings:
    settings:
      net.core.somaxconn: 4096
      net.ipv4.tcp_max_syn_backlog: 4096
      net.ipv4.ip_local_port_range: 16384 60999
    limits:
      nofile: 8192
      core: 0

- name: Have everything as it was
  slipway.server.kernel_settings:
    state: absent
"""

RETURN = r"""
settings_changed:
  description: Keys whose value on disk or in the kernel was, or in check mode would be, changed.
  type: list
  returned: success
file_only:
  description: Keys that are in the drop-in only, in a container as a comment, because they belong to the machine below.
  type: list
  returned: success
missing:
  description: Keys that this kernel does not have.
  type: list
  returned: success
overridden:
  description: Keys that a file read later at boot sets differently, with value and file.
  type: dict
  returned: success
files_changed:
  description: Drop-ins of limits that were, or in check mode would be, changed.
  type: list
  returned: success
mismatches:
  description: One sentence for each value of O(readback) that is not effective.
  type: list
  returned: always
pending:
  description: Keys of which the kernel has less than declared until the next start, with what it could give (C(vm.nr_hugepages)).
  type: dict
  returned: success
"""

from pathlib import Path

from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import converge, limits, proof, sysctl
from ansible_collections.slipway.server.plugins.module_utils.settings.readback import look

SPEC = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "path": {"type": "path", "default": "/etc/sysctl.d/60-slipway.conf"},
    "settings": {"type": "dict"},
    "live": {"type": "str", "choices": ["auto", "true", "false"], "default": "auto"},
    "strict": {"type": "bool", "default": True},
    "optional": {"type": "list", "elements": "str", "default": []},
    "router": {"type": "str", "choices": ["auto", "true", "false"], "default": "auto"},
    "limits": {"type": "dict"},
    "readback": proof.OPTION,
}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True, required_if=[("state", "present", ["settings"])])
    given, runner = module.params, Runner()
    if given["state"] == "absent":
        given.update(settings={}, optional=[], router="auto", limits={}, readback=[])
    declared = sysctl.Declared(
        Path(given["path"]), given["settings"], given["live"], given["strict"], given["router"], given["optional"]
    )
    try:
        # What the host would cut is refused before the first change.
        bounds = limits.prepared(runner, given["limits"], module.check_mode)
        done = sysctl.Sysctl(runner).run(declared, module.check_mode)
        written = converge.Converger(runner).run(bounds, module.check_mode) if bounds else converge.Outcome()
    except (sysctl.SysctlError, limits.LimitError, converge.ConvergeError, CommandFailed, OSError) as error:
        module.fail_json(msg=str(error))
    for key in done.missing:
        module.warn(f"{key}: this kernel has no such setting; it is in {declared.path} only")
    for key, words in done.overridden.items():
        module.warn(f"{key}: will be set to {words} at the next start, after {declared.path}")
    for key, there in done.pending.items():
        module.warn(f"{key}: the kernel could give {there} only, its memory is in pieces; it is as before until the next start")
    result = {
        "changed": done.changed or written.changed,
        "diff": done.diff(declared.path) + written.diff(),
        "settings_changed": [change.key for change in done.changes],
        "file_only": done.file_only,
        "missing": done.missing,
        "overridden": done.overridden,
        "pending": done.pending,
        "files_changed": [str(change.path) for change in written.changes],
    }
    proof.end(module, "kernel", look(runner, proof.given(given["readback"])), result)


if __name__ == "__main__":
    main()
