# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of traffic, all at once, until told to stop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from . import frames
from .connection import Connection, Target
from .records import Log

PATHS = ("/version", "/", "/whoami")
ECHO_TIMEOUT = 5.0
FINISH_TIMEOUT = 15.0
"""Seconds that requests under way get to end after the stop; longer than the longest slow request."""

DEATHS = (OSError, EOFError, TimeoutError, ValueError, IndexError)
"""What a dying connection or a mutilated answer raises (IncompleteReadError is an EOFError, SSLError an OSError)."""


@dataclass(frozen=True)
class Mix:
    """How much of each kind. `fresh` is a rate per second, kept however slow the answers are; the rest are numbers of
    connections, which wait for each answer: one of `keepalive` makes about 17 requests a second, one of `post` about 3.
    """

    keepalive: int = 2
    fresh: float = 5.0
    post: int = 2
    slow: int = 2
    db: int = 0
    websockets: int = 5
    think: float = 0.1
    timeout: float = 15.0


class Traffic:
    """Runs a Mix against a Target."""

    def __init__(self, target: Target, mix: Mix, log: Log) -> None:
        self.target, self.mix, self.log = target, mix, log
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Until `stop` is set and the requests under way have ended."""
        jobs = self.jobs()
        self.log.event("start", url=self.target.host)
        tasks = [asyncio.create_task(job) for job in jobs]
        # A task ends before the stop only by a mistake in this program, which then ends the run.
        stopping = asyncio.create_task(self.stop.wait())
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        self.stop.set()
        _, late = await asyncio.wait([stopping, *tasks], timeout=FINISH_TIMEOUT)
        for task in late:
            task.cancel()
        self.log.event("stop")
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    def jobs(self) -> list[Coroutine[Any, Any, None]]:
        """What runs at the same time."""
        mix = self.mix
        jobs: list[Coroutine[Any, Any, None]] = [self._fresh()] if mix.fresh > 0 else []
        jobs += [self._session("keepalive", self._get, mix.think) for _ in range(mix.keepalive)]
        jobs += [self._session("post", self._upload, 0.6) for _ in range(mix.post)]
        jobs += [self._session("slow", self._slow, mix.think) for _ in range(mix.slow)]
        jobs += [self._session("db", lambda: ("POST", "/db", b""), 0.5) for _ in range(mix.db)]
        jobs += [self._websockets(number) for number in range(mix.websockets)]
        return jobs

    def _get(self) -> tuple[str, str, bytes]:
        return "GET", random.choice(PATHS), b""

    def _slow(self) -> tuple[str, str, bytes]:
        return "GET", f"/slow?s={random.uniform(2, 4):.1f}", b""

    def _upload(self) -> tuple[str, str, bytes]:
        return "POST", "/upload", random.randbytes(random.randint(1, 64) * 1024)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until the stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            pass

    async def _session(self, kind: str, make: Callable[[], tuple[str, str, bytes]], think: float) -> None:
        """Request after request on one connection, which is opened again when it has ended."""
        connection: Connection | None = None
        while not self.stop.is_set():
            if connection and (ended := connection.ended()):
                self.log.event(ended, kind=kind)
                await connection.close()
                connection = None
            connection = await self._exchange(kind, connection, *make())
            await self._pause(random.uniform(0, 2 * think if kind == "post" else think))
        if connection:
            await connection.close()

    async def _fresh(self) -> None:
        """A new connection for each request, started on a schedule that a slow server does not slow down."""
        due, running = time.monotonic(), set[asyncio.Task[Any]]()
        while not self.stop.is_set():
            task = asyncio.create_task(self._exchange("fresh", None, *self._get(), close=True))
            running.add(task)
            task.add_done_callback(running.discard)
            due += 1 / self.mix.fresh
            await self._pause(max(0, due - time.monotonic()))
        await asyncio.gather(*running)

    async def _exchange(
        self, kind: str, connection: Connection | None, method: str, path: str, body: bytes, close: bool = False
    ) -> Connection | None:
        """One request and its record. Returns the connection while it can be used again."""
        wall, start = time.time(), time.monotonic()
        stage = "connect"
        try:
            async with asyncio.timeout(self.mix.timeout):
                connection = connection or await Connection.open(self.target)
                stage = "after the request was sent"
                headers = {"User-Agent": f"slipway-client/{kind}", **({"Connection": "close"} if close else {})}
                response = await connection.request(method, path, headers, body)
        except DEATHS as error:
            self.log.request(kind, method, path, wall, (time.monotonic() - start) * 1000, error=f"{stage}: {_text(error)}")
        else:
            self.log.request(kind, method, path, wall, (time.monotonic() - start) * 1000, response.status, response.headers)
        if connection and not connection.usable:
            await connection.close()
            return None
        return connection

    async def _websockets(self, number: int) -> None:
        """A WebSocket that is opened again whenever the server or the network ended it."""
        while not self.stop.is_set():
            wall, start = time.time(), time.monotonic()
            connection: Connection | None = None
            try:
                async with asyncio.timeout(self.mix.timeout):
                    connection = await Connection.open(self.target)
                    status, headers = await _handshake(connection)
                error = None if status == 101 else f"status {status} instead of 101"
            except DEATHS as problem:
                status, headers, error = 0, {}, f"handshake: {_text(problem)}"
            self.log.request("ws", "GET", "/ws", wall, (time.monotonic() - start) * 1000, status, headers, error)
            if connection and not error:
                await self._echoes(connection, number, headers)
            if connection:
                await connection.close()
            await self._pause(0.3)

    async def _echoes(self, connection: Connection, number: int, headers: dict[str, str]) -> None:
        """Echo after echo; an end that this side did not ask for is logged as ws_cut."""
        inbox = _Inbox(connection)
        self.log.event("ws_open", id=number, release=headers.get("x-release"))
        count = 0
        try:
            while not self.stop.is_set():
                count += 1
                text = f"{number}:{count}".encode()
                wall, start = time.time(), time.monotonic()
                connection.writer.write(frames.encode(frames.TEXT, text))
                await inbox.until(text, ECHO_TIMEOUT)
                self.log.request("ws", "ECHO", "/ws", wall, (time.monotonic() - start) * 1000, 101, headers)
                await inbox.listen(random.uniform(0.3, 0.7), self.stop)
            connection.writer.write(frames.encode(frames.CLOSE, (1000).to_bytes(2, "big")))
            await inbox.until(None, 1)
        except DEATHS as error:
            code = error.code if isinstance(error, ServerClosed) else None
            if not self.stop.is_set():
                self.log.event("ws_cut", id=number, code=code, error=_text(error), echoes=count, release=headers.get("x-release"))


class ServerClosed(OSError):
    """The server sent a close frame."""

    def __init__(self, code: int) -> None:
        super().__init__(f"closed by the server with code {code}")
        self.code = code


class _Inbox:
    """Frames of one WebSocket; answers pings while it waits."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._decoder = connection, frames.Decoder()

    async def until(self, wanted: bytes | None, seconds: float) -> None:
        """Wait for the message `wanted`, for ever if None. Raises ServerClosed, EOFError, TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                for frame in await self._receive():
                    if frame.opcode in (frames.TEXT, frames.BINARY) and frame.payload == wanted:
                        return

    async def listen(self, seconds: float, stop: asyncio.Event) -> None:
        """Notice a close at once instead of at the next echo."""
        listening = asyncio.create_task(self.until(None, seconds))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            listening.cancel()
        await asyncio.gather(listening, stopping, return_exceptions=True)
        if not listening.cancelled() and not isinstance(error := listening.exception(), (TimeoutError, type(None))):
            raise error

    async def _receive(self) -> list[frames.Frame]:
        data = await self._connection.reader.read(1 << 16)
        if not data:
            raise EOFError("connection ended without a close frame")
        received = self._decoder.feed(data)
        for frame in received:
            if frame.opcode == frames.PING:
                self._connection.writer.write(frames.encode(frames.PONG, frame.payload))
            if frame.opcode == frames.CLOSE:
                raise ServerClosed(frame.close_code)
        return received


async def _handshake(connection: Connection) -> tuple[int, dict[str, str]]:
    key = frames.new_key()
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13"}
    connection.send("GET", "/ws", upgrade)
    response = await connection.head()
    if response.status == 101 and response.headers.get("sec-websocket-accept") != frames.accept_of(key):
        raise ValueError("the server's Sec-WebSocket-Accept does not answer the key")
    return response.status, response.headers


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip(": ")[:200]
