# SPDX-License-Identifier: GPL-3.0-or-later
"""A running PostgreSQL cluster and its configuration: tried on the real binary, swapped, loaded; or the old bytes again.

The drop-in that the server was started with is kept while newer settings wait for a restart, which may not succeed.
What is unfinished is read from the server itself (load time, pending restarts), so a killed run is finished by the next.
"""

from __future__ import annotations

import contextlib
import json
import pwd
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..host import files as disk
from ..host.clock import Clock
from ..host.runner import Runner
from ..host.state import observe
from . import manifest, sandbox_seen, sandboxed
from . import postgresql as conf
from . import postgresql_others as others
from .postgresql_making import Making
from .psql import Psql, SqlError, running_port
from .taken import Taken

# The directories that a server wants to find before it maps its memory.
SKELETON = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
]
RELOAD_DEADLINE = 15.0  # seconds
START_DEADLINE = 60.0  # seconds
OBSERVE = """
SELECT jsonb_build_object(
  'parameters', (SELECT jsonb_agg(jsonb_build_array(name, vartype, context, unit, min_val, max_val, enumvals)) FROM pg_settings),
  'pending', (SELECT jsonb_agg(name ORDER BY name) FROM pg_settings WHERE pending_restart),
  'lines', (SELECT jsonb_agg(jsonb_build_array(sourcefile, name, applied, error) ORDER BY seqno) FROM pg_file_settings),
  'hba_errors', (SELECT jsonb_agg('line ' || line_number || ': ' || error) FROM pg_hba_file_rules WHERE error IS NOT NULL),
  'loaded', extract(epoch FROM pg_conf_load_time()),
  'checksums', current_setting('data_checksums') = 'on',
  'version', current_setting('server_version'));
"""


class ClusterError(Exception):
    """The configuration was not taken; the message says why, and in what state the server is now."""


@dataclass(frozen=True)
class Wanted:
    """The three files, and what is known to be wrong with them without asking a server."""

    settings: Mapping[str, str]
    hba: str
    ident: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Live:
    """What a running server says of itself. `loaded` is seconds since the epoch; `lines` are (file, name, applied, error)."""

    parameters: Mapping[str, conf.Parameter]
    pending: tuple[str, ...]
    lines: tuple[tuple[str, str, bool, str], ...]
    hba_errors: tuple[str, ...]
    loaded: float
    checksums: bool
    version: str

    def shadowed(self, names: Sequence[str]) -> dict[str, str]:
        """Those of `names` that a later file sets again, with that file."""
        last = {name: file for file, name, _applied, _error in self.lines}
        return {name: last[name] for name in names if name in last and not last[name].endswith(conf.DROP_IN)}


@dataclass
class Outcome:
    """What was (or, in check mode, would be) done."""

    changes: list[tuple[Path, Optional[str], Optional[str]]] = field(default_factory=list)
    started: bool = False
    reloaded: bool = False
    pending: tuple[str, ...] = ()
    shadowed: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    live: Optional[Live] = None

    @property
    def changed(self) -> bool:
        """True when anything was or would be done."""
        return bool(self.changes or self.started or self.reloaded)


def parse_live(line: str) -> Live:
    """The answer to OBSERVE."""
    data: dict[str, Any] = json.loads(line)
    parameters = conf.parse_parameters(data["parameters"])
    lines = tuple((row[0] or "", row[1] or "", bool(row[2]), row[3] or "") for row in data["lines"] or ())
    pending, errors = tuple(data["pending"] or ()), tuple(data["hba_errors"] or ())
    return Live(parameters, pending, lines, errors, float(data["loaded"]), data["checksums"], data["version"])


def only_version(etc: Path = Path("/etc/postgresql")) -> str:
    """The major version of the host's only cluster `main`; raises ClusterError when there is none, or more."""
    found = sorted(path.parent.parent.name for path in etc.glob("*/main/postgresql.conf"))
    if len(found) != 1:
        raise ClusterError(f"there are {len(found)} clusters in {etc} ({', '.join(found) or 'none'}); say which version is meant")
    return found[0]


