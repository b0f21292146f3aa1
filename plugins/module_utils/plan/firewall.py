# SPDX-License-Identifier: GPL-3.0-or-later
"""Which port of a host is open for whom. What is not named here stays closed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from .model import POOLER_PORT, POSTGRESQL_PORT, App, Backend, Host, Inventory
from .sizing import runs_docker

Rule = dict[str, Any]
CANDIDATE_NETWORKS = (*tuple(f"172.{second}.0.0/16" for second in (30, 29, 28, 27, 26, 31, 25, 24)), "192.168.0.0/16")


def docker_network(taken: Iterable[str]) -> str:
    """A private /16 for containers that overlaps none of the fleet's addresses and networks."""
    used = [ipaddress.ip_network(text, strict=False) for text in taken if text]
    for text in CANDIDATE_NETWORKS:
        candidate = ipaddress.ip_network(text)
        if not any(net.version == 4 and candidate.overlaps(net) for net in used):
            return text
    return CANDIDATE_NETWORKS[0]


def docker_addresses(network: str) -> tuple[str, str]:
    """The default bridge's own address and the pool for further networks, both inside `network` (a /16)."""
    first, second = network.split(".")[:2]
    return f"{first}.{second}.0.1/24", f"{first}.{second}.128.0/17"


def container_networks(host: Host, network: str) -> list[str]:
    """Networks of a host's containers: what the inventory sets, else the fleet's one."""
    declared = [host.overrides.get(name) for name in ("docker_bip", "docker_address_pool")]
    try:
        found = [str(ipaddress.ip_network(str(text), strict=False)) for text in declared if text]
    except ValueError:
        found = []
    return [network] if len(found) < len(declared) else found


def local_only(app: App, inventory: Inventory) -> bool:
    """True when the only edge and the only app host are the same, so that instances need listen on loopback only."""
    edges = [host.name for host in inventory.group("edge")]
    return len(edges) == 1 and list(app.hosts()) == edges


def port_range(ports: Sequence[int]) -> Any:
    """Consecutive ports as ufw writes them."""
    return ports[0] if len(ports) == 1 else f"{ports[0]}:{ports[-1]}"


def rules(host: Host, inventory: Inventory, network: str) -> list[Rule]:
    """ufw_rules of one host: the edge, app ports for the edges, the pooler and the database for their clients.

    The role keeps ssh open by itself (ufw_ssh_ports), unless a declared rule opens it to fewer.
    """
    found = []
    if host.has("edge"):
        found += [_rule(80, ["any"], "http"), _rule(443, ["any"], "https")]
    for app, backend, slot, sources in _reached(host, inventory):
        if backend.runtime != "docker":
            found.append(_rule(port_range(backend.ports(slot)), sources, f"{app.name} {slot}"))
    if host.has("database"):
        pooled, direct = clients(host, inventory, network)
        if pooled:
            found.append(_rule(pooler_port(host), pooled, "pgbouncer"))
        if direct:
            found.append(_rule(POSTGRESQL_PORT, direct, "postgresql"))
    return found


def container_rules(host: Host, inventory: Inventory) -> list[Rule]:
    """ufw_container_rules of one host: published ports of its containers, reachable from the edges only."""
    return [
        {"port": port_range(backend.ports(slot)), "from": sources, "comment": f"{app.name} {slot}"}
        for app, backend, slot, sources in _reached(host, inventory)
        if backend.runtime == "docker"
    ]


def _reached(host: Host, inventory: Inventory) -> list[tuple[App, Backend, str, list[str]]]:
    """Slots on this host that edges elsewhere must reach, with those edges' addresses."""
    found = []
    for app in inventory.apps:
        sources = [edge.address for edge in inventory.group("edge") if edge.name != host.name and edge.address]
        for backend in app.backends_on(host.name) if sources else ():
            found += [(app, backend, slot, sources) for slot in backend.slots()]
    return found


def clients(server: Host, inventory: Inventory, network: str) -> tuple[list[str], list[str]]:
    """Addresses of those that reach the pooler, and those that reach the database itself, over the network."""
    pooled: dict[str, None] = {}
    direct: dict[str, None] = {}
    for app in inventory.apps:
        if not app.database or app.database.host != server.name:
            continue
        target = pooled if app.database.pooled else direct
        for name in app.everywhere():
            there = [inventory.host(name).address] if name != server.name else []
            if name == server.name and runs_docker(server, Inventory((app,), inventory.hosts)):
                there = container_networks(server, network)
            target.update(dict.fromkeys(there))
            if name == app.migration_host():
                direct.update(dict.fromkeys(there))
    for entry in server.overrides.get("postgresql_hba", ()):
        address = str(entry.get("address", "")) if isinstance(entry, dict) else ""
        if address and not address.startswith(("127.", "::1")):
            direct[address[:-3] if address.endswith("/32") else address] = None
    return [address for address in pooled if address], [address for address in direct if address]


def pooler_port(host: Host) -> int:
    """Port of the pooler on a database host."""
    return int(host.overrides.get("pgbouncer_port", POOLER_PORT))


def _rule(port: Any, sources: list[str], comment: str) -> Rule:
    return {"port": port, "proto": "tcp", "from": sources, "comment": comment}
