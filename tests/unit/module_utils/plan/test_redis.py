# SPDX-License-Identifier: GPL-3.0-or-later
"""From `redis:` of an app to instances, users, rules and REDIS_URL."""

from __future__ import annotations

from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.plan import env
from ansible_collections.slipway.server.plugins.module_utils.plan.demands import demands
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import Raw, parse

from .inventories import PASSWORD, fleet, planned, problems, spotik

SECRET = "r9/x:@Zq47kLmW2b"


def with_redis(**redis: Any) -> Raw:
    raw = fleet({**spotik(), "redis": {"purpose": "queue", "password": SECRET, **redis}})
    raw.groups["redis"] = ["db1"]
    return raw


def test_other_hosts_use_tls_and_nobody_else_gets_there() -> None:
    raw = with_redis()
    host = planned(raw).hosts["db1"]
    [instance] = host["redis_instances"]
    assert (instance["port"], instance["listen"]) == (6380, ["127.0.0.1", "10.87.0.13"])
    assert instance["certificate"] == "/etc/slipway/tls/redis/fullchain.pem"
    assert host["certificates_entries"] == [{"name": "redis", "domains": ["redis.internal"], "source": "selfsigned"}]
    [rule] = [rule for rule in host["ufw_rules"] if rule["port"] == 6380]
    assert rule["from"] == ["10.87.0.11", "10.87.0.12"]
    assert host["kernel_sysctl"]["vm.overcommit_memory"] == 1


def test_the_url_carries_any_password() -> None:
    raw = with_redis()
    there = planned(raw).hosts["web1"]["app_apps"]["spotik"]
    found = env.variables(raw.apps["spotik"], there)
    assert found["REDIS_URL"] == "rediss://spotik:r9%2Fx%3A%40Zq47kLmW2b@10.87.0.13:6380/0"
    assert found["REDIS_PREFIX"] == "spotik:"


def test_users_get_their_passwords_outside_of_the_plan() -> None:
    raw = with_redis()
    host = planned(raw).hosts["db1"]
    assert SECRET not in repr(planned(raw))
    [user] = env.redis_users(raw.apps, host)
    assert (user["name"], user["instance"], user["keys"], user["password"]) == ("spotik", "queue", ["spotik:*"], SECRET)


def test_plain_text_is_said_explicitly() -> None:
    raw = with_redis(tls=False)
    plan = planned(raw)
    [instance] = plan.hosts["db1"]["redis_instances"]
    assert instance["plaintext"] is True
    assert "certificate" not in instance
    assert plan.hosts["web1"]["app_apps"]["spotik"]["environment"]["redis"]["scheme"] == "redis"


def test_on_one_host_it_stays_on_loopback() -> None:
    raw = with_redis()
    del raw.apps["spotik"]["backends"]["containers"]
    raw.groups["redis"] = ["web2"]
    plan = planned(raw)
    [instance] = plan.hosts["web2"]["redis_instances"]
    assert instance["listen"] == ["127.0.0.1"]
    assert "certificate" not in instance
    assert not [rule for rule in plan.hosts["web2"]["ufw_rules"] if rule["port"] == 6380]
    url = env.variables(raw.apps["spotik"], plan.hosts["web2"]["app_apps"]["spotik"])["REDIS_URL"]
    assert url.startswith("redis://spotik:")
    assert url.endswith("@127.0.0.1:6380/0")


def test_what_cannot_be_is_named() -> None:
    def keys(raw: Raw) -> list[str]:
        return [problem.key for problem in problems(raw)]

    at = "slipway_apps.spotik."
    nowhere = with_redis()
    del nowhere.groups["redis"]
    assert keys(nowhere) == [at + "redis"]
    assert keys(with_redis(purpose="sessions")) == [at + "redis.purpose"]
    assert keys(with_redis(host="web1")) == [at + "redis.host"]
    assert keys(with_redis(password="short")) == [at + "redis.password"]
    assert keys(with_redis(prefix="a b*")) == [at + "redis.prefix"]
    twice = with_redis()
    twice.apps["spotik"]["secrets"]["REDIS_URL"] = SECRET
    assert keys(twice) == [at + "secrets.REDIS_URL"]


def test_all_keys_need_an_instance_for_oneself() -> None:
    raw = with_redis(prefix="")
    assert problems(raw) == []
    other = {**spotik(), "domain": "two.spotik.example", "redis": {"purpose": "queue", "password": PASSWORD}}
    other["backends"] = {"units": {**other["backends"]["units"], "port": 4000}}
    raw.apps["other"] = other
    assert [problem.key for problem in problems(raw)] == ["slipway_apps.spotik.redis.prefix"]


def test_preflight_knows_port_and_packages() -> None:
    inventory, _problems = parse(with_redis(), {})
    found = demands(inventory, [])["db1"]
    assert {"redis-server", "openssl"} <= set(found["preflight_packages"])
    assert [entry["owner"] for entry in found["preflight_ports"] if entry["port"] == 6380] == ["Redis queue"]
