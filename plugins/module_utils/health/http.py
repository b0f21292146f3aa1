# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request on a fresh connection, with one limit for all of it, and no redirect followed unless told."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Optional
from urllib.parse import urljoin, urlsplit

from . import jsonpath
from .model import ProbeResult, Unexpected, excerpt, failure, milliseconds
from .wire import Link, Place, connect

BODY_LIMIT = 256 * 1024
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS_LIMIT, LINE_LIMIT = 100, 65536
"""Headers, and bytes of one line."""
ERRORS = (OSError, ValueError, Unexpected)
"""What `fetch` may raise."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: header names in lower case, at most BODY_LIMIT bytes of body; `cut` when there was more of it."""

    status: int
    headers: Mapping[str, str]
    body: str
    cut: bool = False


@dataclass(frozen=True)
class HttpTarget:
    """Where and what to ask. `address` is a host to connect to, or the path of a unix socket when `unix` is set.

    `server_name`, `verify` and `ca` as in `Place`.
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

    @property
    def place(self) -> Place:
        """Where to connect to."""
        return Place(self.address, self.port, self.unix, self.tls, self.server_name, self.verify, self.ca)

    @property
    def host(self) -> str:
        """The Host header, when none is given."""
        return "localhost" if self.unix else self.address if self.port in (0, 80, 443) else str(self.place)

    def request(self, connection: str = "close") -> bytes:
        """The request; raises ValueError for a line break in it."""
        headers = {"Host": self.host, "User-Agent": "slipway-probe", "Accept": "*/*"}
        for name, value in self.headers.items():
            known = next((key for key in headers if key.lower() == name.lower()), name)
            headers[known] = value
        headers["Connection"] = connection
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a request line or header with a line break")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def fetch(target: HttpTarget, timeout: float, redirects: int = 0) -> Answer:
    """Send one request and read its answer within `timeout` seconds in all, following at most `redirects` redirects.

    Raises OSError when there is no connection or no complete answer in time, ValueError for what is not HTTP or cannot be
    sent, Unexpected for a redirect that cannot be followed.
    """
    until = time.monotonic() + timeout
    answer = _once(target, until)
    for _hop in range(redirects):
        if answer.status not in REDIRECTS or "location" not in answer.headers:
            return answer
        target = _following(target, answer)
        answer = _once(target, until)
    if redirects and answer.status in REDIRECTS:
        raise Unexpected(f"more than {redirects} redirects, the last to {answer.headers.get('location')}")
    return answer


def _once(target: HttpTarget, until: float) -> Answer:
    with connect(target.place, until) as link:
        link.send(target.request())
        head = receive(link)
        body = b"" if target.method == "HEAD" else content(link, head, BODY_LIMIT + 1)
        return Answer(head.status, head.headers, body[:BODY_LIMIT].decode("utf-8", "replace"), len(body) > BODY_LIMIT)


@dataclass(frozen=True)
class Head:
    """Status and headers of an answer, names in lower case; of several with one name the last."""

    status: int
    headers: Mapping[str, str]


def receive(link: Link) -> Head:
    """Status line and headers of an answer (RFC 9112, sections 4 and 5); raises OSError, ValueError for what is none.

    http.client would do, but importing it takes longer than all of a rollback but starting Python.
    """
    status = 100
    while status == 100:
        first = link.line(LINE_LIMIT).decode("latin-1")
        found = re.fullmatch(r"HTTP/1\.[01] (\d{3})( .*)?", first)
        if not found:
            raise ValueError(first)
        status = int(found[1])
        headers: dict[str, str] = {}
        for _number in range(HEADERS_LIMIT + 1):
            line = link.line(LINE_LIMIT).decode("latin-1")
            if not line:
                break
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise ValueError(f"{line!r} is no header")
            headers[name.lower()] = value.strip()
        else:
            raise ValueError(f"more than {HEADERS_LIMIT} headers")
    return Head(status, headers)


def content(link: Link, head: Head, most: int) -> bytes:
    """At most `most` bytes of the body that follows `head` (RFC 9112, section 6); raises OSError, ValueError."""
    if head.status in (204, 304):
        return b""
    if head.headers.get("transfer-encoding", "").lower().endswith("chunked"):
        body = b""
        while len(body) < most:
            size = int(link.line(LINE_LIMIT).partition(b";")[0], 16)
            if size == 0:
                break
            piece = min(size, most - len(body))
            body += link.take(piece)
            if piece == size:
                link.line(LINE_LIMIT)
        return body
    if "content-length" in head.headers:
        length = int(head.headers["content-length"])
        if length < 0:
            raise ValueError("a negative Content-Length")
        return link.take(min(length, most))
    return link.reader.read(most)


def _following(target: HttpTarget, answer: Answer) -> HttpTarget:
    """Where a redirect leads to. On the same site it stays on the same connection address; elsewhere no secret goes along."""
    asked = {name.lower(): value for name, value in target.headers.items()}
    here = f"{'https' if target.tls else 'http'}://{asked.get('host', target.host)}"
    there = urlsplit(urljoin(here + target.path, answer.headers["location"]))
    if there.scheme not in ("http", "https") or not there.hostname:
        raise Unexpected(f"redirected to {answer.headers['location']}, which is no HTTP address")
    path = (there.path or "/") + (f"?{there.query}" if there.query else "")
    method = target.method if answer.status in (307, 308) or target.method == "HEAD" else "GET"
    if f"{there.scheme}://{there.netloc}".lower() == here.lower():
        return replace(target, path=path, method=method)
    kept = {name: value for name, value in target.headers.items() if name.lower() not in ("host", "authorization", "cookie")}
    tls = there.scheme == "https"
    return HttpTarget(
        there.hostname,
        there.port or (443 if tls else 80),
        path,
        {**kept, "Host": there.netloc.rpartition("@")[2]},
        method,
        tls,
        there.hostname,
        target.verify,
        target.ca,
    )


@dataclass(frozen=True)
class Expectation:
    """What a healthy answer looks like; no `status` at all is any.

    `headers` are regular expressions; `max_latency_ms` of None is no limit.
    """

    status: tuple[int, ...] = (200,)
    json: Mapping[str, object] = field(default_factory=dict)
    body: Optional[str] = None
    headers: Mapping[str, str] = field(default_factory=dict)
    max_latency_ms: Optional[float] = None


def judge(answer: Answer, expected: Expectation, latency_ms: float) -> Optional[str]:
    """What is wrong with `answer`, in words; None when nothing is."""
    if expected.status and answer.status not in expected.status:
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
        except (ValueError, RecursionError):
            return f"body is not JSON{f' within {BODY_LIMIT} bytes' if answer.cut else ''}: {excerpt(answer.body)}"
        wrong = jsonpath.mismatch(document, dict(expected.json))
        if wrong:
            return f"status {answer.status}, but {wrong}: {excerpt(answer.body)}"
    if expected.max_latency_ms is not None and latency_ms > expected.max_latency_ms:
        return f"answered after {latency_ms:.0f} ms, more than {expected.max_latency_ms:g} ms"
    return None


@dataclass(frozen=True)
class HttpProbe:
    """An HTTP request with an expectation. `timeout` in seconds for the whole exchange, redirects included."""

    target: HttpTarget
    expected: Expectation = field(default_factory=Expectation)
    timeout: float = 5.0
    redirects: int = 0

    @property
    def name(self) -> str:
        """As a URL."""
        if self.target.unix:
            return f"unix:{self.target.address}:{self.target.path}"
        return f"{'https' if self.target.tls else 'http'}://{self.target.place}{self.target.path}"

    def look(self) -> ProbeResult:
        """Ask once."""
        return self.ask()[0]

    def ask(self) -> tuple[ProbeResult, Optional[Answer]]:
        """Ask once; the answer itself too, when there was one."""
        started = time.monotonic()
        try:
            answer = fetch(self.target, self.timeout, self.redirects)
        except ERRORS as error:
            return failure(error, started, self.timeout), None
        latency = milliseconds(started)
        wrong = judge(answer, self.expected, latency)
        return ProbeResult(not wrong, wrong or f"status {answer.status}", latency, False, answer.status), answer
