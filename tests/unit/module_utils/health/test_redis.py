# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
import time

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import probes
from ansible_collections.slipway.server.plugins.module_utils.health.model import ProbeResult
from ansible_collections.slipway.server.plugins.module_utils.health.probes import BadTarget, ProbeOptions

from tests.unit.module_utils.health.servers import Talk, says, serving


def look(talk: Talk, target: str = "redis://127.0.0.1:%d", password: str = "", timeout: float = 20.0) -> ProbeResult:
    with serving(talk) as port:
        return probes.make("redis", target % port, ProbeOptions(timeout=timeout, password=password)).look()


def test_ping() -> None:
    assert look(says(b"+PONG\r\n")).detail == "PONG"


def test_login_database_and_ping() -> None:
    heard: list[bytes] = []

    def talk(client: socket.socket) -> None:
        for answer in (b"+OK\r\n", b"+OK\r\n", b"+PONG\r\n"):
            heard.append(client.recv(65536))
            client.sendall(answer)

    assert look(talk, "redis://app@127.0.0.1:%d/2", "pä ss").ok
    assert heard[0] == "*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$6\r\npä ss\r\n".encode()
    assert heard[1] == b"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n"
    assert heard[2] == b"*1\r\n$4\r\nPING\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"-NOAUTH Authentication required.\r\n", "asks for a password"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "PING was answered by LOADING"),
        (b"-MISCONF Redis is configured to save\r\n", "answered by MISCONF"),
        (b"HTTP/1.1 400 Bad Request\r\n", "no Redis answer to PING: 'HTTP/1.1 400"),
        (b"+PO", "closed within a line"),
        (b"+" + b"x" * 100_000, "a line of more than"),
        (b"", "no Redis answer"),
    ],
)
def test_what_is_not_well(answer: bytes, said: str) -> None:
    result = look(says(answer))
    assert not result.ok
    assert said in result.detail


def test_a_dribble_has_one_limit() -> None:
    def talk(client: socket.socket) -> None:
        for byte in b"+PONG but slowly, so slowly" * 4:
            client.sendall(bytes([byte]))
            time.sleep(0.05)

    started = time.monotonic()
    assert look(talk, timeout=0.3).detail == "no complete answer within 0.3 s"
    assert time.monotonic() - started < 4.0


def test_the_password_is_nowhere() -> None:
    made = probes.make("redis", "redis://app:in-the-url@127.0.0.1:1/3", ProbeOptions())
    assert made.name == "redis://127.0.0.1:1/3"
    assert "in-the-url" not in repr(made) + made.look().detail
    assert "WRONGPASS" in look(says(b"-WRONGPASS invalid username-password pair\r\n"), password="never-shown").detail


def test_targets() -> None:
    assert probes.make("redis", "unix:///run/redis/redis.sock?db=1", ProbeOptions()).name == "unix:///run/redis/redis.sock/1"
    assert probes.make("redis", "rediss://cache", ProbeOptions()).name == "rediss://cache:6379"
    for bad in ("cache:6379", "redis://", "redis://cache/x", "redis://cache:99999"):
        with pytest.raises(BadTarget, match="URL such as"):
            probes.make("redis", bad, ProbeOptions())
