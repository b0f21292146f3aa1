# SPDX-License-Identifier: GPL-3.0-or-later
"""Which port of a host is open for whom. What is not named here stays closed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from . import poolers
from .model import POSTGRESQL_PORT, App, Backend, Host, Inventory
from .sizing import runs_docker

Rule = dict[str, Any]
Reached = tuple[App, Backend, str, list[str]]
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
        found += [rule(80, ["any"], "http"), rule(443, ["any"], "https")]
    found += _unit_rules(_reached(host, inventory))
    pooled = pooler_clients(host, inventory, network)
    if pooled:
        found.append(rule(poolers.port(host), pooled, "pgbouncer"))
    if host.serves_postgresql():
        direct = [address for address in server_clients(host, inventory, network) if address != host.address]
        if direct:
            found.append(rule(POSTGRESQL_PORT, direct, "postgresql"))
    return found


def left_rules(host: Host, inventory: Inventory) -> list[Rule]:
    """For a pooler beside a database that got a standby: it stays open to the apps' hosts while instances from before use it."""
    users = [address for one in poolers.hosts(host, inventory) for address in [one.address] if one != host and address]
    return [rule(poolers.port(host), users, "pgbouncer, from before there was a standby")] if users else []


def container_rules(host: Host, inventory: Inventory) -> list[Rule]:
    """ufw_container_rules of one host: published ports of its containers, reachable from the edges only."""
    return _published(_reached(host, inventory))


def _unit_rules(reached: Iterable[Reached]) -> list[Rule]:
    return [
        rule(port_range(backend.ports(slot)), sources, f"{app.name} {slot}")
        for app, backend, slot, sources in reached
        if backend.runtime != "docker"
    ]


def _published(reached: Iterable[Reached]) -> list[Rule]:
    return [
        container_rule(port_range(backend.ports(slot)), sources, f"{app.name} {slot}")
        for app, backend, slot, sources in reached
        if backend.runtime == "docker"
    ]


def _edges_elsewhere(host: Host, inventory: Inventory) -> list[str]:
    return [edge.address for edge in inventory.group("edge") if edge.name != host.name and edge.address]


def _reached(host: Host, inventory: Inventory) -> list[Reached]:
    """Slots on this host that edges elsewhere must reach, with those edges' addresses."""
    found = []
    for app in inventory.apps:
        sources = _edges_elsewhere(host, inventory)
        for backend in app.backends_on(host.name) if sources else ():
            found += [(app, backend, slot, sources) for slot in backend.slots()]
    return found


def pooler_clients(host: Host, inventory: Inventory, network: str) -> list[str]:
    """Addresses of those that reach the pooler of a host over the network."""
    found: dict[str, None] = {}
    for app in poolers.apps(host, inventory):
        for name in poolers.clients(app, host, inventory):
            found.update(dict.fromkeys(_addresses(app, name, host, inventory, network)))
    return [address for address in found if address]


def server_clients(host: Host, inventory: Inventory, network: str) -> list[str]:
    """Addresses of those that reach PostgreSQL on a host over the network; of a standby those of its primary, one day."""
    primary = inventory.primary(host) if host.has("replica") else host
    if primary is None:
        return []
    found: dict[str, None] = {}
    for app in inventory.apps:
        found.update(dict.fromkeys(app_addresses(app, host, primary, inventory, network)))
    found.update(dict.fromkeys(peers(host, inventory)))
    for entry in host.overrides.get("postgresql_hba", ()):
        address = str(entry.get("address", "")) if isinstance(entry, dict) else ""
        if address and not address.startswith(("127.", "::1")):
            found[address[:-3] if address.endswith("/32") else address] = None
    return [address for address in found if address]


def app_addresses(app: App, host: Host, primary: Host, inventory: Inventory, network: str) -> list[str]:
    """Addresses from which an app reaches PostgreSQL on `host`: past the pooler, or through one that is elsewhere."""
    if not app.database or app.database.host != primary.name:
        return []
    direct = app.everywhere() if not app.database.pooled else (app.migration_host(),)
    found = [address for name in direct if name for address in _addresses(app, name, host, inventory, network)]
    if app.database.pooled and inventory.replicas(primary):
        found += [one.address for one in poolers.hosts(primary, inventory)]
    return list(dict.fromkeys(found))


def peers(host: Host, inventory: Inventory) -> list[str]:
    """Addresses of a primary and its standbys, this host's own included; none without a standby."""
    primary = inventory.primary(host) if host.has("replica") else host
    replicas = inventory.replicas(primary) if primary else ()
    return [one.address for one in (primary, *replicas) if one and one.address] if replicas else []


def _addresses(app: App, name: str, server: Host, inventory: Inventory, network: str) -> list[str]:
    """How the processes of an app on host `name` appear to `server`; over the loopback they need no rule."""
    if name != server.name:
        return [inventory.host(name).address]
    return container_networks(server, network) if runs_docker(server, Inventory((app,), inventory.hosts)) else []


def container_rule(port: Any, sources: list[str], comment: str) -> Rule:
    """One entry of ufw_container_rules."""
    return {"port": port, "from": sources, "comment": comment}


def rule(port: Any, sources: list[str], comment: str) -> Rule:
    """One entry of ufw_rules."""
    return {"port": port, "proto": "tcp", "from": sources, "comment": comment}
