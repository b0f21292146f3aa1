# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import nginx

SITE = {
    "name": "shop",
    "domain": "shop.test",
    "aliases": ["www.shop.test", "*.shop.test"],
    "certificate": "/etc/slipway/tls/shop/fullchain.pem",
    "key": "/etc/slipway/tls/shop/privkey.pem",
    "slots": [{"name": "blue", "members": ["10.0.0.5:3000", "[fd00::1]:3000"]}, {"name": "green", "members": ["127.0.0.1:3010"]}],
    "flags": "/var/lib/slipway/shop/flags",
    "websockets": ["/ws"],
    "max_body": "50m",
    "health_path": "/health",
    "rate_limits": [{"path": "/search", "per_minute": 60}, {"path": "/", "per_minute": 0}],
    "restricted": [{"path": "/metrics", "from": ["10.0.0.0/8", "fd00::1"]}],
}


def test_a_complete_site_has_no_problem():
    assert nginx.site_problems([SITE]) == []
    minimal = {key: SITE[key] for key in ("name", "domain", "certificate", "key", "slots", "flags")}
    assert nginx.site_problems([minimal]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Shop"}, "its name is part of"),
        ({"name": "a;b"}, "its name is part of"),
        ({"domain": "shop.test; return 200"}, "cannot be a host name"),
        ({"aliases": ["_"]}, "'_' cannot be a host name"),
        ({"slots": []}, "it has no slots"),
        ({"slots": [{"name": "blue", "members": []}]}, "slot blue has no members"),
        ({"slots": [{"name": "b}", "members": ["10.0.0.1:1"]}]}, "use lower-case letters"),
        ({"slots": [{"name": "b", "members": ["app:80"]}]}, "member 'app:80' is not address:port"),
        ({"flags": "/x/../ y"}, "flags: '/x/../ y' is not a plain absolute path"),
        ({"certificate": "fullchain.pem"}, "certificate: 'fullchain.pem' is not a plain absolute path"),
        ({"websockets": ["ws"]}, "websockets ws: 'ws' is not a plain absolute path"),
        ({"health_path": '/x"'}, "health_path"),
        ({"max_body": "50 MB"}, "max_body: '50 MB' is not a size"),
        ({"rate_limits": [{"path": "search", "per_minute": 1}]}, "rate_limits: 'search' is not a plain absolute path"),
        ({"rate_limits": [{"path": "/a", "per_minute": 1}, {"path": "/a", "per_minute": 2}]}, "/a is named twice"),
        ({"rate_limits": [{"path": "/a", "per_minute": -1}]}, "/a has a negative per_minute"),
        ({"restricted": [{"path": "/a;", "from": []}]}, "restricted: '/a;' is not a plain absolute path"),
        ({"restricted": [{"path": "/a", "from": ["10.0.0.1/8"]}]}, "'10.0.0.1/8' for /a is neither"),
    ],
)
def test_each_problem_is_named_with_its_site(change, words):
    found = nginx.site_problems([{**SITE, **change}])
    assert len(found) == 1
    assert found[0].startswith(f"site {change.get('name', 'shop')}: ")
    assert words in found[0]


def test_all_problems_come_together():
    other = {**SITE, "name": "shop2", "aliases": [], "max_body": "big"}
    found = nginx.site_problems([SITE, other])
    assert "site shop2: max_body: 'big' is not a size such as 10m" in found
    assert "domain shop.test is declared twice; keep one" in found


def test_two_sites_can_clash_in_their_upstreams():
    slot = {"members": ["127.0.0.1:1"]}
    first = {**SITE, "name": "a", "domain": "a.test", "aliases": [], "slots": [{**slot, "name": name} for name in ("b_c", "d")]}
    second = {**SITE, "name": "a_b", "domain": "b.test", "aliases": [], "slots": [{**slot, "name": name} for name in ("c", "d")]}
    assert nginx.site_problems([first, second]) == ["upstream a_b_c_d is declared twice; keep one"]


def test_two_sites_can_clash_in_their_variables():
    first = {**SITE, "name": "a-b", "domain": "a.test", "aliases": []}
    sites = [first, {**first, "name": "a_b", "domain": "b.test"}]
    assert nginx.site_problems(sites) == ["variable $slipway_bucket_a_b is declared twice; keep one"]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("10.0.0.1:80", True),
        ("[::1]:80", True),
        ("::1:80", False),
        ("[10.0.0.1]:80", False),
        ("10.0.0.1", False),
        ("10.0.0.1:0", False),
        ("10.0.0.1:65536", False),
        ("10.0.0.1:x", False),
        ("host:80", False),
        ("10.0.0.1:80 down", False),
    ],
)
def test_members(text, good):
    assert nginx.is_member(text) is good


def test_descriptors_must_be_enough_for_both_ends_of_each_connection():
    assert nginx.limit_problems(1024, 2112) == []
    assert nginx.limit_problems(1024, 2111) == [
        "nginx_nofile is 2111, but 1024 connections need 2112; raise it or lower nginx_worker_connections"
    ]


def test_headers_cannot_leave_their_quotation_marks():
    assert nginx.header_problems({"X-A": "b; c='d'"}) == []
    assert len(nginx.header_problems({"X A": "b", "X-B": 'a"', "X-C": "$host", "X-D": "a\nb"})) == 4


def test_trusted_proxies():
    assert nginx.proxy_problems(["10.0.0.1", "fd00::/8"]) == []
    found = nginx.proxy_problems(["0.0.0.0/0", "balancer"])
    assert "trusts every client" in found[0]
    assert "neither an address nor a network" in found[1]


def test_clients_without_limits_are_addresses_or_networks():
    assert nginx.exempt_problems(["10.0.0.0/8", "::1"]) == []
    assert nginx.exempt_problems(["office"]) == ["nginx_rate_limit_exempt: 'office' is neither an address nor a network"]


@pytest.mark.parametrize(
    ("path", "prefix", "wanted"),
    [
        ("/a", "/a", True),
        ("/a/b", "/a", True),
        ("/ab", "/a", False),
        ("/ab", "/", True),
        ("/a/b", "/a/", True),
        ("/a", "/a/b", False),
    ],
)
def test_what_is_below_a_path(path, prefix, wanted):
    assert nginx.below(path, prefix) is wanted
