# SPDX-License-Identifier: GPL-3.0-or-later
"""Distance: a TCP relay that holds back everything, both ways, as a network does.

On one machine a closed connection is seen at once. Over a network a client sends its next request on a connection that
the server has closed meanwhile; that is what a reload loses, and what no test without distance shows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import Callable

DELAY = 0.02
"""Seconds each way."""


class Line:
    """What happens at one end happens at the other one `delay` seconds later, in the same order."""

    def __init__(self, delay: float) -> None:
        self.loop, self.delay = asyncio.get_running_loop(), delay
        self.waiting: deque[tuple[float, Callable[[], None]]] = deque()

    def later(self, action: Callable[[], None]) -> None:
        self.waiting.append((self.loop.time() + self.delay, action))
        if len(self.waiting) == 1:
            self.loop.call_later(self.delay, self.deliver)

    def deliver(self) -> None:
        while self.waiting and self.waiting[0][0] <= self.loop.time() + 0.0005:
            action = self.waiting[0][1]
            action()
            self.waiting.popleft()
        if self.waiting:
            self.loop.call_at(self.waiting[0][0], self.deliver)


class End(asyncio.Protocol):
    """One end of a relayed connection; `other` is None until the far end is connected, and then for good or gone."""

    def __init__(self, delay: float) -> None:
        self.line = Line(delay)
        self.other: End | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.line.later(lambda: self.pass_on(data))

    def pass_on(self, data: bytes) -> None:
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.line.later(lambda: self.hang_up(exc is not None))

    def hang_up(self, broken: bool) -> None:
        if self.other and self.other.transport:
            (self.other.transport.abort if broken else self.other.transport.close)()


class Near(End):
    """A client's end: its connection request travels, too."""

    def __init__(self, delay: float, address: str, port: int) -> None:
        super().__init__(delay)
        self.address, self.port = address, port
        self.early: list[bytes] | None = []
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.line.later(self.dial)

    def dial(self) -> None:
        self.task = self.line.loop.create_task(self.connect())

    async def connect(self) -> None:
        try:
            _, far = await self.line.loop.create_connection(lambda: End(self.line.delay), self.address, self.port)
        except OSError:
            if self.transport:
                self.transport.abort()
            return
        self.other, far.other = far, self
        early, self.early = self.early or [], None
        for data in early:
            self.pass_on(data)
        if self.transport and self.transport.is_closing():
            self.hang_up(False)

    def pass_on(self, data: bytes) -> None:
        if self.early is not None:
            self.early.append(data)
        else:
            super().pass_on(data)


async def serve(routes: list[tuple[int, str, int]], delay: float) -> None:
    """Relay until cancelled; says `ready` when all ports listen."""
    loop = asyncio.get_running_loop()
    for own, address, port in routes:
        await loop.create_server(lambda a=address, p=port: Near(delay, a, p), "127.0.0.1", own, backlog=512)
    print("ready", flush=True)
    await asyncio.Event().wait()


def route(text: str) -> tuple[int, str, int]:
    """PORT=ADDRESS:PORT. Raises ValueError."""
    own, _, rest = text.partition("=")
    address, _, port = rest.rpartition(":")
    return int(own), address, int(port)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.relay", description=__doc__)
    parser.add_argument("routes", nargs="+", type=route, metavar="PORT=ADDRESS:PORT")
    parser.add_argument("--delay", type=float, default=DELAY, help="seconds each way")
    options = parser.parse_args()
    asyncio.run(serve(options.routes, options.delay))
    return 0


if __name__ == "__main__":
    sys.exit(main())
