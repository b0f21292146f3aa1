# SPDX-License-Identifier: GPL-3.0-or-later
"""The client against servers that misbehave: it has to be able to fail."""

from __future__ import annotations

import asyncio
import io
import json
import random

import pytest

from tests.client import frames
from tests.client.connection import Target
from tests.client.records import Log
from tests.client.report import summarise
from tests.client.traffic import Mix, Traffic

NOTHING = {"keepalive": 0, "fresh": 0, "post": 0, "slow": 0, "websockets": 0, "think": 0.02, "timeout": 0.5}
ANSWER = b"HTTP/1.1 200 OK\r\nX-Release: v1\r\nContent-Length: 2\r\n\r\nok"


def records_of(handler, seconds=0.5, **mix):
    """What the client logs in some seconds against a server that handles each connection with `handler`."""

    async def session():
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        log = io.StringIO()
        traffic = Traffic(Target("127.0.0.1", port, "app.example", None), Mix(**{**NOTHING, **mix}), Log(log))
        asyncio.get_running_loop().call_later(seconds, traffic.stop.set)
        await traffic.run()
        server.close()
        return [json.loads(line) for line in log.getvalue().splitlines()]

    return asyncio.run(session())


async def request_head(reader):
    return await reader.readuntil(b"\r\n\r\n")


def test_answers_carry_status_and_release():
    async def good(reader, writer):
        while await request_head(reader):
            writer.write(ANSWER)

    requests = [r for r in records_of(good, keepalive=1) if "kind" in r]
    assert len(requests) > 3
    assert {(r["status"], r["release"], r["path"].startswith("/")) for r in requests} == {(200, "v1", True)}


def test_an_idle_connection_closed_by_the_server_is_no_failure(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)  # time enough to see the end before the next request

    async def answer_and_close(reader, writer):
        await request_head(reader)
        writer.write(ANSWER)
        writer.close()

    summary = summarise(records_of(answer_and_close, keepalive=1, think=0.05))
    assert summary["failures"] == 0
    assert summary["idle_closes"] >= 1


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"rubbish\r\n\r\n"]
)
def test_a_connection_that_dies_after_the_request_is_a_failure_and_not_repeated(said):
    heads = []

    async def die(reader, writer):
        heads.append(await request_head(reader))
        writer.write(said)
        writer.close()

    requests = [r for r in records_of(die, keepalive=1) if "kind" in r]
    assert requests
    assert len(requests) == len(heads)
    assert all(r["status"] == 0 and r["error"].startswith("after the request was sent") for r in requests)


def test_no_answer_is_a_timeout():
    async def silent(reader, writer):
        await asyncio.sleep(5)

    requests = [r for r in records_of(silent, keepalive=1) if "kind" in r]
    assert ["TimeoutError" in r["error"] for r in requests] == [True]


def test_errors_of_the_server_are_failures():
    async def broken(reader, writer):
        while await request_head(reader):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n")

    summary = summarise(records_of(broken, keepalive=1))
    assert summary["failures"] == summary["requests"] > 2


def test_new_connections_keep_their_rate_when_answers_are_slow():
    async def late(reader, writer):
        await request_head(reader)
        await asyncio.sleep(0.4)
        writer.write(ANSWER)

    made = summarise(records_of(late, fresh=20, seconds=0.5))["by_kind"]["fresh"]
    assert 5 <= made <= 13, "one after the other would be two"


async def shake(reader, writer):
    head = (await request_head(reader)).decode()
    key = next(line.split(": ")[1] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
    answer = f"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nX-Release: v1\r\nSec-WebSocket-Accept: {frames.accept_of(key)}\r\n\r\n"
    writer.write(answer.encode())


def plain(opcode, payload):
    return bytes([0x80 | opcode, len(payload)]) + payload


async def echo(reader, writer):
    await shake(reader, writer)
    decoder = frames.Decoder()
    while data := await reader.read(1000):
        for frame in decoder.feed(data):
            writer.write(plain(frames.PING, b"p") + plain(frame.opcode, frame.payload))


def test_a_websocket_that_echoes_is_not_cut():
    summary = summarise(records_of(echo, websockets=2, seconds=0.8))
    assert summary["failures"] == 0
    assert summary["websockets"]["cut"] == 0
    assert summary["websockets"]["opened"] == 2
    assert summary["websockets"]["echoes"] >= 4


@pytest.mark.parametrize(("last", "code"), [(plain(frames.CLOSE, b"\x03\xe9"), "1001"), (b"", "none")])
def test_a_websocket_ended_by_the_server_is_cut_and_opened_again(last, code):
    async def cut(reader, writer):
        await shake(reader, writer)
        writer.write(last)
        writer.close()

    summary = summarise(records_of(cut, websockets=1, seconds=0.5))
    assert summary["websockets"]["opened"] == 2
    assert summary["websockets"]["cut_by_code"] == {code: 2}


def test_a_wrong_handshake_is_a_failure():
    async def wrong(reader, writer):
        await request_head(reader)
        writer.write(b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: no\r\n\r\n")

    assert summarise(records_of(wrong, websockets=1, seconds=0.1))["failures_by_kind"] == {"ws": 1}


@pytest.mark.parametrize(
    ("url", "connect", "expected"),
    [
        ("https://api.example", None, ("api.example", 443, "api.example", True)),
        ("https://api.example:8443", "10.0.0.5:443", ("10.0.0.5", 443, "api.example:8443", True)),
        ("http://api.example", None, ("api.example", 80, "api.example", False)),
    ],
)
def test_target(url, connect, expected):
    target = Target.of(url, connect, None, insecure=True)
    assert (target.address, target.port, target.host, target.tls is not None) == expected


def test_target_refuses_what_is_no_web_address():
    with pytest.raises(ValueError, match="not an http"):
        Target.of("ftp://x", None, None, insecure=False)
