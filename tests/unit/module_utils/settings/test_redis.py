# SPDX-License-Identifier: GPL-3.0-or-later
"""Purposes, files, users and what counts as the same value."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import redis
from ansible_collections.slipway.server.plugins.module_utils.settings.redis import Instance, User


def instance(**more: Any) -> Instance:
    return Instance(**{"name": "cache", "purpose": "cache", "port": 6379, "maxmemory_mb": 64, **more})


def test_each_purpose_evicts_and_keeps_what_suits_it() -> None:
    found = {name: redis.directives(instance(purpose=name)) for name in redis.PURPOSES}
    assert found["cache"]["maxmemory-policy"] == "allkeys-lfu"
    assert found["cache"]["appendonly"] == "no"
    assert found["queue"]["maxmemory-policy"] == "noeviction"
    assert found["queue"]["appendonly"] == "yes"
    assert found["limits"]["maxmemory-policy"] == "volatile-ttl"
    assert found["limits"]["save"] == "300 1"


def test_the_configuration_quotes_what_needs_it() -> None:
    text = redis.render(
        instance(listen=("127.0.0.1", "::1"), settings={"notify-keyspace-events": "", "lazyfree-lazy-expire": True})
    )
    lines = text.splitlines()
    assert 'notify-keyspace-events ""' in lines
    assert "lazyfree-lazy-expire yes" in lines
    assert "bind 127.0.0.1 ::1" in lines
    assert "port 6379" in lines
    assert 'logfile ""' in lines
    assert "port" not in redis.render(instance(), redis.TRIAL).split()


def test_with_a_certificate_no_plain_port_is_left() -> None:
    found = redis.directives(instance(certificate="/c", key="/k", listen=("127.0.0.1", "10.0.0.5")))
    assert (found["port"], found["tls-port"], found["tls-auth-clients"]) == ("0", "6379", "no")


def test_passwords_are_hashed_and_default_is_off() -> None:
    acl = redis.render_acl(redis.rules("cache", [User("shop", "cache", "secret", ("shop:*",))], "admin"))
    assert "secret" not in acl
    assert hashlib.sha256(b"secret").hexdigest() in acl
    assert "user default resetpass resetkeys resetchannels off -@all\n" in acl
    assert "~shop:* +@all -@admin -@dangerous +info" in acl


def test_only_users_of_the_instance_are_in_its_file() -> None:
    logins = [User("shop", "cache", "a"), User("jobs", "queue", "b")]
    assert set(redis.rules("queue", logins, "x")) == {"default", redis.ADMIN, "jobs"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"name": "Cache"}, "needs a name of its own"),
        ({"purpose": "sessions"}, "is none of cache, queue, limits"),
        ({"certificate": "/c"}, "belong together"),
        ({"listen": ("10.0.0.5",)}, "would show passwords and data on the network at 10.0.0.5"),
        ({"settings": {"maxmemory": "1gb"}}, "set maxmemory_mb"),
        ({"settings": {"requirepass": "x"}}, "set redis_users instead"),
        ({"settings": {"hz": "10\nport 1"}}, "one word and one line"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], says: str) -> None:
    [problem] = redis.problems([instance(**more)], [])
    assert says in problem


@pytest.mark.parametrize(
    ("user", "says"),
    [
        (User("shop", "queue", "x"), "there is no instance queue"),
        (User("default", "cache", "x"), "neither default nor slipway"),
        (User("shop", "cache", ""), "take one from a vault"),
        (User("shop", "cache", "x", ("a b",)), "hold no blanks"),
        (User("shop", "cache", "x", commands="+@all >other"), "none of # < >"),
    ],
)
def test_a_user_that_cannot_be_is_refused(user: User, says: str) -> None:
    [found] = redis.problems([instance()], [user])
    assert says in found


def test_two_instances_do_not_share_a_port() -> None:
    found = redis.problems([instance(), instance(name="two")], [])
    assert len(found) == 2
    assert "port 6379 is given twice" in found[0]


@pytest.mark.parametrize(
    ("one", "two"), [("64mb", "67108864"), ("1k", "1000"), ("YES", "yes"), ("3600  1 300 100", "3600 1 300 100")]
)
def test_the_same_value_in_other_words(one: str, two: str) -> None:
    assert redis.canonical(one) == redis.canonical(two)


def test_what_is_not_in_use_is_named_with_both_values() -> None:
    wanted = {"maxclients": "5000", "hz": "10", "new-thing": "1", "client-output-buffer-limit": "pubsub 32mb 8mb 60"}
    effective = {"maxclients": "4064", "hz": "10", "client-output-buffer-limit": "normal 0 0 0 pubsub 33554432 8388608 60"}
    assert redis.config_mismatches(wanted, effective) == [
        ("maxclients", "5000", "4064"),
        ("new-thing", "1", "unknown to this server"),
    ]


def test_users_are_compared_by_what_they_may_do() -> None:
    wanted = {"default": ["off", "-@all"], "shop": ["on", "#", "~shop:*", "-@all", "+get"]}
    listed = [
        "user default off sanitize-payload resetchannels -@all",
        "user shop on sanitize-payload #ab ~shop:* resetchannels -@all +get",
    ]
    assert redis.acl_mismatches(wanted, listed) == []
    assert redis.acl_mismatches(wanted, listed[:1]) == ["user shop is missing"]
    assert redis.acl_mismatches(wanted, [*listed, "user eve on nopass ~* +@all"]) == ["user eve is there, but not declared"]
    for changed in ("~*", "#ab #cd ~shop:*", "nopass ~shop:*", "~shop:* %R~other"):
        line = f"user shop on #ab {changed.replace('#ab ', '')} resetchannels -@all +get"
        assert redis.acl_mismatches(wanted, [listed[0], line]) == ["user shop has other rules than declared"]


def test_checks_hold_no_hash_and_prove_each_login() -> None:
    found = redis.checks([instance()], [User("shop", "cache", "secret")])
    looks = [check for check in found if check["kind"] == "redis"]
    assert [check["user"] for check in looks] == ["slipway", "shop"]
    assert looks[1]["input"] == "secret"
    assert "secret" not in repr(looks[0])
    assert hashlib.sha256(b"secret").hexdigest() not in repr(found)
