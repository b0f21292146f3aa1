# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL by its own protocol (version 3.0), so that a host needs no client for it.

Two depths. Without a password that the server asks for, a look proves that a server is there and takes connections (what
`pg_isready` proves): it answered the start of a session, and not by "starting up". With one, or where none is asked for, it
proves that this user can open this database and that SELECT 1 is answered. The result says which of the two it was.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import struct
import time
from dataclasses import dataclass, field
from typing import Optional

from .model import ProbeResult, Unexpected, failure, milliseconds
from .wire import Link, Place, connect

PORT = 5432
PROTOCOL = 196608
SSL_REQUEST = 80877103
MESSAGE_LIMIT = 64 * 1024
MODES = ("disable", "prefer", "require", "verify-full")
STARTING = ("57P01", "57P02", "57P03")
"""Shutting down, crashed, starting up (PostgreSQL, Appendix A: error codes)."""
ITERATIONS = 1_000_000
"""Most rounds of SCRAM that a server may ask for; PostgreSQL asks for 4096."""


class Refused(Unexpected):
    """An ErrorResponse; `code` is its SQLSTATE."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(f"{text} ({code})")


@dataclass(frozen=True)
class PostgresqlProbe:
    """A session of `user` in `database`. `timeout` in seconds for all of it.

    `sslmode` as in libpq; `prefer` takes TLS when the server has it. A password is never sent in clear over a network
    without TLS.
    """

    place: Place
    user: str
    database: str
    password: str = field(default="", repr=False)
    sslmode: str = "prefer"
    timeout: float = 5.0

    @property
    def name(self) -> str:
        """As a URL, without the password."""
        return f"postgresql://{self.place}/{self.database}"

    def look(self) -> ProbeResult:
        """Open one session."""
        started = time.monotonic()
        try:
            with connect(self.place, started + self.timeout) as link:
                proven = self._session(link)
        except (OSError, ValueError, Unexpected) as error:
            return failure(error, started, self.timeout, "PostgreSQL")
        return ProbeResult(True, proven, milliseconds(started))

    def _session(self, link: Link) -> str:
        secret = self._secure(link) or self.place.private
        words = ("user", self.user, "database", self.database, "application_name", "slipway-probe")
        start = struct.pack("!I", PROTOCOL) + b"".join(word.encode() + b"\0" for word in words) + b"\0"
        link.send(struct.pack("!I", len(start) + 4) + start)
        try:
            if not _authenticate(link, self.user, self.password, secret):
                link.send(b"X\0\0\0\4")
                return "takes connections; it asks for a password and none was given, so no query was tried"
            _query(link)
        except Refused as error:
            if self.password or error.code in STARTING or not error.code.startswith("28"):
                raise
            return f"takes connections, but not this session, so no query was tried: {error}"
        link.send(b"X\0\0\0\4")
        return "SELECT 1 answered"

    def _secure(self, link: Link) -> bool:
        """Turn to TLS as `sslmode` says; True when it is on."""
        if self.place.unix or self.sslmode == "disable":
            return False
        link.send(struct.pack("!II", 8, SSL_REQUEST))
        answer = link.take(1)
        if answer == b"S":
            link.secure(self.place)
            return True
        if answer != b"N":
            raise Unexpected(f"no PostgreSQL answer to the request for TLS: {answer!r}")
        if self.sslmode != "prefer":
            raise Unexpected(f"the server has no TLS, and sslmode is {self.sslmode}")
        return False


def _message(link: Link) -> tuple[bytes, bytes]:
    """Kind and content of the next message; raises Refused for an ErrorResponse, Unexpected, OSError."""
    head = link.take(5)
    kind, length = head[:1], struct.unpack("!I", head[1:])[0] - 4
    if kind not in b"ERSKZTDCNAI" or not 0 <= length <= MESSAGE_LIMIT:
        raise Unexpected(f"no PostgreSQL answer: {head!r}")
    content = link.take(length)
    if kind == b"E":
        fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in content.split(b"\0") if part}
        raise Refused(fields.get(b"C", "?????"), f"{fields.get(b'S', 'ERROR')}: {fields.get(b'M', 'no text')}")
    return kind, content


def _send(link: Link, kind: bytes, content: bytes) -> None:
    link.send(kind + struct.pack("!I", len(content) + 4) + content)


def _authenticate(link: Link, user: str, password: str, secret: bool) -> bool:
    """Log in; False when the server wants a password that there is none of."""
    while True:
        kind, content = _message(link)
        if kind != b"R":
            if kind == b"N":
                continue
            raise Unexpected(f"no PostgreSQL answer to the start of a session: {kind!r}")
        (way,) = struct.unpack("!I", content[:4])
        if way == 0:
            return True
        if not password and way in (3, 5, 10):
            return False
        if way == 3:
            if not secret:
                raise Unexpected("the server wants the password in clear and has no TLS: not sent")
            _send(link, b"p", password.encode() + b"\0")
        elif way == 5:
            _send(link, b"p", md5_answer(user, password, content[4:8]) + b"\0")
        elif way == 10:
            _scram(link, password, content[4:])
        else:
            raise Unexpected(f"the server asks for authentication of kind {way}, which this probe cannot do")


def md5_answer(user: str, password: str, salt: bytes) -> bytes:
    """The answer to AuthenticationMD5Password (PostgreSQL documentation, 55.2.1)."""
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()


def _scram(link: Link, password: str, offered: bytes) -> None:
    """SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding; the server must prove that it knows the password, too."""
    if b"SCRAM-SHA-256" not in offered.split(b"\0"):
        raise Unexpected("the server offers no SCRAM-SHA-256")
    nonce = base64.b64encode(os.urandom(18)).decode("ascii")
    bare = f"n=,r={nonce}"
    first = b"n,," + bare.encode()
    _send(link, b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
    challenge = _sasl(link, 11)
    parts = _attributes(challenge)
    whole, salt, rounds = parts.get("r", ""), base64.b64decode(parts.get("s", "")), int(parts.get("i", "0"))
    if not whole.startswith(nonce) or not 0 < rounds <= ITERATIONS:
        raise Unexpected("the server's SCRAM challenge is not right")
    last = f"c=biws,r={whole}"
    proof, signature = scram_proof(password, salt, rounds, f"{bare},{challenge},{last}")
    _send(link, b"p", f"{last},p={proof}".encode())
    if _attributes(_sasl(link, 12)).get("v") != signature:
        raise Unexpected("the server does not know the password: it is not the one it says it is")


def scram_proof(password: str, salt: bytes, rounds: int, text: str) -> tuple[str, str]:
    """The client's proof and the server's signature over `text` (RFC 5802, section 3)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    client = hmac.digest(salted, b"Client Key", "sha256")
    sign = hmac.digest(hashlib.sha256(client).digest(), text.encode(), "sha256")
    server = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), text.encode(), "sha256")
    proof = bytes(left ^ right for left, right in zip(client, sign))
    return base64.b64encode(proof).decode("ascii"), base64.b64encode(server).decode("ascii")


def _sasl(link: Link, wanted: int) -> str:
    kind, content = _message(link)
    if kind != b"R" or struct.unpack("!I", content[:4])[0] != wanted:
        raise Unexpected("the server broke off SCRAM")
    return content[4:].decode("ascii", "replace")


def _attributes(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


def _query(link: Link) -> None:
    """SELECT 1, whose only row must be 1."""
    _until_ready(link)
    _send(link, b"Q", b"SELECT 1\0")
    row = _until_ready(link)
    if row != b"\0\1\0\0\0\1" + b"1":
        raise Unexpected(f"SELECT 1 was answered by {row!r}")


def _until_ready(link: Link) -> Optional[bytes]:
    """Read on until ReadyForQuery; the last row that came."""
    row = None
    while True:
        kind, content = _message(link)
        if kind == b"D":
            row = content
        if kind == b"Z":
            return row
