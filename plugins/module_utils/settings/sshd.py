# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH server brought to a policy, without a moment in which the operator could be cut off for good.

First sshd judges the new configuration in a folder of its own, and the connecting user's way in is looked for in it. Only then
is the change armed (guard), applied, and looked at: in `sshd -T`, and in what the server offers on every port. Whoever called has
to confirm it over a fresh connection; else the host takes it back.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from ..guard.armed import Arming
from ..host import files as disk
from ..host.clock import Clock, parse_time
from ..host.runner import Runner
from ..host.session import Login
from . import manifest
from . import sshd_accounts as accounts
from . import sshd_policy as policies
from . import sshd_stage as staging
from . import sshd_wire as wire
from .converge import Change, DirectorySpec, FileSpec, Outcome, State, Transaction, observe, plan, put, remember
from .sshd_access import Account, KeyFile, problems
from .sshd_policy import Policy, SshdError

NAME = "sshd"
DROPIN = staging.FOLDER / "sshd_config.d/00-slipway.conf"
BESIDE = staging.FOLDER / "slipway.conf"
INCLUDE = f"Include {BESIDE}\n"
BANNER = staging.FOLDER / "slipway_banner"
MODULI = staging.FOLDER / "slipway_moduli"
RSA_KEY = staging.FOLDER / "slipway_host_rsa_key"
SOCKET_DROPIN = Path("/etc/systemd/system/ssh.socket.d/60-slipway.conf")
GENERATOR = Path("/usr/lib/systemd/system-generators/sshd-socket-generator")
UNIT, SOCKET = "ssh.service", "ssh.socket"
LOG = ("sshd", "sshd-session", "sshd-auth")
"""Names under which it logs; the later ones since OpenSSH 9.8."""
LEAST_RSA_HOST_KEY = 4096
ACCESS = ("allowusers", "allowgroups", "permitrootlogin", "pubkeyauthentication", "authorizedkeysfile")


@dataclass
class Done:
    """What was, or in check mode would be, done."""

    changes: list[Change] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """True when anything differs."""
        return bool(self.changes or self.actions)

    def diff(self) -> list[dict[str, str]]:
        """One entry for each file, moduli in one line."""
        shown = []
        for change in self.changes:
            if change.path == MODULI:
                before, after = (replace(s, content=f"{s.content.count(chr(10))} lines\n") for s in (change.before, change.after))
                change = replace(change, before=before, after=after)
            shown.append(change)
        entries = Outcome(changes=shown).diff()
        if self.actions:
            entries.append(
                {"before_header": "actions", "after_header": "actions", "before": "", "after": "\n".join([*self.actions, ""])}
            )
        return entries


@dataclass(frozen=True)
class Wish:
    """The files of one run, and the texts that sshd reads among them."""

    directories: tuple[DirectorySpec, ...]
    files: tuple[FileSpec, ...]
    keywords: Mapping[str, Sequence[str]]
    steps: tuple[accounts.Step, ...]
    removals: tuple[accounts.Step, ...]

    @property
    def dropin(self) -> Path:
        """Where the settings stand."""
        return next((spec.path for spec in self.files if spec.path in (DROPIN, BESIDE) and spec.content is not None), DROPIN)

    def texts(self) -> dict[Path, Optional[str]]:
        """What sshd or the check of access would read."""
        return {spec.path: spec.content for spec in self.files}


