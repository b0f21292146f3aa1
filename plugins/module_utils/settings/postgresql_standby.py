# SPDX-License-Identifier: GPL-3.0-or-later
"""A streaming standby: made by pg_basebackup or brought back by pg_rewind, promoted, and the lag behind its primary.

A new copy grows beside the old data directory and takes its place only when it is whole. A directory with data of its own is
never removed: it is refused, or with `replace` kept under another name. The password is in a file of the server's user alone.
"""

from __future__ import annotations

import contextlib
import errno
import pwd
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ..host import files as disk
from ..host.clock import Clock
from ..host.runner import Result, Runner
from .postgresql_cluster import Cluster
from .postgresql_lag import OBSERVE, Limits, State, ended_at, parse_state
from .postgresql_source import Source, conninfo, render_passfile, render_settings
from .psql import Psql, SqlError, identifier, literal, running_port

DROP_IN = "61-slipway-standby.conf"
BESIDE = re.compile(r"\.(new|old|before-\d+)")
STREAM_DEADLINE = 60.0  # seconds
COPY_DEADLINE = 24 * 3600.0  # seconds
# What pg_rewind asks of its source; its documentation names these four functions.
REWIND = (
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
)
MAY_REWIND = """
SELECT bool_and(has_function_privilege({user}, 'pg_catalog.' || one, 'EXECUTE'))
  FROM string_to_table({functions}, ';') one WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = {user});
"""
WORD = "SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'slipway', 'promotion')"
"""A synchronous standby that hangs would be waited for."""


class StandbyError(Exception):
    """What was asked for was not done; the message says why, what is there now, and what to do."""


@dataclass
class Outcome:
    """What was (or, in check mode, would be) done.

    `kept` is where an old directory with data lies, `ended` where the log of a fenced server ends, if it was shut down in order.
    """

    steps: list[str] = field(default_factory=list)
    kept: str = ""
    state: Optional[State] = None
    ended: Optional[int] = None


