# SPDX-License-Identifier: GPL-3.0-or-later
"""Apps that go: by `state: absent`, from a host that they left, and those that nobody declares any more."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.slipway.server.plugins.module_utils.plan.parse import parse

from tests.unit.module_utils.plan.inventories import facts, fleet, planned, spotik


def test_an_absent_app_is_planned_nowhere_and_goes_from_the_hosts_that_have_it() -> None:
    raw = fleet()
    raw.apps["old"] = {"state": "absent"}
    plan = planned(raw, web1=facts(apps=("old", "spotik")))
    assert plan.hosts["web1"]["app_absent"] == ["old"]
    assert list(plan.hosts["web1"]["app_apps"]) == ["spotik"]
    assert plan.hosts["web2"]["app_absent"] == []


def test_an_absent_entry_may_keep_its_keys() -> None:
    raw = fleet()
    raw.apps["old"] = {**spotik(), "state": "absent"}
    inventory, problems = parse(raw)
    assert (problems, inventory.absent) == ([], ("old",))


def test_an_app_that_left_a_host_goes_from_there() -> None:
    raw = fleet()
    raw.apps["spotik"]["backends"] = {"one": {"runtime": "systemd", "port": 3000, "command": "/usr/bin/puma", "hosts": ["web1"]}}
    raw.groups["edge"] = ["web1"]
    plan = planned(raw, web2=facts(apps=("spotik",)))
    assert plan.hosts["web2"]["app_left"] == ["spotik"]
    assert plan.hosts["web1"]["app_left"] == []


def test_what_leaves_a_host_is_reached_until_the_edges_go_elsewhere() -> None:
    raw = fleet()
    raw.apps["spotik"]["backends"] = {"one": {"runtime": "systemd", "port": 3000, "command": "/usr/bin/puma", "hosts": ["web1"]}}
    raw.groups["edge"] = ["web1"]
    place = {"name": "spotik@green-1.service", "address": "10.87.0.12", "port": 3010}
    green = {"members": ["10.87.0.12:3010"], "instances": [place], "kind": "systemd"}
    there = facts(apps=("spotik",), standing={"spotik": {"green": green}})
    found = [rule["port"] for rule in planned(raw, web2=there).hosts["web2"]["ufw_rules"] if rule["port"] in (3000, 3010)]
    assert found == [3010]
    assert not {3000, 3010} & {rule["port"] for rule in planned(raw, web2=facts(apps=("spotik",))).hosts["web2"]["ufw_rules"]}


def test_the_last_host_that_has_a_release_is_not_left_before_another_has_one() -> None:
    raw = replace(fleet(), all_apps=True)
    raw.apps["spotik"]["backends"] = {"one": {"runtime": "systemd", "port": 3000, "command": "/usr/bin/puma", "hosts": ["web1"]}}
    former = facts(apps=("spotik",), ran=("spotik",))
    lines = [problem.line() for problem in parse(raw, {"web1": facts(), "web2": former})[1]]
    assert any("would leave web2, but web1 has no release of spotik yet. Place it on both" in line for line in lines)
    for told in ({"web1": former, "web2": former}, {"web2": former}, {"web1": facts()}):
        assert not [problem for problem in parse(raw, told)[1] if "would leave" in problem.what]


def test_what_nobody_declares_is_refused_only_by_a_run_for_all_apps() -> None:
    raw = fleet()
    found = {"web1": facts(apps=("old", "spotik"))}
    assert not [problem for problem in parse(raw, found)[1] if "old" in problem.key]
    lines = [problem.line() for problem in parse(replace(raw, all_apps=True), found)[1]]
    assert (
        "web1: slipway_apps.old: is not declared, but this host has it. "
        "Declare it again, or have it removed from all hosts: `state: absent` in its entry"
    ) in lines


def test_another_state_is_named() -> None:
    raw = fleet()
    raw.apps["spotik"]["state"] = "gone"
    assert [problem.line() for problem in parse(raw)[1]] == [
        "app spotik: slipway_apps.spotik.state: is 'gone'. Write present or absent"
    ]
