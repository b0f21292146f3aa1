# SPDX-License-Identifier: GPL-3.0-or-later
"""The clients of bench-cutover: `python -m tests.bench.load --url … --connect … --log …`, until SIGTERM.

Keep-alive connections with think time, every second request a POST, none ever repeated; a connection that was seen to be
closed is opened anew. Beside them fresh connections, WebSockets, and a request of 4 s begun every second.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tests.client.connection import Target
from tests.client.records import Log
from tests.client.traffic import Mix, Traffic

THINK = 0.1
"""Seconds at most between an answer and the next request."""
BODY = b"x" * 200
SLOW = 4


class Load(Traffic):
    """The continuous client with this mix of requests."""

    def jobs(self) -> list[Coroutine[Any, Any, None]]:
        mix = self.mix
        sessions = [self._session("keepalive", self._half(number), THINK) for number in range(mix.keepalive)]
        sockets = [self._websockets(number) for number in range(mix.websockets)]
        return [*sessions, *sockets, self._fresh(), self._slow_ones()]

    @staticmethod
    def _half(number: int) -> Any:
        """GET and POST in turn; every other connection begins with a POST."""
        kinds = itertools.cycle([("GET", "/", b""), ("POST", "/", BODY)])
        if number % 2:
            next(kinds)
        return lambda: next(kinds)

    async def _slow_ones(self) -> None:
        running = set[asyncio.Task[Any]]()
        while not self.stop.is_set():
            task = asyncio.create_task(self._exchange("slow", None, "GET", f"/slow?s={SLOW}", b"", close=True))
            running.add(task)
            task.add_done_callback(running.discard)
            await self._pause(1)
        await asyncio.gather(*running)


async def run(target: Target, mix: Mix, log: Log) -> None:
    """Until SIGTERM, and until the requests under way have ended."""
    load = Load(target, mix, log)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, load.stop.set)
    await load.run()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--connect", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=60)
    parser.add_argument("--fresh", type=float, default=8.0, help="fresh connections a second")
    parser.add_argument("--websockets", type=int, default=4)
    options = parser.parse_args()
    target = Target.of(options.url, options.connect, None, insecure=True)
    mix = Mix(keepalive=options.connections, fresh=options.fresh, websockets=options.websockets)
    with options.log.open("w") as file:
        asyncio.run(run(target, mix, Log(file)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
