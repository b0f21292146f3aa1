# SPDX-License-Identifier: GPL-3.0-or-later
"""A WebSocket (RFC 6455): the handshake with its accept key, then a ping that must come back as a pong."""

from __future__ import annotations

import binascii
import os
import struct
import time
from dataclasses import dataclass

from .http import ERRORS, HttpTarget, content, receive
from .model import ProbeResult, Unexpected, excerpt, failure, milliseconds
from .wire import Link, connect

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""Appended to the key before hashing (RFC 6455, section 1.3)."""
FRAME_LIMIT = 256 * 1024
"""Bytes of frames that are read while waiting for the pong."""
CLOSE, PING, PONG = 8, 9, 10


def accept_key(key: str) -> str:
    """What a server must answer to `key` in Sec-WebSocket-Accept (RFC 6455, section 4.2.2)."""
    # Not above: a rollback, for which starting Python is most of its time, does not need it.
    import hashlib

    digest = hashlib.sha1((key + GUID).encode("ascii"), usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode("ascii")


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """One final frame of a client, masked, with at most 125 bytes of payload (RFC 6455, section 5.2)."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


def read_frame(link: Link) -> tuple[int, bytes]:
    """Opcode and payload of the server's next frame; raises Unexpected for a masked or a huge one, OSError."""
    first, second = link.take(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", link.take(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", link.take(8))
    if second & 0x80:
        raise Unexpected("the server masked a frame, which RFC 6455 forbids")
    if length > FRAME_LIMIT:
        raise Unexpected(f"a frame of {length} bytes before the pong")
    return first & 0x0F, link.take(length)


@dataclass(frozen=True)
class WebSocketProbe:
    """Upgrade, ping, pong, close. `timeout` in seconds for all of it; the target's headers go along."""

    target: HttpTarget
    timeout: float = 5.0

    @property
    def name(self) -> str:
        """As a URL."""
        return f"{'wss' if self.target.tls else 'ws'}://{self.target.place}{self.target.path}"

    def look(self) -> ProbeResult:
        """Open one WebSocket."""
        started = time.monotonic()
        try:
            with connect(self.target.place, started + self.timeout) as link:
                _upgrade(link, self.target)
                _ping(link)
                latency = milliseconds(started)
                link.send(frame(CLOSE, struct.pack("!H", 1000)))
        except ERRORS as error:
            return failure(error, started, self.timeout, "WebSocket")
        return ProbeResult(True, "101 and pong", latency, False, 101)


def _upgrade(link: Link, target: HttpTarget) -> None:
    key = binascii.b2a_base64(os.urandom(16), newline=False).decode("ascii")
    asked = {**target.headers, "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
    link.send(HttpTarget(target.address, target.port, target.path, asked, unix=target.unix).request("Upgrade"))
    head = receive(link)
    if head.status != 101:
        raise Unexpected(f"status {head.status}, not 101: {excerpt(content(link, head, 4096).decode('utf-8', 'replace'))}")
    told = head.headers
    if told.get("upgrade", "").lower() != "websocket" or "upgrade" not in told.get("connection", "").lower():
        raise Unexpected("status 101, but not upgraded to a WebSocket")
    if told.get("sec-websocket-accept", "").strip() != accept_key(key):
        raise Unexpected("Sec-WebSocket-Accept does not belong to the key that was sent: a cached or made-up answer")


def _ping(link: Link) -> None:
    mark = os.urandom(8)
    link.send(frame(PING, mark))
    seen = 0
    while seen <= FRAME_LIMIT:
        opcode, payload = read_frame(link)
        seen += len(payload) + 2
        if opcode == PONG and payload == mark:
            return
        if opcode == CLOSE:
            code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else "none"
            raise Unexpected(f"closed with code {code} before the pong: {payload[2:].decode('utf-8', 'replace')}")
    raise Unexpected(f"no pong among {FRAME_LIMIT} bytes of frames")
