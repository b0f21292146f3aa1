# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventories that the tests of the plan share."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.plan.build import build
from ansible_collections.slipway.server.plugins.module_utils.plan.model import Facts, Plan, Problem
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import Raw, parse

DIGEST = "sha256:" + "0123456789abcdef" * 4
PASSWORD = "q7Vw2mZr9Kc4Tb8N"
SECRET = "Jd83kQm2Xw9vBz7LpR4tYc6HnF5sGa1e"

_SPOTIK: dict[str, Any] = {
    "domain": "api.spotik.example",
    "release": "v1",
    "releases": {"v1": {"image": "reg.test.lan:5000/spotik@" + DIGEST, "archive": "files/spotik-v1.tar.gz"}},
    "backends": {
        "containers": {"runtime": "docker", "port": 3000, "hosts": ["web1"]},
        "units": {"runtime": "systemd", "port": 3000, "hosts": ["web2"], "command": "/usr/bin/puma -C config/puma.rb"},
    },
    "health": {"json": {"checks.*.status": "ok"}, "version": {"path": "/version", "key": "release"}},
    "processes": 2,
    "threads": 5,
    "memory": "512M",
    "database": {"name": "spotik_production", "user": "spotik", "password": PASSWORD},
    "env": {"APP_ENV": "production"},
    "secrets": {"JWT_SECRET": SECRET},
}
_FLEET: dict[str, list[str]] = {
    "all": ["web1", "web2", "db1"],
    "edge": ["web1"],
    "app": ["web1", "web2"],
    "database": ["db1"],
}
ADDRESSES = {"web1": "10.87.0.11", "web2": "10.87.0.12", "db1": "10.87.0.13"}


def spotik() -> dict[str, Any]:
    """A fresh copy of the sample app's entry."""
    return copy.deepcopy(_SPOTIK)


def fleet(app: dict[str, Any] | None = None, **hostvars: dict[str, Any]) -> Raw:
    """The demo's three hosts; `hostvars` adds variables of single hosts."""
    variables = {name: {"ansible_host": address, **hostvars.get(name, {})} for name, address in ADDRESSES.items()}
    return Raw(apps={"spotik": app or spotik()}, groups=copy.deepcopy(_FLEET), hostvars=variables)


def single(app: dict[str, Any] | None = None, **variables: Any) -> Raw:
    """One host in all groups, running containers."""
    entry = app or spotik()
    if app is None:
        entry["backends"] = {"main": {"runtime": "docker", "port": 3000}}
    groups = {"all": ["one"], "edge": ["one"], "app": ["one"], "database": ["one"]}
    return Raw(apps={"spotik": entry}, groups=groups, hostvars={"one": {"slipway_address": "10.0.0.5", **variables}})


def facts(memory_mb: int = 8192, cores: int = 4, **more: Any) -> Facts:
    """A host's facts."""
    return Facts(memory_mb=memory_mb, cores=cores, **more)


def problems(raw: Raw) -> list[Problem]:
    """What is wrong with an inventory, facts of all hosts known."""
    return parse(raw, {})[1]


def planned(raw: Raw, **known: Facts) -> Plan:
    """The plan of a sound inventory; hosts not named in `known` have 8 GB and 4 cores."""
    seen = {host: known.get(host, facts()) for host in raw.groups["all"]}
    inventory, found = parse(raw, seen)
    assert found == []
    return build(inventory, seen)
