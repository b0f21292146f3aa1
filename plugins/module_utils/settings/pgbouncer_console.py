# SPDX-License-Identifier: GPL-3.0-or-later
"""pgbouncer's admin console, over the unix socket as the operating system's user of the service: no password is needed.

Each question is one psql process. Works from pgbouncer 1.18 on; columns that a version lacks are empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from ..host.clock import Clock
from ..host.runner import Runner
from . import psql
from .psql import SOCKET_DIRECTORY, identifier

PORT = 6432
CONSOLE = "pgbouncer"
"""Name of the console's database and of its user."""
NOT_PAUSED = "not paused"
ALREADY_PAUSED = "already suspended/paused"
REFUSED = "ERROR:"
"""How psql begins what the pooler itself answers."""
BUSY = ("active", "tested", "active_cancel", "being_canceled")
"""States of server sessions for which PAUSE waits."""


class ConsoleError(Exception):
    """The console could not be reached, or refused; the message says what to do."""


class ConsoleTimeout(ConsoleError):
    """No answer in time."""


class PauseFailed(ConsoleError):
    """Sessions stayed busy until the time was over; the pooler is resumed. `blocking` names them."""

    def __init__(self, message: str, blocking: Sequence[str]) -> None:
        self.blocking = tuple(blocking)
        super().__init__(message)


@dataclass(frozen=True)
class Setting:
    """A line of SHOW CONFIG. `changeable`: a reload makes a new value effective."""

    value: str
    changeable: bool
    default: str = ""


@dataclass(frozen=True)
class Pool:
    """A line of SHOW POOLS: one pair of database and user. `max_wait` in seconds, of the client that waits longest."""

    database: str
    user: str
    clients_active: int
    clients_waiting: int
    servers_active: int
    servers_idle: int
    max_wait: float
    mode: str


@dataclass(frozen=True)
class Database:
    """A line of SHOW DATABASES. `host` is empty for a unix socket; `connections` to the server are open now."""

    name: str
    host: str
    port: int
    database: str
    pool_size: int
    max_connections: int
    connections: int
    paused: bool
    disabled: bool


@dataclass(frozen=True)
class Clients:
    """Clients of all pools but the console's."""

    active: int
    waiting: int
    max_wait: float

    @property
    def connected(self) -> int:
        """Clients that are logged in."""
        return self.active + self.waiting


