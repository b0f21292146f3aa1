#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: workers of an application on this host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workers
short_description: Hand the workers of an application over to another slot
version_added: 0.1.0
description:
  - Runs on every host with workers of the application, one phase on all hosts before the next. Where nothing is left to do
    nothing is changed, so an interrupted handover is finished by the same tasks.
  - A new worker has to stay up for its minimum healthy time before any old one ends. One that does not is ended again, the former
    workers have their duty back, and the failure shows its last log lines, without the secrets of the environment files.
  - A singleton is started when all others are known to have ended. While it moves a timer on the host watches that the
    handover is finished, should the controller or the module die.
author: slipway.server contributors
options:
  app:
    description: Name of the application.
    type: str
    required: true
  slot:
    description: The slot that gets the workers; with O(state=stopped) the one whose workers end.
    type: str
    required: true
  state:
    description:
      - V(prepared) fetches the release and starts nothing.
      - V(started) starts and proves the workers that may run on both sides for a while.
      - V(released) ends the singletons of other slots where that of O(slot) runs on another host.
      - V(handed_over) does all that is left - starts and proves, moves the singletons, makes the others quiet and ends them.
      - V(stopped) makes the workers of the slot quiet and ends them.
    type: str
    choices: [prepared, started, released, handed_over, stopped]
    default: handed_over
  release:
    description: Name of the release. Needed for O(state=prepared).
    type: str
  image:
    description: Container image as C(REGISTRY/NAME@sha256:DIGEST), for hosts that run workers in containers.
    type: str
  archive:
    description: Path of the release's archive on this host, for hosts that run workers as units.
    type: path
  sha256:
    description: Digest that the archive must have.
    type: str
  cleared:
    description: Other hosts whose singletons of other slots are known to have ended.
    type: list
    elements: str
    default: []
  owner:
    description: Who does this, for those who find the lock taken.
    type: str
    default: ansible
attributes:
  check_mode:
    description: Looks at all processes and says what would be done.
    support: full
  diff_mode:
    description: Shows the steps.
    support: full
"""

EXAMPLES = r"""
- name: End the singletons that are followed by one on another host
  slipway.server.workers:
    app: spotik
    slot: green
    state: released
  register: released

- name: Hand the workers over
  slipway.server.workers:
    app: spotik
    slot: green
    cleared: [web1]
"""

RETURN = r"""
slot:
  description: The slot.
  type: str
  returned: success
steps:
  description: What was done, or in check mode would be done, in this order.
  type: list
  elements: str
  returned: success
outdated:
  description: True when a worker of the slot runs, but not as its description says now.
  type: bool
  returned: success, but for O(state=prepared)
held:
  description: Singletons that were not started, because a host did not say that its own has ended.
  type: list
  elements: str
  returned: success
disproved:
  description: True when a worker did not start or did not stay up.
  type: bool
  returned: failure
"""

import contextlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic.drivers import Artifact
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host
from ansible_collections.slipway.server.plugins.module_utils.traffic.workers import Workers

WAIT = 120.0


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "slot": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["prepared", "started", "released", "handed_over", "stopped"],
                "default": "handed_over",
            },
            "release": {"type": "str"},
            "image": {"type": "str"},
            "archive": {"type": "path"},
            "sha256": {"type": "str"},
            "cleared": {"type": "list", "elements": "str", "default": []},
            "owner": {"type": "str", "default": "ansible"},
        },
        required_if=[("state", "prepared", ["release"])],
        supports_check_mode=True,
    )
    given, host, write = module.params, Host(), not module.check_mode
    if module.check_mode and given["app"] not in host.apps():
        module.exit_json(changed=True, slot=given["slot"], steps=[], held=[], msg=f"{given['app']} is not described here yet")
    try:
        app = host.app(given["app"])
        lock = host.lock(app.name).held(f"{given['owner']} handing over workers of {app.name}", WAIT)
        with lock if write else contextlib.nullcontext():
            workers = Workers(host, app)
            if given["state"] == "prepared":
                artifact = Artifact(given["release"], given["image"], given["archive"], given["sha256"])
                result = workers.prepare(given["slot"], artifact, write)
            else:
                result = workers.move(given["state"], given["slot"], given["cleared"], write)
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    for text in result["held"]:
        module.warn(text)
    module.exit_json(diff={"before": "", "after": "".join(f"{step}\n" for step in result["steps"])}, **result)


if __name__ == "__main__":
    main()
