# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.traffic.standing import look

from tests.unit.module_utils.traffic.world import CONFIG

STATE = "var/lib/slipway/shop"
SERVER = {"name": "db1", "address": "10.0.0.5"}


def write(root: Path, path: str, value: Any) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def test_an_edge_tells_the_slot_that_it_sends_requests_to(tmp_path: Path) -> None:
    write(tmp_path, "etc/slipway/apps/shop.json", CONFIG)
    assert look(tmp_path) == {}, "no release was ever proven"
    write(tmp_path, f"{STATE}/traffic.json", {"releases": {"green": "v2"}})
    write(tmp_path, f"{STATE}/flags/green", "")
    assert look(tmp_path) == {
        "shop": {
            "green": {"members": ["10.0.0.1:3010", "10.0.0.2:3010"], "instances": [], "kind": "", "database": {}, "server": {}}
        }
    }
    write(tmp_path, f"{STATE}/slots/green.json", {"state": "stopped"})
    assert look(tmp_path) == {}, "it runs on other hosts alone"


def test_a_host_tells_what_runs_as_it_was_started(tmp_path: Path) -> None:
    write(
        tmp_path,
        "etc/slipway/apps/shop.json",
        {**CONFIG, "edge": False, "runtime": {"kind": "docker"}, "environment": {"server": SERVER}},
    )
    started = {"name": "shop@blue-1.service", "address": "10.0.0.1", "port": 3000, "number": 1}
    place = {"runtime": {"kind": "systemd"}, "instances": [started], "database": {"name": "old", "user": "shop"}}
    write(tmp_path, f"{STATE}/slots/blue.json", {"state": "standby", "place": place})
    write(tmp_path, f"{STATE}/slots/green.json", {"state": "stopped", "place": place})
    found = look(tmp_path)["shop"]
    assert list(found) == ["blue"]
    assert found["blue"]["kind"] == "systemd"
    assert found["blue"]["database"] == {"name": "old", "user": "shop"}
    assert found["blue"]["server"] == SERVER
    assert found["blue"]["instances"] == [{"name": "shop@blue-1.service", "address": "10.0.0.1", "port": 3000}]


def test_what_cannot_be_read_does_not_stand(tmp_path: Path) -> None:
    write(tmp_path, "etc/slipway/apps/shop.json", "{")
    write(tmp_path, "etc/slipway/apps/other.json", {**CONFIG, "app": "other"})
    write(tmp_path, "var/lib/slipway/other/slots/blue.json", "garbage")
    assert look(tmp_path) == {}