class Standby:
    """One cluster as a standby; `home` (of the server's user) is replaced by tests."""

    def __init__(
        self, cluster: Cluster, runner: Runner, clock: Optional[Clock] = None, home: Path = Path("/var/lib/postgresql")
    ) -> None:
        self.cluster = cluster
        self.runner = runner
        self.clock = clock or Clock()
        self.passfile = home / ".slipway-replication"
        self.drop_in = cluster.etc / "conf.d" / DROP_IN
        self.data = cluster.data_directory()

    def observe(self) -> Optional[State]:
        """What the server says; None when it does not answer."""
        port = running_port(self.data)
        if port is None:
            return None
        try:
            return parse_state(Psql(self.runner, self.cluster.version, port).must(OBSERVE)[0])
        except (SqlError, IndexError):
            return None

    def ensure(self, source: Source, replace: bool = False, check_mode: bool = False) -> Outcome:
        """Have the cluster stream from `source`; raises StandbyError. An own primary with data is refused unless `replace`."""
        outcome = Outcome(state=self.observe())
        state, files = outcome.state, self._stale_files(source)
        copied = (self.data / "standby.signal").exists()
        if state is not None and (state.follows(source) or state.held_back) and not files:
            return outcome
        if state is None and not (self.cluster.etc / "postgresql.conf").exists():
            outcome.steps.append("copied")
            if check_mode:
                return outcome
            raise StandbyError(f"there is no cluster {self.cluster.version}/main; install postgresql-{self.cluster.version}")
        if not copied and not self._begun():
            self._refuse(state, replace)
        outcome.steps.append("followed" if copied else "copied")
        if check_mode:
            return outcome
        self._write_files(source)
        self._slot(source)
        if copied:
            self._reload_or_start(state)
        else:
            outcome.kept = self._copy(source, keep=state is None or state.holds_data)
        outcome.state = self._streams(source)
        return outcome

    def rejoin(self, source: Source, check_mode: bool = False) -> Outcome:
        """Take a former primary back to where it and `source` parted, and follow it; raises StandbyError."""
        outcome = Outcome(["rewound"], state=self.observe())
        if (outcome.state is not None and outcome.state.standby) or (self.data / "standby.signal").exists():
            return self.ensure(source, check_mode=check_mode)
        if check_mode:
            return outcome
        self._write_files(source)
        self._slot(source)
        self._systemctl("stop", self.cluster.unit)
        argv = [self._program("pg_rewind"), "--target-pgdata", str(self.data), "--config-file"]
        argv += [str(self.cluster.etc / "postgresql.conf"), "--source-server", conninfo(source, self.passfile, "postgres")]
        result = self._as_owner(argv, COPY_DEADLINE)
        if not result.ok:
            raise StandbyError(
                f"pg_rewind could not take this server back; it is stopped and stays so: {result.text()}\n"
                "What it needs may be gone from pg_wal; a larger wal_keep_size keeps it. A new copy of the primary always works:"
                " state following with `replace`, which keeps this directory under another name"
            )
        self._write(self.data / "standby.signal", "")
        self.release()
        self._systemctl("start", self.cluster.unit)
        outcome.state = self._streams(source)
        return outcome

    def lead(self, source: Source, check_mode: bool = False) -> Outcome:
        """What a primary needs before another takes its place: its standbys may rewind from it, and it can ask its peers."""
        outcome = Outcome(state=self.observe())
        if disk.read_text(self.passfile) != render_passfile(source):
            outcome.steps.append("introduced")
        if not self._may_rewind(source.user):
            outcome.steps.append("granted")
        if check_mode or not outcome.steps:
            return outcome
        self._write(self.passfile, render_passfile(source), 0o600)
        grants = "".join(f"GRANT EXECUTE ON FUNCTION pg_catalog.{one} TO {identifier(source.user)};\n" for one in REWIND)
        try:
            self._psql().must(grants)
        except SqlError as error:
            raise StandbyError(f"the role {source.user} may not be asked by pg_rewind: {error}") from error
        return outcome

    def _may_rewind(self, user: str) -> bool:
        try:
            return self._psql().must(MAY_REWIND.format(user=literal(user), functions=literal(";".join(REWIND)))) == ["t"]
        except SqlError:
            return False

    def _psql(self) -> Psql:
        return Psql(self.runner, self.cluster.version, running_port(self.data) or 5432)

    def promote(self, check_mode: bool = False) -> Outcome:
        """Have the standby take writes; raises StandbyError. Unchanged when it does already."""
        outcome = Outcome(state=self.observe())
        if outcome.state is None:
            raise StandbyError(f"{self.cluster.unit} does not answer. Its last log lines:\n{self.cluster.last_lines()}")
        if not outcome.state.standby:
            return outcome
        outcome.steps.append("promoted")
        if check_mode:
            return outcome
        try:
            promoted = self._psql().must("SELECT pg_promote(true, 60)", 90)
        except SqlError as error:
            raise StandbyError(f"pg_promote: {error}") from error
        # pg_rewind finds its way by the timeline of the last checkpoint: without a new one it would see nothing to rewind.
        with contextlib.suppress(SqlError):
            self._psql().must("CHECKPOINT", 600)
        outcome.state = self.observe()
        if promoted != ["t"] or outcome.state is None or outcome.state.standby:
            raise StandbyError(
                "the server was told to take writes and does not after 60 s. It may still begin to: keep the old primary stopped,"
                f" and run this again. Its last log lines:\n{self.cluster.last_lines()}"
            )
        return outcome

    def wait(self, limits: Limits, deadline: float) -> Optional[State]:
        """What the standby says once it is within `limits`; raises StandbyError after `deadline` seconds."""
        end = self.clock.monotonic() + deadline
        while True:
            state = self.observe()
            verdict = limits.verdict(state)
            if not verdict:
                return state
            if self.clock.monotonic() >= end:
                raise StandbyError(f"{verdict}, also after {deadline:g} s")
            self.clock.sleep(0.5)

    def mark(self, check_mode: bool = False) -> Outcome:
        """Have a primary write a word into its log: whoever replays it receives still, which an idle one's end does not tell."""
        outcome = Outcome(state=self.observe())
        if outcome.state is None or outcome.state.standby or check_mode:
            return outcome
        with contextlib.suppress(SqlError):  # one that cannot write has nothing that a standby could lack
            self._psql().must(WORD)
            outcome.state = self.observe()
        return outcome

    def fence(self, check_mode: bool = False) -> Outcome:
        """Stop the server and keep it from starting again, also at boot; raises StandbyError."""
        outcome, unit = Outcome(), self.cluster.unit
        running = self.runner.run(["systemctl", "is-active", unit]).ok or running_port(self.data) is not None
        if not self.fenced() or running:
            outcome.steps.append("fenced")
        if outcome.steps and not check_mode:
            # In this order: a masked unit has no way to stop but a signal to all, and its standby misses the last words.
            self._systemctl("stop", unit)
            self._systemctl("mask", unit)
            if self.observe() is not None:
                raise StandbyError(f"{unit} still answers after it was stopped; stop it, then begin again")
        if not outcome.steps or not check_mode:
            outcome.ended = ended_at(self._as_owner([self._program("pg_controldata"), "-D", str(self.data)], 60).out)
        return outcome

    def unfence(self, check_mode: bool = False) -> Outcome:
        """Take a fence back, because nobody took the server's place: it serves again; raises StandbyError."""
        outcome = Outcome(state=self.observe())
        if outcome.state is not None and not self.fenced():
            return outcome
        outcome.steps.append("unfenced")
        if not check_mode:
            self.release()
            self._systemctl("start", self.cluster.unit)
            outcome.state = self._until(lambda state: not state.standby, "does not take writes")
        return outcome

    def fenced(self) -> bool:
        """Whether it is kept from starting."""
        return self.runner.run(["systemctl", "is-enabled", self.cluster.unit]).out.strip() == "masked"

    def release(self) -> None:
        """Let it start again."""
        if self.fenced():
            self._systemctl("unmask", self.cluster.unit)

    def _refuse(self, state: Optional[State], replace: bool) -> None:
        if replace:
            return
        if state is None:
            raise StandbyError(
                f"{self.cluster.unit} does not answer, so nobody can say whether {self.data} holds data: nothing was changed."
                " Start it, or allow a new copy with `replace` (the old directory is kept under another name)"
            )
        if state.holds_data:
            what = ", ".join(state.databases) or f"{state.tables} tables"
            raise StandbyError(
                f"this server takes writes itself and holds data ({what}): nothing was changed. If it was promoted, put it into"
                " the group `database` and the former primary into `replica`. If its data is to go, allow a new copy with"
                " `replace` (the old directory is kept under another name)"
            )

    def _stale_files(self, source: Source) -> list[Path]:
        texts = {self.passfile: render_passfile(source), self.drop_in: render_settings(source, self.passfile)}
        return [path for path, text in texts.items() if disk.read_text(path) != text]

    def _write_files(self, source: Source) -> None:
        self._write(self.passfile, render_passfile(source), 0o600)
        self._write(self.drop_in, render_settings(source, self.passfile), 0o644)

    def _write(self, path: Path, text: str, mode: int = 0o600) -> None:
        owner = pwd.getpwnam(self.cluster.owner)
        disk.atomic_write(path, text, mode, owner.pw_uid, owner.pw_gid)

    def _program(self, name: str) -> str:
        return str(self.cluster.library / "bin" / name)

    def _as_owner(self, argv: Sequence[str], timeout: float) -> Result:
        return self.runner.run(["runuser", "-u", self.cluster.owner, "--", "env", "--chdir=/", *argv], timeout=timeout)

    def _systemctl(self, verb: str, unit: str) -> None:
        result = self.runner.run(["systemctl", verb, unit])
        if not result.ok:
            raise StandbyError(f"systemctl {verb} {unit}: {result.text()}")

    def _slot(self, source: Source) -> None:
        """Reserve the slot at the primary, which keeps what this standby has not read yet; one that is there is used."""
        text = conninfo(source, self.passfile, "postgres") + " replication='true'"
        argv = [self._program("psql"), "-XAtq", "-d", text, "-c", f"CREATE_REPLICATION_SLOT {source.slot} PHYSICAL"]
        result = self._as_owner(argv, 60)
        if not result.ok and "already exists" not in result.err:
            raise StandbyError(
                f"the primary {source.host} does not let {source.user} in, nothing was copied: {result.text()}\n"
                "It needs the role with REPLICATION, its password, and a hostssl rule for this host"
            )

    def _begun(self) -> list[Path]:
        """Copies that were whole when the run that made them died, before they took the place of the old directory."""
        beside = [path for path in self.data.parent.glob(f"{self.data.name}.*") if BESIDE.fullmatch(path.suffix)]
        return [path for path in beside if (path / "standby.signal").exists()]

    def _copy(self, source: Source, keep: bool) -> str:
        """Copy the primary beside the old directory and swap; where the old one lies when it is kept."""
        fresh, old = self.data.with_name(f"{self.data.name}.new"), self.data.with_name(f"{self.data.name}.old")
        if keep:
            old = self.data.with_name(f"{self.data.name}.before-{int(self.clock.now())}")
        # One that a killed run left behind would go on writing, and have the slot.
        named = str(fresh).replace(".", "[.]")
        self.runner.run(["pkill", "--uid", self.cluster.owner, "--full", "--", f"pg_basebackup .* -D {named} "])
        for left in (fresh, *self._begun(), *([] if keep else [old])):
            shutil.rmtree(left, ignore_errors=True)
        argv = [self._program("pg_basebackup"), "-d", conninfo(source, self.passfile), "-D", str(fresh), "-X", "stream"]
        result = self._as_owner([*argv, "-S", source.slot, "--checkpoint=fast", "--no-password"], COPY_DEADLINE)
        if not result.ok:
            shutil.rmtree(fresh, ignore_errors=True)
            raise StandbyError(f"pg_basebackup failed; the old directory is untouched: {result.text()}")
        self._write(fresh / "standby.signal", "")
        self._systemctl("stop", self.cluster.unit)
        # Under the name that the old one will have: when both have changed places, nothing is left to do.
        fresh.rename(old)
        try:
            self._swap(old)
            self.release()
            self._systemctl("start", self.cluster.unit)
            self._answers()
        except (OSError, StandbyError):
            self.runner.run(["systemctl", "stop", self.cluster.unit])
            if (self.data / "standby.signal").exists() and old.exists():
                self._swap(old)
                shutil.rmtree(old, ignore_errors=True)
            self.runner.run(["systemctl", "start", self.cluster.unit])
            raise
        if not keep:
            shutil.rmtree(old, ignore_errors=True)
        return str(old) if keep and old.exists() else ""

    def _swap(self, other: Path) -> None:
        """Have the data directory and `other` change places; raises OSError."""
        if not self.data.exists():
            other.rename(self.data)
            disk.fsync_directory(self.data.parent)
            return
        try:
            disk.exchange(other, self.data)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV):
                raise
            between = other.with_name(f"{self.data.name}.new")
            self.data.rename(between)
            other.rename(self.data)
            between.rename(other)

    def _reload_or_start(self, state: Optional[State]) -> None:
        if state is None:
            self.release()
            self._systemctl("start", self.cluster.unit)
        else:
            self._systemctl("reload", self.cluster.unit)

    def _answers(self) -> None:
        self._until(lambda state: state.standby, "does not answer as a standby")

    def _streams(self, source: Source) -> State:
        return self._until(lambda state: state.follows(source) or state.held_back, f"does not stream from {source.host}")

    def _until(self, done: Callable[[State], bool], what: str) -> State:
        deadline = self.clock.monotonic() + STREAM_DEADLINE
        while True:
            state = self.observe()
            if state is not None and done(state):
                return state
            if self.clock.monotonic() >= deadline:
                raise StandbyError(
                    f"{self.cluster.unit} {what} within {STREAM_DEADLINE:g} s. Its last log lines:\n{self.cluster.last_lines()}"
                )
            self.clock.sleep(0.2)
