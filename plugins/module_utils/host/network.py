# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses and networks of this host, as iproute2 tells them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .runner import Runner

BRIDGES = ("docker", "br-", "veth", "lo")
"""How the names of interfaces begin that container engines made, or that lead nowhere."""
OUTSIDE = ("198.41.0.4", "2001:503:ba3e::2:30")
"""Addresses to which the kernel is asked for a route; nothing is sent there."""


@dataclass(frozen=True)
class Network:
    """`address`: the source address of the default route, IPv4 first, or empty; `networks`: IPv4, without those of containers.

    `ipv4` and `ipv6` are all addresses but those of the loopback, in the order of the interfaces.
    """

    address: str = ""
    networks: tuple[str, ...] = ()
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()


def observe(runner: Runner) -> Network:
    """Ask the kernel, through `ip`, which has to be there; what it does not tell stays empty."""
    interfaces = _json(runner, "address")
    found = [
        (str(interface.get("ifname", "")), address)
        for interface in interfaces
        for address in interface.get("addr_info", ())
        if "local" in address and not ipaddress.ip_address(address["local"]).is_loopback
    ]
    networks = {
        str(ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}").network)
        for name, address in found
        if address.get("family") == "inet" and not name.startswith(BRIDGES)
    }
    routes = [route for target in OUTSIDE for route in _json(runner, "route", "get", target)]
    return Network(
        address=next((str(route["prefsrc"]) for route in routes if route.get("prefsrc")), ""),
        networks=tuple(sorted(networks)),
        ipv4=tuple(str(address["local"]) for _name, address in found if address.get("family") == "inet"),
        ipv6=tuple(str(address["local"]) for _name, address in found if address.get("family") == "inet6"),
    )


def _json(runner: Runner, *arguments: str) -> Sequence[Mapping[str, Any]]:
    try:
        answer = json.loads(runner.run(["ip", "-json", *arguments]).out)
    except ValueError:
        return []
    return [entry for entry in answer if isinstance(entry, dict)] if isinstance(answer, list) else []
