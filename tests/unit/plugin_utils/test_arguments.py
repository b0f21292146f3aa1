# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.slipway.server.plugins.plugin_utils import arguments

SPECS = arguments.options()


def test_every_role_and_every_of_its_variables_is_known() -> None:
    assert {path.parents[1].name for path in arguments.ROLES.glob("*/meta/argument_specs.yml")} == set(SPECS)
    assert all(name.startswith(f"{role}_") for role, known in SPECS.items() for name in known)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("nginx_worker_connections", "many", "unable to convert to int"),
        ("sshd_ports", {"a": 1}, "dict"),
        ("sshd_users", [{"keys": []}], "missing required arguments: name"),
        ("ufw_rules", [{"prot": "tcp"}], "ufw_rules.prot. Supported"),
        ("nginx_ipv6", "sometimes", "must be one of"),
    ],
)
def test_what_a_role_would_refuse_is_named_with_host_and_variable(name: str, value: Any, words: str) -> None:
    (problem,) = arguments.problems("web1", {name: value}, SPECS)
    assert (problem.where, problem.key) == ("web1", name)
    assert words in problem.what
    assert problem.remedy == f"See the README of role {name.partition('_')[0]}"


def test_values_that_are_well_and_variables_of_others_are_not_spoken_of() -> None:
    declared: dict[str, Any] = {"nginx_sites": [{"name": "shop", "max_body": "10m"}], "ufw_ssh_ports": [22]}
    declared |= {"nginx_worker_connections": "2048", "sshd_ports": [22, 2222], "nginx_of_mine": object(), "http_port": "many"}
    assert arguments.problems("web1", declared, SPECS) == []


def test_a_secret_is_not_in_the_sentence() -> None:
    (problem,) = arguments.problems("db1", {"postgresql_passwords": "s3cret"}, SPECS)
    assert "s3cret" not in problem.line()


def test_what_site_does_not_check_again_is_what_the_inventory_was_checked_for() -> None:
    unchecked = set()
    for name in ("preflight.yml", "site.yml"):
        for play in yaml.safe_load((arguments.ROLES.parent / "playbooks" / name).read_text()):
            for task in play.get("tasks") or []:
                role = task.get("ansible.builtin.import_role") or task.get("ansible.builtin.include_role") or {}
                if role.get("rolespec_validate") is False:
                    unchecked.add((role["name"].rpartition(".")[2], role.get("tasks_from", "main")))
    specs = arguments.options()
    assert {("app", "first"), ("certificates", "issue"), ("preflight", "main")} <= unchecked
    for name, entry in unchecked:
        spec = yaml.safe_load((arguments.ROLES / name / "meta/argument_specs.yml").read_text())["argument_specs"]
        if entry in spec:
            assert spec[entry]["options"] == specs[name], (name, entry)
