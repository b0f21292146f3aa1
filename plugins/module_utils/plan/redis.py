# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis on the hosts of its group: one instance for each purpose that an app asks for, and how each app reaches its own."""

from __future__ import annotations

from typing import Any, Optional

from . import firewall
from .model import App, Host, Inventory, Problem, Redis
from .sizing import RedisSize, runs_docker

PORTS = {"cache": 6379, "queue": 6380, "limits": 6381}
CERTIFICATE = "/etc/slipway/tls/redis"
NAME = "redis.internal"


def wanted(host: Host, inventory: Inventory) -> list[tuple[App, Redis]]:
    """Apps whose Redis is on a host."""
    return [(app, app.redis) for app in inventory.apps if app.redis and app.redis.host == host.name]


def purposes(host: Host, inventory: Inventory) -> list[str]:
    """Instances of a host, each named after its purpose."""
    asked = {redis.purpose for _app, redis in wanted(host, inventory)}
    return [purpose for purpose in PORTS if purpose in asked]


def clients(host: Host, purpose: str, inventory: Inventory, network: str) -> list[str]:
    """Addresses that reach an instance over the network: other hosts of its apps, and containers of its own."""
    found: dict[str, None] = {}
    for app, redis in wanted(host, inventory):
        for name in app.everywhere() if redis.purpose == purpose else ():
            if name != host.name:
                found[inventory.host(name).address] = None
            elif runs_docker(host, Inventory((app,), inventory.hosts)):
                found.update(dict.fromkeys(firewall.container_networks(host, network)))
    return [address for address in found if address]


def secure(host: Host, purpose: str, inventory: Inventory, network: str) -> bool:
    """Whether an instance speaks TLS: when others reach it, unless one of its apps says `tls: false`."""
    plain = any(not redis.tls for _app, redis in wanted(host, inventory) if redis.purpose == purpose)
    return bool(clients(host, purpose, inventory, network)) and not plain


def rules(host: Host, inventory: Inventory, network: str) -> list[firewall.Rule]:
    """ufw_rules: each instance for those who use it."""
    return [
        {"port": PORTS[purpose], "proto": "tcp", "from": sources, "comment": f"redis {purpose}"}
        for purpose in purposes(host, inventory)
        for sources in [clients(host, purpose, inventory, network)]
        if sources
    ]


def variables(host: Host, inventory: Inventory, network: str, size: Optional[RedisSize]) -> dict[str, Any]:
    """redis_instances and, without passwords, their users. The instances share the host's part of memory evenly."""
    names = purposes(host, inventory)
    instances = []
    for purpose in names:
        remote = clients(host, purpose, inventory, network)
        entry: dict[str, Any] = {"name": purpose, "purpose": purpose, "port": PORTS[purpose], "listen": ["127.0.0.1"]}
        if size:
            entry.update(
                maxmemory_mb=max(1, size.maxmemory_mb // len(names)),
                max_clients=int(host.overrides.get("redis_max_clients", size.max_clients)),
            )
        if remote:
            entry["listen"].append(host.address)
            if secure(host, purpose, inventory, network):
                entry.update(certificate=f"{CERTIFICATE}/fullchain.pem", key=f"{CERTIFICATE}/privkey.pem")
            else:
                entry["plaintext"] = True
        instances.append(entry)
    logins = [
        {"name": app.name, "instance": redis.purpose, "keys": [redis.prefix + "*"], "channels": [redis.prefix + "*"]}
        for app, redis in wanted(host, inventory)
    ]
    return {"redis_instances": instances, "redis_logins": logins}


def certificate(host: Host, inventory: Inventory, network: str) -> list[dict[str, Any]]:
    """The certificate that the instances of a host share; none where nothing speaks TLS."""
    needed = any(secure(host, purpose, inventory, network) for purpose in purposes(host, inventory))
    return [{"name": "redis", "domains": [NAME], "source": "selfsigned"}] if needed else []


def address(app: App, redis: Redis, host: Host, inventory: Inventory, network: str) -> dict[str, Any]:
    """How an app reaches its Redis from a host."""
    server = inventory.host(redis.host)
    local = server.name == host.name and not runs_docker(host, Inventory((app,), inventory.hosts))
    return {
        "scheme": "rediss" if secure(server, redis.purpose, inventory, network) else "redis",
        "user": app.name,
        "host": "127.0.0.1" if local else server.address,
        "port": PORTS[redis.purpose],
    }


def problems(inventory: Inventory) -> list[Problem]:
    """An app that may use all keys has its instance for itself."""
    found = []
    for app in inventory.apps:
        redis = app.redis
        others = [
            other.name
            for other in inventory.apps
            if redis and other.redis and other is not app
            if (other.redis.host, other.redis.purpose) == (redis.host, redis.purpose)
            if other.redis.prefix.startswith(redis.prefix)
        ]
        if others:
            what = f"lets it use the keys of {', '.join(others)}, which has the same instance"
            remedy = "Give each app its own prefix, or another host"
            found.append(Problem("app " + app.name, f"slipway_apps.{app.name}.redis.prefix", what, remedy))
    return found
