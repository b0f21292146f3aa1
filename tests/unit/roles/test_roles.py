# SPDX-License-Identifier: GPL-3.0-or-later
"""What every role promises about itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.slipway.server.plugins.module_utils.plan.demands import PACKAGES

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def load(path: Path):
    return yaml.safe_load(path.read_text()) or {}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_argument_specification(role):
    spec = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    options = {name: option for entry in spec.values() for name, option in (entry.get("options") or {}).items()}
    declared = {name: option["default"] for name, option in options.items() if "default" in option}
    assert load(ROOT / "roles" / role / "defaults" / "main.yml") == declared


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_the_name_of_the_role(role):
    spec = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    names = {name for entry in spec.values() for name in (entry.get("options") or {})}
    assert {name for name in names if not name.startswith((f"{role}_", "slipway_"))} == set()
    assert len(names) <= 25


@pytest.mark.parametrize("role", ROLES)
def test_shape(role):
    folder = ROOT / "roles" / role
    for part in ("README.md", "meta/main.yml", "tasks/main.yml", "tasks/verify.yml"):
        assert (folder / part).is_file(), part
    assert (ROOT / "molecule" / role / "molecule.yml").is_file()
    spec = load(folder / "meta" / "argument_specs.yml")["argument_specs"]
    assert {"main", "verify"} <= set(spec)
    for path in (folder / "tasks").glob("*.yml"):
        assert len(path.read_text().splitlines()) <= 60, path.name


@pytest.mark.parametrize("role", ROLES)
def test_what_is_imported_lies_where_the_file_that_imports_says(role):
    """ansible-core before 2.19 ends with a traceback where it has to look further up, above a role that was included."""
    for path in (ROOT / "roles" / role / "tasks").rglob("*.yml"):
        for name in re.findall(r"import_tasks: (\S+)", path.read_text()):
            assert (path.parent / name).is_file(), f"{path.relative_to(ROOT)}: {name}"


@pytest.mark.parametrize("role", sorted(PACKAGES))
def test_what_a_role_installs_is_known_to_the_plan(role):
    folder = ROOT / "roles" / role
    names = {name for task in load(folder / "tasks/install.yml") for name in packages_of(task, folder)}
    assert names == set(PACKAGES[role])


def packages_of(task, folder):
    """Names in a task that installs packages, with the role's defaults."""
    names = (task.get("slipway.server.packages") or {}).get("names", [])
    if isinstance(names, list):
        return names
    files = [folder / "defaults/main.yml", folder / "vars/main.yml"]
    variables = {name: value for path in files if path.exists() for name, value in load(path).items()}
    trusted = {name: trust_as_template(value) if isinstance(value, str) else value for name, value in variables.items()}
    return Templar(loader=DataLoader(), variables=trusted).template(trust_as_template(names))
