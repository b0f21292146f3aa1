# SPDX-License-Identifier: GPL-3.0-or-later
"""One fresh connection with one limit of time for all that happens on it, for every probe that talks."""

from __future__ import annotations

import io
import socket
import ssl
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Optional, Union

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class TotalTimeout(OSError):
    """The whole exchange took longer than allowed."""


def remaining(until: float) -> float:
    """Seconds left until the monotonic time `until`; raises TotalTimeout when there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TotalTimeout("no complete answer in time")
    return left


@dataclass(frozen=True)
class Place:
    """Where to connect to. `address` is a host, or the path of a unix socket when `unix` is set.

    `server_name` is the TLS name (SNI). Certificates are not verified unless `verify` is set: a probe of the own
    machine asks whether the application answers, not who it is.
    """

    address: str
    port: int = 0
    unix: bool = False
    tls: bool = False
    server_name: Optional[str] = None
    verify: bool = False
    ca: Optional[str] = None

    @property
    def private(self) -> bool:
        """True when nobody else can listen on the way, even without TLS."""
        return self.unix or self.address in LOOPBACK

    def __str__(self) -> str:
        """As a person would write it."""
        if self.unix:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class _Deadline(io.RawIOBase):
    """A socket as a raw stream; each read gets only what is left of the total time."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        super().__init__()
        self._connection = connection
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Union[bytearray, memoryview]) -> int:  # type: ignore[override]
        self._connection.settimeout(remaining(self._until))
        return self._connection.recv_into(buffer)


class Link:
    """A connection until the monotonic time `until`. All its methods may raise OSError."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection = connection
        self._until = until
        self.reader = io.BufferedReader(_Deadline(connection, until))

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, _kind: Optional[type[BaseException]], _error: Optional[BaseException], _trace: Optional[TracebackType]
    ) -> None:
        self._connection.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._connection.settimeout(remaining(self._until))
        self._connection.sendall(data)

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes; raises ConnectionError when the other side closed before."""
        data = self.reader.read(count)
        if len(data) < count:
            raise ConnectionError(f"closed after {len(data)} of {count} bytes")
        return data

    def line(self, limit: int = 8192) -> bytes:
        """One line without its end; raises ConnectionError when there is none within `limit` bytes."""
        data = self.reader.readline(limit)
        if not data.endswith(b"\n"):
            raise ConnectionError("closed within a line" if len(data) < limit else f"a line of more than {limit} bytes")
        return data.rstrip(b"\r\n")

    def secure(self, place: Place) -> None:
        """Go on with TLS. Nothing may have been read beyond what was taken."""
        self._connection.settimeout(remaining(self._until))
        context = _context(place.verify, place.ca)
        self._connection = context.wrap_socket(self._connection, server_hostname=place.server_name or place.address)
        self.reader = io.BufferedReader(_Deadline(self._connection, self._until))


def connect(place: Place, until: float) -> Link:
    """A fresh connection, with TLS when asked for; raises OSError (ssl.SSLError is one)."""
    if place.unix:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(remaining(until))
            connection.connect(place.address)
        except OSError:
            connection.close()
            raise
    else:
        connection = socket.create_connection((place.address, place.port), timeout=remaining(until))
    link = Link(connection, until)
    try:
        if place.tls:
            link.secure(place)
    except BaseException:
        connection.close()
        raise
    return link


def _context(verify: bool, ca: Optional[str]) -> ssl.SSLContext:
    if verify:
        return ssl.create_default_context(cafile=ca)
    # Reading the system's certificates takes longer than the whole probe.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
