# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of the deployment playbooks; their documentation lies beside them, one file for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.server.plugins.module_utils.plan import env
from ansible_collections.slipway.server.plugins.module_utils.traffic import fleet, history
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.layout import COMMAND


def slipway_results(hosts: Sequence[str], hostvars: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The variable `name` of each host; None where a host has none."""
    return {host: hostvars[host].get(name) for host in hosts}


def slipway_told(results: Mapping[str, Any], fact: str) -> list[Any]:
    """The values of `fact` in the registered results of all hosts that have it."""
    return [result[fact] for result in results.values() if fact in (result or {})]


def slipway_failures(results: Mapping[str, Any], silent_too: bool = True) -> list[str]:
    """One text for each host whose registered result is bad, or missing if that counts."""
    return fleet.failures(results, silent_too)


def slipway_history(results: Mapping[str, Any], limit: int = 20) -> list[str]:
    """The last events over all hosts as a table, from the results of release_history on each."""
    found = {host: (result or {}).get("entries") or [] for host, result in results.items()}
    return history.table(history.merge(found, limit))


def slipway_last_words(results: Mapping[str, Any]) -> str:
    """The log lines of all stopped processes as text, from the results of slot on all hosts."""
    return fleet.last_words(results)


def _reports(results: Mapping[str, Any], app: str) -> dict[str, Any]:
    found = {host: ((result or {}).get("apps") or {}).get(app) for host, result in results.items()}
    return {host: report for host, report in found.items() if report}


def slipway_never_deployed(results: Mapping[str, Any]) -> list[str]:
    """Names of the apps that run nowhere yet, from the results of slot_info on all hosts."""
    names = sorted({name for result in results.values() for name in ((result or {}).get("apps") or {})})
    return [name for name in names if fleet.never_deployed(_reports(results, name))]


def slipway_joining(results: Mapping[str, Any], host: str) -> list[dict[str, str]]:
    """App, slot and release for each app that only other edges serve, from the results of slot_info on all hosts."""
    names = sorted({name for result in results.values() for name in ((result or {}).get("apps") or {})})
    found = {name: fleet.joining(host, _reports(results, name)) for name in names}
    return [{"app": name, "to": there[0], "release": there[1]} for name, there in found.items() if there]


def slipway_choice(
    results: Mapping[str, Any], app: str, release: str, hosts: Sequence[str], txn: str = "", again: bool = False
) -> dict[str, object]:
    """The slot for a release, from the results of slot_info on all `hosts` of the app."""
    reports = _reports(results, app)
    try:
        fleet.missing_hosts(app, dict.fromkeys(hosts), reports)
        return fleet.choose(app, release, reports, txn, again).as_dict()
    except SlipwayError as error:
        return fleet.Choice("", "", None, False, False, str(error)).as_dict()


def slipway_app_files(apps: Mapping[str, Any]) -> list[dict[str, str]]:
    """The descriptions of the apps on a host, as files for converge."""
    return [
        {
            "path": f"/etc/slipway/apps/{name}.json",
            "content": json.dumps(app, indent=2, sort_keys=True, default=str) + "\n",
            "effect": "none",
        }
        for name, app in sorted(apps.items())
    ]


def slipway_app_secret_files(entries: Mapping[str, Any], apps: Mapping[str, Any]) -> list[dict[str, str]]:
    """The environment files of the apps that run on a host, each quoted for its consumer, as secret files for converge."""
    found = []
    for name, app in sorted(apps.items()):
        try:
            texts = env.files(entries.get(name, {}), app)
        except env.BadValue as error:
            raise AnsibleFilterError(f"app {name}: {error}") from error
        found += [{"path": path, "content": text, "mode": "0600", "effect": "none"} for path, text in texts.items()]
    return found


def slipway_app_directories(apps: Mapping[str, Any]) -> list[dict[str, str]]:
    """The directories that the apps of a host need, as directories for converge."""
    found = [{"path": path} for path in ("/etc/slipway", "/etc/slipway/apps", "/var/lib/slipway")]
    found += [{"path": "/etc/slipway/env", "mode": "0700"}]
    for name, app in sorted(apps.items()):
        found += [{"path": f"/var/lib/slipway/{name}"}]
        if app.get("edge"):
            found += [{"path": f"/var/lib/slipway/{name}/flags"}]
        for root in filter(None, (runtime.get("root") for runtime in env.runtimes(app))):
            found += [{"path": path} for path in (root, f"{root}/releases", f"{root}/slots")]
    return found


def slipway_app_checks(apps: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What has to be true on a host of these apps, as checks for readback."""
    found: list[dict[str, Any]] = [
        {"kind": "unit", "unit": "slipway-recover.service", "properties": {"UnitFileState": "enabled"}},
        {
            "kind": "command",
            "argv": [COMMAND, "status", "--check"],
            "what": "slipway status --check",
            "remedy": "Do that on the host.",
        },
    ]
    for app in (apps[name] for name in sorted(apps)):
        found += [{"kind": "file", "path": path, "mode": "0600", "owner": "root"} for path in env.paths(app)]
    return found


def slipway_outside(plan: Mapping[str, Any], address: str) -> list[dict[str, Any]]:
    """What has to be true of a host as seen from elsewhere: its sites answer, what it keeps to itself is closed."""
    found: list[dict[str, Any]] = []
    for site in plan.get("nginx_sites") or []:
        there = {"kind": "http", "host": site["domain"], "connect": address, "insecure": True}
        found.append({**there, "url": f"https://{site['domain']}{site['health_path']}"})
        found.append({**there, "url": f"http://{site['domain']}/", "status": 308})
    opened = {str(rule["port"]) for rule in plan.get("ufw_rules") or [] if "any" in (rule.get("from") or ["any"])}
    slots = [slot for app in (plan.get("app_apps") or {}).values() for slot in app["slots"].values()]
    private = {str(instance["port"]) for slot in slots for instance in slot["instances"]}
    private |= {"5432"} if "postgresql_listen" in plan else set()
    private |= {str(plan["pgbouncer_port"])} if "pgbouncer_port" in plan else set()
    for port in sorted(private - opened, key=int):
        found.append({"kind": "reach", "address": address, "port": port, "closed": True, "timeout": 2})
    return found


class FilterModule:
    """Where Ansible finds the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        functions = (
            slipway_results,
            slipway_told,
            slipway_failures,
            slipway_history,
            slipway_last_words,
            slipway_never_deployed,
            slipway_joining,
            slipway_choice,
            slipway_app_files,
            slipway_app_secret_files,
            slipway_app_directories,
            slipway_app_checks,
            slipway_outside,
        )
        return {function.__name__: function for function in functions}
