# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress

import pytest

from tests.fleet.shell import FleetError
from tests.fleet.spec import POOL, free_subnet, parse

Network = ipaddress.IPv4Network


def demo(**hosts: object) -> dict[str, object]:
    return {"name": "demo", "subnet": "10.87.0.0/24", "hosts": hosts}


def test_a_specification_is_read() -> None:
    spec = parse(demo(web1={"image": "debian13", "address": "10.87.0.11", "docker": True, "groups": ["edge", "app"]}))
    (host,) = spec.hosts
    assert (spec.name, spec.subnet) == ("demo", Network("10.87.0.0/24"))
    assert (host.name, host.image, host.address, host.docker) == ("web1", "debian13", "10.87.0.11", True)
    assert host.groups == ("edge", "app")


def test_yaml_numbers_are_fine_as_images() -> None:
    assert parse(demo(web1={"image": 13})).hosts[0].image == "13"


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(FleetError) as caught:
        parse({"name": "Demo!", "subnet": "10.87.0.1/24", "colour": 1, "hosts": {"web1": {"picture": "13"}, "Web2": []}})
    text = str(caught.value)
    for part in ("'colour'", "'Demo!'", "host bits set", "'picture'", "hosts.web1: image is missing", "hosts.Web2"):
        assert part in text


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ({"a": {"image": "13", "address": "10.88.0.11"}}, "not a free address of 10.87.0.0/24"),
        ({"a": {"image": "13", "address": "10.87.0.1"}}, "not a free address"),
        ({"a": {"image": "13", "address": "ten"}}, "Expected 4 octets"),
        (
            {"a": {"image": "13", "address": "10.87.0.9"}, "b": {"image": "13", "address": "10.87.0.9"}},
            "10.87.0.9 is used twice",
        ),
        ({}, "at least one host"),
    ],
)
def test_addresses_are_checked(hosts: dict[str, object], message: str) -> None:
    with pytest.raises(FleetError, match=message):
        parse(demo(**hosts))


def test_an_address_without_a_subnet_is_refused() -> None:
    with pytest.raises(FleetError, match="needs a subnet"):
        parse({"name": "demo", "hosts": {"a": {"image": "13", "address": "10.87.0.9"}}})


@pytest.mark.parametrize("data", [None, [], "demo"])
def test_what_is_no_mapping_is_refused(data: object) -> None:
    with pytest.raises(FleetError, match="not a mapping"):
        parse(data)


def test_placing_fills_in_free_addresses_only() -> None:
    spec = parse(demo(a={"image": "13"}, b={"image": "13", "address": "10.87.0.11"}, c={"image": "13"}))
    placed = spec.place(Network("10.87.0.0/24"))
    assert [host.address for host in placed.hosts] == ["10.87.0.12", "10.87.0.11", "10.87.0.13"]
    assert placed.place(Network("10.87.0.0/24")) == placed


def test_subnets_are_stable_and_do_not_overlap() -> None:
    used: list[Network] = []
    for number in range(200):
        name = f"fleet-{number}"
        subnet = free_subnet(name, used)
        assert subnet == free_subnet(name, used)
        assert subnet.subnet_of(POOL)
        assert not any(subnet.overlaps(other) for other in used)
        used.append(subnet)


def test_foreign_networks_are_avoided_and_a_full_pool_is_told() -> None:
    wanted = free_subnet("demo", [])
    assert not free_subnet("demo", [wanted.supernet(new_prefix=20)]).overlaps(wanted)
    with pytest.raises(FleetError, match=r"tests\.fleet down"):
        free_subnet("demo", [POOL])
