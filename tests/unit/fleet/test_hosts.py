# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress

from tests.fleet import hosts
from tests.fleet.spec import parse

SPEC = parse(
    {
        "name": "demo",
        "subnet": "10.87.0.0/24",
        "hosts": {
            "web1": {"image": "debian13", "docker": True, "groups": ["edge", "app"]},
            "db1": {"image": "debian12", "groups": ["database"]},
        },
    }
).place(ipaddress.IPv4Network("10.87.0.0/24"))


def test_run_arguments() -> None:
    web1, db1 = (hosts.run_arguments(SPEC, host) for host in SPEC.hosts)
    text = " ".join(web1)
    for part in (
        "--name slipway-demo-web1",
        "--hostname web1",
        "--label slipway.fleet=demo",
        "--ip 10.87.0.11",
        "--add-host db1:10.87.0.12",
        "--cap-drop SYS_RESOURCE",
        "--volume /var/lib/docker",
    ):
        assert part in text
    assert "web1:" not in text
    assert "/var/lib/docker" not in db1
    assert "--privileged" not in text


def test_inventory_names_hosts_groups_and_how_to_reach_them() -> None:
    inventory = hosts.inventory(SPEC)["all"]
    assert isinstance(inventory, dict)
    assert inventory["hosts"] == {"web1": {"ansible_host": "10.87.0.11"}, "db1": {"ansible_host": "10.87.0.12"}}
    assert set(inventory["children"]) == {"edge", "app", "database"}
    assert inventory["children"]["app"] == {"hosts": {"web1": {}}}
    assert "known_hosts" in inventory["vars"]["ansible_ssh_common_args"]
    assert inventory["vars"]["ansible_ssh_private_key_file"].endswith(".fleet/id_ed25519")
