# SPDX-License-Identifier: GPL-3.0-or-later
"""A slot that runs keeps the database it was started with, whatever the inventory names by now."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan.build import build
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import Raw, parse

from tests.unit.module_utils.plan.inventories import facts, fleet, planned
from tests.unit.module_utils.plan.test_pairs import known, pair


def running(name: str, user: str) -> Any:
    slot = {"members": ["10.87.0.11:3000"], "instances": [], "kind": "docker", "database": {"name": name, "user": user}}
    return facts(standing={"spotik": {"blue": slot}})


def refused(raw: Raw, web1: Any) -> list[str]:
    inventory, _problems = parse(raw, known())
    return [problem.line() for problem in build(inventory, {**known(), "web1": web1}).problems]


def test_the_pooler_leads_to_both_until_no_slot_uses_the_former() -> None:
    both = planned(fleet(), web1=running("before", "spotik")).hosts["db1"]
    assert [entry["name"] for entry in both["pgbouncer_databases"]] == ["spotik_production", "before"]
    assert [entry["name"] for entry in both["postgresql_databases"]] == ["spotik_production"]
    alone = planned(fleet(), web1=running("spotik_production", "spotik")).hosts["db1"]
    assert [entry["name"] for entry in alone["pgbouncer_databases"]] == ["spotik_production"]


def test_another_user_needs_no_second_pool() -> None:
    found = planned(fleet(), web1=running("spotik_production", "before")).hosts["db1"]
    assert [entry["name"] for entry in found["pgbouncer_databases"]] == ["spotik_production"]
    assert ["before"] in [rule["user"] for rule in found["postgresql_hba"]]


def test_with_a_standby_a_database_may_change_and_a_user_may_not() -> None:
    assert refused(pair(), running("before", "spotik")) == []
    (line,) = refused(pair(), running("spotik_production", "before"))
    assert "slipway_apps.spotik.database.user: is `spotik`, but a slot that runs is `before`" in line
    assert "Keep `before`" in line


def served_by(name: str, address: str) -> Any:
    slot = {"members": [], "instances": [], "kind": "docker", "server": {"name": name, "address": address}}
    return facts(standing={"spotik": {"blue": slot}})


def test_an_app_that_runs_is_not_led_to_a_server_without_its_rows() -> None:
    (line,) = refused(fleet(), served_by("db9", "10.87.0.99"))
    assert "slipway_apps.spotik.database.host: is db1, but the app runs on the database of db9, whose rows nobody moves" in line
    assert "promote.yml" in line


@pytest.mark.parametrize(("name", "address"), [("db1", "10.87.0.99"), ("db9", "10.87.0.13"), ("db1", "")])
def test_a_server_may_change_its_name_or_its_address(name: str, address: str) -> None:
    assert refused(fleet(), served_by(name, address)) == []


def test_after_a_promotion_the_former_primary_is_still_the_same_database() -> None:
    assert refused(pair(), served_by("db2", "")) == []