class Sshd:
    """sshd of this host."""

    def __init__(self, runner: Runner, connection: Login, clock: Optional[Clock] = None) -> None:
        self.runner = runner
        self.connection = connection
        self.clock = clock or Clock()
        self.by_socket = self._active(SOCKET)

    def converge(
        self,
        policy: Optional[Policy],
        users: Sequence[accounts.User] = (),
        arming: Optional[Arming] = None,
    ) -> Done:
        """Bring the host to `policy` (None: as it was before) and `users`; only tells what would be done without `arming`.

        A change of files is armed and not confirmed when this returns. Raises SshdError, TakenBack, and what arming does.
        """
        faults = accounts.check(users)
        if self.connection.user in [user.name for user in users if not user.present]:
            faults.append(f"sshd_users: this run is connected as {self.connection.user}, which would be removed")
        if faults:
            raise SshdError("refused, nothing was changed:\n" + "\n".join(f"- {fault}" for fault in faults))
        with tempfile.TemporaryDirectory(prefix="slipway-sshd-") as name:
            stage = Path(name)
            done, kept = Done(), policy and self._keep_port(policy)
            wish = self._wish(kept, users, stage, bool(arming))
            if policy and kept and kept.ports != policy.ports:
                done.warnings.append(
                    f"port {self.connection.port} stays open, because this run is connected to it. Set ansible_port to"
                    f" {policy.ports[0]}; the next run closes the old one"
                )
            done.changes = plan(Transaction(NAME, directories=wish.directories, files=wish.files))
            folder = SOCKET_DROPIN.parent
            if (
                any(change.path == SOCKET_DROPIN and change.after.kind == "absent" for change in done.changes)
                and len(list(folder.iterdir())) == 1
            ):
                done.changes.append(Change(folder, observe(folder), State(), "none"))
            done.actions = [step.says for step in (*wish.steps, *wish.removals)]
            effective: Mapping[str, list[str]] = {}
            if done.changes:
                effective = self._judge(wish, kept, stage)
                accounts.validate_sudo(self.runner, [spec for spec in wish.files if self._differs(spec, done)], stage)
            elif kept:
                effective = self._refuse_lost_settings(wish)
            done.ports = self._ports(kept, effective) if kept else []
            news = bool(kept) and not done.changes and self._stale(wish)
            if news:
                done.actions.append("sshd reads its configuration anew")
            if done.changed and arming:
                self._carry_out(done, wish, kept, arming, news)
            elif kept and arming:
                self._see(wish, kept, effective)
            if arming:
                remember(Transaction(NAME, directories=wish.directories, files=wish.files))
            return done

    def verify(self, policy: Policy) -> list[int]:
        """Read everything back, changing nothing; the ports. Raises SshdError with all that is not as declared."""
        kept = self._keep_port(policy)
        with tempfile.TemporaryDirectory(prefix="slipway-sshd-") as name:
            wish = self._wish(kept, (), Path(name), False)
            differing = [str(change.path) for change in plan(Transaction(NAME, files=wish.files))]
        if differing:
            raise SshdError(f"not as declared: {', '.join(differing)}; run the role")
        effective = self._refuse_lost_settings(wish)
        self._see(wish, kept, effective)
        return self._ports(kept, effective)

    # What is wanted

    def _keep_port(self, policy: Policy) -> Policy:
        """A port that this run uses is never closed by it."""
        port = self.connection.port
        return policy if not port or not policy.ports or port in policy.ports else replace(policy, ports=(*policy.ports, port))

    def _ports(self, policy: Policy, effective: Mapping[str, list[str]]) -> list[int]:
        """The declared ports, or those that sshd has."""
        if policy.ports:
            return list(policy.ports)
        if self.by_socket and not GENERATOR.exists():
            return [self.connection.port or 22]
        return sorted({int(port) for port in effective.get("port", ["22"])})

    def _wish(self, policy: Optional[Policy], users: Sequence[accounts.User], stage: Path, making: bool) -> Wish:
        shadow = (disk.read_text(Path("/etc/shadow")) or "") if users else ""
        folders, files = accounts.files(users, shadow)
        found = {user.name: accounts.observe(user.name, shadow) for user in users}
        groups = [entry.gr_name for entry in grp.getgrall()] if users else []
        steps = [step for user in users for step in accounts.steps(user, found[user.name], groups)]
        removals = [step for user in users for step in accounts.removal(user, found[user.name])]
        main = disk.read_text(staging.MAIN)
        if main is None:
            raise SshdError(f"{staging.MAIN} does not exist; install openssh-server")
        plain = main[len(INCLUDE) :] if main.startswith(INCLUDE) else main
        if policy is None:
            own = (DROPIN, BESIDE, BANNER, MODULI, RSA_KEY, Path(f"{RSA_KEY}.pub"), SOCKET_DROPIN)
            specs = [FileSpec(path, None, secret=path == RSA_KEY) for path in own]
            specs += [self._like(staging.MAIN, plain)]
            return Wish(tuple(folders), (*specs, *files), {}, tuple(steps), tuple(removals))
        known = self._known()
        keys, key_files = self._host_keys(stage, making)
        keywords = policies.keywords(policy, known, keys, str(BANNER), str(MODULI))
        text, first = policies.render(keywords), staging.includes_first(plain, DROPIN)
        specs = [
            # Without an Include that comes first, the settings stand beside, and the first line of the main file reads them.
            FileSpec(DROPIN, text if first else None, mode=0o600),
            FileSpec(BESIDE, None if first else text, mode=0o600),
            self._like(staging.MAIN, plain if first else INCLUDE + plain),
            FileSpec(BANNER, f"{policy.banner.rstrip()}\n" if policy.banner else None),
            FileSpec(MODULI, policies.moduli(disk.read_text(staging.FOLDER / "moduli") or "")),
            FileSpec(SOCKET_DROPIN, self._listen(policy)),
            *key_files,
        ]
        return Wish(tuple(folders), (*specs, *files), keywords, tuple(steps), tuple(removals))

    @staticmethod
    def _like(path: Path, text: str) -> FileSpec:
        """`text` at `path`, with the owner and mode that it has."""
        state = observe(path)
        return FileSpec(path, text, state.owner, state.group, state.mode)

    def _listen(self, policy: Policy) -> Optional[str]:
        if not self.by_socket or GENERATOR.exists() or policy.ports in ((), (22,)):
            return None
        lines = "".join(f"ListenStream={port}\n" for port in policy.ports)
        return f"# Managed by Ansible: slipway.server.sshd\n[Socket]\nListenStream=\n{lines}"

    def _known(self) -> policies.Known:
        alone = Path(os.devnull)
        asked = {query: self.runner.run(["ssh", "-Q", query]).out.split() for query in sorted(set(policies.QUERIES.values()))}
        return policies.Known(frozenset(staging.effective(self.runner, alone)), asked)

    def _host_keys(self, stage: Path, making: bool) -> tuple[list[str], list[FileSpec]]:
        """The keys to use, and those that have to be made: ed25519, and RSA with enough bits, which takes a while."""
        paths, specs = [], []
        for kind, candidates in (
            ("ed25519", (staging.FOLDER / "ssh_host_ed25519_key",)),
            ("rsa", (staging.FOLDER / "ssh_host_rsa_key", RSA_KEY)),
        ):
            good = [path for path in candidates if self._good(path, kind)]
            path = good[0] if good else candidates[-1]
            paths.append(str(path))
            if not good and kind == "rsa" and not making:
                specs.append(FileSpec(path, "made by the run\n", mode=0o600, secret=True))
            elif not good:
                made = stage / path.name
                bits = ["-b", str(LEAST_RSA_HOST_KEY)] if kind == "rsa" else []
                self.runner.must(
                    ["ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", f"root@{socket.gethostname()}", "-f", str(made)]
                )
                specs.append(FileSpec(path, disk.read_text(made), mode=0o600, secret=True))
                specs.append(FileSpec(Path(f"{path}.pub"), disk.read_text(Path(f"{made}.pub"))))
        return paths, specs

    def _good(self, path: Path, kind: str) -> bool:
        asked = self.runner.run(["ssh-keygen", "-l", "-f", str(path)])
        bits = asked.out.split()[:1]
        return asked.ok and path.exists() and (kind != "rsa" or (bits != [] and int(bits[0]) >= LEAST_RSA_HOST_KEY))

    # What sshd would make of it

    def _judge(self, wish: Wish, policy: Optional[Policy], stage: Path) -> Mapping[str, list[str]]:
        """What sshd would make of it; refuses what it would not take or read otherwise, or what keeps the connecting user out."""
        staged = {path: text and self._staged_keys(text, stage) for path, text in wish.texts().items()}
        main = staging.build(stage, staged)
        hidden = str(stage)
        try:
            together = staging.effective(self.runner, main, stage=hidden)
            alone = staging.effective(self.runner, stage / wish.dropin.relative_to("/"), stage=hidden) if policy else {}
        except SshdError as error:
            raise SshdError(f"sshd would not start with this configuration, nothing was changed:\n{error}") from error
        faults = self._unbindable(together)
        if policy:
            faults += self._lost(wish, alone, together)
        account = self._account()
        if account is not None:
            who = f"user={account.name},host={account.address},addr={account.address}"
            effective = staging.effective(self.runner, main, who, hidden)
            faults += problems(account, effective, Looker(wish.texts()))
        if faults:
            raise SshdError("refused, nothing was changed:\n" + "\n".join(f"- {fault}" for fault in faults))
        return together

    @staticmethod
    def _staged_keys(text: str, stage: Path) -> str:
        for path in (RSA_KEY, staging.FOLDER / "ssh_host_ed25519_key"):
            if (stage / path.name).exists():
                text = text.replace(f"HostKey {path}\n", f"HostKey {stage}/{path.name}\n")
        return text

    def _lost(self, wish: Wish, alone: Mapping[str, list[str]], together: Mapping[str, list[str]]) -> list[str]:
        faults = []
        for keyword in policies.differing(wish.keywords, alone, together):
            where = staging.places(keyword, wish.texts())
            has, wanted = ", ".join(together.get(keyword, ["nothing"])), ", ".join(alone.get(keyword, ["nothing"]))
            source = f" because of {'; '.join(where)}. Remove that line" if where else ""
            faults.append(f"{keyword} would be {has} instead of {wanted}{source}")
        return faults

    def _refuse_lost_settings(self, wish: Wish) -> Mapping[str, list[str]]:
        together = staging.effective(self.runner)
        faults = self._lost(wish, staging.effective(self.runner, wish.dropin), together)
        if faults:
            raise SshdError("settings are not effective:\n" + "\n".join(f"- {fault}" for fault in faults))
        return together

    @staticmethod
    def _unbindable(effective: Mapping[str, list[str]]) -> list[str]:
        faults = []
        for address, _port in listens(effective):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            try:
                with socket.socket(family, socket.SOCK_STREAM) as trial:
                    trial.bind((address, 0))
            except OSError as error:
                if address not in ("::", "0.0.0.0"):  # a host without IPv6 goes without
                    faults.append(f"sshd could not listen on {address} ({error}); correct ListenAddress")
        return faults

    # Who is connected

    def _account(self) -> Optional[Account]:
        if not self.connection.user:
            return None
        try:
            entry = pwd.getpwnam(self.connection.user)
        except KeyError:
            return None
        gids = os.getgrouplist(entry.pw_name, entry.pw_gid)
        names = tuple(group.gr_name for group in grp.getgrall() if group.gr_gid in gids)
        return Account(entry.pw_name, entry.pw_uid, entry.pw_dir, names, self.connection.address)

    # Doing it

    def _carry_out(self, done: Done, wish: Wish, policy: Optional[Policy], arming: Arming, news: bool) -> None:
        def change() -> None:
            for item in done.changes:
                put(item.path, item.after)
            if done.changes:
                self.runner.must([staging.SSHD, "-t"])
            if news or any(item.effect != "none" for item in done.changes):
                self._tell()
            if policy:
                self._wait_for(wish, policy)

        for step in wish.steps:
            self.runner.must(step.argv, data=step.data)
        removals = [step.argv for step in wish.removals]
        if done.changes:
            paths = [*(item.path for item in done.changes), manifest.place(NAME)]
            arming.carry(change, paths, self._back(), removals)
            return
        change()
        for argv in removals:
            self.runner.must(argv)

    def _tell(self) -> None:
        if self.by_socket:
            self.runner.must(["systemctl", "daemon-reload"])
            self.runner.must(["systemctl", "stop", UNIT])
            self.runner.must(["systemctl", "restart", SOCKET])
        else:
            self.runner.must(["systemctl", "reload" if self._active(UNIT) else "start", UNIT])

    def _back(self) -> list[list[str]]:
        if self.by_socket:
            steps = [["daemon-reload"], ["stop", UNIT], ["restart", SOCKET]]
        else:
            steps = [["reset-failed", UNIT], ["reload-or-restart", UNIT]]
        return [["systemctl", *step] for step in steps]

    def _active(self, unit: str) -> bool:
        return self.runner.run(["systemctl", "is-active", "--quiet", unit]).ok

    def _stale(self, wish: Wish) -> bool:
        """True when the settings changed after sshd was last started or told."""
        if self.by_socket:
            return False
        shown = self.runner.run(["systemctl", "show", "--timestamp=us+utc", "--property=StateChangeTimestamp", UNIT]).out
        since = parse_time(shown.strip().partition("=")[2])
        return 0 < since < max(path.stat().st_ctime for path in (wish.dropin, staging.MAIN))

    # Looking at it

    def _wait_for(self, wish: Wish, policy: Policy, seconds: float = 8.0) -> None:
        deadline = self.clock.monotonic() + seconds
        while True:
            try:
                return self._see(wish, policy, self._refuse_lost_settings(wish))
            except SshdError:
                if self.clock.monotonic() >= deadline:
                    raise
            self.clock.sleep(0.3)

    def _see(self, wish: Wish, policy: Policy, effective: Mapping[str, list[str]]) -> None:
        """Ask the server on every port what it offers."""
        wanted = {key.lower(): set(",".join(given).split(",")) for key, given in wish.keywords.items()}
        open_at = listens(effective)
        for port in self._ports(policy, effective):
            addresses = [address for address, number in open_at if number == port] or ["0.0.0.0"]
            offer = self._ask(addresses, port)
            for what, names in (("kexalgorithms", offer.kex), ("ciphers", offer.ciphers), ("macs", offer.macs)):
                if what in wanted and set(names) != wanted[what]:
                    raise SshdError(f"sshd at port {port} still offers other {what}: {', '.join(names)}; systemctl reload {UNIT}")
            others = set(offer.host_keys) - wanted.get("hostkeyalgorithms", set(offer.host_keys))
            if others:
                raise SshdError(f"sshd at port {port} still shows host keys of type {', '.join(sorted(others))}")

    @staticmethod
    def _ask(addresses: Sequence[str], port: int) -> wire.Offer:
        said = []
        for address in addresses:
            try:
                return wire.ask({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), port)
            except OSError as error:
                said.append(f"{address}: {error}")
        raise SshdError(f"no SSH server answers at port {port} ({'; '.join(said)})")

    @staticmethod
    def _differs(spec: FileSpec, done: Done) -> bool:
        return any(change.path == spec.path for change in done.changes)


