# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP/1.1 connection that never repeats a request and knows why it ended."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEAD_LIMIT = 1 << 16


@dataclass(frozen=True)
class Target:
    """Where to connect, and as whom to speak. `tls` is None for plain HTTP."""

    address: str
    port: int
    host: str
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, connect: str | None, ca: str | None, insecure: bool) -> Target:
        """From the command line: `connect` is ADDRESS:PORT where the URL's name does not resolve.

        Raises ValueError for a URL that is not http(s)://HOST[:PORT].
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// or https:// address")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = parts.hostname
        if connect:
            address, _, text = connect.rpartition(":")
            address, port = address.strip("[]"), int(text)
        context = None
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca)
            if insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return cls(address, port, parts.netloc, context)


@dataclass(frozen=True)
class Response:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Connection:
    """An open connection. Not for two requests at once."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.target, self.reader, self.writer = target, reader, writer
        self.usable = True

    @classmethod
    async def open(cls, target: Target) -> Connection:
        """Raises OSError when the server cannot be reached or its certificate is not valid."""
        name = target.host.rpartition(":")[0] or target.host if target.tls else None
        reader, writer = await asyncio.open_connection(
            target.address, target.port, ssl=target.tls, server_hostname=name, limit=HEAD_LIMIT
        )
        return cls(target, reader, writer)

    def ended(self) -> str | None:
        """How the server ended this idle connection: "idle_close" (in order), "idle_reset", or None if it did not."""
        if self.reader.exception() is not None:
            return "idle_reset"
        return "idle_close" if self.reader.at_eof() or self.writer.is_closing() else None

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.target.host}", *(f"{k}: {v}" for k, v in headers.items())]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def head(self) -> Response:
        """The head of the next answer. Raises OSError or EOFError when the connection dies."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        return Response(int(first.split()[1]), headers)

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Response:
        """Send one request and read its whole answer."""
        self.usable = False
        self.send(method, path, headers, body)
        await self.writer.drain()
        response = await self.head()
        content = await self._body(response)
        self.usable = response.headers.get("connection", "").lower() != "close"
        return Response(response.status, response.headers, content)

    async def _body(self, response: Response) -> bytes:
        if response.status in (204, 304):
            return b""
        if "content-length" in response.headers:
            return await self.reader.readexactly(int(response.headers["content-length"]))
        if response.headers.get("transfer-encoding", "").lower() != "chunked":
            return await self.reader.read()
        chunks = []
        while size := int((await self.reader.readline()).split(b";")[0], 16):
            chunks.append(await self.reader.readexactly(size))
            await self.reader.readline()
        while (await self.reader.readline()).strip():
            pass
        return b"".join(chunks)

    async def close(self) -> None:
        self.usable = False
        self.writer.close()
        try:
            async with asyncio.timeout(1):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            self.writer.transport.abort()
