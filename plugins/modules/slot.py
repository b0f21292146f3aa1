#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: a release in a slot of this host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: slot
short_description: Run a release in one of an application's slots, prove it, keep it warm, or stop it
version_added: 0.1.0
description:
  - Runs on a host of the application. The slot that has the traffic is never stopped or replaced.
  - With O(state=started) fetches the release, starts all instances of the slot on this host and gates them here. The gate ends
    at once when a process dies or restarts. A candidate that does not become healthy is removed again, and the failure shows the
    gate's last answers and the last log lines, without the secrets of the environment files.
  - Containers run by digest, read-only, without capabilities and privileges; units run from an archive that is unpacked as root.
author: slipway.server contributors
options:
  app:
    description: Name of the application.
    type: str
    required: true
  slot:
    description: The slot.
    type: str
    required: true
  state:
    description:
      - V(started) runs and proves a release.
      - V(proven) changes nothing and fails unless the slot is well and every process still the one that passed its gate.
      - V(active) remembers that the edges serve the slot now.
      - V(standby) keeps it warm and stops it after O(standby) seconds, also across a restart of the host.
      - V(stopped) stops it now.
    type: str
    choices: [started, proven, active, standby, stopped]
    default: started
  release:
    description: Name of the release. Needed for O(state=started) of a slot that slipway manages.
    type: str
  image:
    description: Container image as C(REGISTRY/NAME@sha256:DIGEST), on hosts that run containers. A tag is refused.
    type: str
  archive:
    description: Path of the release's archive on this host, on hosts that run units.
    type: path
  sha256:
    description: Digest that the archive must have.
    type: str
  active:
    description:
      - The slot that the edges serve now, where this host is no edge itself. Without it, what was marked with O(state=active)
        counts.
    type: str
  left:
    description: With O(state=active), the slot that had the traffic before. It is put on standby in the same call.
    type: str
  standby:
    description: Seconds to keep the slot warm. The application's own setting when missing.
    type: float
  txn:
    description: The transaction whose lease allows this.
    type: str
  owner:
    description: Who does this, for the history.
    type: str
    default: ansible
  force:
    description: Also start a release that was taken back before.
    type: bool
    default: false
  first:
    description:
      - For O(state=stopped) where no release was ever proven - the slot may be stopped although requests would go to it. A host
        that remembers a proven release refuses it nevertheless.
    type: bool
    default: false
attributes:
  check_mode:
    description: Compares what runs with what is asked for, really probing it.
    support: full
  diff_mode:
    description: Shows release and state of the slot before and after.
    support: full
"""

EXAMPLES = r"""
- name: Run and prove the new release beside the old one
  slipway.server.slot:
    app: spotik
    slot: green
    release: v42
    image: registry.example/spotik@sha256:{{ digest }}

- name: Keep the old one warm for a quarter of an hour
  slipway.server.slot:
    app: spotik
    slot: blue
    state: standby
    standby: 900
"""

RETURN = r"""
slot:
  description: The slot.
  type: str
  returned: success
state:
  description: V(staged), V(active), V(standby) or V(stopped).
  type: str
  returned: success
release:
  description: The release in the slot.
  type: str
  returned: success
active:
  description: The slot that has the traffic, as far as this host knows.
  type: str
  returned: success
left:
  description: The same of the slot that was left, with C(retire_in), the seconds until it is drained.
  type: dict
  returned: for O(state=active) with O(left)
at:
  description: When the module ended, in seconds since the epoch.
  type: float
  returned: always
artifact:
  description: What exactly runs - the image by digest, or the archive's digest.
  type: str
  returned: when it was started
outdated:
  description: True when the environment or description changed since the active slot was started. Deploy again to apply it.
  type: bool
  returned: when nothing changed
gate:
  description: How the gate went - attempts, seconds, latency_ms, last_answers.
  type: dict
  returned: when it was started
logs:
  description: Last log lines by process, secrets masked.
  type: dict
  returned: failure of the gate or of V(proven), and when it was stopped
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic.drivers import Artifact
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host
from ansible_collections.slipway.server.plugins.module_utils.traffic.slots import Request, Slots


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "slot": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "proven", "active", "standby", "stopped"], "default": "started"},
            "release": {"type": "str"},
            "image": {"type": "str"},
            "archive": {"type": "path"},
            "sha256": {"type": "str"},
            "active": {"type": "str"},
            "left": {"type": "str"},
            "standby": {"type": "float"},
            "txn": {"type": "str"},
            "owner": {"type": "str", "default": "ansible"},
            "force": {"type": "bool", "default": False},
            "first": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given, host, write = module.params, Host(), not module.check_mode
    if module.check_mode and given["app"] not in host.apps():
        text = f"{given['app']} is not described on this host yet; slot {given['slot']} would be {given['state']}"
        module.exit_json(changed=True, slot=given["slot"], state=given["state"], release=given["release"], msg=text)
    try:
        app = host.app(given["app"])
        slots = Slots(host, app)
        if given["state"] == "started" and app.slot(given["slot"]).managed and not given["release"]:
            module.fail_json(msg=f"slot {given['slot']} of {app.name} needs `release` to be started.")
        artifact = Artifact(given["release"] or "external", given["image"], given["archive"], given["sha256"])
        named = (given["active"], given["txn"], given["owner"], given["force"], given["first"])
        request = Request(given["slot"], artifact, *named)
        known = host.records(app.name).slot(given["slot"])
        before = f"{known.release or '-'} {known.state}\n" if known is not None else "- unused\n"
        if given["state"] == "started":
            result = slots.start(request, write)
        elif given["state"] == "proven":
            result = slots.still(request)
        elif given["state"] == "active" and given["left"]:
            result, left = slots.settle(request, given["left"], given["standby"], write)
            result = {**result, "changed": result["changed"] or left["changed"], "left": left}
        elif given["state"] == "active":
            result = slots.mark_active(request, write)
        elif given["state"] == "standby":
            result = slots.standby(request, given["standby"], write)
        else:
            result = slots.stop(request, write)
    except SlipwayError as error:
        module.fail_json(msg=str(error), at=host.clock.now(), **error.facts)
    after = f"{result['release'] or '-'} {result['state']}\n"
    module.exit_json(at=host.clock.now(), diff={"before": before, "after": after}, **result)


if __name__ == "__main__":
    main()
