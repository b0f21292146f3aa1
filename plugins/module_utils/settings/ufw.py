# SPDX-License-Identifier: GPL-3.0-or-later
"""ufw brought to a declared rule set in one go, without a moment in which SSH is closed.

While ufw runs, rules, policies and logging are replaced by one transaction of the kernel for each IP version. Only when
ufw's frame is missing (never started, IPv6 switched, flushed by hand, interrupted) its own ufw-init loads everything anew;
SSH is then held open by a rule of its own in front of all others, which goes when the work is done. A run that is killed
leaves that rule, and the next run finds the rest undone, because it compares with the kernel and not with files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ..guard.armed import Arming
from ..host import files as disk
from ..host.runner import CommandFailed, Runner
from ..host.session import ancestors as ancestors
from ..host.state import observe
from . import manifest
from . import ufw_compile as compiler
from . import ufw_kernel as kernel
from . import ufw_others as others
from .originals import Originals
from .ufw_model import Firewall, Session

MANIFEST = str(manifest.FOLDER).lstrip("/")
INIT = "/lib/ufw/ufw-init"
UNIT = "ufw.service"
WANTS = "etc/systemd/system/multi-user.target.wants/ufw.service"
"""The link by which ufw starts at boot."""
ORIGINALS = "var/lib/slipway/ufw/originals"
"""What stood in ufw's files before the first change."""


class UfwError(Exception):
    """The rule set could not be made effective; the message says where, why and what state the host is in now."""


@dataclass(frozen=True)
class Live:
    """What a host has: ufw's files by path below /, and the kernel's filter tables by IP version."""

    installed: bool
    files: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[int, kernel.Table] = field(default_factory=dict)
    at_boot: bool = False


@dataclass
class Outcome:
    """What has to be done, or was done."""

    files: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    reframe: bool = False
    before: str = ""
    after: str = ""
    actions: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """True when anything differs."""
        return bool(self.files or self.faults)


def session_of(environments: Iterable[Mapping[str, str]]) -> Session:
    """The SSH session in the first of `environments` that knows one (SSH_CONNECTION: client, port, server, port)."""
    for environment in environments:
        parts = environment.get("SSH_CONNECTION", "").split()
        if len(parts) == 4 and parts[3].isdigit():
            return Session(parts[0], int(parts[3]))
    return Session()


def wanted_files(firewall: Firewall, found: Mapping[str, str]) -> dict[str, str]:
    """The files of ufw as declared, in the order in which they are written: SSH's rule first, the switch for the boot last."""
    wanted = {}
    for family, suffix in ((4, ""), (6, "6")):
        after = f"etc/ufw/after{suffix}.rules"
        if family == 4 or firewall.ipv6:  # ufw empties user6.rules by itself while IPv6 is off
            wanted[f"etc/ufw/user{suffix}.rules"] = compiler.user_rules(firewall, family)
        wanted[after] = compiler.with_block(found.get(after, ""), compiler.container_block(firewall, family))
    wanted["etc/default/ufw"] = compiler.defaults_file(found.get("etc/default/ufw", ""), firewall)
    wanted["etc/ufw/ufw.conf"] = compiler.conf_file(found.get("etc/ufw/ufw.conf", ""), firewall)
    return wanted


def framed(files: Mapping[str, str], family: int) -> kernel.Table:
    """The chains that ufw-init loads from before.rules and after.rules, without the block of this collection."""
    suffix = "" if family == 4 else "6"
    texts = [files.get(f"etc/ufw/{name}{suffix}.rules", "") for name in ("before", "after")]
    table = kernel.parse("\n".join(compiler.with_block(text, "") for text in texts))
    return {name: chain for name, chain in table.items() if name != compiler.DOCKER_CHAIN}


