# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts declare for roles, held against the roles' own argument_specs, for all hosts before the first change.

Ansible checks a role's arguments when a play reaches it: by then the roles before it have changed the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.slipway.server.plugins.module_utils.plan.model import Problem
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import LIST_OVERRIDES

ROLES = Path(__file__).parents[2] / "roles"

Options = Mapping[str, Mapping[str, Any]]


def options(roles: Path = ROLES) -> dict[str, Options]:
    """The declared options of each role's main entry point, by role."""
    found = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        found[path.parents[1].name] = yaml_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"].get("options", {})
    return found


def problems(host: str, declared: Mapping[str, Any], specs: Mapping[str, Options]) -> list[Problem]:
    """One Problem for each value that `host` declares and its role would refuse."""
    found = []
    for role, known in specs.items():
        for name in sorted(declared.keys() & known.keys()):
            option = _any_part(known[name]) if name in LIST_OVERRIDES else dict(known[name])
            validator = ArgumentSpecValidator({name: option})
            for message in validator.validate({name: declared[name]}, validate_role_argument_spec=True).error_messages:
                what = "has a value that its role refuses" if known[name].get("no_log") else " ".join(message.split())
                found.append(Problem(host, name, what.rstrip("."), f"See the README of role {role}"))
    return found


def _any_part(option: Mapping[str, Any]) -> dict[str, Any]:
    """The option without what its entries require: an entry with the name of a planned one only changes some of its keys."""
    return {**option, "options": {key: {**below, "required": False} for key, below in option.get("options", {}).items()}}