class Looker:
    """Finds files of keys as they will be: those of the run first, then those of the disk."""

    def __init__(self, texts: Mapping[Path, Optional[str]]) -> None:
        self.texts = texts

    def __call__(self, path: Path, account: Account) -> Optional[KeyFile]:
        """The file at `path`, or None; with StrictModes' objection (sshd(8), FILES)."""
        if path in self.texts:
            text = self.texts[path]
            return None if text is None else KeyFile(text, self._fault(path.parent, account))
        text = disk.read_text(path) if path.is_file() else None
        return None if text is None else KeyFile(text, self._fault(path, account))

    @staticmethod
    def _fault(path: Path, account: Account) -> str:
        home = Path(account.home)
        while path.exists():
            status = path.stat()
            if status.st_uid not in (0, account.uid):
                return f"{path} belongs to somebody else; chown it to {account.name}"
            if stat.S_IMODE(status.st_mode) & 0o022:
                return f"{path} can be written by others; chmod go-w"
            if path in (home, path.parent):
                break
            path = path.parent
        return ""


def listens(effective: Mapping[str, list[str]]) -> list[tuple[str, int]]:
    """Addresses and ports of `listenaddress` in the output of `sshd -T`."""
    found = []
    for value in effective.get("listenaddress", []):
        address, _colon, port = value.rpartition(":")
        found.append((address.strip("[]"), int(port)))
    return found
