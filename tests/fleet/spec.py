# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet is to be: its specification, and the network it gets when it names none."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fleet.shell import FleetError

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,50}[a-z0-9])?")
POOL = ipaddress.IPv4Network("10.87.0.0/16")
FIRST_POOL_SUBNET = 32
"""10.87.0.0/24 to 10.87.31.0/24 are for specifications that name their subnet; the rest is handed out."""
FIRST_ADDRESS = 11
HOST_KEYS = frozenset({"image", "address", "docker", "groups"})
FLEET_KEYS = frozenset({"name", "subnet", "hosts"})

Network = ipaddress.IPv4Network


@dataclass(frozen=True)
class Host:
    """One server: `docker` gives it a volume on which an engine of its own can keep images."""

    name: str
    image: str
    address: str
    docker: bool = False
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spec:
    """A checked specification. `subnet` is None until one has been handed out."""

    name: str
    subnet: Network | None
    hosts: tuple[Host, ...]

    def place(self, subnet: Network) -> Spec:
        """The same fleet on `subnet`, every host with an address."""
        taken = {host.address for host in self.hosts}
        free = (str(subnet[number]) for number in range(FIRST_ADDRESS, 255) if str(subnet[number]) not in taken)
        hosts = tuple(
            host if host.address else Host(host.name, host.image, next(free), host.docker, host.groups) for host in self.hosts
        )
        return Spec(self.name, subnet, hosts)


def parse(data: object) -> Spec:
    """Check a specification as read from YAML. Raises FleetError that names all its mistakes at once."""
    if not isinstance(data, Mapping):
        raise FleetError("the specification is not a mapping with the keys name and hosts")
    errors = [f"unknown key {key!r}" for key in data if key not in FLEET_KEYS]
    name = str(data.get("name", ""))
    if not NAME.fullmatch(name):
        errors.append(f"name: {name!r} is not lower-case letters, digits, dots and dashes")
    subnet = _subnet(data.get("subnet"), errors)
    entries = data.get("hosts")
    if not isinstance(entries, Mapping) or not entries:
        errors.append("hosts: expected a mapping of at least one host")
        entries = {}
    hosts = tuple(_host(str(key), value, subnet, errors) for key, value in entries.items())
    addresses = [host.address for host in hosts if host.address]
    errors += [f"address {each} is used twice" for each in sorted(set(addresses)) if addresses.count(each) > 1]
    if errors:
        raise FleetError("specification of the fleet: " + "; ".join(errors))
    return Spec(name, subnet, hosts)


def _subnet(value: object, errors: list[str]) -> Network | None:
    if value is None:
        return None
    try:
        subnet = Network(str(value))
    except ValueError as error:
        errors.append(f"subnet: {error}")
        return None
    if subnet.prefixlen > 28:
        errors.append(f"subnet: {subnet} is too small, use a /24")
    return subnet


def _host(name: str, value: Any, subnet: Network | None, errors: list[str]) -> Host:
    where = f"hosts.{name}"
    if not NAME.fullmatch(name):
        errors.append(f"{where}: a host name is lower-case letters, digits, dots and dashes")
    if not isinstance(value, Mapping):
        errors.append(f"{where}: expected a mapping with the key image")
        value = {}
    errors += [f"{where}: unknown key {key!r}" for key in value if key not in HOST_KEYS]
    if not value.get("image"):
        errors.append(f"{where}: image is missing")
    address = str(value.get("address", ""))
    if address:
        try:
            if subnet is None:
                errors.append(f"{where}: an address needs a subnet of the fleet")
            elif ipaddress.IPv4Address(address) not in list(subnet.hosts())[1:]:
                errors.append(f"{where}: {address} is not a free address of {subnet}")
        except ValueError as error:
            errors.append(f"{where}: {error}")
    return Host(name, str(value.get("image", "")), address, bool(value.get("docker", False)), tuple(value.get("groups", ())))


def free_subnet(name: str, used: Iterable[Network]) -> Network:
    """A /24 of the pool that overlaps none of `used`: always the same for a name as long as it is free."""
    subnets = list(POOL.subnets(new_prefix=24))[FIRST_POOL_SUBNET:]
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % len(subnets)
    taken = list(used)
    for candidate in subnets[start:] + subnets[:start]:
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise FleetError(f"no subnet of {POOL} is free: remove fleets with 'python -m tests.fleet down NAME'")
