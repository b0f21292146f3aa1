# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

from ansible_collections.slipway.server.plugins.module_utils.host.network import Network, observe
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner

ADDRESSES = [
    {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]},
    {
        "ifname": "eth0",
        "addr_info": [
            {"family": "inet", "local": "10.87.169.11", "prefixlen": 24},
            {"family": "inet6", "local": "fd00::11", "prefixlen": 64},
        ],
    },
    {"ifname": "docker0", "addr_info": [{"family": "inet", "local": "172.30.0.1", "prefixlen": 24}]},
    {"ifname": "wg0", "addr_info": [{}]},
]


class Ip(Runner):
    """iproute2 with recorded answers; an address of a family without a route is `RTNETLINK answers: …` and no output."""

    def __init__(self, addresses, routes):
        self.addresses, self.routes = addresses, routes

    def run(self, argv, data=None, timeout=600.0, env=None):
        if argv[2] == "address":
            return Result(0, json.dumps(self.addresses), "")
        found = self.routes.get(":" in argv[-1])
        return Result(0, json.dumps([{"prefsrc": found}]), "") if found else Result(2, "", "RTNETLINK answers: …")


def test_addresses_and_networks_without_those_of_containers():
    assert observe(Ip(ADDRESSES, {False: "10.87.169.11", True: "fd00::11"})) == Network(
        address="10.87.169.11",
        networks=("10.87.169.0/24",),
        ipv4=("10.87.169.11", "172.30.0.1"),
        ipv6=("fd00::11",),
    )


def test_a_host_with_ipv6_alone():
    assert observe(Ip(ADDRESSES[1:2], {True: "fd00::11"})).address == "fd00::11"


def test_a_host_without_iproute2():
    class Missing(Runner):
        def run(self, argv, data=None, timeout=600.0, env=None):
            return Result(127, "", "ip: command not found")

    assert observe(Missing()) == Network()
