# SPDX-License-Identifier: GPL-3.0-or-later
"""A running pooler and its configuration: refused whole, or swapped and loaded; or the old bytes again.

A reload makes effective what SHOW CONFIG calls changeable, and more descriptors are given to the running process. Only the
rest needs a restart. What waits for one is read from the pooler itself, so it is known in every later run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from ..guard.deadman import ArmingFailed
from ..host import files as disk
from ..host.clock import Clock
from ..host.runner import Runner
from . import pgbouncer as conf
from . import sandboxed
from .converge import MARKERS, ConvergeError, Converger, DirectorySpec, FileSpec, Transaction, UnitSpec, plan
from .converge import Outcome as Converged
from .pgbouncer_console import Console, ConsoleError, PauseFailed, Setting
from .pgbouncer_hold import Hold
from .pgbouncer_others import lost_databases
from .readback import LIMIT_NAMES, at_least, look, parse_limit, same_value

PROGRAM = "/usr/sbin/pgbouncer"
OS_USER = "postgres"
POLICIES = ("now", "idle", "never")
UNITS = Path("/etc/systemd/system")
CAP_SYS_RESOURCE = 24
PAUSE_DEADLINE = 15.0  # seconds for running transactions to end before a restart
RESUME_AFTER = 60.0  # seconds after which a pooler goes on by itself if nobody is left to let it
# One that takes its configuration says that it is up and runs on until it is killed; the other ends and has said why.
TRIAL = """
"$1" "$2" >"$2.log" 2>&1 & tried=$!
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  sleep 0.05
  kill -0 $tried 2>/dev/null && ! grep --quiet ' process up: ' "$2.log" || break