class Cluster:
    """One cluster as Debian's tools lay it out; `etc`, `meminfo`, `owner` and `state` are replaced by tests."""

    def __init__(
        self,
        runner: Runner,
        version: str,
        clock: Optional[Clock] = None,
        etc: Path = Path("/etc/postgresql"),
        meminfo: Path = Path("/proc/meminfo"),
        owner: str = "postgres",
        state: Path = Path("/var/lib/slipway/postgresql"),
    ) -> None:
        self.runner = runner
        self.clock = clock or Clock()
        self.version = version
        self.etc = etc / version / "main"
        self.meminfo = meminfo
        self.owner = owner
        self.drop_in = self.etc / "conf.d" / conf.DROP_IN
        self.files = (self.drop_in, self.etc / "pg_hba.conf", self.etc / "pg_ident.conf")
        self.owner_name = f"postgresql-{version}"
        self.state = state
        self.proven = state / f"{version}-main" / conf.DROP_IN
        self.library = Path("/usr/lib/postgresql") / version
        self.unit = f"postgresql@{version}-main.service"
        self.sandbox = sandboxed.path("postgresql@.service")
        self.log = Path(f"/var/log/postgresql/postgresql-{version}-main.log")

    def data_directory(self) -> Path:
        """Where the cluster lives, from its postgresql.conf."""
        text = disk.read_text(self.etc / "postgresql.conf") or ""
        found = re.search(r"^\s*data_directory\s*=\s*'([^']+)'", text, re.MULTILINE)
        return Path(found.group(1)) if found else Path(f"/var/lib/postgresql/{self.version}/main")

    def observe(self) -> Optional[Live]:
        """What the server says; None when it does not answer."""
        port = running_port(self.data_directory())
        if port is None:
            return None
        try:
            return parse_live(Psql(self.runner, self.version, port).must(OBSERVE)[0])
        except (SqlError, IndexError):
            return None

    def boxed_later(self) -> bool:
        """Whether the unit has a sandbox that the running server was started without."""
        return self.unit in sandbox_seen.look(self.runner, self.unit).later

    def waiting(self, live: Live) -> tuple[str, ...]:
        """All that waits for a restart: settings, and the unit's sandbox."""
        return (*live.pending, *(["sandbox"] if self.boxed_later() else []))

    def unbox(self) -> None:
        """Take the sandbox away with which the server does not start."""
        disk.remove(self.sandbox)
        self.runner.run(["systemctl", "daemon-reload"])

    def ensure(self, wanted: Wanted, check_mode: bool = False) -> Outcome:
        """Bring the cluster to `wanted`; raises ClusterError with the old bytes back and the server as it was."""
        making = Making(self.runner, self.clock, self.version, self.etc, self.data_directory(), self.state)
        fresh = making.due()
        if fresh and not check_mode:
            if not (self.library / "bin" / "postgres").exists():
                raise ClusterError(f"there is no cluster {self.version}/main; install the package postgresql-{self.version}")
            failed = making.make()
            if failed:
                raise ClusterError(failed)
        outcome = Outcome(changes=self._plan(wanted))
        if fresh and check_mode:
            return outcome
        live = self.observe()
        if live is None and not check_mode and not fresh:
            live = self.start()
            if live is None and self.put_back():
                live, outcome.changes = self.start(), self._plan(wanted)
            outcome.started = live is not None
        self._refuse(wanted, live)
        if check_mode:
            return self._foretell(outcome, live)
        if outcome.changes:
            try:
                self._try(wanted)
            except ClusterError:
                if fresh:  # a running server says more about what it does not take
                    self._refuse(wanted, self.start())
                raise
        taken = Taken(self.owner_name, self.state.parent)
        try:
            outcome.replaced = self._take_over(taken, wanted, live)
            if live is not None and not live.pending and any(path == self.drop_in for path, _before, _after in outcome.changes):
                self.keep_proven()
            for path, _before, after in outcome.changes:
                self._write(path, after or "")
            live = self._activate(outcome, live, fresh)
        except (ClusterError, OSError) as error:
            said = self._restore(outcome)
            taken.unkeep()
            raise ClusterError(f"{error}\n{said}") from error
        if not live.pending:
            self.forget()
        self._remember()
        outcome.live, outcome.pending = live, self.waiting(live)
        outcome.shadowed = live.shadowed(tuple(wanted.settings))
        return outcome

    def _take_over(self, taken: Taken, wanted: Wanted, live: Optional[Live]) -> list[str]:
        """Keep what is to be changed for the first time; says what of it somebody had set."""
        taken.keep(self.files)
        texts = {path: disk.read_text(path) or "" for path in taken.fresh}
        found = [f"{path}: {line}" for path, text in texts.items() if path != self.drop_in for line in others.own_rules(text)]
        if taken.fresh and live is not None:
            found += others.overruled(self._elsewhere(), wanted.settings)
        return found

    def _elsewhere(self) -> list[list[Any]]:
        """Every setting in a file, as (name, value, file, line), in the order in which the server reads them."""
        rows = Psql(self.runner, self.version, running_port(self.data_directory()) or 5432).must(others.SET_ELSEWHERE)
        return [json.loads(row) for row in rows if row]

    def _overriding(self, wanted: Wanted) -> list[str]:
        path = self.etc / "postgresql.conf"
        lines = enumerate((disk.read_text(path) or "").splitlines(), 1)
        included = [number for number, line in lines if re.match(r"\s*include_dir\s*=?\s*'conf\.d'", line)]
        return others.overriding(self._elsewhere(), wanted.settings, str(path), included[-1] if included else 0)

    def _remember(self) -> None:
        folder = self.state.parent / manifest.FOLDER.name
        manifest.record(self.owner_name, [(path, observe(path)) for path in self.files], folder)

    def _plan(self, wanted: Wanted) -> list[tuple[Path, Optional[str], Optional[str]]]:
        texts = (conf.render_settings(wanted.settings), wanted.hba, wanted.ident)
        before = {path: disk.read_text(path) for path in self.files}
        return [(path, before[path], after) for path, after in zip(self.files, texts) if before[path] != after]

    def _refuse(self, wanted: Wanted, live: Optional[Live]) -> None:
        """Raise ClusterError for all that cannot be taken; of settings only the binary knows when the server is down."""
        problems = [*wanted.problems, *(self._problems(wanted, live) if live else ())]
        # Only a new value asks for it: the same answer comes from the read-back of a run that changes nothing.
        if live and any(path == self.drop_in for path, _before, _after in self._plan(wanted)):
            problems += self._overriding(wanted)
        if problems:
            lines = "\n".join(f"- {line}" for line in problems)
            raise ClusterError(f"nothing was changed; {len(problems)} setting(s) cannot be taken:\n{lines}")

    def _problems(self, wanted: Wanted, live: Live) -> list[str]:
        found = re.search(r"^MemTotal:\s+(\d+) kB", disk.read_text(self.meminfo) or "", re.MULTILINE)
        libraries = self.library / "lib"
        known = frozenset(path.stem for path in libraries.glob("*.so")) if libraries.is_dir() else None
        declared = {name: value for name, value in wanted.settings.items() if name not in conf.MANAGED}
        server = conf.Server(self.version, live.parameters, int(found.group(1)) * 1024 if found else 0, known)
        return conf.problems(declared, server)

    def _foretell(self, outcome: Outcome, live: Optional[Live]) -> Outcome:
        outcome.started = live is None
        if live is not None:
            outcome.live, outcome.pending = live, self.waiting(live)
            outcome.reloaded = not outcome.changes and self._stale(live)
        return outcome

    def _stale(self, live: Live) -> bool:
        """Whether a file is younger than what the server has loaded: an earlier run was killed in between."""
        return any(path.stat().st_mtime > live.loaded for path in self.files if path.exists())

    def _write(self, path: Path, text: str) -> None:
        owner = pwd.getpwnam(self.owner)
        mode = 0o644 if path.suffix == ".conf" and path.parent.name == "conf.d" else 0o640
        disk.atomic_write(path, text, mode, owner.pw_uid, owner.pw_gid)

    def _try(self, wanted: Wanted) -> None:
        """Have the server's binary read the whole new configuration and map its memory, in a scratch directory."""
        data = self.data_directory()
        scratch = Path(tempfile.mkdtemp(prefix=".slipway-", dir=data.parent))
        try:
            shutil.copy(self.etc / "postgresql.conf", scratch)
            shutil.copytree(self.etc / "conf.d", scratch / "conf.d")
            (scratch / "conf.d" / conf.DROP_IN).write_text(conf.render_settings(wanted.settings), encoding="utf-8")
            if (data / "postgresql.auto.conf").exists():
                shutil.copy(data / "postgresql.auto.conf", scratch)
            (scratch / "PG_VERSION").write_text(f"{self.version}\n", encoding="ascii")
            for name in SKELETON:
                (scratch / name).mkdir()
            scratch.chmod(0o700)
            for path in (scratch, *scratch.rglob("*")):
                shutil.chown(path, self.owner, pwd.getpwnam(self.owner).pw_gid)
            argv = ["runuser", "-u", "postgres", "--", str(self.library / "bin" / "postgres"), "--check", "-D", str(scratch)]
            argv += ["-c", f"config_file={scratch}/postgresql.conf", "-c", f"data_directory={scratch}"]
            if (disk.read_text(Path("/proc/sys/vm/overcommit_memory")) or "").strip() == "2":
                # Both servers' memory would count against the limit although only one of them stays.
                argv += ["-c", "shared_buffers=1MB"]
            result = self.runner.run(argv, timeout=120)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if not result.ok:
            said = result.text().replace(str(scratch), str(self.etc))
            raise ClusterError(f"nothing was changed; PostgreSQL {self.version} refuses the new configuration:\n{said}")

    def _activate(self, outcome: Outcome, live: Optional[Live], fresh: bool) -> Live:
        if fresh:  # nobody waits for the unit before roles and databases are made
            live = self.observe() if self._at_once("start") else None
            outcome.started = True
        elif live is None:
            live = self.start()
            outcome.started = True
        elif outcome.changes or self._stale(live):
            live = self.reload(live)
            outcome.reloaded = True
        if live is None:
            raise ClusterError(f"{self.unit} does not answer. Its last log lines:\n{self.last_lines()}")
        return live

    def reload(self, live: Live) -> Optional[Live]:
        """Have the new files loaded; raises ClusterError when the server finds an error in them."""
        port = running_port(self.data_directory()) or 5432
        seen = self.observe()
        if seen is not None and seen.hba_errors:
            raise ClusterError(f"pg_hba.conf: {'; '.join(seen.hba_errors)}")
        self._sql(port, "SELECT pg_reload_conf() \\g /dev/null\n")
        deadline = self.clock.monotonic() + RELOAD_DEADLINE
        while True:
            seen = self.observe()
            if seen is not None and seen.loaded > live.loaded:
                return seen
            if self.clock.monotonic() >= deadline:
                raise ClusterError(f"{self.unit} did not load its files. Its last log lines:\n{self.last_lines()}")
            self.clock.sleep(0.1)

    def _sql(self, port: int, script: str) -> None:
        try:
            Psql(self.runner, self.version, port).must(script)
        except SqlError as error:
            raise ClusterError(str(error)) from error

    def keep_proven(self) -> None:
        """Remember the drop-in that the running server has taken in full; an empty one stands for none."""
        disk.make_directories(self.proven.parent, 0o700)
        disk.atomic_write(self.proven, disk.read_text(self.drop_in) or "", 0o600)

    def forget(self) -> None:
        """The drop-in is what the server runs with: there is nothing to go back to."""
        disk.remove(self.proven)

    def put_back(self) -> bool:
        """Put the drop-in back that the server ran with before; False when none is kept. Starts nothing."""
        kept = disk.read_text(self.proven)
        if kept is None:
            return False
        if kept:
            self._write(self.drop_in, kept)
        else:
            disk.remove(self.drop_in)
        self.forget()
        return True

    def start(self) -> Optional[Live]:
        """What the server says after it was started; None when it does not come up."""
        self.runner.run(["systemctl", "reset-failed", self.unit])
        return self._after(["systemctl", "start", self.unit])

    def restart(self) -> bool:
        """Whether the server answers after a restart. Returns at once then: Debian's tool needs two seconds more (`settle`)."""
        return self._at_once("restart")

    def _at_once(self, verb: str) -> bool:
        """Whether a server that was not there before answers after `verb`, while systemd still waits for Debian's tool."""
        before = self._postmaster()
        self.runner.run(["systemctl", verb, "--no-block", self.unit])
        deadline = self.clock.monotonic() + START_DEADLINE
        while self.clock.monotonic() < deadline:
            now = self._postmaster()
            if now and now[:2] != before[:2] and now[2] in ("ready", "standby"):
                return self._psql().run("SELECT 1").ok
            if not now and not self._has_job():
                return False
            self.clock.sleep(0.05)
        return False

    def settle(self) -> Optional[Live]:
        """What the server says once systemd has noticed that it is up."""
        self.wait_for_unit()
        return self.observe()

    def wait_for_unit(self) -> None:
        """Until systemd has noticed that the server is up."""
        deadline = self.clock.monotonic() + START_DEADLINE
        while self._has_job() and self.clock.monotonic() < deadline:
            self.clock.sleep(0.2)

    def _psql(self) -> Psql:
        return Psql(self.runner, self.version, running_port(self.data_directory()) or 5432)

    def _postmaster(self) -> tuple[str, ...]:
        """Process, time of its start and state of the server, from its own file; nothing when it does not run."""
        lines = (disk.read_text(self.data_directory() / "postmaster.pid") or "").splitlines()
        return (lines[0].strip(), lines[2].strip(), lines[7].strip()) if len(lines) > 7 else ()

    def _has_job(self) -> bool:
        """Whether systemd still starts or stops the unit."""
        return self.runner.run(["systemctl", "show", "--property=Job", "--value", self.unit]).out.strip() not in ("", "0")

    def _after(self, argv: Sequence[str]) -> Optional[Live]:
        """What the server says once it answers after `argv`; None when it is gone (Debian's unit hides a failed start)."""
        self.runner.run(argv)
        deadline = self.clock.monotonic() + START_DEADLINE
        while True:
            live = self.observe()
            if live is not None or not self._has_process() or self.clock.monotonic() >= deadline:
                return live
            self.clock.sleep(0.3)

    def _has_process(self) -> bool:
        return running_port(self.data_directory()) is not None and self.runner.run(["systemctl", "is-active", self.unit]).ok

    def _restore(self, outcome: Outcome) -> str:
        """Put the old bytes back and have a server that answers; says what came of it."""
        for path, before, _after in outcome.changes:
            if before is None:
                disk.remove(path)
            else:
                self._write(path, before)
        live = self.observe()
        if live is None:
            live = self.start()
        elif outcome.changes:
            with contextlib.suppress(ClusterError):
                live = self.reload(live)
        if live is not None and not live.pending:
            self.forget()
        return f"The old files are back; the server {'answers' if live else 'does not answer'}."

    def last_lines(self) -> str:
        """The end of the server's log."""
        return "\n".join((disk.read_text(self.log) or "").splitlines()[-12:])
