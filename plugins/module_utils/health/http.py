# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request on a fresh connection, with one limit for all of it and no redirects followed."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional, Union

from . import jsonpath
from .model import ProbeResult, excerpt

BODY_LIMIT = 256 * 1024


class TotalTimeout(OSError):
    """The whole exchange took longer than allowed."""


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


class _Stream:
    """What http.client.HTTPResponse needs of a socket."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._raw = _Deadline(connection, until)

    def makefile(self, *_args: object, **_options: object) -> io.BufferedReader:
        return io.BufferedReader(self._raw)


def remaining(until: float) -> float:
    """Seconds left until the monotonic time `until`; raises TotalTimeout when there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TotalTimeout("no complete answer in time")
    return left


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: header names in lower case, at most BODY_LIMIT bytes of body."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class HttpTarget:
    """Where and what to ask. `address` is a host to connect to, or the path of a unix socket when `unix` is set.

    `server_name` is the TLS name (SNI). Certificates are not verified unless `verify` is set: a probe of the own
    machine asks whether the application answers, not who it is.
    """

    address: str
    port: int = 0
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    tls: bool = False
    server_name: Optional[str] = None
    verify: bool = False
    ca: Optional[str] = None
    unix: bool = False


def connect(target: HttpTarget, until: float) -> socket.socket:
    """A fresh connection, with TLS when asked for; raises OSError (ssl.SSLError is one)."""
    if target.unix:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(remaining(until))
            connection.connect(target.address)
        except OSError:
            connection.close()
            raise
    else:
        connection = socket.create_connection((target.address, target.port), timeout=remaining(until))
    if not target.tls:
        return connection
    try:
        connection.settimeout(remaining(until))
        return _context(target.verify, target.ca).wrap_socket(connection, server_hostname=target.server_name or target.address)
    except BaseException:
        connection.close()
        raise


def _context(verify: bool, ca: Optional[str]) -> ssl.SSLContext:
    if verify:
        return ssl.create_default_context(cafile=ca)
    # Reading the system's certificates takes longer than the whole probe.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def fetch(target: HttpTarget, timeout: float) -> Answer:
    """Send one request and read its answer within `timeout` seconds in all.

    Raises OSError when there is no connection or no answer in time, http.client.HTTPException when it is not HTTP.
    """
    until = time.monotonic() + timeout
    connection = connect(target, until)
    try:
        connection.settimeout(remaining(until))
        connection.sendall(_request(target))
        response = http.client.HTTPResponse(_Stream(connection, until), method=target.method)  # type: ignore[arg-type]
        response.begin()
        body = response.read(BODY_LIMIT)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, body.decode("utf-8", errors="replace"))
    except socket.timeout as error:
        raise TotalTimeout("no complete answer in time") from error
    finally:
        connection.close()


def _request(target: HttpTarget) -> bytes:
    host = target.address if target.port in (0, 80, 443) or target.unix else f"{target.address}:{target.port}"
    headers = {"Host": "localhost" if target.unix else host, "User-Agent": "slipway-probe", "Accept": "*/*"}
    for name, value in target.headers.items():
        known = next((key for key in headers if key.lower() == name.lower()), name)
        headers[known] = value
    headers["Connection"] = "close"
    lines = [f"{target.method} {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a request line or header with a line break")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


@dataclass(frozen=True)
class Expectation:
    """What a healthy answer looks like. `headers` are regular expressions; `max_latency_ms` of None is no limit."""

    status: tuple[int, ...] = (200,)
    json: Mapping[str, object] = field(default_factory=dict)
    body: Optional[str] = None
    headers: Mapping[str, str] = field(default_factory=dict)
    max_latency_ms: Optional[float] = None


def judge(answer: Answer, expected: Expectation, latency_ms: float) -> Optional[str]:
    """What is wrong with `answer`, in words; None when nothing is."""
    if answer.status not in expected.status:
        allowed = " or ".join(str(code) for code in expected.status)
        return f"status {answer.status}, not {allowed}: {excerpt(answer.body)}"
    for name, pattern in expected.headers.items():
        value = answer.headers.get(name.lower())
        if value is None:
            return f"header {name} is missing"
        if not re.search(pattern, value):
            return f"header {name} is {value!r}, which does not match {pattern!r}"
    if expected.body is not None and not re.search(expected.body, answer.body):
        return f"body does not match {expected.body!r}: {excerpt(answer.body)}"
    if expected.json:
        try:
            document = json.loads(answer.body)
        except ValueError:
            return f"body is not JSON: {excerpt(answer.body)}"
        wrong = jsonpath.mismatch(document, dict(expected.json))
        if wrong:
            return f"status {answer.status}, but {wrong}: {excerpt(answer.body)}"
    if expected.max_latency_ms is not None and latency_ms > expected.max_latency_ms:
        return f"answered after {latency_ms:.0f} ms, more than {expected.max_latency_ms:g} ms"
    return None


@dataclass(frozen=True)
class HttpProbe:
    """An HTTP request with an expectation. `timeout` in seconds for the whole exchange."""

    target: HttpTarget
    expected: Expectation = field(default_factory=Expectation)
    timeout: float = 5.0

    @property
    def name(self) -> str:
        """As a URL."""
        if self.target.unix:
            return f"unix:{self.target.address}:{self.target.path}"
        return f"{'https' if self.target.tls else 'http'}://{self.target.address}:{self.target.port}{self.target.path}"

    def look(self) -> ProbeResult:
        """Ask once."""
        return self.ask()[0]

    def ask(self) -> tuple[ProbeResult, Optional[Answer]]:
        """Ask once; the answer itself too, when there was one."""
        started = time.monotonic()
        try:
            answer = fetch(self.target, self.timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return failure(error, started, self.timeout), None
        latency = (time.monotonic() - started) * 1000
        wrong = judge(answer, self.expected, latency)
        return ProbeResult(not wrong, wrong or f"status {answer.status}", latency, False, answer.status), answer


def failure(error: Exception, started: float, timeout: float) -> ProbeResult:
    """The result for a look that `error` ended."""
    latency = (time.monotonic() - started) * 1000
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        return ProbeResult(False, "connection refused: nothing listens there", latency, refused=True)
    if isinstance(error, (TotalTimeout, socket.timeout)):
        return ProbeResult(False, f"no complete answer within {timeout:g} s", latency)
    return ProbeResult(False, f"no HTTP answer: {error or type(error).__name__}", latency)
