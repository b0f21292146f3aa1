# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing Redis instances of a host to what is declared: tried on the real binary, changed live, restarted where it must be."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import ssl
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from ..health.wire import Place
from ..host import files as disk
from ..host.runner import CommandFailed, Runner
from . import manifest, redis, sandbox, sandboxed, taken
from .converge import ConvergeError, Converger, DirectorySpec, FileSpec, Outcome, Transaction, UnitSpec, plan
from .readback import look
from .redis import ADMIN, Instance, User
from .redis_client import Client, RedisError

PACKAGED = "redis-server.service"
PACKAGED_CONFIG = Path("/etc/redis/redis.conf")
PACKAGED_FILE = "/var/lib/slipway/redis/packaged"
BINARY = "/usr/bin/redis-server"


class RedisFailed(Exception):
    """Redis cannot be what was declared; the message names every reason and the state that the host is in."""


@dataclass
class Done:
    """What was, or in check mode would be, done."""

    outcomes: list[Outcome] = field(default_factory=list)
    live: dict[str, list[str]] = field(default_factory=dict)
    restarted: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """True when a file, a unit or a running server differs."""
        return any(outcome.changed for outcome in self.outcomes) or any(self.live.values())


class Server:
    """All instances of one host."""

    def __init__(self, runner: Runner, converger: Optional[Converger] = None, sandbox: bool = True) -> None:
        self.runner = runner
        self.converger = converger or Converger(runner)
        self.sandboxed = sandbox
        self.password = (disk.read_text(Path(redis.ADMIN_FILE)) or "").strip()

    def run(self, declared: Sequence[Instance], logins: Sequence[User], check_mode: bool = False) -> Done:
        """Raises RedisFailed before anything is changed, or ConvergeError with the old state back."""
        found = redis.problems(declared, logins)
        installed = Path(BINARY).exists()
        trials: dict[str, dict[str, str]] = {}
        password = self.password or secrets.token_hex(24)
        for one in declared if not found and installed else ():
            # In check mode it may not have been made yet.
            found += [] if check_mode and not Path(one.certificate).exists() else self._certificate(one)
            try:
                trials[one.name] = self._trial(one, logins, password)
            except RedisFailed as error:
                found.append(f"redis_instances {one.name}: {error}")
        if found:
            raise RedisFailed("Redis: nothing was changed:\n" + "\n".join(f"- {line}" for line in found))
        done = Done()
        self._take_over(done, check_mode)
        if not check_mode and not self.password:
            disk.make_directories(Path(redis.ADMIN_FILE).parent, 0o700)
            disk.atomic_write(Path(redis.ADMIN_FILE), password + "\n", 0o600)
            self.password = password
        done.outcomes.append(self.converger.run(self._host(declared), check_mode))
        self._forget(declared, check_mode)
        for one in declared:
            self._instance(one, logins, trials.get(one.name, {}), password, check_mode, done)
        return done

    def _admin(self, one: Instance) -> Client:
        return Client(Place(one.socket, unix=True), ADMIN, self.password)

    def _certificate(self, one: Instance) -> list[str]:
        if not one.certificate:
            return []
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(one.certificate, one.key)
        except (OSError, ssl.SSLError) as error:
            return [f"redis_instances {one.name}: {one.certificate} and {one.key} cannot be used together: {error}"]
        return []

    def _trial(self, one: Instance, logins: Sequence[User], password: str) -> dict[str, str]:
        """Start the server with this configuration, without network and data, and read what it makes of it."""
        account = pwd.getpwnam("redis")
        folder = Path(tempfile.mkdtemp(prefix="slipway-redis-", dir="/run"))
        try:
            config, acl, socket = folder / "redis.conf", folder / "users.acl", folder / "s"
            disk.atomic_write(config, redis.render(one, redis.TRIAL), 0o600)
            disk.atomic_write(acl, redis.render_acl(redis.rules(one.name, logins, password)), 0o600)
            for path in (folder, config, acl):
                os.chown(path, account.pw_uid, account.pw_gid)
            argv = ["runuser", "-u", "redis", "--", BINARY, str(config), "--port", "0", "--unixsocket", str(socket)]
            argv += ["--dir", str(folder), "--aclfile", str(acl), "--logfile", str(folder / "log")]
            argv += ["--pidfile", str(folder / "pid"), "--daemonize", "yes"]
            result = self.runner.run(argv, timeout=20)
            if not result.ok:
                raise RedisFailed("the server says " + _words(result.text() + (disk.read_text(folder / "log") or "")))
            try:
                with self._answering(Place(str(socket), unix=True), password) as client:
                    found = client.config()
                    # It ends without an answer.
                    with contextlib.suppress(OSError):
                        client.ask("SHUTDOWN", "NOSAVE")
            except (OSError, RedisError) as error:
                log = disk.read_text(folder / "log") or str(error)
                raise RedisFailed("the server says " + _words(log)) from None
            return {**{name: value for name, value in found.items() if name not in redis.TRIAL}, **redis.directives(one)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _answering(place: Place, password: str, seconds: float = 10.0) -> Client:
        """A connection to a server that has just been started; raises OSError or RedisError when it has none for `seconds`."""
        until = time.monotonic() + seconds
        while True:
            try:
                return Client(place, ADMIN, password)
            except OSError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.02)

    def let_go(self, check_mode: bool = False) -> Done:
        """Stop every instance, its data staying, and have the package's own one as it was; raises ConvergeError."""
        done = Done()
        host = self._host(())
        before = self.packaged()
        back = UnitSpec(PACKAGED, "enable" in before or None, "started" if "start" in before else "none")
        admin = FileSpec(Path(redis.ADMIN_FILE), None, effect="none", secret=True)
        units = tuple(unit for unit in host.units if unit.name != PACKAGED)
        # First its port is free.
        units += (back,) if Path(BINARY).exists() and before else ()
        done.outcomes.append(self.converger.run(replace(host, files=(*host.files, admin), units=units), check_mode))
        self._forget((), check_mode)
        if not check_mode:
            shutil.rmtree(Path(redis.ADMIN_FILE).parent, ignore_errors=True)
        return done

    def packaged(self) -> list[str]:
        """What gives the package's own instance back: `enable`, `start`, or nothing."""
        return (disk.read_text(Path(PACKAGED_FILE)) or "").split()

    def _take_over(self, done: Done, check_mode: bool) -> None:
        """Leave an instance of the package alone that somebody uses; keep how another one was, before it goes."""
        shown = self.runner.run(["systemctl", "show", "--property=ActiveState,UnitFileState", "--", PACKAGED]).out.split()
        running, enabled = "ActiveState=active" in shown, "UnitFileState=enabled" in shown
        if running:
            self._refuse_if_used()
        edited = taken.foreign([PACKAGED_CONFIG], taken.conffiles(disk.read_text(taken.PACKAGES) or "")) if running else []
        if edited:
            done.warnings.append(f"{PACKAGED} goes, and with it what was set in {PACKAGED_CONFIG}; declare an instance with it")
        if (running or enabled) and not check_mode:
            words = [*(["enable"] if enabled else []), *(["start"] if running else [])]
            disk.make_directories(Path(PACKAGED_FILE).parent, 0o700)
            disk.atomic_write(Path(PACKAGED_FILE), " ".join(words) + "\n", 0o600)

    @staticmethod
    def _refuse_if_used() -> None:
        """The package's own instance goes; one that somebody uses is left alone."""
        try:
            with Client(Place("127.0.0.1", 6379)) as client:
                used = bool([name for name in client.info("keyspace") if name.startswith("db")])
                used = used or int(client.info("clients").get("connected_clients", "1")) > 1
        except (OSError, RedisError):
            # It listens elsewhere, or asks for a password: somebody has set it up.
            used = True
        if used:
            raise RedisFailed(
                f"Redis: nothing was changed; {PACKAGED} is in use, and this role would stop it: it holds keys, has clients,"
                " asks for a password or does not answer on 127.0.0.1:6379. Move its data to a declared instance and empty it, or"
                f" run `systemctl disable --now {PACKAGED}`"
            )

    @staticmethod
    def _gone(declared: Sequence[Instance]) -> list[Instance]:
        """Instances of ours that are not declared any more, also those that an interrupted run has taken half away."""
        found = {
            path.name[len("redis-") : -len(".conf")]
            for path in Path(redis.FOLDER).glob("redis-*.conf")
            if (disk.read_text(path) or "").startswith(redis.HEADER)
        }
        found |= {path.name[len("redis-") : -len(".json")] for path in manifest.FOLDER.glob("redis-*.json")}
        return [Instance(name, "cache", 0, 0) for name in sorted(found - {one.name for one in declared})]

    def _forget(self, declared: Sequence[Instance], check_mode: bool) -> None:
        """Instances that have gone have no files that could be missed."""
        for one in self._gone(declared) if not check_mode else ():
            manifest.record(f"redis-{one.name}", ())

    def _host(self, declared: Sequence[Instance]) -> Transaction:
        """The package's instance and those that are no longer declared stop; their data stays."""
        gone = self._gone(declared)
        paths = [Path(path) for one in gone for path in (one.config, one.acl, one.drop_in, *one.tls)]
        paths += [sandboxed.path(one.unit) for one in gone]
        folders = [DirectorySpec(Path(one.drop_in).parent, present=False) for one in gone]
        return Transaction(
            name="redis",
            directories=tuple(folders),
            files=tuple(FileSpec(path, None, effect="none", secret=True) for path in paths),
            units=tuple(UnitSpec(unit, False, "stopped") for unit in (PACKAGED, *(one.unit for one in gone))),
        )

    def _files(self, one: Instance, logins: Sequence[User], password: str, restart: bool) -> tuple[FileSpec, ...]:
        effect = "restart" if restart else "none"
        acl = redis.render_acl(redis.rules(one.name, logins, password))
        found = [
            FileSpec(Path(one.config), redis.render(one), "root", "redis", 0o640, effect=effect),
            FileSpec(Path(one.acl), acl, "root", "redis", 0o640, effect=effect, secret=True),
            FileSpec(Path(one.drop_in), redis.render_unit(one), effect="restart"),
        ]
        for path, source in zip(one.tls, (one.certificate, one.key)):
            content = disk.read_text(Path(source)) if source else None
            if content is not None or not source:
                found.append(FileSpec(Path(path), content, "root", "redis", 0o640, effect=effect, secret=True))
        return tuple(found)

    def _instance(
        self, one: Instance, logins: Sequence[User], wanted: dict[str, str], password: str, check_mode: bool, done: Done
    ) -> None:
        live: dict[str, str] = {}
        with contextlib.suppress(OSError, RedisError), self._admin(one) as client:
            live = client.config()
        differs = {name: value for name, value, have in redis.config_mismatches(wanted, live) if have is not None} if live else {}
        before = {name: live[name] for name in differs if name in live}
        unit = UnitSpec(one.unit, True, "started")
        checks = tuple(redis.checks([one], logins))
        directory = DirectorySpec(Path(f"{redis.DATA}/{one.name}"), "redis", "redis", 0o750)

        # A running server gets it with its next start: a cache is not emptied for it.
        box, refused = sandboxed.file(self.runner, "redis", one.unit, "daemon-reload", self.sandboxed, not check_mode)
        done.warnings += [sandbox.warning(one.unit, refused)] if refused else []

        def transaction(restart: bool) -> Transaction:
            files = (*self._files(one, logins, password, restart), box)
            return Transaction(f"redis-{one.name}", (directory,), files, units=(unit,), readback=checks)

        if check_mode:
            done.live[one.name] = sorted(differs)
            done.outcomes.append(Converger(self.runner).run(transaction(False), True))
            return
        changes = plan(transaction(False)) if live else []
        certificate = any(str(change.path) in one.tls for change in changes)
        users = any(str(change.path) == one.acl for change in changes)
        # Users that somebody changed by hand: the file says what they are.
        astray = bool(live) and not users and any(_of_users(line) for line in look(self.runner, checks).mismatches)
        set_live = self._set(one, differs)
        left = set(differs) - set(set_live)
        restart = not live or bool(left) or any(change.effect == "restart" for change in changes)
        if live and restart:
            self._safe_to_restart(one)
        converger = Converger(self.runner, applied=lambda: self._reload(one, users or astray, certificate) if live else None)
        try:
            outcome = converger.run(transaction(restart))
            if left and not outcome.restarted:
                self.runner.must(["systemctl", "restart", "--", one.unit])
                outcome.restarted.append(one.unit)
                outcome.actions.append(f"restart {one.unit}")
            if astray:
                self._reload(one, users=True, certificate=False)
                set_live["users"] = ""
            self._prove(one, checks)
        except (ConvergeError, CommandFailed, OSError, RedisError) as error:
            self._set(one, {name: before[name] for name in set_live if name in before})
            raise error if isinstance(error, ConvergeError) else ConvergeError(f"redis-{one.name}: {error}") from error
        done.outcomes.append(outcome)
        done.live[one.name] = sorted(set_live)
        done.restarted += outcome.restarted
        done.warnings += outcome.seen.pending
        overcommit = (disk.read_text(Path("/proc/sys/vm/overcommit_memory")) or "1").strip()
        if one.purpose != "cache" and overcommit == "2":
            done.warnings.append(f"{one.unit}: vm.overcommit_memory is 2, so the fork that saves may be refused; set 1, or 0")

    def _prove(self, one: Instance, checks: Sequence[Mapping[str, Any]]) -> None:
        seen = look(self.runner, checks)
        if seen.mismatches:
            raise ConvergeError(f"redis-{one.name}: {seen}")

    def _set(self, one: Instance, values: dict[str, str]) -> dict[str, str]:
        """CONFIG SET all of `values` in one step, or else each that the running server takes; returns what it took."""
        if not values:
            return {}
        taken: dict[str, str] = {}
        with contextlib.suppress(OSError), self._admin(one) as client:
            try:
                client.ask("CONFIG", "SET", *(word for pair in values.items() for word in pair))
                return dict(values)
            except RedisError:
                pass
            for name, value in values.items():
                with contextlib.suppress(RedisError):
                    client.ask("CONFIG", "SET", name, value)
                    taken[name] = value
        return taken

    def _reload(self, one: Instance, users: bool, certificate: bool) -> None:
        with self._admin(one) as client:
            if users:
                client.ask("ACL", "LOAD")
            if certificate and one.certificate:
                client.ask("CONFIG", "SET", "tls-cert-file", one.tls[0], "tls-key-file", one.tls[1])

    def _safe_to_restart(self, one: Instance) -> None:
        """Wait until all acknowledged data is on its way to disk; the server syncs the rest when it is asked to end."""
        until = time.monotonic() + 60
        while True:
            with self._admin(one) as client:
                state = client.info("persistence")
            busy = "1" in (state.get("aof_rewrite_in_progress"), state.get("aof_rewrite_scheduled"))
            failed = state.get("aof_enabled") == "1" and "err" in (
                state.get("aof_last_write_status"),
                state.get("aof_last_bgrewrite_status"),
            )
            if not busy and not failed:
                return
            if failed or time.monotonic() > until:
                why = "its last write to the append-only file failed" if failed else "it still rewrites its append-only file"
                raise ConvergeError(
                    f"{one.unit} has to be restarted, and {why}, so that acknowledged data could be lost."
                    f" See `journalctl -u {one.unit}`; nothing was changed"
                )
            time.sleep(0.3)


def _of_users(mismatch: str) -> bool:
    return ": users" in mismatch or mismatch.startswith("login of")


def _words(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [
        line
        for line in lines
        if any(word in line for word in ("***", ">>>", "FATAL", "Bad ", "Error", "rror:", "argument", "must", "nvalid"))
    ]
    return " ".join(told[:6] or lines[-3:] or ["nothing"])[:600]
