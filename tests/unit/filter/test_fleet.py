# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the deployment: what playbooks get from registered results and descriptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.slipway.server.plugins.filter import fleet

FILTERS = fleet.FilterModule().filters()


def report(**more):
    slots = {name: {"managed": True, "release": None, "instances": []} for name in ("blue", "green")}
    plain = {"edge": True, "active": "blue", "previous": None, "served": {}, "slots": slots, "slot_order": list(slots)}
    return {**plain, "lease": None, "transaction": None, **more}


def seen(**apps):
    return {"changed": False, "apps": apps}


def test_every_filter_is_documented():
    assert [name for name in FILTERS if not Path(fleet.__file__).with_name(f"{name}.yml").is_file()] == []


def test_results_of_hosts_that_never_answered_are_none():
    hostvars = {"web1": {"__step": {"changed": True}}, "web2": {}}
    assert fleet.slipway_results(["web1", "web2"], hostvars, "__step") == {"web1": {"changed": True}, "web2": None}


def test_never_deployed_asks_per_application():
    results = {"web1": seen(shop=report(), blog=report(served={"blue": "v1"})), "web2": None, "web3": {"unreachable": True}}
    assert fleet.slipway_never_deployed(results) == ["shop"]


def test_a_choice_is_a_plain_mapping():
    found = fleet.slipway_choice({"web1": seen(shop=report())}, "shop", "v1", ["web1"])
    texts = {"problem": "", "txn": ""}
    assert found == {"active": "blue", "target": "blue", "release": None, "first": True, "unchanged": False, **texts}


@pytest.mark.parametrize("silent", [None, {"unreachable": True}, {"failed": True, "msg": "broken"}, seen()])
def test_a_choice_without_one_of_the_hosts_is_a_problem(silent):
    results = {"web1": seen(shop=report()), "web2": silent}
    found = fleet.slipway_choice(results, "shop", "v1", ["web1", "web2"])
    assert found["problem"].startswith("shop runs on web1, web2, but web2 did not report")
    assert set(found) == {"active", "target", "release", "first", "unchanged", "problem", "txn"}


def test_failures_may_leave_out_silent_hosts():
    results = {"web1": {"failed": True, "msg": "no"}, "web2": None}
    assert fleet.slipway_failures(results) == ["web1: no", "web2: did not answer, or failed before, as told above"]
    assert fleet.slipway_failures(results, False) == ["web1: no"]


APPS = {
    "shop": {
        "app": "shop",
        "edge": True,
        "runtime": {"kind": "systemd", "env_file": "/etc/slipway/env/shop.systemd.env", "root": "/opt/shop"},
        "environment": {"values": {"RAILS_MAX_THREADS": "5"}},
    },
    "blog": {"app": "blog", "edge": True, "runtime": None},
}


def test_descriptions_hold_no_secret_and_read_as_json():
    files = fleet.slipway_app_files(APPS)
    assert [file["path"] for file in files] == ["/etc/slipway/apps/blog.json", "/etc/slipway/apps/shop.json"]
    assert json.loads(files[1]["content"]) == APPS["shop"]


def test_the_environment_is_written_where_something_runs():
    entries = {"shop": {"env": {"A": 'x"$'}, "secrets": {"B": "s"}}, "blog": {"secrets": {"C": "t"}}}
    (file,) = fleet.slipway_app_secret_files(entries, APPS)
    assert (file["path"], file["mode"]) == ("/etc/slipway/env/shop.systemd.env", "0600")
    assert file["content"] == 'A="x\\"\\$"\nB="s"\nRAILS_MAX_THREADS="5"\n'


def test_a_value_that_no_env_file_carries_is_named_without_its_content():
    with pytest.raises(AnsibleFilterError, match="app shop: B has a line break") as caught:
        fleet.slipway_app_secret_files({"shop": {"secrets": {"B": "hidden\nvalue"}}}, APPS)
    assert "hidden" not in str(caught.value)


def test_directories_and_checks_follow_what_a_host_does():
    paths = [item["path"] for item in fleet.slipway_app_directories(APPS)]
    assert {"/etc/slipway/apps", "/var/lib/slipway/blog/flags", "/opt/shop/slots"} <= set(paths)
    assert "/opt/blog" not in " ".join(paths)
    checked = [check.get("what") or check.get("path") or check["unit"] for check in fleet.slipway_app_checks(APPS)]
    assert checked == [
        "slipway-recover.service",
        "slipway status --check",
        "/etc/slipway/env/shop.systemd.env",
    ]


def test_outside_asks_sites_and_tries_private_ports() -> None:
    plan = {
        "nginx_sites": [{"domain": "a.example", "health_path": "/up"}],
        "ufw_rules": [{"port": 80, "from": ["any"]}, {"port": 3000, "from": ["10.0.0.1"]}, {"port": 3010, "from": ["any"]}],
        "app_apps": {"a": {"slots": {"blue": {"instances": [{"port": 3000}]}, "green": {"instances": [{"port": 3010}]}}}},
        "postgresql_listen": ["localhost"],
        "pgbouncer_port": 6432,
    }
    checks = fleet.slipway_outside(plan, "10.0.0.5")
    assert [check["url"] for check in checks if check["kind"] == "http"] == ["https://a.example/up", "http://a.example/"]
    assert [check["port"] for check in checks if check["kind"] == "reach"] == ["3000", "5432", "6432"]
    assert all(check["closed"] for check in checks if check["kind"] == "reach")


def test_a_database_whose_poolers_are_elsewhere_has_no_port_of_one() -> None:
    assert [check["port"] for check in fleet.slipway_outside({"postgresql_listen": ["localhost"]}, "10.0.0.5")] == ["5432"]
    assert [check["port"] for check in fleet.slipway_outside({"pgbouncer_port": 6432}, "10.0.0.5")] == ["6432"]


def test_the_history_of_a_fleet_is_offered() -> None:
    offered = fleet.FilterModule().filters()
    assert {"slipway_history", "slipway_results", "slipway_last_words"} <= set(offered)
    told = {"web1": {"entries": [{"at": "2026-05-30T10:00:00.000Z", "event": "started", "app": "shop"}]}, "web2": None}
    assert [line.split()[-1] for line in offered["slipway_history"](told, 5)] == ["event", "started"]


def test_what_the_hosts_told() -> None:
    results = {"web1": {"guilty": True}, "web2": None, "web3": {"guilty": False}, "web4": {"skipped": True}}
    assert fleet.slipway_told(results, "guilty") == [True, False]
