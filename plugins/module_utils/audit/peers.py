# SPDX-License-Identifier: GPL-3.0-or-later
"""Who looks at whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .ports import bounds
from .ssh_audit import number

KNOWS = (3,)
"""The first version of ssh-audit that knows what a present sshd offers."""


def of(
    looker: str, seen: Mapping[str, Mapping[str, Any]], plans: Mapping[str, Any], addresses: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The hosts at which `looker` looks: at the next one for its ports, and with ssh-audit where its version is the newest.

    ssh-audit is never run by the controller: a server that punishes odd logins would then punish the operator's address.
    A host asks itself where no other one has an ssh-audit that knows today's algorithms.
    """
    names = sorted(seen)
    found = []
    for place, host in enumerate(names):
        ssh = looker == _asks_ssh(host, seen)
        knocks = looker != host and looker == names[place - 1]
        if not (ssh or knocks) or not addresses.get(host):
            continue
        plan = plans.get(host) or {}
        rules = [*(plan.get("ufw_rules") or ()), *(plan.get("ufw_container_rules") or ())]
        first = [bounds(rule.get("port"))[0] for rule in rules if rule.get("port")]
        found.append(
            {
                "name": host,
                "addresses": [addresses[host], *(seen[host].get("ipv6") or ())] if looker != host else [addresses[host]],
                "ports": sorted({*first, *(row["port"] for row in seen[host].get("ports") or ())}) if knocks else [],
                "ssh_ports": list(plan.get("ufw_ssh_ports") or [22]) if ssh else [],
                "ssh_audit": str(seen[looker].get("ssh_audit") or ""),
            }
        )
    return found


def _asks_ssh(host: str, seen: Mapping[str, Mapping[str, Any]]) -> str:
    def worth(name: str) -> tuple[bool, bool, tuple[int, ...]]:
        own = number(seen[name]["ssh_audit"])
        return own >= KNOWS, name != host, own

    return max((name for name in sorted(seen) if seen[name].get("ssh_audit")), key=worth, default="")
