# SPDX-License-Identifier: GPL-3.0-or-later
"""What every role promises about itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

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