done
kill -KILL $tried 2>/dev/null
wait $tried
test $? -eq 137 || { cat "$2.log"; exit 1; }
"""


class PoolerError(Exception):
    """The pooler is not what was declared; the message says why, and in what state it is now."""


@dataclass(frozen=True)
class Live:
    """What a running pooler says of itself. `port`: where its console is; `nofile` soft and hard as in /proc/PID/limits."""

    port: int
    config: Mapping[str, Setting]
    nofile: tuple[str, str]
    pid: int

    @property
    def names(self) -> frozenset[str]:
        """The settings that this version has."""
        return frozenset(self.config)


@dataclass
class Outcome:
    """What was (or, in check mode, would be) done. `pending`: what waits for a restart; `clients`: how many one has cut off."""

    version: str = ""
    converged: Converged = field(default_factory=Converged)
    restarted: bool = False
    raised: str = ""
    clients: int = 0
    lost: list[str] = field(default_factory=list)
    refused: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    mismatches: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """True when anything was or would be done."""
        return bool(self.converged.changed or self.restarted or self.raised)


class Pooler:
    """The pooler of a host; `root` and `markers` are replaced by tests."""

    def __init__(self, runner: Runner, clock: Optional[Clock] = None, root: Path = Path("/"), markers: Path = MARKERS) -> None:
        self.runner = runner
        self.clock = clock or Clock()
        self.root = root
        self.markers = markers

    def ensure(
        self,
        wanted: conf.Wanted,
        logins: Sequence[Mapping[str, str]] = (),
        restart: str = "now",
        check_mode: bool = False,
        sandbox: bool = True,
    ) -> Outcome:
        """Bring the pooler to `wanted`; raises PoolerError.

        `restart`: `now`; `idle` only while no client is connected; `never`. Settings that wait for one are in `pending`.
        """
        installed = self.version()
        if not installed and not check_mode:
            raise PoolerError("pgbouncer: there is no pgbouncer on this host; install the package pgbouncer")
        wanted = replace(wanted, version=installed or wanted.version)
        pid = self._main_pid(wanted) if installed else 0
        live = self.observe(wanted, pid) if pid else None
        self._refuse(wanted, live, bool(installed))
        if pid and live is None and restart != "now":
            raise PoolerError(
                f"pgbouncer: nothing was changed; the console of process {pid} does not answer in {conf.SOCKET_DIRECTORY}, so"
                " what it runs with cannot be told; allow a restart (pgbouncer_restart: now)"
            )
        waiting = pending(wanted, live) if live else (("console",) if pid else ())
        box, refused = sandboxed.file(self.runner, "pgbouncer", wanted.unit, "daemon-reload", sandbox, not check_mode)
        waiting += ("sandbox",) if pid and sandboxed.waits(self.runner, "pgbouncer", wanted.unit, box, self.root / "proc") else ()
        console = Console(self.runner, port=live.port) if live else None
        now = bool(waiting) and (restart == "now" or (restart == "idle" and self._clients(console) == 0))
        outcome = Outcome(version=wanted.version, refused=tuple(refused), pending=() if now else waiting)
        transaction = self._transaction(wanted, logins, outcome.pending, live, now)
        transaction = replace(
            transaction,
            files=(*transaction.files, replace(box, effect="restart" if now else box.effect)),
            readback=(*transaction.readback, {"kind": "sandbox", "unit": wanted.unit}),
        )
        before = disk.read_text(self.root / wanted.folder.lstrip("/") / "pgbouncer.ini") or ""
        lost = lost_databases(before, [str(entry["name"]) for entry in wanted.databases])
        if check_mode:
            outcome.converged = self._converge(transaction, check_mode=True)
            outcome.lost = lost
            outcome.restarted = now
            outcome.raised = self._raise(wanted, live, check_mode=True)
            outcome.mismatches = outcome.converged.seen.mismatches
            return outcome
        self._try(wanted)
        outcome.raised = self._raise(wanted, live, check_mode=False)
        outcome.clients = self._clients(console) if now else 0
        with self._held(console, waiting) if now and console else contextlib.nullcontext():
            # What is read back before a restart is the old, and a login would wait for the end of the pause.
            early = now and not plan(transaction)
            outcome.converged = self._converge(replace(transaction, readback=()) if early else transaction)
            if now and wanted.unit not in outcome.converged.restarted:
                self._restart(wanted)
        outcome.lost = lost
        outcome.restarted = now or wanted.unit in outcome.converged.restarted
        outcome.mismatches = self._after_restart(transaction) if early else outcome.converged.seen.mismatches
        return outcome

    def let_go(self, wanted: conf.Wanted, restart: str = "now", check_mode: bool = False) -> Outcome:
        """Have the files as they were before the first run, and the package's pooler go on with them; raises PoolerError.

        Only of `wanted` counts which pooler is meant. A further one of the host stops.
        """
        outcome = Outcome(version=self.version())
        pid = self._main_pid(wanted) if outcome.version else 0
        live = self.observe(wanted, pid) if pid else None
        console = Console(self.runner, port=live.port) if live else None
        # Where it listens and whom it lets in are taken at a start only.
        now = bool(pid) and not wanted.instance and (restart == "now" or (restart == "idle" and self._clients(console) == 0))
        unit = UnitSpec(wanted.unit, *((False, "stopped") if wanted.instance else (None, "started")))
        transaction = Transaction(_name(wanted), units=(unit,))
        converger = Converger(self.runner, self.clock, self.markers)
        shared = [UNITS / "pgbouncer@.service"] if self._others(wanted) else []
        try:
            foreseen = converger.let_go(transaction, True, staying=shared)
            hold = now and foreseen.changed and console is not None and not check_mode
            outcome.clients = self._clients(console) if hold else 0
            with self._held(console, ("going back",)) if hold and console else contextlib.nullcontext():
                effect = "restart" if now else "reload"
                outcome.converged = (
                    foreseen if check_mode else converger.let_go(transaction, False, effect=effect, staying=shared)
                )
        except ConvergeError as error:
            raise PoolerError(str(error)) from error
        outcome.restarted = wanted.unit in outcome.converged.restarted
        if pid and outcome.converged.changed and not now and not wanted.instance:
            outcome.pending = ("the configuration of before",)
        return outcome

    def _others(self, wanted: conf.Wanted) -> bool:
        """Whether further poolers of the host need the unit that they share."""
        found = (self.root / conf.FOLDER.lstrip("/")).glob("*/pgbouncer.ini")
        return bool([path for path in found if path.parent.name != wanted.instance])

    def version(self) -> str:
        """The installed version, empty without one."""
        found = re.search(r"PgBouncer (\d[\d.]*)", self.runner.run([PROGRAM, "--version"]).out)
        return found.group(1) if found else ""

    def _main_pid(self, wanted: conf.Wanted) -> int:
        shown = self.runner.run(["systemctl", "show", "--property=MainPID", "--value", "--", wanted.unit]).out.strip()
        return int(shown) if shown.isdigit() else 0

    def observe(self, wanted: conf.Wanted, pid: int) -> Optional[Live]:
        """What the running pooler says; None when its console does not answer."""
        limits = disk.read_text(self.root / "proc" / str(pid) / "limits") or ""
        row = LIMIT_NAMES["nofile"]
        for port in self._ports(pid) or [wanted.port]:
            try:
                config = Console(self.runner, port=port).config()
            except ConsoleError:
                continue
            return Live(port, config, (parse_limit(limits, row), parse_limit(limits, row, 1)), pid)
        return None

    def _ports(self, pid: int) -> list[int]:
        """The ports of the unix sockets on which a process listens: a declared port may still wait for a restart."""
        process = self.root / "proc" / str(pid)
        held = set()
        for descriptor in (process / "fd").glob("*"):
            with contextlib.suppress(OSError):
                held.add(os.readlink(descriptor))
        rows = [line.split() for line in (disk.read_text(process / "net/unix") or "").splitlines()]
        names = [row[7] for row in rows if len(row) > 7 and f"socket:[{row[6]}]" in held]
        matches = [re.fullmatch(rf"{conf.SOCKET_DIRECTORY}/\.s\.PGSQL\.(\d+)", name) for name in names]
        return [int(match.group(1)) for match in matches if match]

    def ceiling(self) -> int:
        """Descriptors that a service of this host can get at most; 0 when that cannot be told."""
        status = disk.read_text(self.root / "proc/1/status") or ""
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
        if found and int(found.group(1), 16) >> CAP_SYS_RESOURCE & 1:
            text = (disk.read_text(self.root / "proc/sys/fs/nr_open") or "").strip()
        else:
            # Without that capability systemd cannot go above its own hard limit, and does not say so.
            text = parse_limit(disk.read_text(self.root / "proc/1/limits") or "", LIMIT_NAMES["nofile"], 1)
        return int(text) if text.isdigit() else 0

    def _refuse(self, wanted: conf.Wanted, live: Optional[Live], installed: bool) -> None:
        problems = conf.problems(wanted, live.names if live else frozenset(), self.ceiling())
        if installed:
            problems += self._address_problems(wanted) + self._certificate_problems(wanted.tls)
        if problems:
            lines = "\n".join(f"- {line}" for line in problems)
            raise PoolerError(f"pgbouncer: nothing was changed; {len(problems)} value(s) cannot be taken:\n{lines}")

    def _try(self, wanted: conf.Wanted) -> None:
        """Have another process read the new configuration: the running one would drop good settings together with a bad one."""
        if disk.read_text(self.root / wanted.folder.lstrip("/") / "pgbouncer.ini") == conf.render(wanted)["main"]:
            return
        scratch = Path(tempfile.mkdtemp(prefix="slipway-pgbouncer-"))
        try:
            for name, text in conf.trial(wanted, str(scratch)).items():
                (scratch / name).write_text(text, encoding="utf-8")
            for path in (scratch, *scratch.iterdir()):
                shutil.chown(path, OS_USER)
            argv = ["runuser", "-u", OS_USER, "--", "sh", "-c", TRIAL, "sh", PROGRAM, str(scratch / "pgbouncer.ini")]
            result = self.runner.run(argv, timeout=30)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if not result.ok:
            said = "\n".join(line for line in result.text().splitlines() if " LOG " not in line).replace(
                str(scratch), wanted.folder
            )
            raise PoolerError(
                f"pgbouncer: nothing was changed; pgbouncer {wanted.version} refuses the new configuration:\n{said}"
            )

    def _address_problems(self, wanted: conf.Wanted) -> list[str]:
        return [
            f"pgbouncer_listen: there is no address {address} on this host yet; correct it, or give it to an interface first"
            for address in conf.addresses(wanted.listen)
            if not self.runner.run(["ip", "-oneline", "address", "show", "to", address]).out.strip()
        ]

    def _certificate_problems(self, tls: Optional[conf.Tls]) -> list[str]:
        """Pgbouncer goes on with the old ones when it cannot use the new ones, and only its log says so."""
        if tls is None:
            return []
        found = [
            f"pgbouncer_tls: the user {OS_USER} cannot read {path}; give the file the group {OS_USER} and mode 0640"
            for path in (tls.certificate, tls.key)
            if not self.runner.run(["runuser", "-u", OS_USER, "--", "test", "-r", path]).ok
        ]
        try:
            if not found:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key)
        except (ssl.SSLError, OSError) as error:
            found.append(f"pgbouncer_tls: {tls.certificate} and {tls.key} cannot be used together: {error}")
        return found

    def _transaction(
        self,
        wanted: conf.Wanted,
        logins: Sequence[Mapping[str, str]],
        left: Sequence[str],
        live: Optional[Live],
        restart: bool,
    ) -> Transaction:
        texts, folder, effect = conf.render(wanted), Path(wanted.folder), "restart" if restart else "reload"
        unit = UNITS / wanted.unit
        files = [
            FileSpec(folder / "pgbouncer.ini", texts["main"], group=OS_USER, mode=0o640, effect=effect),
            FileSpec(folder / "userlist.txt", texts["users"], group=OS_USER, mode=0o640, secret=True, effect=effect),
            FileSpec(folder / "slipway-hba.conf", texts["hba"] or None, group=OS_USER, mode=0o640, effect=effect),
            FileSpec(
                unit.parent / f"{unit.name}.d/60-slipway.conf",
                conf.drop_in(wanted, self.ceiling()),
                effect=effect if restart else "daemon-reload",
            ),
        ]
        if wanted.instance:
            files.append(FileSpec(UNITS / "pgbouncer@.service", conf.instance_unit(OS_USER), effect="daemon-reload"))
        else:
            files.append(FileSpec(folder / "slipway-fixed.ini", None, effect="none"))
        names = frozenset(name.split(" ", 1)[0] for name in left)
        seen = replace(wanted, port=live.port) if live and "listen_port" in names else wanted
        return Transaction(
            name=_name(wanted),
            originals=True,
            directories=(DirectorySpec(folder),) if wanted.instance else (),
            files=tuple(files),
            units=(UnitSpec(wanted.unit),),
            # A certificate that was renewed is read by a reload.
            watches=tuple(map(Path, (wanted.tls.certificate, wanted.tls.key))) if wanted.tls else (),
            readback=tuple(conf.checks(seen, logins, names)),
        )

    def _converge(self, transaction: Transaction, check_mode: bool = False) -> Converged:
        try:
            return Converger(self.runner, self.clock, self.markers).run(transaction, check_mode)
        except ConvergeError as error:
            raise PoolerError(str(error)) from error

    def _raise(self, wanted: conf.Wanted, live: Optional[Live], check_mode: bool) -> str:
        """Give the running process the descriptors that it lacks, without a restart; what was done, or nothing."""
        if live is None or not _can_be_raised(wanted, live):
            return ""
        done = f"descriptors of process {live.pid}: {live.nofile[0]} -> {wanted.nofile}"
        if not check_mode:
            # As the user of the process: root in a container may lack the right that this user has over its own.
            argv = ["runuser", "-u", OS_USER, "--", "prlimit", f"--pid={live.pid}", f"--nofile={wanted.nofile}:"]
            result = self.runner.run(argv)
            if not result.ok:
                raise PoolerError(f"pgbouncer: nothing was changed; {done} failed: {result.text()}")
        return done

    def _clients(self, console: Optional[Console]) -> int:
        try:
            return console.clients().connected if console else 0
        except ConsoleError as error:
            raise PoolerError(f"pgbouncer: nothing was changed; {error}") from error

    @contextlib.contextmanager
    def _held(self, console: Console, waiting: Sequence[str]) -> Iterator[None]:
        """Clients wait meanwhile, none in the middle of a transaction; a timer lets them go on if this process dies."""
        hold = Hold(console, self.clock, RESUME_AFTER)
        try:
            hold.take(PAUSE_DEADLINE)
        except PauseFailed as error:
            what = ", ".join(waiting)
            raise PoolerError(f"pgbouncer: nothing was changed; {what} needs a restart, and {error}") from error
        except (ConsoleError, ArmingFailed) as error:
            raise PoolerError(f"pgbouncer: nothing was changed; {error}") from error
        try:
            yield
        finally:
            # The restarted one is not paused; one that came through a failure is. Until it is not, the timer goes on trying.
            with contextlib.suppress(ConsoleError):
                hold.release()

    def _restart(self, wanted: conf.Wanted) -> None:
        result = self.runner.run(["systemctl", "restart", "--", wanted.unit], timeout=180)
        if not result.ok:
            log = self.runner.run(["journalctl", "--unit", wanted.unit, "--lines=20", "--no-pager", "--output=cat"]).out
            raise PoolerError(f"pgbouncer: systemctl restart {wanted.unit} failed: {result.text()}\n{log.strip()}")

    def _after_restart(self, transaction: Transaction) -> tuple[str, ...]:
        deadline = self.clock.monotonic() + transaction.check_timeout
        while (seen := look(self.runner, transaction.readback)).mismatches and self.clock.monotonic() < deadline:
            self.clock.sleep(0.3)
        return seen.mismatches


def _name(wanted: conf.Wanted) -> str:
    return "-".join(filter(None, ("pgbouncer", wanted.instance)))


def _can_be_raised(wanted: conf.Wanted, live: Live) -> bool:
    soft, hard = live.nofile
    return bool(soft) and not at_least(soft, str(wanted.nofile)) and at_least(hard, str(wanted.nofile))


def pending(wanted: conf.Wanted, live: Live) -> tuple[str, ...]:
    """What differs from the running pooler and only a restart can change: `name (running -> declared)`."""
    declared, found = conf.settings(wanted), []
    for name, setting in sorted(live.config.items()):
        value = declared.get(name, setting.default)
        # What nobody declared and is at its default stays out: the default may be shown in another form.
        theirs = name in declared or setting.value != setting.default
        if theirs and not setting.changeable and not _same(name, setting.value, value):
            found.append(f"{name} ({setting.value} -> {value})")
    soft, hard = live.nofile
    if soft and not at_least(soft, str(wanted.nofile)) and not at_least(hard, str(wanted.nofile)):
        found.append(f"nofile ({soft} -> {wanted.nofile})")
    return tuple(found)


def _same(name: str, running: str, declared: str) -> bool:
    if name == "unix_socket_mode":
        # Written in octal, shown in decimal by 1.18.
        octal = int(declared, 8) if re.fullmatch(r"[0-7]+", declared) else -1
        return running in (declared, str(octal))
    return same_value(running, declared) or same_value(_number(running), _number(declared))


def _number(text: str) -> str:
    return {"on": "1", "yes": "1", "true": "1", "off": "0", "no": "0", "false": "0"}.get(text.lower(), text)
