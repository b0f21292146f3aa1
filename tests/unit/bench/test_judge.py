# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a way of moving traffic, from logs as the clients write them."""

from __future__ import annotations

import asyncio

import pytest

from tests.bench import judge
from tests.bench.judge import Move, Took
from tests.bench.relay import Near, route


def request(t: float, ms: float = 50, release: str = "v1", kind: str = "keepalive", **more: object) -> dict[str, object]:
    return {"t": t, "kind": kind, "method": "GET", "path": "/", "status": 200, "ms": ms, "release": release,
            "received": t + 0.02, **more}  # fmt: skip


LOST = {"kind": "keepalive", "method": "POST", "path": "/", "status": 0, "ms": 20, "error": "after the request was sent: gone"}
MOVES = [Move("v2", 10.0, 10.1, 300.0), Move("v1", 12.0, 12.001, 250.0)]


def test_before_and_during():
    log = [request(float(t), ms=40) for t in range(9)] + [request(9.6, ms=90), request(13.4, ms=80), request(13.6, ms=999)]
    found = judge.figures([*log, request(9.9, ms=4000, kind="slow")], MOVES)
    assert (found.p99_before, found.p99_during) == (40, 90)
    assert (found.requests, found.slow, found.slow_lost, found.failed) == (13, 1, 0, 0)
    assert found.switch_ms == [100.0, 1.0]
    assert found.total_ms == [300.0, 250.0]


def test_failures_count_once_and_echoes_are_no_requests():
    log = [{"t": 10.05, **LOST}, request(10.2, kind="slow", status=502, error="status 502"), request(3, kind="ws", method="ECHO")]
    events = [{"t": 10.0, "event": "ws_cut"}, {"t": 10.0, "event": "idle_close"}, {"t": 10.0, "event": "idle_reset"}]
    found = judge.figures([*log, *events], MOVES)
    assert (found.requests, found.failed, found.slow_lost, found.websockets_cut, found.noticed) == (2, 2, 1, 1, 2)
    assert found.failures == {"keepalive POST: after the request was sent: gone": 1, "slow GET: status 502": 1}


def test_first_on_the_new_slot_and_last_on_the_old_one():
    log = [request(9.99, release="v1"), request(10.03, release="v2"), request(10.3, release="v1"), request(12.5, release="v2")]
    found = judge.figures(log, MOVES)
    assert found.first_ms == [50.0, None]
    assert found.late_ms == [220.0, 519.0]


def test_goals_and_table():
    good = judge.figures([request(t / 10, release="v2") for t in range(100, 130)], MOVES[:1])
    goals = dict(judge.goals({"flag": good}, [Took(0.2, 0.1), Took(0.9, 0.1), Took(0.25, 0.1)], [Took(6.0, 1.5)], whole=False))
    assert list(goals.values()) == [True, False, False, True, False]
    assert not dict(judge.goals({"flag": good}, [], [], whole=True)).popitem()[1]
    assert "| **failed requests** | **0** | **0** |" in judge.table({"flag": good, "reload": good})


def test_spread():
    assert judge.spread([3.0, None, 1.0, 2.0]) == "2.0 / 3.0 / 3.0"
    assert judge.spread([None]) == "-"


def test_route():
    assert route("21000=10.87.1.11:443") == (21000, "10.87.1.11", 443)
    with pytest.raises(ValueError, match="invalid literal"):
        route("21000")


def test_relay_holds_back_and_keeps_order():
    delay = 0.05

    async def echoed() -> tuple[bytes, float]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readexactly(3)).upper())
            writer.close()

        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        far = server.sockets[0].getsockname()[1]
        relay = await loop.create_server(lambda: Near(delay, "127.0.0.1", far), "127.0.0.1", 0)
        begun = loop.time()
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.sockets[0].getsockname()[1])
        for byte in b"abc":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        said = await reader.read()
        writer.close()
        relay.close()
        server.close()
        return said, loop.time() - begun

    said, seconds = asyncio.run(echoed())
    assert said == b"ABC"
    assert seconds >= 2 * delay
