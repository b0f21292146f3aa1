# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress

from tests.fleet import molecule
from tests.fleet.spec import NAME, parse

PLATFORMS: list[dict[str, object]] = [
    {"name": "debian12", "image": "debian12", "docker": True, "groups": ["servers"], "children": ["x"]},
    {"name": "probe", "image": "debian13"},
]


def test_every_scenario_of_every_checkout_has_its_own_name() -> None:
    names = {
        molecule.fleet_name(scenario, project)
        for scenario in ("nginx", "unattended_upgrades", "systems/spotik")
        for project in ("/home/a/slipway", "/home/b/slipway")
    }
    assert len(names) == 6
    assert all(NAME.fullmatch(name) for name in names)


def test_platforms_become_hosts() -> None:
    spec = parse(molecule.specification("mol-nginx", PLATFORMS))
    assert [(host.name, host.image, host.docker, host.groups) for host in spec.hosts] == [
        ("debian12", "debian12", True, ("servers",)),
        ("probe", "debian13", False, ()),
    ]


def test_molecule_is_told_how_to_reach_them() -> None:
    spec = parse(molecule.specification("mol-nginx", PLATFORMS)).place(ipaddress.IPv4Network("10.87.40.0/24"))
    first, second = molecule.instance_config(spec)
    assert (first["instance"], first["address"], first["user"]) == ("debian12", "10.87.40.11", "root")
    assert second["address"] == "10.87.40.12"
    assert str(first["identity_file"]).endswith(".fleet/id_ed25519")
