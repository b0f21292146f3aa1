# SPDX-License-Identifier: GPL-3.0-or-later
"""Small servers on loopback that answer as a test tells them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Callable

Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(talk: Talk) -> Iterator[int]:
    """A server that lets `talk` have every connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _address = listener.accept()
                except OSError:
                    return
                with client, contextlib.suppress(OSError):
                    talk(client)

        threading.Thread(target=serve, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def says(data: bytes, wait: bool = False) -> Talk:
    """Reads once, says `data`, and closes, or stays silent for as long as the other side is there."""

    def talk(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(data)
        while wait and client.recv(65536):
            pass

    return talk


def take(client: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes; raises OSError when there are fewer."""
    data = b""
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise OSError("closed")
        data += more
    return data
