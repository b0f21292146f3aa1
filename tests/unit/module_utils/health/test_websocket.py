# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import socket
import struct
from queue import Queue

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import probes, websocket
from ansible_collections.slipway.server.plugins.module_utils.health.http import HttpTarget
from ansible_collections.slipway.server.plugins.module_utils.health.model import ProbeResult
from ansible_collections.slipway.server.plugins.module_utils.health.probes import ProbeOptions
from ansible_collections.slipway.server.plugins.module_utils.health.websocket import WebSocketProbe

from tests.unit.module_utils.health.servers import Talk, says, serving, take

UPGRADED = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"


def look(talk: Talk, timeout: float = 20.0) -> ProbeResult:
    with serving(talk) as port:
        return WebSocketProbe(HttpTarget("127.0.0.1", port, "/ws", {"Host": "api.example"}), timeout).look()


def upgraded(client: socket.socket, wrong: bool = False) -> None:
    request = client.recv(65536).decode()
    assert request.startswith("GET /ws HTTP/1.1\r\nHost: api.example\r\n")
    assert "Connection: Upgrade\r\n" in request
    (key,) = re.findall("Sec-WebSocket-Key: (.+)\r\n", request)
    accept = websocket.accept_key(key + "x" if wrong else key)
    client.sendall(f"{UPGRADED}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())


def read_ping(client: socket.socket) -> bytes:
    """The payload of the ping, unmasked."""
    head = take(client, 2)
    assert head[0] == 0x89
    mask, masked = take(client, 4), take(client, head[1] & 0x7F)
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))


def server_frame(opcode: int, payload: bytes) -> bytes:
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack("!H", len(payload))
    return bytes([0x80 | opcode]) + length + payload


def test_accept_key_of_the_standard() -> None:
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_pong_among_other_frames() -> None:
    closed: Queue[bytes] = Queue()

    def talk(client: socket.socket) -> None:
        upgraded(client)
        mark = read_ping(client)
        client.sendall(server_frame(1, b"x" * 300) + server_frame(9, b"you?") + server_frame(10, b"old"))
        client.sendall(server_frame(10, mark))
        closed.put(take(client, 8))

    result = look(talk)
    assert (result.ok, result.detail, result.status) == (True, "101 and pong", 101)
    assert closed.get(timeout=20)[0] == 0x88


def test_wrong_accept_key() -> None:
    assert "does not belong to the key" in look(lambda client: upgraded(client, wrong=True)).detail


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope", "status 404, not 101: nope"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "not upgraded to a WebSocket"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no WebSocket answer: SSH-2.0"),
        (b"", "no WebSocket answer"),
    ],
)
def test_no_handshake(answer: bytes, said: str) -> None:
    assert said in look(says(answer)).detail


def after(data: bytes, wait: bool = False) -> Talk:
    def talk(client: socket.socket) -> None:
        upgraded(client)
        says(data, wait)(client)

    return talk


def test_after_the_handshake() -> None:
    assert (
        "closed with code 1013 before the pong: later" in look(after(server_frame(8, struct.pack("!H", 1013) + b"later"))).detail
    )
    assert "closed with code none" in look(after(server_frame(8, b""))).detail
    assert "masked a frame" in look(after(b"\x8a\x84aaaabbbb")).detail
    assert "a frame of 1099511627776 bytes" in look(after(b"\x82\x7f" + struct.pack("!Q", 1 << 40))).detail
    assert "no pong among" in look(after(server_frame(2, b"x" * 60000) * 5)).detail
    assert "closed after 1 of 2 bytes" in look(after(b"\x8a")).detail
    assert look(after(b"", wait=True), timeout=0.3).detail == "no complete answer within 0.3 s"


def test_url() -> None:
    made = probes.make("websocket", "wss://api.example/ws", ProbeOptions(connect="127.0.0.1:443"))
    assert made.name == "wss://127.0.0.1:443/ws"