def effective_faults(firewall: Firewall, live: Live) -> tuple[list[str], bool]:
    """What of the declared rule set the kernel does not have, and whether ufw's frame is among it."""
    faults: list[str] = []
    reframe = False
    for family, table in sorted(live.tables.items()):
        version, name = f"IPv{family}", compiler.prefix(family)
        if family == 6 and not firewall.ipv6:
            wanted = kernel.parse(compiler.closed_family())
            open_family = kernel.differing(wanted, table)
            open_family += [] if "-i lo -j ACCEPT" in table.get("INPUT", kernel.Chain()).rules else ["INPUT"]
            reframe = reframe or bool(open_family)
            faults += [f"{version} is switched off but chain {chain} is not closed" for chain in open_family]
            continue
        broken = kernel.frame_faults(table, name, framed(live.files, family))
        reframe = reframe or bool(broken)
        faults += [f"{version}: {fault}" for fault in broken]
        wanted = kernel.parse(compiler.transaction(firewall, family))
        faults += [f"{version}: chain {chain} differs" for chain in kernel.differing(wanted, table)]
        if firewall.close_containers and kernel.docker_unhooked(table):
            faults.append(f"{version}: Docker's rules come before chain {compiler.DOCKER_CHAIN}")
        faults += [f"{version}: chain {chain} still has the rule that held SSH open" for chain in kernel.guards(table)]
    if not live.tables:
        faults.append("no firewall is loaded")
        reframe = True
    return faults, reframe


def plan(firewall: Firewall, live: Live) -> Outcome:
    """What has to change on a host that is as `live`."""
    outcome = Outcome()
    wanted = wanted_files(firewall, live.files)
    if live.installed:
        outcome.files = {path: text for path, text in wanted.items() if live.files.get(path) != text}
    outcome.faults, outcome.reframe = effective_faults(firewall, live)
    if live.installed and not live.at_boot:
        outcome.faults.append(f"{UNIT} is not enabled at boot")
    outcome.before = _show(firewall, live, None, list(outcome.files))
    outcome.after = _show(firewall, live, wanted, list(outcome.files))
    return outcome


def _show(firewall: Firewall, live: Live, wanted: Optional[Mapping[str, str]], files: list[str]) -> str:
    """The effective rules with their comments; `wanted` None shows what is live, else what is declared."""
    lines = []
    tables: dict[int, kernel.Table] = {}
    for family in (4, 6):
        if wanted is None:
            tables[family] = live.tables.get(family, {})
        elif family == 4 or firewall.ipv6:
            tables[family] = kernel.parse(compiler.transaction(firewall, family))
        else:
            tables[family] = kernel.parse(compiler.closed_family())
        if wanted is not None and live.installed and family not in live.tables:
            continue
        suffix = "" if family == 4 else "6"
        source = (live.files if wanted is None else wanted).get(f"etc/ufw/user{suffix}.rules", "")
        notes = comments(source, family)
        for line in kernel.describe(tables[family], compiler.prefix(family)):
            note = notes.get(line.partition(": ")[2])
            lines.append(f"{line}  # {note}" if note else line)
    on = wanted is not None or active(tables)
    lines += [f"/{path}: {'other content' if wanted is None else 'as declared'}" for path in files]
    lines += [] if live.at_boot else [f"at boot: {'no' if wanted is None else 'yes'}"]
    return "\n".join([f"firewall: {'active' if on else 'inactive'}", *lines, ""])


def active(tables: Mapping[int, kernel.Table]) -> bool:
    """Whether ufw's rules are in force."""
    return any("-j ufw-before-input" in table.get("INPUT", kernel.Chain()).rules for table in tables.values())


def comments(text: str, family: int) -> dict[str, str]:
    """Canonical kernel rule to comment, from a file of user rules."""
    found: dict[str, str] = {}
    note = ""
    for line in text.splitlines():
        if line.startswith("### tuple ###"):
            code = line.partition(" comment=")[2].strip()
            try:
                note = bytes.fromhex(code).decode(errors="replace")
            except ValueError:
                note = ""
        elif line.startswith(f"-A {compiler.prefix(family)}-user-") and note:
            for chain in kernel.parse(line).values():
                found.update(dict.fromkeys(chain.rules, note))
        elif line.startswith("### END RULES"):
            break
    return found


