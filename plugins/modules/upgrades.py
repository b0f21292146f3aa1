#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: packages that maintenance brings up, and services that wait for a restart."""

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrades
short_description: Upgrade packages that do not upgrade themselves, and restart what runs as it was before
version_added: 0.1.0
description:
  - V(listed) says which packages of O(hold), and which kernels, have a newer version, which services run with a program, a
    library or a unit file that was replaced, and whether the host waits for a restart.
  - V(upgraded) installs the newer versions. Packages do not restart services meanwhile (C(policy-rc.d)); the run goes on in a
    unit of its own when the connection is lost, and what a killed run has left half-way is finished first.
  - V(renewed) restarts what waits for it, but PostgreSQL (M(slipway.server.postgresql_restart)). nginx is replaced on the fly, or
    restarted behind a shut door when its unit changed; Docker while its containers go on; the pooler while its clients are held.
author: slipway.server contributors
options:
  state:
    description: What is done.
    type: str
    choices: [listed, upgraded, renewed]
    default: listed
  hold:
    description: Regular expressions for the beginning of names of packages, as in unattended_upgrades_hold.
    type: list
    elements: str
    default: []
  traffic_elsewhere:
    description: Whether processes of applications may be restarted, since other hosts have their requests.
    type: bool
    default: false
  pooler_port:
    description: Port of a pgbouncer on this host.
    type: int
    default: 6432
  web_ports:
    description: Ports whose new connections wait while nginx is restarted.
    type: list
    elements: int
    default: [80, 443]
attributes:
  check_mode:
    description: Says what would be done; the archive's index is not fetched.
    support: full
  diff_mode:
    description: Shows the versions before and after.
    support: full
"""

EXAMPLES = r"""
- name: See what there is to do
  slipway.server.upgrades:
    hold: [nginx, libnginx-mod-]
"""

RETURN = r"""
due:
  description: Names of the packages with a newer version.
  type: list
  elements: str
  returned: success
waiting:
  description: Services that wait for a restart, with kind and reason.
  type: list
  elements: dict
  returned: success
reboot:
  description: Why the host waits for a restart, or nothing.
  type: str
  returned: success
idle:
  description: Whether there is nothing to do.
  type: bool
  returned: success
work:
  description: Whether there is something to do without a restart of the host.
  type: bool
  returned: success
lines:
  description: All of it for a person.
  type: list
  elements: str
  returned: success
restarted:
  description: What was restarted.
  type: list
  elements: str
  returned: for V(renewed)
left:
  description: What waits for a restart of the host, or until its requests go elsewhere.
  type: list
  elements: str
  returned: for V(renewed)
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.packages import PackageError
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_console import Console, ConsoleError
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_hold import Hold
from ansible_collections.slipway.server.plugins.module_utils.settings.renewal import Renewal, RenewalError
from ansible_collections.slipway.server.plugins.module_utils.settings.upgrades import Report, Upgrades
from ansible_collections.slipway.server.plugins.module_utils.traffic import doors
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.host import Host

DOOR = 30.0
"""Seconds after which a timer opens the door of the web server."""


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["listed", "upgraded", "renewed"], "default": "listed"},
            "hold": {"type": "list", "elements": "str", "default": []},
            "traffic_elsewhere": {"type": "bool", "default": False},
            "pooler_port": {"type": "int", "default": 6432},
            "web_ports": {"type": "list", "elements": "int", "default": [80, 443]},
        },
        supports_check_mode=True,
    )
    given, runner = module.params, Runner()
    upgrades = Upgrades(runner, given["hold"], Host().apps())
    result = {"changed": False}
    try:
        report = upgrades.look(refresh=given["state"] == "listed" and not module.check_mode)
        before = report.lines()
        if given["state"] == "upgraded" and report.upgrades:
            result["changed"] = True
            if not module.check_mode:
                upgrades.upgrade([one.name for one in report.upgrades if one.old])
        elif given["state"] == "renewed":
            waiting = [one for one in report.waiting if one.kind != "postgresql"]
            result["changed"] = bool(waiting)
            if not module.check_mode:
                result.update(renew(runner, given, waiting))
        same = module.check_mode or given["state"] == "listed"
        after = report if same else upgrades.look(refresh=False)
    except (PackageError, RenewalError, ConsoleError, SlipwayError, ArmingFailed, CommandFailed) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result, **told(after), diff={"before": _text(before), "after": _text(after.lines())})


def renew(runner: Runner, given: dict, waiting: list) -> dict:
    """Restart what waits."""
    clock = Clock()
    hold = Hold(Console(runner, port=given["pooler_port"]), clock)

    def door(shut: bool) -> None:
        entrance = doors.Doors(runner, clock, doors.WEB_COMMENT)
        entrance.shut(doors.web(given["web_ports"]), DOOR) if shut else entrance.open()

    done = Renewal(runner, clock, [hold], door).run(waiting, given["traffic_elsewhere"])
    facts = {name: getattr(done, name) for name in ("restarted", "left", "containers", "stopped")}
    return {**facts, "changed": bool(done.restarted)}


def told(report: Report) -> dict:
    """A report as facts."""
    return {
        "due": [one.name for one in report.upgrades],
        "waiting": [asdict(one) for one in report.waiting],
        "reboot": report.reboot,
        "idle": report.idle,
        "work": report.work,
        "lines": report.lines(),
    }


def _text(lines: list) -> str:
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
