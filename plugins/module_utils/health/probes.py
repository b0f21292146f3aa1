# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that are accepted, and the table that makes a probe from its kind.

Kinds that bring much along are imported when they are made: a rollback, most of whose time is starting Python, needs none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Callable, Optional
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from ..host.runner import Runner
from .http import Expectation, HttpProbe, HttpTarget
from .model import Probe, ProbeResult, failure, milliseconds
from .process import ContainerProcess, ProcessProbe, UnitProcess
from .websocket import WebSocketProbe
from .wire import Place, connect


class BadTarget(ValueError):
    """A target that cannot be probed, with what to write instead."""


@dataclass(frozen=True)
class ConnectProbe:
    """A connection that is accepted. `timeout` in seconds."""

    place: Place
    timeout: float = 5.0

    @property
    def name(self) -> str:
        """Address and port, or the path of the unix socket."""
        return f"{'unix' if self.place.unix else 'tcp'}:{self.place}"

    def look(self) -> ProbeResult:
        """Connect once."""
        started = time.monotonic()
        try:
            with connect(self.place, started + self.timeout):
                return ProbeResult(True, "accepted", milliseconds(started))
        except (OSError, ValueError) as error:
            return failure(error, started, self.timeout, "TCP")


@dataclass(frozen=True)
class ProbeOptions:
    """What a probe may be told beyond its target; times in seconds."""

    expected: Expectation = field(default_factory=Expectation)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 5.0
    path: str = "/"
    method: str = "GET"
    connect: Optional[str] = None
    verify: bool = True
    ca: Optional[str] = None
    redirects: int = 0
    password: str = field(default="", repr=False)
    command: tuple[str, ...] = ()
    exit_status: tuple[int, ...] = (0,)
    output: Optional[str] = None
    runner: Runner = field(default_factory=Runner)


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT` as a pair; raises BadTarget."""
    host, _colon, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadTarget(f"{text!r} is not ADDRESS:PORT")
    return host.strip("[]"), int(port)


def _url(target: str, schemes: Sequence[str], example: str, default: int = 0) -> tuple[SplitResult, int]:
    """The parts of a URL, and its port; raises BadTarget. What is wrong is never quoted: it may hold a password."""
    try:
        url = urlsplit(target)
        port = url.port or default
    except ValueError as error:
        raise BadTarget(f"that is no URL such as {example}: {error}") from error
    if url.scheme not in schemes:
        raise BadTarget(f"{url._replace(netloc=url.netloc.rpartition('@')[2]).geturl()!r} is not a URL such as {example}")
    return url, port


def _web(target: str, options: ProbeOptions, secure: str, plain: str) -> HttpTarget:
    url, port = _url(target, (plain, secure), f"{plain}://127.0.0.1:3000/health")
    if not url.hostname:
        raise BadTarget(f"{target!r} is not a URL such as {plain}://127.0.0.1:3000/health")
    if "@" in url.netloc:
        raise BadTarget("the URL holds a user: send it in a header, as Authorization")
    tls = url.scheme == secure
    address, to_port = split_address(options.connect) if options.connect else (url.hostname, port or (443 if tls else 80))
    return HttpTarget(
        address,
        to_port,
        (url.path or "/") + (f"?{url.query}" if url.query else ""),
        {"Host": url.netloc, **options.headers},
        options.method,
        tls,
        url.hostname,
        options.verify,
        options.ca,
    )


def _http(target: str, options: ProbeOptions) -> Probe:
    return HttpProbe(_web(target, options, "https", "http"), options.expected, options.timeout, options.redirects)


def _websocket(target: str, options: ProbeOptions) -> Probe:
    return WebSocketProbe(replace(_web(target, options, "wss", "ws"), method="GET"), options.timeout)


def _tcp(target: str, options: ProbeOptions) -> Probe:
    return ConnectProbe(Place(*split_address(target)), options.timeout)


def _unix(target: str, options: ProbeOptions) -> Probe:
    return ConnectProbe(Place(target, unix=True), options.timeout)


def _unix_http(target: str, options: ProbeOptions) -> Probe:
    place = HttpTarget(target, path=options.path, headers=options.headers, method=options.method, unix=True)
    return HttpProbe(place, options.expected, options.timeout)


def _exec(_target: str, options: ProbeOptions) -> Probe:
    from .command import ExecProbe

    if not options.command:
        raise BadTarget("there is no command to run: give `command`, a list of words")
    return ExecProbe(options.command, options.exit_status, options.output, options.timeout)


def _unit(target: str, options: ProbeOptions) -> Probe:
    return ProcessProbe(UnitProcess(options.runner, target))


def _container(target: str, options: ProbeOptions) -> Probe:
    return ProcessProbe(ContainerProcess(options.runner, target))


def _redis(target: str, options: ProbeOptions) -> Probe:
    from . import redis

    example = "redis://127.0.0.1:6379/0, rediss://redis.acme.org or unix:///run/redis/redis.sock"
    url, port = _url(target, ("redis", "rediss", "unix"), example, redis.PORT)
    unix = url.scheme == "unix"
    number = (parse_qs(url.query).get("db", ["0"])[0] if unix else url.path.strip("/")) or "0"
    if not (url.path if unix else url.hostname) or not number.isdigit():
        raise BadTarget(f"that is not a URL such as {example}")
    tls = url.scheme == "rediss"
    address = unquote(url.path) if unix else str(url.hostname)
    place = Place(address, port, unix, tls, url.hostname, options.verify and tls, options.ca)
    return redis.RedisProbe(place, unquote(url.username or ""), _password(url, options), int(number), options.timeout)


def _postgresql(target: str, options: ProbeOptions) -> Probe:
    from . import postgresql

    example = "postgresql://user@127.0.0.1:5432/database"
    url, port = _url(target, ("postgresql", "postgres"), example, postgresql.PORT)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    directory = query.get("host", "")
    unix = directory.startswith("/")
    mode = query.get("sslmode", "prefer")
    if mode not in postgresql.MODES:
        raise BadTarget(f"sslmode {mode!r} is none of {', '.join(postgresql.MODES)}")
    database = unquote(url.path.strip("/"))
    if not (unix or url.hostname) or not url.username or not database:
        raise BadTarget(f"that is not a URL such as {example}: host, user and database are needed")
    verify = mode == "verify-full"
    if unix:
        place = Place(f"{directory}/.s.PGSQL.{port}", unix=True)
    else:
        authority = options.ca or query.get("sslrootcert")
        place = Place(str(url.hostname), port, server_name=url.hostname, verify=verify, ca=authority)
    return postgresql.PostgresqlProbe(place, unquote(url.username), database, _password(url, options), mode, options.timeout)


def _password(url: SplitResult, options: ProbeOptions) -> str:
    return options.password or unquote(url.password or "")


KINDS: dict[str, Callable[[str, ProbeOptions], Probe]] = {
    "http": _http,
    "tcp": _tcp,
    "unix": _unix,
    "unix_http": _unix_http,
    "websocket": _websocket,
    "exec": _exec,
    "unit": _unit,
    "container": _container,
    "postgresql": _postgresql,
    "redis": _redis,
}


def make(kind: str, target: str, options: ProbeOptions) -> Probe:
    """The probe of `kind` for `target`; raises BadTarget."""
    if kind not in KINDS:
        raise BadTarget(f"unknown kind of probe {kind!r}; known are {', '.join(KINDS)}")
    return KINDS[kind](target, options)
