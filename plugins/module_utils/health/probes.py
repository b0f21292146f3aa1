# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes other than HTTP, and the table that makes a probe from its kind."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable, Optional
from urllib.parse import urlsplit

from .http import Expectation, HttpProbe, HttpTarget, failure
from .model import Probe, ProbeResult


class BadTarget(ValueError):
    """A target that cannot be probed, with what to write instead."""


@dataclass(frozen=True)
class TcpProbe:
    """A connection that is accepted. `timeout` in seconds."""

    address: str
    port: int
    timeout: float = 5.0

    @property
    def name(self) -> str:
        """Address and port."""
        return f"tcp:{self.address}:{self.port}"

    def look(self) -> ProbeResult:
        """Connect once."""
        started = time.monotonic()
        try:
            socket.create_connection((self.address, self.port), timeout=self.timeout).close()
        except OSError as error:
            return failure(error, started, self.timeout)
        return ProbeResult(True, "accepted", (time.monotonic() - started) * 1000)


@dataclass(frozen=True)
class UnixProbe:
    """A unix socket that accepts. `timeout` in seconds."""

    path: str
    timeout: float = 5.0

    @property
    def name(self) -> str:
        """The path."""
        return f"unix:{self.path}"

    def look(self) -> ProbeResult:
        """Connect once."""
        started = time.monotonic()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self.timeout)
            try:
                connection.connect(self.path)
            except OSError as error:
                return failure(error, started, self.timeout)
        return ProbeResult(True, "accepted", (time.monotonic() - started) * 1000)


@dataclass(frozen=True)
class ProbeOptions:
    """What a probe may be told beyond its target; times in seconds."""

    expected: Expectation
    headers: Mapping[str, str]
    timeout: float = 5.0
    path: str = "/"
    method: str = "GET"
    connect: Optional[str] = None
    verify: bool = True
    ca: Optional[str] = None


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT` as a pair; raises BadTarget."""
    host, _colon, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadTarget(f"{text!r} is not ADDRESS:PORT")
    return host.strip("[]"), int(port)


def _http(target: str, options: ProbeOptions) -> Probe:
    url = urlsplit(target)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise BadTarget(f"{target!r} is not a URL such as http://127.0.0.1:3000/health")
    tls = url.scheme == "https"
    port = url.port or (443 if tls else 80)
    headers = {"Host": url.netloc.rpartition("@")[2], **options.headers}
    address, to_port = split_address(options.connect) if options.connect else (url.hostname, port)
    place = HttpTarget(
        address,
        to_port,
        (url.path or "/") + (f"?{url.query}" if url.query else ""),
        headers,
        options.method,
        tls,
        url.hostname,
        options.verify,
        options.ca,
    )
    return HttpProbe(place, options.expected, options.timeout)


def _tcp(target: str, options: ProbeOptions) -> Probe:
    return TcpProbe(*split_address(target), timeout=options.timeout)


def _unix(target: str, options: ProbeOptions) -> Probe:
    return UnixProbe(target, options.timeout)


def _unix_http(target: str, options: ProbeOptions) -> Probe:
    place = HttpTarget(target, path=options.path, headers=options.headers, method=options.method, unix=True)
    return HttpProbe(place, options.expected, options.timeout)


KINDS: dict[str, Callable[[str, ProbeOptions], Probe]] = {
    "http": _http,
    "tcp": _tcp,
    "unix": _unix,
    "unix_http": _unix_http,
}


def make(kind: str, target: str, options: ProbeOptions) -> Probe:
    """The probe of `kind` for `target`; raises BadTarget."""
    if kind not in KINDS:
        raise BadTarget(f"unknown kind of probe {kind!r}; known are {', '.join(KINDS)}")
    return KINDS[kind](target, options)
