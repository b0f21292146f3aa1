# SPDX-License-Identifier: GPL-3.0-or-later
"""Where poolers are: beside the database, or, when it has a standby, on every host of the apps that use it.

With a standby the database's host may be lost. A pooler on the app's own host stays, and so does the address in DATABASE_URL:
a promotion changes one line of the pooler, and no process of an app has to start anew.
"""

from __future__ import annotations

from .model import POOLER_PORT, App, Host, Inventory


def port(host: Host) -> int:
    """Port of the pooler on a host."""
    return int(host.overrides.get("pgbouncer_port", POOLER_PORT))


def hosts(server: Host, inventory: Inventory) -> tuple[Host, ...]:
    """The hosts whose poolers lead to a primary."""
    if not inventory.replicas(server):
        return (server,)
    users = {name for app in _pooled(inventory) if app.database.host == server.name for name in app.everywhere()}  # type: ignore[union-attr]
    return tuple(host for host in inventory.hosts if host.name in users)


def servers(host: Host, inventory: Inventory) -> tuple[Host, ...]:
    """The primaries to which the pooler of a host leads; none when it has no pooler."""
    return tuple(server for server in inventory.group("database") if host in hosts(server, inventory))


def serving(app: App, name: str, inventory: Inventory) -> Host:
    """The host with the pooler that the app uses on host `name`, or would use there."""
    server = inventory.host(app.database.host)  # type: ignore[union-attr]
    found = hosts(server, inventory)
    if not inventory.replicas(server) or not found:
        return server
    return inventory.host(name) if name in app.everywhere() else found[0]


def apps(host: Host, inventory: Inventory) -> tuple[App, ...]:
    """Apps with a pooled database whose processes go through the pooler of this host."""
    return tuple(app for app in _pooled(inventory) if any(serving(app, name, inventory) == host for name in app.everywhere()))


def clients(app: App, host: Host, inventory: Inventory) -> tuple[str, ...]:
    """Hosts on which an app's processes go through the pooler of `host`."""
    return tuple(name for name in app.everywhere() if serving(app, name, inventory) == host)


def _pooled(inventory: Inventory) -> tuple[App, ...]:
    known = {host.name for host in inventory.group("database")}
    return tuple(app for app in inventory.apps if app.database and app.database.pooled and app.database.host in known)
