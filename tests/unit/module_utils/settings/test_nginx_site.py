# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re

from ansible_collections.slipway.server.plugins.module_utils.settings import nginx_site as n

SHOP = {
    "name": "shop",
    "domain": "shop.test",
    "aliases": ["www.shop.test", "*.shop.test"],
    "certificate": "/etc/shop.pem",
    "flags": "/var/lib/slipway/shop/flags",
    "slots": [{"name": "blue"}, {"name": "green"}],
}
LEGACY = {**SHOP, "name": "legacy", "domain": "legacy.test", "aliases": None, "flags": "/var/lib/slipway/legacy/flags"}


def test_directories_once_and_parents_first():
    paths = [item["path"] for item in n.directories([SHOP, LEGACY], "/var/www/acme")]
    assert paths == list(dict.fromkeys(paths))
    assert paths.index("/var/lib/slipway") < paths.index("/var/lib/slipway/shop") < paths.index("/var/lib/slipway/shop/flags")
    assert "/var/www/acme" in paths
    assert [item["path"] for item in n.directories([], "/a")][-1] == "/a"


def test_files_are_cut_where_a_site_begins_and_keep_every_byte():
    text = "### slipway site shop\n# Site shop.\n\n  ### slipway site no\nserver {}\n### slipway site legacy\nserver {}\n\n"
    assert n.files(text) == [
        {"path": "/etc/nginx/slipway.d/site-shop.conf", "content": "# Site shop.\n\n  ### slipway site no\nserver {}\n"},
        {"path": "/etc/nginx/slipway.d/site-legacy.conf", "content": "server {}\n\n"},
    ]
    assert n.files("") == []


def test_no_site_is_no_file() -> None:
    assert n.files("### All sites\n") == []


def test_each_domain_is_asked_over_both_ports_but_one_with_a_wildcard():
    found = n.checks([SHOP, LEGACY], 80, 8443)
    assert [check["url"] for check in found] == [
        *("https://shop.test:8443/.slipway/edge", "http://shop.test:80/"),
        *("https://www.shop.test:8443/.slipway/edge", "http://www.shop.test:80/"),
        *("https://legacy.test:8443/.slipway/edge", "http://legacy.test:80/"),
    ]
    secure, plain = found[:2]
    assert (secure["certificate"], secure["status"], secure["headers"]) == (
        "/etc/shop.pem",
        204,
        {"X-Slipway-Slot": "^(blue|green)$"},
    )
    assert plain["status"] == 308
    location = plain["headers"]["Location"]
    assert re.search(location, "https://shop.test:8443/a")
    assert not re.search(location, "https://shopXtest/a")
