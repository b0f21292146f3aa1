#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: what happened to the applications of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_history
short_description: Tell what happened to the applications of a host
version_added: 0.1.0
description:
  - Reads the history that every move, start, drain and refusal writes on the host; changes nothing.
author: slipway.server contributors
options:
  app:
    description: Name of the application. All of the host when missing.
    type: str
  limit:
    description: How many entries to return at most, the newest ones.
    type: int
    default: 20
  event:
    description: Only entries of this kind, such as V(confirmed) or V(stopped); V(moves) are the ends of all moves.
    type: str
  release:
    description: Only entries of this release.
    type: str
  txn:
    description: Only entries of this transaction.
    type: str
  since:
    description: Only entries from then on - V(30m), V(12h), V(2d), or V(2026-05-31T17:30) in UTC.
    type: str
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: See how the last moves ended
  slipway.server.release_history:
    app: spotik
    event: moves
    since: 7d
  register: moves

- name: Show them
  ansible.builtin.debug:
    msg: "{{ moves.lines }}"
"""

RETURN = r"""
entries:
  description:
    - One for each event, newest last, with at (UTC) and event, and as far as they apply app, txn, kind, from, to, slot, release,
      artifact (by digest), owner, controller (the address of its connection), reason, seconds, switch_ms, verified_ms, timings
      (seconds at which each state was reached), verdict (the figures of both slots), migrations, peak, drained, remaining.
  type: list
  elements: dict
  returned: success
lines:
  description: The same as a table for people.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.traffic import history
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str"},
            "limit": {"type": "int", "default": 20},
            **{name: {"type": "str"} for name in ("event", "release", "txn", "since")},
        },
        supports_check_mode=True,
    )
    given, host = module.params, Host()
    try:
        since = None if given["since"] is None else history.since(given["since"], host.clock.now())
        wanted = history.Wanted(given["event"], given["release"], given["txn"], since, given["limit"])
        names = [name for name in host.apps() if given["app"] in (None, name)]
        entries = [
            {"app": name, **entry} for name in names for entry in history.select(host.records(name).history(wanted.depth), wanted)
        ]
        entries.sort(key=lambda entry: str(entry.get("at")))
    except SlipwayError as error:
        module.fail_json(msg=str(error), **error.facts)
    entries = entries[-wanted.limit :]
    module.exit_json(changed=False, entries=entries, lines=history.table(entries))


if __name__ == "__main__":
    main()
