# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan import sizing

from tests.unit.module_utils.plan.inventories import PASSWORD, fleet, planned, problems


@pytest.mark.parametrize(
    ("purpose", "shared", "maxmemory", "total"),
    [("cache", False, 6151, 6783), ("queue", False, 3075, 6781), ("limits", True, 849, 1884), ("cache", True, 1698, 1884)],
)
def test_redis_leaves_room_for_its_fork(purpose: str, shared: bool, maxmemory: int, total: int) -> None:
    size = sizing.redis(8192, purpose, sessions=200, shared=shared)
    assert (size.maxmemory_mb, size.total_mb, size.forks) == (maxmemory, total, purpose != "cache")
    assert (size.max_clients, size.nofile) == (260, 1024)


def test_a_declared_maxmemory_and_many_clients() -> None:
    size = sizing.redis(1024, "cache", sessions=4000, declared_mb=25)
    assert (size.maxmemory_mb, size.max_clients, size.nofile) == (25, 5010, 8192)
    assert size.total_mb == 10 + 98 + 28
    assert sizing.redis(1024, "cache", sessions=4000, hard=5100).nofile == 5100


def test_redis_has_its_part_of_the_host() -> None:
    raw = fleet()
    raw.groups["redis"] = ["db1"]
    name, app = next(iter(raw.apps.items()))
    app["redis"] = {"purpose": "queue", "password": "a-password-of-redis"}
    plan = planned(raw)
    found = plan.hosts["db1"]
    [instance] = found["redis_instances"]
    assert (instance["name"], instance["port"], instance["max_clients"] >= 128) == ("queue", 6380, True)
    assert instance["maxmemory_mb"] > 500
    assert found["redis_logins"] == [{"name": name, "instance": "queue", "keys": [name + ":*"], "channels": [name + ":*"]}]
    alone = planned(fleet()).hosts["db1"]["postgresql_settings"]["shared_buffers"]
    assert int(found["postgresql_settings"]["shared_buffers"][:-2]) < int(alone[:-2])
    assert plan.violations() == []


@pytest.mark.parametrize(
    ("databases", "replicas", "declared", "key"),
    [
        (["db1"], ["web2"], None, ""),
        (["db1", "web1"], ["web2"], "web1", ""),
        (["db1", "web1"], ["web2"], None, "slipway_primary"),
        (["db1"], ["web2"], "web1", "slipway_primary"),
        (["db1"], ["db1"], None, "groups.replica"),
        ([], ["web2"], None, "groups.replica"),
    ],
)
def test_a_replica_follows_one_primary(databases: list[str], replicas: list[str], declared: str | None, key: str) -> None:
    secret = {"postgresql_replication_password": PASSWORD}
    raw = fleet(web1=secret, db1=secret, web2={**secret, **({"slipway_primary": declared} if declared else {})})
    raw.apps["spotik"]["database"]["host"] = "db1"
    raw.groups.update(database=databases, replica=replicas)  # type: ignore[attr-defined]
    found = {one.key for one in problems(raw)} - {"slipway_apps.spotik.database.host", "slipway_apps.spotik.database"}
    assert found == ({key} if key else set())
