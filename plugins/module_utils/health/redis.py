# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis: a PING that is answered by PONG, after AUTH where there is a password."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from .model import ProbeResult, Unexpected, failure, milliseconds
from .wire import Link, Place, connect

PORT = 6379


@dataclass(frozen=True)
class RedisProbe:
    """AUTH (with `user`, when it is an ACL user), SELECT and PING. `timeout` in seconds for all of it.

    A server that still loads its data, or that has lost the replication or the disk it needs, answers PING with an error.
    """

    place: Place
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    timeout: float = 5.0

    @property
    def name(self) -> str:
        """As a URL, without user and password."""
        scheme = "unix" if self.place.unix else "rediss" if self.place.tls else "redis"
        return f"{scheme}://{self.place}" + (f"/{self.database}" if self.database else "")

    def look(self) -> ProbeResult:
        """Ask once."""
        started = time.monotonic()
        try:
            with connect(self.place, started + self.timeout) as link:
                if self.password:
                    _ask(link, "OK", "AUTH", *([self.user] if self.user else []), self.password)
                if self.database:
                    _ask(link, "OK", "SELECT", str(self.database))
                _ask(link, "PONG", "PING")
        except (OSError, ValueError, Unexpected) as error:
            return failure(error, started, self.timeout, "Redis")
        return ProbeResult(True, "PONG", milliseconds(started))


def _ask(link: Link, wanted: str, *words: str) -> None:
    """One command as an array of bulk strings; the answer must be the simple string `wanted` (RESP2)."""
    parts = [word.encode("utf-8") for word in words]
    link.send(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
    answer = link.line().decode("utf-8", "replace")
    if answer == f"+{wanted}":
        return
    if answer.startswith("-NOAUTH"):
        raise Unexpected("it asks for a password, and none was given")
    if answer.startswith("-"):
        raise Unexpected(f"{words[0]} was answered by {answer[1:]}")
    raise Unexpected(f"no Redis answer to {words[0]}: {answer!r}")
