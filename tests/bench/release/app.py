# SPDX-License-Identifier: GPL-3.0-or-later
"""The application of bench-cutover: light, so that what is measured is the way to it. Standard library only.

Answers after 5 ms, echoes a WebSocket at /ws, takes /slow?s=SECONDS, and tells its slot and when the request reached it
(seconds since 1970). SIGTERM ends it gracefully: nothing new, requests under way to their end, WebSockets with a close frame.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import time

SLOT, RELEASE = os.environ.get("SLIPWAY_SLOT", "none"), os.environ.get("SLIPWAY_RELEASE", "none")
DELAY = 0.005
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GOING_AWAY = b"\x88\x02\x03\xe9"


class Connection(asyncio.Protocol):
    """One connection; requests one after another."""

    open: set[Connection] = set()
    ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer, self.busy, self.websocket = b"", False, False
        Connection.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        Connection.open.discard(self)

    def data_received(self, data: bytes) -> None:
        if self.websocket:
            self.echo(data)
            return
        self.buffer += data
        if not self.busy:
            self.next()

    def next(self) -> None:
        """Take the next request when all of it is there."""
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0"))
        if len(rest) < size:
            return
        self.buffer, self.busy = rest[size:], True
        received, path = time.time(), first.split()[1]
        delay = float(path.partition("?s=")[2]) if path.startswith("/slow") else DELAY
        if path == "/ws" and headers.get("upgrade", "").lower() == "websocket":
            self.upgrade(headers["sec-websocket-key"], received)
        else:
            asyncio.get_running_loop().call_later(delay, self.answer, path, received, headers.get("connection") == "close")

    def answer(self, path: str, received: float, last: bool) -> None:
        body = json.dumps({"release": RELEASE, "slot": SLOT, "status": "ok"}).encode()
        last = last or Connection.ending
        lines = [
            "HTTP/1.1 200 OK", "Content-Type: application/json", f"Content-Length: {len(body)}", *self.identity(received),
            *(["Connection: close"] if last else []),
        ]  # fmt: skip
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.busy = False
        if last:
            self.transport.close()
        else:
            self.next()

    @staticmethod
    def identity(received: float) -> list[str]:
        return [f"X-Release: {RELEASE}", f"X-Slot: {SLOT}", f"X-Received: {received:.6f}"]

    def upgrade(self, key: str, received: float) -> None:
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept}",
        ]
        self.transport.write("\r\n".join([*lines, *self.identity(received), "", ""]).encode())
        self.websocket = True

    def echo(self, data: bytes) -> None:
        """Send text frames back; they are short, masked and come one at a time."""
        self.buffer += data
        while len(self.buffer) >= 6 and len(self.buffer) >= (end := 6 + (self.buffer[1] & 0x7F)):
            opcode, mask, payload = self.buffer[0] & 0x0F, self.buffer[2:6], self.buffer[6:end]
            self.buffer = self.buffer[end:]
            text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
            self.transport.write(bytes([0x80 | (opcode if opcode == 8 else 1), len(text)]) + text)
            if opcode == 8:
                self.transport.close()

    def end(self) -> None:
        """What a graceful end does to this connection."""
        if self.websocket:
            self.transport.write(GOING_AWAY)
        if self.websocket or not self.busy:
            self.transport.close()


async def main() -> None:
    """Serve until SIGTERM, then as long as requests are under way."""
    await asyncio.sleep(float(os.environ.get("BOOT", "0")))
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(
        Connection, os.environ.get("BIND", "127.0.0.1"), int(os.environ.get("PORT", "3000")), backlog=1024, reuse_address=True
    )
    await stop.wait()
    Connection.ending = True
    server.close()
    for connection in list(Connection.open):
        connection.end()
    while Connection.open:
        await asyncio.sleep(0.05)


asyncio.run(main())
