# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.traffic.places import database


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1\nDATABASE_URL=postgresql://shop:p%40ss@127.0.0.1:6432/shop\n", {"name": "shop", "user": "shop"}),
        ('DATABASE_URL="postgresql://a%2Fb:p@[fd00::1]:6432/Shop-Prod"', {"name": "Shop-Prod", "user": "a/b"}),
        ("OLD_DATABASE_URL=postgresql://a:b@c/d", None),
        ("DATABASE_URL=sqlite3:db/app.sqlite3", None),
        ("DATABASE_URL=http://[", None),
        ("", None),
    ],
)
def test_the_database_that_an_environment_leads_to(text, found):
    assert database(text) == found
