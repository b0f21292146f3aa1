# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs stays where it is, whatever the inventory wants now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.unit.module_utils.plan.inventories import facts, fleet, planned, problems, single


def standing(kind: str, address: str, port: int, *members: str) -> dict[str, Any]:
    name = "slipway-x-blue-1" if kind == "docker" else "x@blue-1.service"
    return {"members": list(members), "instances": [{"name": name, "address": address, "port": port}], "kind": kind}


def test_a_changed_port_is_for_the_next_slot() -> None:
    raw = single()
    name, (host,) = next(iter(raw.apps)), raw.groups["all"]
    backend = next(iter(raw.apps[name]["backends"].values()))
    backend["port"] = 4000
    seen = facts(standing={name: {"blue": standing("systemd", "127.0.0.1", 3000, "127.0.0.1:3000")}})
    found = planned(raw, **{host: seen}).hosts[host]
    slots = found["app_apps"][name]["slots"]
    assert slots["blue"]["members"] == ["127.0.0.1:3000"]
    assert slots["blue"]["instances"][0]["port"] == 3000
    assert slots["blue"]["held"] is True
    assert slots["green"]["members"] == ["127.0.0.1:4010"]
    assert "held" not in slots["green"]
    assert found["nginx_sites"][0]["slots"][0]["members"] == ["127.0.0.1:3000"]
    free = planned(raw, **{host: facts()}).hosts[host]["app_apps"][name]["slots"]
    assert free["blue"]["members"] == ["127.0.0.1:4000"]


def test_a_new_host_gets_no_requests_before_something_runs_there() -> None:
    raw = fleet()
    blue = standing("docker", "127.0.0.1", 3000, "127.0.0.1:3000")
    hosts = planned(raw, web1=facts(standing={"spotik": {"blue": blue}})).hosts
    assert hosts["web1"]["app_apps"]["spotik"]["slots"]["blue"]["members"] == ["127.0.0.1:3000"]
    added = hosts["web2"]["app_apps"]["spotik"]["slots"]
    assert (added["blue"]["instances"], added["blue"]["held"]) == ([], True)
    assert [one["port"] for one in added["green"]["instances"]] == [3010]
    assert len(added["green"]["members"]) == 2


def test_a_host_that_the_app_has_left_gets_no_requests_unless_nothing_else_runs() -> None:
    raw = fleet()
    del raw.apps["spotik"]["backends"]["units"]
    both = standing("docker", "10.87.0.11", 3000, "10.87.0.11:3000", "10.87.0.12:3000")
    hosts = planned(raw, web1=facts(standing={"spotik": {"blue": both}}), web2=facts(apps=("spotik",))).hosts
    assert hosts["web2"]["app_left"] == ["spotik"]
    assert hosts["web1"]["app_apps"]["spotik"]["slots"]["blue"]["members"] == ["10.87.0.11:3000"], "where it listens"
    only = standing("docker", "10.87.0.12", 3000, "10.87.0.12:3000")
    hosts = planned(raw, web2=facts(standing={"spotik": {"blue": only}}, apps=("spotik",))).hosts
    assert hosts["web2"]["app_left"] == [], "it is not cleared while requests go there"
    assert hosts["web1"]["app_apps"]["spotik"]["slots"]["blue"]["members"] == ["10.87.0.12:3000"]


def test_an_edge_that_the_app_has_left_ends_what_runs_there() -> None:
    raw = fleet()
    del raw.apps["spotik"]["backends"]["containers"]
    assert planned(raw, web1=facts(apps=("spotik",))).hosts["web1"]["app_left"] == []
    both = standing("docker", "10.87.0.11", 3000, "10.87.0.11:3000", "10.87.0.12:3000")
    hosts = planned(raw, web1=facts(standing={"spotik": {"blue": both}}, apps=("spotik",))).hosts
    assert (hosts["web1"]["app_left"], hosts["web2"]["app_left"]) == (["spotik"], [])
    only = standing("docker", "10.87.0.11", 3000, "10.87.0.11:3000")
    hosts = planned(raw, web1=facts(standing={"spotik": {"blue": only}}, apps=("spotik",))).hosts
    assert hosts["web1"]["app_left"] == [], "nothing else serves yet"


def test_another_runtime_leaves_units_and_rules_of_what_runs() -> None:
    raw = fleet()
    raw.apps["spotik"]["backends"] = {"containers": {"runtime": "docker", "hosts": ["web1", "web2"], "port": 3000}}
    members = ("10.87.0.11:3000", "10.87.0.12:3000")
    seen = facts(standing={"spotik": {"blue": standing("systemd", "10.87.0.12", 3000, *members)}})
    found = planned(raw, web2=seen).hosts["web2"]
    assert found["systemd_units_kept"] == ["spotik@.service"]
    assert [entry["port"] for entry in found["ufw_rules"]] == [3000]
    assert [entry["port"] for entry in found["ufw_container_rules"]] == [3000, 3010]
    assert "held" not in found["app_apps"]["spotik"]["slots"]["green"]


def test_every_variable_of_the_plan_reaches_its_role() -> None:
    raw = fleet()
    raw.apps["spotik"]["backends"]["units"]["runtime"] = "docker"
    seen = facts(standing={"spotik": {"blue": standing("systemd", "10.87.0.12", 3000, "10.87.0.12:3000")}})
    folder = Path(__file__).parents[4] / "playbooks" / "vars"
    used = "".join(path.read_text(encoding="utf-8") for path in folder.glob("plan*.yml"))
    planned_for = planned(raw, web2=seen).hosts["web2"]
    assert "systemd_units_kept" in planned_for
    assert [name for name in planned_for if f"slipway_host_plan.{name}" not in used] == []


def test_what_runs_where_the_inventory_wants_it_changes_nothing() -> None:
    raw = fleet()
    plain = planned(raw).hosts
    members = plain["web1"]["app_apps"]["spotik"]["slots"]["blue"]["members"]
    web1, web2 = (plain[name]["app_apps"]["spotik"]["slots"]["blue"]["instances"] for name in ("web1", "web2"))
    seen = {
        "web1": facts(standing={"spotik": {"blue": {"members": members, "instances": web1, "kind": "docker"}}}),
        "web2": facts(standing={"spotik": {"blue": {"members": members, "instances": web2, "kind": "systemd"}}}),
    }
    assert planned(raw, **seen).hosts == plain


def test_what_playbooks_tell_each_other_is_no_slip_of_the_pen() -> None:
    raw = fleet()
    assert problems(replace(raw, unknown={"slipway_all_apps": "inventory"})) == []
    assert len(problems(replace(raw, unknown={"slipway_appz": "inventory"}))) == 1


def test_a_slot_that_has_stopped_on_one_host_before_another_is_still_that_hosts_to_start() -> None:
    raw = fleet()
    there = standing("systemd", "10.87.0.12", 3010, "10.87.0.11:3010", "10.87.0.12:3010")
    hosts = planned(raw, web2=facts(standing={"spotik": {"green": there}})).hosts
    green = {name: hosts[name]["app_apps"]["spotik"]["slots"]["green"] for name in ("web1", "web2")}
    assert [one["address"] for one in green["web1"]["instances"]] == ["10.87.0.11"]
    assert [one["address"] for one in green["web2"]["instances"]] == ["10.87.0.12"]
    assert "held" not in green["web1"]