class Console:
    """The console of the pooler that listens on `port` with a socket in `socket_dir`, and runs as `os_user`."""

    def __init__(
        self,
        runner: Runner,
        socket_dir: str = SOCKET_DIRECTORY,
        port: int = PORT,
        os_user: str = "postgres",
        clock: Optional[Clock] = None,
    ) -> None:
        self.runner = runner
        self.socket_dir = socket_dir
        self.port = port
        self.os_user = os_user
        self.clock = clock or Clock()

    def _psql(self, *commands: str) -> list[str]:
        argv = ["psql", "-XAqw", "--csv", "-v", "ON_ERROR_STOP=1", "-h", self.socket_dir, "-p", str(self.port)]
        return [*argv, "-U", CONSOLE, "-d", CONSOLE, *(word for sql in commands for word in ("-c", sql))]

    def _as_user(self, *argv: str) -> list[str]:
        return ["runuser", "-u", self.os_user, "--", *argv]

    def rows(self, *commands: str, timeout: float = 10.0) -> list[dict[str, str]]:
        """The answer to the last of `commands` by column names, the others having none; `timeout` in seconds for all.

        Raises ConsoleError, and ConsoleTimeout when the time was over.
        """
        sql = "; ".join(commands)
        # `timeout` ends psql itself: the end of runuser alone would leave it behind, with its question.
        argv = self._as_user("timeout", "--kill-after=2", f"{timeout:.1f}", *self._psql(*commands))
        environment = {"PGCONNECT_TIMEOUT": "5", "PGAPPNAME": "slipway", **psql.environment()}
        result = self.runner.run(argv, timeout=timeout + 10, env=environment)
        if result.rc in (124, 137):
            raise ConsoleTimeout(f"pgbouncer on port {self.port}: no answer to {sql} within {timeout:g} s")
        if not result.ok:
            said = result.text().replace("psql: error: ", "") or f"psql ended with status {result.rc}"
            unit = "" if REFUSED in said else "; see `systemctl status pgbouncer.service` and /var/log/postgresql/pgbouncer.log"
            raise ConsoleError(f"pgbouncer on port {self.port}: {sql}: {said}{unit}")
        return [dict(row) for row in csv.DictReader(io.StringIO(result.out))]

    def version(self) -> str:
        """Such as `1.24.1`."""
        return next(
            (word for row in self.rows("SHOW VERSION") for word in " ".join(row.values()).split() if word[0].isdigit()), ""
        )

    def config(self) -> dict[str, Setting]:
        """The settings that are in force, by name."""
        return {
            row["key"]: Setting(row.get("value", ""), row.get("changeable") == "yes", row.get("default", ""))
            for row in self.rows("SHOW CONFIG")
        }

    def pools(self) -> list[Pool]:
        """All pools but the console's."""
        return [
            Pool(
                database=row["database"],
                user=row["user"],
                clients_active=_number(row, "cl_active"),
                clients_waiting=_number(row, "cl_waiting"),
                servers_active=_number(row, "sv_active"),
                servers_idle=_number(row, "sv_idle") + _number(row, "sv_used"),
                max_wait=_number(row, "maxwait") + _number(row, "maxwait_us") / 1e6,
                mode=row.get("pool_mode", ""),
            )
            for row in self.rows("SHOW POOLS")
            if row["database"] != CONSOLE
        ]

    def databases(self) -> list[Database]:
        """All databases but the console's."""
        return [
            Database(
                name=row["name"],
                host=row.get("host", ""),
                port=_number(row, "port"),
                database=row.get("database", ""),
                pool_size=_number(row, "pool_size"),
                max_connections=_number(row, "max_connections"),
                connections=_number(row, "current_connections"),
                paused=row.get("paused") == "1",
                disabled=row.get("disabled") == "1",
            )
            for row in self.rows("SHOW DATABASES")
            if row["name"] != CONSOLE
        ]

    def clients(self) -> Clients:
        """How many clients there are, and how many of them wait for a server session."""
        pools = self.pools()
        return Clients(
            active=sum(pool.clients_active for pool in pools),
            waiting=sum(pool.clients_waiting for pool in pools),
            max_wait=max((pool.max_wait for pool in pools), default=0.0),
        )

    def paused(self, database: Optional[str] = None) -> Optional[bool]:
        """Whether clients of one `database` are held, or of all; None when the version cannot tell (all of them, before 1.19)."""
        if database is not None:
            return any(entry.paused for entry in self.databases() if entry.name == database)
        try:
            state = {row["key"]: row["value"] for row in self.rows("SHOW STATE")}
        except ConsoleError as error:
            if REFUSED in str(error):
                return None
            raise
        return state.get("paused") == "yes"

    def blocking(self, database: Optional[str] = None) -> list[str]:
        """The server sessions for which PAUSE waits, as a person looks for them: in pg_stat_activity, by process."""
        return _busy(self.rows("SHOW SERVERS"), database)

    def pause(self, database: Optional[str] = None, timeout: float = 10.0) -> bool:
        """Let running transactions end, then hold all clients, of one `database` or of all; False when they are held already.

        Raises PauseFailed when that took longer than `timeout` seconds, ConsoleError on anything else; in both cases the
        pooler is resumed. A process that dies here leaves it paused: arm `resume_command` before.
        """
        until = self.clock.monotonic() + timeout
        try:
            busy = _busy(self.rows(_command("PAUSE", database), "SHOW SERVERS", timeout=timeout), database)
            # Once WAIT_CLOSE was used, pgbouncer answers PAUSE without waiting, so the answer alone proves nothing.
            while busy and self.clock.monotonic() < until:
                self.clock.sleep(0.2)
                busy = self.blocking(database)
        except ConsoleTimeout:
            busy = self._busy_or_unknown(database)
        except ConsoleError as error:
            if ALREADY_PAUSED in str(error):
                return self._paused_by_others(error)
            if REFUSED not in str(error):  # else nothing came of it
                self.resume(database)
            raise
        except BaseException:
            self.resume(database)
            raise
        if not busy:
            return True
        self.resume(database)
        more = f" and {len(busy) - 5} more" if len(busy) > 5 else ""
        what = f"could not pause within {timeout:g} s and goes on as before. Busy: {'; '.join(busy[:5])}{more}"
        raise PauseFailed(f"pgbouncer on port {self.port} {what}", busy)

    def _busy_or_unknown(self, database: Optional[str]) -> list[str]:
        try:
            return self.blocking(database) or ["nothing any more"]
        except ConsoleError:
            return ["what it does not show"]

    def _paused_by_others(self, error: ConsoleError) -> bool:
        busy = self.blocking()
        if busy:
            what = "; ".join(busy[:5])
            raise ConsoleError(f"pgbouncer on port {self.port} is being paused by somebody else, who waits for {what}") from error
        return False

    def resume(self, database: Optional[str] = None) -> bool:
        """Let clients go on, of one `database` or of all; False when none was held. Raises ConsoleError."""
        resumed = self._resume(database)
        if database is None:
            for entry in self.databases():
                resumed = (entry.paused and self._resume(entry.name)) or resumed
        return resumed

    def _resume(self, database: Optional[str]) -> bool:
        try:
            self.rows(_command("RESUME", database))
        except ConsoleError as error:
            if NOT_PAUSED in str(error):
                return False
            raise
        return True

    def resume_command(self, database: Optional[str] = None) -> list[str]:
        """A command for a timer: what `resume` does for one `database`, or for a pause of all.

        It succeeds when nothing is held any more, fails while the pooler cannot be reached, and can be repeated until then.
        """
        # No shell: systemd 252 writes its signs into the transient unit so that they are lost at the next daemon-reload.
        # Without ON_ERROR_STOP the last command decides, so RESUME may find nothing to do.
        words = [
            word for word in self._psql(_command("RESUME", database), "SHOW VERSION") if word not in ("-v", "ON_ERROR_STOP=1")
        ]
        return self._as_user("timeout", "10", *words)

    def reload(self) -> None:
        """Read the configuration again. A value that pgbouncer refuses only shows in its log and in `config`."""
        self.rows("RELOAD")

    def reconnect(self, database: Optional[str] = None) -> None:
        """Replace each server session by a new one as soon as it is free, of one `database` or of all."""
        self.rows(_command("RECONNECT", database))

    def wait_close(self, database: Optional[str] = None, timeout: float = 60.0) -> None:
        """Wait until the server sessions from before `reconnect` or a reload are gone; raises ConsoleTimeout."""
        # Not by WAIT_CLOSE: it makes every later PAUSE return at once (its mark on a database is never taken away, up to 1.25).
        until = self.clock.monotonic() + timeout
        while any(row.get("close_needed") == "1" and _of(row, database) for row in self.rows("SHOW SERVERS")):
            if self.clock.monotonic() >= until:
                raise ConsoleTimeout(f"pgbouncer on port {self.port}: old server sessions are still in use after {timeout:g} s")
            self.clock.sleep(0.2)


def _of(row: Mapping[str, str], database: Optional[str]) -> bool:
    return row["database"] != CONSOLE and database in (None, row["database"])


def _busy(servers: Sequence[Mapping[str, str]], database: Optional[str]) -> list[str]:
    return [
        f"{row['database']} as {row['user']}: PostgreSQL process {row.get('remote_pid') or '?'}, last query sent"
        f" {row.get('request_time') or '?'}"
        for row in servers
        if row.get("state") in BUSY and _of(row, database)
    ]


def _command(verb: str, database: Optional[str]) -> str:
    return verb if database is None else f"{verb} {identifier(database)}"


def _number(row: Mapping[str, str], name: str) -> int:
    text = row.get(name) or ""
    return int(text) if text.isdigit() else 0
