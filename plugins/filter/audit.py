# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of audit.yml; their documentation lies beside them, one file for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.audit import peers


def slipway_audit_peers(
    results: Mapping[str, Any], looker: str, plans: Mapping[str, Any], addresses: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The hosts at which `looker` has to look, from the results of module audit on all of them."""
    seen = {host: result["inside"] for host, result in results.items() if result and result.get("inside")}
    return peers.of(looker, seen, plans, {host: str(address) for host, address in addresses.items()})


def slipway_audit_addresses(hosts: Sequence[str], hostvars: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Where each host is reached: the first of the variables `names` that it has, else its own name."""
    return {host: next((str(hostvars[host][name]) for name in names if hostvars[host].get(name)), host) for host in hosts}


class FilterModule:
    """Where Ansible finds the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        functions = (slipway_audit_peers, slipway_audit_addresses)
        return {function.__name__: function for function in functions}
