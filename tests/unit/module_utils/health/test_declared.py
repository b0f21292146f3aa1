# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import declared
from ansible_collections.slipway.server.plugins.module_utils.health.http import Expectation, HttpProbe, HttpTarget
from ansible_collections.slipway.server.plugins.module_utils.health.model import Probe
from ansible_collections.slipway.server.plugins.module_utils.health.probes import BadTarget
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner

GIVEN: dict[str, Any] = {
    "target": "http://127.0.0.1:3000/up",
    "type": "http",
    "path": "/",
    "method": "HEAD",
    "headers": {"Host": "api.example"},
    "connect": None,
    "redirects": 0,
    "status": [200],
    "json": {},
    "body": None,
    "response_headers": {},
    "max_latency_ms": None,
    "validate_certs": True,
    "ca_path": None,
    "password": None,
    "command": None,
    "exit_status": [0],
    "output": None,
    "warmup": [],
    "timeout": 5.0,
}


def of(**changes: Any) -> tuple[Probe, list[Probe]]:
    return declared.of_module({**GIVEN, **changes}, Runner())


def test_warm_up_requests() -> None:
    probe, warmup = of(warmup=["/a?b=1", "https://other.example/c"])
    assert probe.name == "http://127.0.0.1:3000/up"
    assert [one.name for one in warmup] == ["http://127.0.0.1:3000/a?b=1", "https://other.example:443/c"]
    assert isinstance(warmup[0], HttpProbe)
    assert (warmup[0].target.method, warmup[0].target.headers["Host"], warmup[0].expected) == ("GET", "api.example", declared.ANY)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"body": "("}, "body: '[(]' is not a regular expression"),
        ({"response_headers": {"X-A": "["}}, "X-A"),
        ({"type": "redis", "target": "redis://u:secret@cache"}, "`target` holds a password"),
        ({"type": "postgresql", "target": "postgresql://u:secret@db/x"}, "`target` holds a password"),
        ({"type": "tcp", "target": "127.0.0.1:1", "warmup": ["/"]}, "`warmup` belongs to"),
        ({"type": "redis", "target": "redis://[::1"}, "that is no URL"),
    ],
)
def test_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadTarget, match=said) as caught:
        of(**changes)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"type": "exec", "command": ["nginx", "-t"]}, "exec:nginx"),
        ({"type": "unit", "target": "x.service"}, "x.service"),
        ({"type": "container", "target": "search"}, "search"),
        ({"type": "redis", "target": "redis://cache", "password": "p"}, "redis://cache:6379"),
        ({"type": "unix_http", "target": "/run/x.sock", "path": "/up"}, "unix:/run/x.sock:/up"),
    ],
)
def test_kinds(changes: dict[str, Any], name: str) -> None:
    assert of(**changes)[0].name == name


def test_any_answer_is_well_for_a_warm_up() -> None:
    assert declared.warm(HttpProbe(HttpTarget("127.0.0.1"), Expectation((204,))), "/x").expected.status == ()
