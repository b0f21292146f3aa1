# SPDX-License-Identifier: GPL-3.0-or-later
"""A restart of PostgreSQL that loses no query: clients are held by the pooler, the server restarts, clients go on.

Order: no old transaction, CHECKPOINT (so that shutting down writes little), hold, restart, answer, let go.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Optional

from ..guard.deadman import Timer
from ..host.clock import Clock
from .pgbouncer_console import ConsoleError, PauseFailed
from .pgbouncer_hold import Hold
from .postgresql_cluster import Cluster, ClusterError
from .psql import Psql, SqlError, running_port

POLICIES = ("now", "window", "never")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WINDOW = re.compile(r"(?:(?P<days>[a-z,-]+) )?(?P<from>\d\d?:\d\d)-(?P<to>\d\d?:\d\d)")
CHECKPOINT_DEADLINE = 300.0  # seconds
# Transactions of clients, and base backups, that a restart would end. Never what they ask: a query may hold secrets.
OLD = """
SELECT jsonb_build_object('pid', pid, 'user', usename, 'database', datname, 'state', state,
    'age', extract(epoch FROM clock_timestamp() - xact_start),
    'query_start', to_char(query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
  FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND xact_start < clock_timestamp() - make_interval(secs => {longest})
UNION ALL
SELECT jsonb_build_object('pid', pid, 'user', usename, 'database', '', 'state', 'base backup',
    'age', extract(epoch FROM clock_timestamp() - backend_start),
    'query_start', to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'))
  FROM pg_stat_replication WHERE state = 'backup';
"""
BOXED = " it is without its new sandbox again, so loosen that in {file} before the next run;"


class GaveUp(Exception):
    """The server was too busy until the deadline: nothing was restarted, and no client is held. `waits_for` says for whom."""

    def __init__(self, message: str, waits_for: Sequence[Transaction]) -> None:
        self.waits_for = tuple(waits_for)
        super().__init__(message)


@dataclass(frozen=True)
class Transaction:
    """An open transaction; `age` in seconds, `query_start` of its last query as UTC text."""

    pid: int
    user: str
    database: str
    state: str
    age: float
    query_start: str

    def text(self) -> str:
        """As a person looks for it."""
        where = f" in {self.database}" if self.database else ""
        return f"pid {self.pid}, {self.user}{where}, {self.state}, open for {self.age:.0f} s, last query {self.query_start} UTC"


@dataclass(frozen=True)
class Request:
    """When a restart may happen and how long each part of it. All times in seconds.

    `longest`: older transactions are waited for. `wait`: for them and for the poolers. `pause`: one attempt to hold clients.
    """

    policy: str = "now"
    windows: tuple[str, ...] = ()
    force: bool = False
    longest: float = 5.0
    wait: float = 60.0
    pause: float = 5.0


@dataclass
class Outcome:
    """What came of it. `stall`: seconds during which clients were held. `reason`: why nothing happened."""

    due: bool = False
    restarted: bool = False
    pending: tuple[str, ...] = ()
    reason: str = ""
    poolers: int = 0
    stall: float = 0.0
    waits_for: tuple[Transaction, ...] = ()
    notes: list[str] = field(default_factory=list)


def _minutes(text: str) -> int:
    hours, minutes = (int(part) for part in text.split(":"))
    if hours > 24 or minutes > 59 or hours * 60 + minutes > 24 * 60:
        raise ValueError(text)
    return hours * 60 + minutes


def _days(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)}
    return found


def _parts(found: Optional[re.Match[str]]) -> tuple[set[int], int, int]:
    if found is None:
        raise ValueError
    return _days(found["days"]) if found["days"] else set(range(7)), _minutes(found["from"]), _minutes(found["to"])


def within(window: str, when: time.struct_time) -> bool:
    """Whether `when` lies in `window`, such as `02:00-04:00`, `Sat,Sun 22:00-03:00` (ends the next day), `Mon-Fri 01:30-02:30`.

    Raises ValueError with the reason.
    """
    found = WINDOW.fullmatch(window.strip().lower())
    try:
        days, begin, end = _parts(found)
    except ValueError:
        raise ValueError(f"`{window}` is no window of time; write it like `02:00-04:00` or `Sat,Sun 22:00-03:00`") from None
    now, today = when.tm_hour * 60 + when.tm_min, when.tm_wday
    if begin < end:
        return today in days and begin <= now < end
    return (today in days and now >= begin) or ((today - 1) % 7 in days and now < end)


def refusal(request: Request, when: time.struct_time) -> str:
    """Why the operator's policy does not allow a restart at `when` (local time); empty when it does. Raises ValueError."""
    inside = [within(window, when) for window in request.windows]
    if request.policy == "never":
        return "the policy is `never`"
    if request.policy == "window" and not inside:
        raise ValueError("the policy is `window`, but there is no window; give one such as `Sun 02:00-04:00`")
    if request.policy == "window" and not any(inside):
        return f"it is {time.strftime('%a %H:%M', when)} on this host, outside {', '.join(request.windows)}"
    return ""


class Restart:
    """A restart of one cluster whose clients on this host come through `holds`."""

    def __init__(self, cluster: Cluster, holds: Sequence[Hold], clock: Clock) -> None:
        self.cluster = cluster
        self.holds = holds
        self.clock = clock
        self.guard = Timer(cluster.runner, clock, "slipway-postgresql-restart")
        self.boxed = False

    def run(self, request: Request, act: bool = True) -> Outcome:
        """Restart when something waits for it and the policy allows; without `act` only say so.

        Raises GaveUp, ClusterError (with the old settings back), ConsoleError, ValueError.
        """
        live = self.cluster.observe()
        if live is None:
            raise ClusterError(f"{self.cluster.unit} does not answer; start it, or run the role `postgresql`")
        outcome = Outcome(pending=self.cluster.waiting(live))
        if not outcome.pending and not request.force:
            outcome.reason = "nothing waits for a restart"
            return outcome
        outcome.reason = refusal(request, time.localtime(self.clock.now()))
        if outcome.reason:
            return outcome
        outcome.due = True
        if act:
            self._restart(request, outcome)
        else:
            outcome.waits_for = tuple(self._old(request.longest))
        return outcome

    def wait(self, request: Request) -> Outcome:
        """Like `run`, but ends when nothing stands against the restart any more, and leaves it to the caller; raises GaveUp."""
        outcome = self.run(request, act=False)
        deadline = self.clock.monotonic() + request.wait
        while outcome.due and outcome.waits_for:
            if self.clock.monotonic() >= deadline:
                raise self._gave_up(request, outcome.waits_for)
            self.clock.sleep(0.5)
            outcome.waits_for = tuple(self._old(request.longest))
        return outcome

    def recover(self, wait: float) -> Outcome:
        """After a restart that was cut off: wait until the server answers, and let clients go in any case.

        Raises ClusterError when it does not answer within `wait` seconds.
        """
        outcome = Outcome()
        deadline = self.clock.monotonic() + wait
        try:
            live = self.cluster.settle()
            while live is None and self.clock.monotonic() < deadline:
                self.clock.sleep(0.2)
                live = self.cluster.settle()
        finally:
            self._let_go([hold for hold in self.holds if hold.there()], outcome)
        if live is None:
            raise ClusterError(
                f"{self.cluster.unit} does not answer {wait:g} s after a restart that was cut off; its clients are let go."
                f" Start it, or run the role `postgresql`. Its last log lines:\n{self.cluster.last_lines()}"
            )
        outcome.pending = self.cluster.waiting(live)
        return outcome

    def _psql(self) -> Psql:
        return Psql(self.cluster.runner, self.cluster.version, running_port(self.cluster.data_directory()) or 5432)

    def _old(self, longest: float) -> list[Transaction]:
        try:
            rows = [json.loads(line) for line in self._psql().must(OLD.format(longest=float(longest)))]
        except SqlError as error:
            raise ClusterError(str(error)) from error
        return [
            Transaction(
                pid=row["pid"],
                user=row["user"] or "",
                database=row["database"] or "",
                state=row["state"] or "",
                age=float(row["age"] or 0),
                query_start=row["query_start"] or "never",
            )
            for row in rows
        ]

    def _gave_up(self, request: Request, waits_for: Sequence[Transaction], said: str = "") -> GaveUp:
        lines = [f"- {transaction.text()}" for transaction in waits_for]
        lines += [f"- {said}"] if said else []
        return GaveUp(
            f"not restarted: the server was busy for {request.wait:g} s; nothing was changed and no client is held."
            " It waits for:\n" + "\n".join(lines),
            waits_for,
        )

    def _restart(self, request: Request, outcome: Outcome) -> None:
        holds = [hold for hold in self.holds if hold.there()]
        outcome.poolers = len(holds)
        deadline = self.clock.monotonic() + request.wait
        checkpointed, said = False, ""
        while not outcome.restarted:
            old = self._old(request.longest)
            if not old and not checkpointed:
                self._checkpoint()
                checkpointed = True
                continue  # it may have taken a while
            if not old:
                self._guard()
                begun = self.clock.monotonic()
                try:
                    with self._held(holds, request.pause, outcome):
                        self._renew()
                    outcome.restarted = True
                    outcome.stall = self.clock.monotonic() - begun if holds else 0.0
                except PauseFailed as error:
                    said = str(error)
                finally:
                    self.guard.cancel()
            if not outcome.restarted and self.clock.monotonic() >= deadline:
                raise self._gave_up(request, old or self._old(0), said)
            if not outcome.restarted:
                self.clock.sleep(0.5)
        live = self.cluster.settle()
        outcome.pending = self.cluster.waiting(live) if live else outcome.pending

    def _checkpoint(self) -> None:
        try:
            self._psql().must("CHECKPOINT", CHECKPOINT_DEADLINE)
        except SqlError as error:
            raise ClusterError(f"not restarted; CHECKPOINT failed: {error}") from error

    @contextmanager
    def _held(self, holds: Sequence[Hold], pause: float, outcome: Outcome) -> Iterator[None]:
        taken: list[Hold] = []
        try:
            for hold in holds:
                hold.take(pause)
                taken.append(hold)
            yield
        finally:
            early = len(taken) - self._let_go(taken, outcome)
            if early:
                outcome.notes.append(f"timers let clients of {early} pooler(s) go before the end")

    def _let_go(self, holds: Sequence[Hold], outcome: Outcome) -> int:
        """Let clients go; how many poolers held theirs, or may do so still."""
        held = 0
        for hold in holds:
            try:
                held += hold.release()
            except ConsoleError as error:
                outcome.notes.append(f"{error}; {hold.timer.unit}.timer goes on trying")
                held += 1
        return held

    def _guard(self) -> None:
        """Also when this process dies a server that does not come up gets its old settings, and that before clients go on."""
        self.boxed = self.cluster.boxed_later()
        if self.boxed or self.cluster.proven.exists():
            seconds = min((hold.seconds for hold in self.holds), default=60.0)
            self.guard.arm(seconds / 2, ["/bin/sh", "-c", self._way_back()], "put PostgreSQL's settings back when it is down")

    def _renew(self) -> None:
        """Restart; raises ClusterError when the server had to have its old settings back."""
        cluster = self.cluster
        if cluster.restart():
            cluster.forget()
            return
        log = cluster.last_lines()
        back = cluster.put_back()
        if self.boxed:
            cluster.unbox()
        live = cluster.start()
        raise ClusterError(
            f"{cluster.unit} did not come up. {'The settings from before are back' if back else 'There are no older settings'};"
            f"{BOXED.format(file=cluster.sandbox.with_name('90-own.conf')) if self.boxed else ''}"
            f" the server {'answers' if live else 'does not answer'}. Its last log lines:\n{log}"
        )

    def _way_back(self) -> str:
        """A script for the timer: nothing when the server runs, else the old drop-in and a start."""
        cluster = self.cluster
        unit, old, new = (shlex.quote(str(item)) for item in (cluster.unit, cluster.proven, cluster.drop_in))
        ready = shlex.join([str(cluster.library / "bin" / "pg_isready"), "-q", "-h", "/var/run/postgresql", "-p", self._port()])
        # 1 means that it runs and does not let anybody in yet.
        start = f"systemctl reset-failed {unit}; systemctl restart {unit}"
        unbox = f"rm -f {shlex.quote(str(cluster.sandbox))}; systemctl daemon-reload; " if self.boxed else ""
        return f"{ready}; [ $? -gt 1 ] || exit 0; {unbox}[ ! -e {old} ] || {{ cat {old} >{new} && rm {old}; }}; {start}"

    def _port(self) -> str:
        return str(running_port(self.cluster.data_directory()) or 5432)
