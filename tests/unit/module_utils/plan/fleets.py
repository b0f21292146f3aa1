# SPDX-License-Identifier: GPL-3.0-or-later
"""Random fleets: any co-location of groups, several apps, hosts of 0.5 GB to 1 TB and 1 to 256 cores."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.plan.build import build
from ansible_collections.slipway.server.plugins.module_utils.plan.model import Check, Facts, Inventory, Plan
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import Raw, parse

from tests.unit.module_utils.plan.inventories import DIGEST, PASSWORD, SECRET

COMMAND = "/usr/bin/puma -C config/puma.rb"
REFUSED = ("host-memory", "descriptors")


def _some(random: Random, hosts: Sequence[str], least: int = 0) -> list[str]:
    return random.sample(list(hosts), random.randint(least, len(hosts)))


def fleet(random: Random) -> tuple[Raw, dict[str, Facts]]:
    """An inventory without mistakes, and the facts of its hosts."""
    hosts = [f"h{number}" for number in range(random.randint(1, 5))]
    databases = _some(random, hosts, 1)
    groups = {
        "all": hosts,
        "edge": _some(random, hosts, 1),
        "app": _some(random, hosts, 1),
        "worker": _some(random, hosts),
        "database": databases,
        "replica": [host for host in _some(random, hosts) if host not in databases],
        "redis": _some(random, hosts),
        "monitor": _some(random, hosts),
    }
    hostvars: dict[str, dict[str, Any]] = {host: {"slipway_address": f"10.0.0.{n + 1}"} for n, host in enumerate(hosts)}
    for host in groups["replica"]:
        hostvars[host]["slipway_primary"] = random.choice(databases)
    for host in (*databases, *groups["replica"]):
        hostvars[host]["postgresql_replication_password"] = PASSWORD
    apps = {f"a{number}": _app(random, number, groups) for number in range(random.randint(1, 3))}
    for entry in apps.values() if groups["redis"] else ():
        purpose, host = random.choice(["cache", "queue", "limits"]), random.choice(groups["redis"])
        entry.get("env", {}).pop("REDIS_URL", None)
        entry["redis"] = {"purpose": purpose, "host": host, "password": "q7Vw2mZr9Kc4Tb8N"}
    return Raw(apps=apps, groups=groups, hostvars=hostvars), {host: _facts(random) for host in hosts}


def _app(random: Random, number: int, groups: dict[str, list[str]]) -> dict[str, Any]:
    runtime = random.choice(["docker", "systemd"])
    backend: dict[str, Any] = {
        "runtime": runtime,
        "port": 3000 + 100 * number,
        "hosts": _some(random, groups["app"], 1),
        "replicas": random.randint(1, 4),
    }
    if runtime == "systemd":
        backend["command"] = COMMAND
    entry: dict[str, Any] = {
        "domain": f"a{number}.fleet.lan",
        "release": "v1",
        "releases": {"v1": {"image": "reg.lan/a@" + DIGEST, "archive": "a.tar.gz"}},
        "backends": {"main": backend},
        "threads": random.randint(1, 16),
        "secrets": {"JWT_SECRET": SECRET},
    }
    if random.random() < 0.5:
        entry["processes"] = random.randint(1, 8)
    if random.random() < 0.5:
        entry["memory"] = random.choice(["256M", "512M", "1G"])
    if random.random() < 0.3:
        entry["env"] = {"REDIS_URL": "redis://10.0.0.1:6379/0"}
    if random.random() < 0.3:
        entry["workers"] = {
            "jobs": {"command": "/usr/bin/jobs", "replicas": random.randint(1, 3), "threads": random.randint(1, 9)}
        }
    if random.random() < 0.7:
        entry["database"] = {
            "name": f"d{number}",
            "user": f"u{number}",
            "password": PASSWORD,
            "pooled": random.random() < 0.7,
            "host": random.choice(groups["database"]),
        }
    return entry


def _facts(random: Random) -> Facts:
    disk = random.choice([0, 20480, 204800, 1048576])
    return Facts(
        memory_mb=int(2 ** random.uniform(9, 20)),
        cores=int(2 ** random.uniform(0, 8)),
        rotational=random.random() < 0.3,
        container=random.random() < 0.3,
        nofile_hard=random.choice([0, 20000, 524288, 1048576]),
        disk_total_mb=disk,
        disk_free_mb=disk // 2,
        postgresql=random.choice(["", "14.9", "15.18", "17.11", "18.1"]),
        pgbouncer=random.choice(["", "1.18.0", "1.24.1"]),
    )


def plan_of(raw: Raw, facts: dict[str, Facts]) -> Plan:
    """The plan of a fleet whose inventory has no mistake."""
    inventory, problems = parse(raw, facts)
    assert problems == []
    return build(inventory, facts)


def refused(plan: Plan) -> set[str]:
    """Hosts that are too small for what they are told to carry: no proposal can mend that, and the plan says so."""
    found = set()
    for check in plan.violations():
        too_many = check.id == "descriptors" and check.have.split()[0].isdigit() and "pgbouncer" in check.rule
        if check.id == "host-memory" or too_many:
            found.add(check.host)
    return found


def faults(plan: Plan) -> list[Check]:
    """Violations that the plan brought about itself."""
    small = refused(plan)
    return [check for check in plan.violations() if check.host not in small]


def greedy(plan: Plan, inventory: Inventory, facts: dict[str, Facts]) -> list[str]:
    """Hosts that do not fit although the plan gave some app more than the one process that it needs."""
    small = {check.host for check in plan.violations() if check.rule == "memory of all roles <= memory"}
    return [
        host
        for host in small
        for app in inventory.apps
        if not app.processes and not app.memory_mb and app.backends_on(host)
        if plan.hosts[host]["app_apps"][app.name]["environment"]["values"].get("WEB_CONCURRENCY", "1") != "1"
    ]
