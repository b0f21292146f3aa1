# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer import HEADER
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_others import lost_databases

INI = """;; comment = x
[databases]
; old = host=x
shop = host=127.0.0.1 dbname=a
"my app"=host=/run
* = host=testserver

[pgbouncer]
listen_port = 6432
"""


def test_databases_of_somebody_else_are_named_once():
    assert lost_databases(INI, ["shop"]) == ["my app", "*"]
    assert lost_databases(HEADER + INI, []) == []
    assert lost_databases("", []) == []
