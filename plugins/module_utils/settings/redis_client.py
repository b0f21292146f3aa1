# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands to a Redis server and its answers (RESP2), and a look at what it uses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Union

from ..health.wire import Link, Place, connect
from .redis import acl_mismatches, config_mismatches

TRIED = "slipway-tried"
Answer = Union[str, int, None, list[Any]]


class RedisError(Exception):
    """The server refused a command; the message is its own, without the command's arguments."""


class Client:
    """One connection, logged in; all methods may raise OSError or RedisError. `timeout` in seconds for all of it."""

    def __init__(self, place: Place, user: str = "", password: str = "", timeout: float = 10.0) -> None:
        self.link: Link = connect(place, time.monotonic() + timeout)
        if password:
            self.ask("AUTH", *([user] if user else []), password)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.link.__exit__(kind, error, trace)

    def ask(self, *words: str) -> Answer:
        """The answer to one command."""
        parts = [word.encode() for word in words]
        self.link.send(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return self._answer(words[0])

    def _answer(self, command: str) -> Answer:
        line = self.link.line().decode("utf-8", "replace")
        kind, rest = line[:1], line[1:]
        if kind == "+":
            return rest
        if kind == "-":
            raise RedisError(f"{command}: {rest}")
        if kind == ":":
            return int(rest)
        if kind == "$":
            if rest == "-1":
                return None
            data = self.link.take(int(rest) + 2)
            return data[:-2].decode("utf-8", "replace")
        if kind == "*":
            return [self._answer(command) for _number in range(max(0, int(rest)))]
        raise RedisError(f"{command}: no Redis answer")

    def config(self) -> dict[str, str]:
        """CONFIG GET *."""
        rows = self.ask("CONFIG", "GET", "*")
        words = [str(word) for word in rows] if isinstance(rows, list) else []
        return dict(zip(words[::2], words[1::2]))

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO."""
        lines = str(self.ask("INFO", section)).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def users(self) -> list[str]:
        """ACL LIST."""
        rows = self.ask("ACL", "LIST")
        return [str(row) for row in rows] if isinstance(rows, list) else []

    def as_listed(self, acl: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Rules as this server lists them: before 7.2 it writes them in words of its own, so a user that is off tries them."""
        found = {}
        for name, words in acl.items():
            given = [word for word in words if word not in ("on", "off", "#")]
            try:
                self.ask("ACL", "SETUSER", TRIED, "reset", "off", *given)
                listed = next(line for line in self.users() if line.split()[1] == TRIED)
            finally:
                self.ask("ACL", "DELUSER", TRIED)
            found[name] = [word for word in words if word in ("on", "off", "#")] + listed.split()[3:]
        return found


def look(check: Mapping[str, Any]) -> Iterable[tuple[str, str, str, str]]:
    """What, declared, effective and remedy of everything in `check` that is not so; raises nothing.

    `socket` or `address` and `port` (with `tls`, `ca`) say where, `user` and `input` (the password) or `password_file` who;
    `config` and `acl` what has to be in use; with `refused` the login has to fail.
    """
    what = str(check["what"])
    secure, ca = bool(check.get("tls")), check.get("ca")
    place = Place(
        str(check.get("socket") or check["address"]),
        int(check.get("port", 0)),
        "socket" in check,
        secure,
        check.get("host"),
        bool(ca),
        ca,
    )
    try:
        password = str(check.get("input", ""))
        if "password_file" in check:
            password = Path(str(check["password_file"])).read_text(encoding="ascii").strip()
        with Client(place, str(check.get("user", "")), password) as client:
            try:
                client.ask("PING")
            except RedisError as error:
                if "NOPERM" not in str(error):
                    raise
            if check.get("refused"):
                yield what, "refused", "let in", "Run the role again."
                return
            effective = client.config() if "config" in check else {}
            for name, declared, have in config_mismatches(check.get("config", {}), effective):
                remedy = "The server cuts it to the descriptors that it has." if name == "maxclients" else "Run the role again."
                yield f"{what}: {name}", declared, have, remedy
            if "acl" in check:
                listed = client.users()
                wanted = check["acl"] if not acl_mismatches(check["acl"], listed) else client.as_listed(check["acl"])
                for words in acl_mismatches(wanted, listed):
                    yield f"{what}: users", "as declared", words, "Run the role again."
    except (OSError, ValueError, RedisError) as error:
        if not check.get("refused"):
            yield what, "let in", str(error), "See the service's journal."
