# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that turn declared units and limits into what modules take; their documentation lies beside them, one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.server.plugins.module_utils.settings import limits, units


def slipway_unit(unit: Mapping[str, Any]) -> str:
    """The text of one unit file."""
    try:
        return units.render(unit)
    except units.UnitError as error:
        raise AnsibleFilterError(f"slipway_unit: {error}") from error


def slipway_units(declared: Sequence[Mapping[str, Any]], kept: Sequence[str] = ()) -> dict[str, list[Any]]:
    """All declared units as parameters of the converge and readback modules; `kept` stay although they are not declared."""
    try:
        return units.transaction(declared, kept)
    except units.UnitError as error:
        raise AnsibleFilterError(f"slipway_units: no unit was changed:\n{error}") from error


def slipway_limits(declared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Default limits as checks of the readback module."""
    try:
        return limits.checks(limits.parse(declared))
    except limits.LimitError as error:
        raise AnsibleFilterError(f"slipway_limits: {error}") from error


class FilterModule:
    """Where Ansible finds the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"slipway_unit": slipway_unit, "slipway_units": slipway_units, "slipway_limits": slipway_limits}
