# SPDX-License-Identifier: GPL-3.0-or-later
"""WebSocket framing (RFC 6455 section 5) without input or output."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


@dataclass(frozen=True)
class Frame:
    """One frame as received."""

    opcode: int
    payload: bytes
    final: bool = True

    @property
    def close_code(self) -> int:
        """The code of a close frame; 1005 stands for a close frame without one (RFC 6455 section 7.1.5)."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else 1005


def new_key() -> str:
    return base64.b64encode(os.urandom(16)).decode()


def accept_of(key: str) -> str:
    """The answer a server owes to `key`."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID.encode()).digest()).decode()


def encode(opcode: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """One final frame, masked as a client must."""
    mask = mask or os.urandom(4)
    size = len(payload)
    head = bytes([0x80 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return head + mask + _mask(payload, mask)


class Decoder:
    """Turns the bytes of a server into frames, however they were cut."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames = []
        while (taken := self._next()) is not None:
            frames.append(taken)
        return frames

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, start = int.from_bytes(buffer[2 : 2 + width], "big"), 2 + width
        mask = b""
        if buffer[1] & 0x80:
            mask = buffer[start : start + 4]
            start += 4
        if len(buffer) < start + size:
            return None
        payload = buffer[start : start + size]
        self._buffer = buffer[start + size :]
        return Frame(buffer[0] & 0x0F, _mask(payload, mask) if mask else payload, bool(buffer[0] & 0x80))


def _mask(payload: bytes, mask: bytes) -> bytes:
    if not payload:
        return b""
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