class Ufw:
    """ufw of one host; `root` is / except in tests."""

    def __init__(self, runner: Runner, root: Path = Path("/")) -> None:
        self.runner = runner
        self.root = root
        self.originals = Originals(root / ORIGINALS).load()

    def observe(self) -> Live:
        """Read ufw's files and the kernel; works on a host without ufw too."""
        names = ("before", "before6", "after", "after6", "user", "user6")
        paths = ["etc/default/ufw", "etc/ufw/ufw.conf", *(f"etc/ufw/{name}.rules" for name in names)]
        texts = {path: disk.read_text(self.root / path) for path in paths}
        files = {path: text for path, text in texts.items() if text is not None}
        installed = (self.root / INIT.lstrip("/")).exists()
        tables = {}
        for family in (4, 6):
            saved = self.runner.run([f"{compiler.executable(family)}-save", "-t", "filter"])
            if saved.ok:
                tables[family] = kernel.parse(saved.out)
        at_boot = installed and self.runner.run(["systemctl", "is-enabled", UNIT]).out.strip() == "enabled"
        return Live(installed, files, tables, at_boot)

    def apply(
        self, firewall: Firewall, ssh_ports: Iterable[int], check_mode: bool = False, arming: Optional[Arming] = None
    ) -> Outcome:
        """Bring the host to `firewall`; raises UfwError after having brought the old state back.

        With `arming` the change is armed and not confirmed when this returns; raises TakenBack too then, and what arming does.
        """
        live = self.observe()
        outcome = plan(firewall, live)
        first = active(live.tables) and not self.originals.files
        packaged = {name: disk.read_text(self.root / others.PACKAGED / name) for name in others.FRAMES}
        known = {name: text for name, text in packaged.items() if text is not None}
        outcome.words = others.words(first, outcome.before, outcome.after, live.files, known)
        if check_mode:
            return outcome
        self._change(firewall, live, outcome, ssh_ports, arming)
        if live.installed:
            files = wanted_files(firewall, live.files)
            manifest.record("ufw", [(Path(f"/{path}"), observe(self.root / path)) for path in files], self.root / MANIFEST)
        return outcome

    def _change(
        self, firewall: Firewall, live: Live, outcome: Outcome, ssh_ports: Iterable[int], arming: Optional[Arming]
    ) -> None:
        if not outcome.changed:
            return
        if not live.installed:
            raise UfwError("ufw is not installed; install the package ufw first (role slipway.server.ufw does)")
        self._test(firewall, live)
        first = not self.originals.files
        self._keep(live, outcome)
        old = {path: live.files.get(path) for path in outcome.files}
        running = active(live.tables)

        def change() -> None:
            try:
                for path, text in outcome.files.items():
                    self._write(path, text)
                self._load(firewall, outcome, list(ssh_ports))
                self._prove(firewall)
            except Exception as error:
                self._restore(old, live, list(ssh_ports))
                if first:
                    self.originals.forget_all()
                raise UfwError(f"{error}\nThe old rules and files are back.") from error

        if arming is None or (running and not outcome.files):  # what was changed by hand in the kernel only cannot come back
            change()
        else:
            back = [INIT, "force-reload"] if running else [INIT, "force-stop"]
            paths = [
                *(self.root / path for path in outcome.files),
                self.root / WANTS,
                manifest.place("ufw", self.root / MANIFEST),
            ]
            arming.carry(change, paths, [back])

    def _keep(self, live: Live, outcome: Outcome) -> None:
        if not live.at_boot:
            self.originals.units.setdefault(UNIT, ["enable"])
        self.originals.keep(self.root / path for path in outcome.files)

    def _prove(self, firewall: Firewall) -> None:
        """Read the kernel and ask ufw whether it understands its files; raises UfwError."""
        faults, _reframe = effective_faults(firewall, self.observe())
        if faults:
            raise UfwError("these did not become effective: " + "; ".join(faults))
        self.runner.must(["ufw", "status"])

    def _write(self, path: str, text: str) -> None:
        mode = 0o644 if path in ("etc/default/ufw", "etc/ufw/ufw.conf") else 0o640
        disk.atomic_write(self.root / path, text, mode, 0, 0)

    def _test(self, firewall: Firewall, live: Live) -> None:
        """Have iptables-restore compile every table before anything is touched."""
        for family in live.tables:
            program = f"{compiler.executable(family)}-restore"
            tested = self.runner.run([program, "--test", "--noflush"], data=compiler.transaction(firewall, family))
            if not tested.ok:
                raise UfwError(f"{program} refuses the rule set, nothing was changed: {tested.text()}")

    def _load(self, firewall: Firewall, outcome: Outcome, ssh_ports: list[int]) -> None:
        if outcome.reframe:
            self._reload(ssh_ports, outcome)
        live = self.observe()
        for family, table in sorted(live.tables.items()):
            if family == 6 and not firewall.ipv6:
                continue
            program = compiler.executable(family)
            wanted = kernel.parse(compiler.transaction(firewall, family))
            if kernel.differing(wanted, table):
                self.runner.must([f"{program}-restore", "--noflush"], data=compiler.transaction(firewall, family))
                outcome.actions.append(f"{program}-restore")
            if firewall.close_containers and kernel.docker_unhooked(table):
                jump = ["-j", compiler.DOCKER_CHAIN]
                forward = table["FORWARD"].rules
                self.runner.must([program, "-I", "FORWARD", "1", *jump])
                if " ".join(jump) in forward:  # the later one, now one place further down
                    self.runner.must([program, "-D", "FORWARD", str(forward.index(" ".join(jump)) + 2)])
                outcome.actions.append(f"{program} -I FORWARD")
        self.unguard()
        if not live.at_boot:
            self.runner.must(["systemctl", "enable", UNIT])
        if not self.runner.run(["systemctl", "is-active", "--quiet", UNIT]).ok:
            self.runner.must(["systemctl", "start", UNIT])

    def _reload(self, ssh_ports: list[int], outcome: Optional[Outcome]) -> None:
        self.guard(ssh_ports)
        self.runner.must([INIT, "force-reload"])
        if outcome is not None:
            outcome.actions.append("ufw-init force-reload")
        self.unguard()

    def guard(self, ports: list[int]) -> None:
        """Hold SSH open by rules in front of all others."""
        for program in self._programs():
            for port in ports:
                for chain, side in (("INPUT", "--dport"), ("OUTPUT", "--sport")):
                    rule = ["-p", "tcp", side, str(port), "-m", "comment", "--comment", kernel.GUARD, "-j", "ACCEPT"]
                    self.runner.must([program, "-I", chain, "1", *rule])

    def unguard(self) -> None:
        """Take away guard rules, those of an interrupted run too. They are always in front."""
        for program in self._programs():
            listed = self.runner.run([program, "-S"]).out.splitlines()
            for line in listed:
                if kernel.GUARD in line:
                    chain = line.split()[1]
                    self.runner.run([program, "-D", chain, *line.split()[2:]])

    def _programs(self) -> list[str]:
        return [compiler.executable(f) for f in (4, 6) if self.runner.run([compiler.executable(f), "-S", "INPUT"]).ok]

    def _restore(self, old: Mapping[str, Optional[str]], live: Live, ssh_ports: list[int]) -> None:
        for path, text in old.items():
            if text is None:
                disk.remove(self.root / path)
            else:
                self._write(path, text)
        try:
            if active(live.tables):
                self._reload(ssh_ports, None)
            else:
                self.guard(ssh_ports)
                self.runner.run([INIT, "force-stop"])
                self.unguard()
        except CommandFailed as error:
            raise UfwError(f"the old rules could not be loaded ({error}); SSH is held open by a rule of its own") from error
