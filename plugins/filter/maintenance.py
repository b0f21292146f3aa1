# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of the playbook maintenance.yml; their documentation lies beside them, one file for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.plan import order


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {
            "slipway_leases": order.leases,
            "slipway_order": lambda hosts, groups: order.order(groups, hosts),
            "slipway_proofs": order.proofs,
        }
