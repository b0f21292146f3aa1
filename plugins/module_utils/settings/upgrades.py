# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages that maintenance brings up, and what still runs as it was before: old programs, old libraries, old unit files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..host import files as disk
from ..host.clock import parse_time
from ..host.preflight import unit_of
from ..host.runner import Result, Runner
from .packages import APT, APT_ENVIRONMENT, PackageError

KERNEL = r"linux-(image|headers|modules)-"
UNIT = "slipway-upgrade"
POLICY = Path("/usr/sbin/policy-rc.d")
# Packages may not restart services by themselves: that is done here, later, in a better moment. Only while the unit runs.
POLICY_TEXT = f"""#!/bin/sh
# Written by slipway.server for the time of an upgrade.
[ "$(systemctl show --property=ActiveState --value {UNIT}.service)" = inactive ] && exit 0
exit 101
"""
REBOOT = Path("/run/reboot-required")
LINE = re.compile(r"^Inst (\S+) (?:\[([^\]]+)\] )?\((\S+) ?([^)\[]*)", re.MULTILINE)
STAYS = ("dbus", "systemd-logind", "user@", "getty@", "serial-getty@", "console-getty", "networking", "systemd-networkd", "ifup@")
"""Beginnings of units that nobody restarts on a running host."""
OWN_PROGRAMS = {"docker.service": "dockerd", "containerd.service": "containerd"}
"""Units whose other processes belong to containers, which go on when the unit is restarted."""
MANAGER = "init.scope"
PROPERTIES = "Id,Type,ActiveState,FragmentPath,DropInPaths,ExecMainStartTimestamp"
LIBRARY = re.compile(r"(/(?:usr/)?(?:lib|bin|sbin|libexec)[^ ]*) \(deleted\)$")


class Upgrade(NamedTuple):
    """A package with the installed version (empty for a new one), the one that would be installed, and where it comes from."""

    name: str
    old: str
    new: str
    origin: str


@dataclass(frozen=True)
class Waiting:
    """A unit whose process runs with what is no longer there, or with a unit file from before."""

    unit: str
    kind: str
    why: str


@dataclass(frozen=True)
class Report:
    """What there is to do on a host. `reboot`: why the host itself waits for a restart, empty when it does not."""

    upgrades: tuple[Upgrade, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    reboot: str = ""

    @property
    def idle(self) -> bool:
        """True when there is nothing to do."""
        return not (self.upgrades or self.waiting or self.reboot)

    @property
    def work(self) -> bool:
        """True when there is something to do without a restart of the host."""
        return bool(self.upgrades or [one for one in self.waiting if one.kind != "host"])

    def lines(self) -> list[str]:
        """For a person."""
        found = [f"{one.name} {one.old or '(new)'} -> {one.new}" for one in self.upgrades]
        found += [f"{one.unit} waits for a restart: {one.why}" for one in self.waiting]
        return found + ([f"the host waits for a restart: {self.reboot}"] if self.reboot else [])


def simulated(text: str) -> tuple[Upgrade, ...]:
    """What `apt-get --simulate` would install."""
    return tuple(Upgrade(name, old or "", new, origin.strip()) for name, old, new, origin in LINE.findall(text))


def chosen(upgrades: Iterable[Upgrade], hold: Sequence[str]) -> tuple[Upgrade, ...]:
    """Those that unattended upgrades leave alone by `hold`, and kernels, which want a restart of the host."""
    return tuple(one for one in upgrades if any(re.match(pattern, one.name) for pattern in (*hold, KERNEL)))


def kind(unit: str, apps: Sequence[str]) -> str:
    """How a unit is restarted."""
    name = unit.rsplit(".", 1)[0]
    if unit == MANAGER:
        return "manager"
    if unit.startswith(STAYS):
        return "host"
    if name in ("docker", "containerd"):
        return "docker"
    for known in ("nginx", "postgresql", "pgbouncer"):
        if name == known or name.startswith(f"{known}@"):
            return known
    if any(name.startswith(f"{app}@") or re.match(rf"{re.escape(app)}-.+@", name) for app in apps):
        return "app"
    return "service"


def outdated(proc: Path = Path("/proc")) -> dict[str, str]:
    """Service to why: one of its processes uses a program or a library whose file was replaced."""
    found: dict[str, str] = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            unit = unit_of((folder / "cgroup").read_text(encoding="utf-8", errors="replace"))
            own = OWN_PROGRAMS.get(unit)
            unit = MANAGER if folder.name == "1" else unit
            if not (unit.endswith(".service") or folder.name == "1") or unit in found:
                continue
            if own and (folder / "comm").read_text(encoding="utf-8").strip() != own:
                continue
            gone = _replaced(folder)
            if gone:
                found[unit] = f"{gone} was replaced"
    return found


def _replaced(folder: Path) -> str:
    match = LIBRARY.match(os.readlink(folder / "exe"))
    if match:
        return match.group(1).replace(".dpkg-tmp", "")
    for line in (folder / "maps").read_text(encoding="utf-8", errors="replace").splitlines():
        parts = line.split(None, 5)
        match = LIBRARY.match(parts[5]) if len(parts) == 6 else None
        if match and ".so" in match.group(1):
            return match.group(1).replace(".dpkg-tmp", "")
    return ""


def refreshed(listing: str) -> dict[str, str]:
    """Service to why: a file of it below /etc is newer than its process, from `systemctl show --property=…`."""
    found: dict[str, str] = {}
    for block in listing.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        started = parse_time(values.get("ExecMainStartTimestamp", ""))
        if values.get("ActiveState") != "active" or values.get("Type") == "oneshot" or not started:
            continue
        for name in (values.get("FragmentPath", ""), *values.get("DropInPaths", "").split()):
            if name.startswith("/etc/") and _changed_at(Path(name)) > started:
                found[values["Id"]] = f"{name} is newer than its process"
    return found


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


class Upgrades:
    """The packages of this host."""

    def __init__(self, runner: Runner, hold: Sequence[str], apps: Sequence[str] = (), policy: Path = POLICY) -> None:
        self.runner = runner
        self.hold = hold
        self.apps = apps
        self.policy = policy

    def look(self, refresh: bool) -> Report:
        """What there is to do; with `refresh` the archive's index is fetched first."""
        if refresh:
            self._apt("update")
        listed = self.runner.run([*APT, "--simulate", "--with-new-pkgs", "upgrade"], env=APT_ENVIRONMENT)
        if not listed.ok:
            raise PackageError(f"apt-get --simulate upgrade failed: {listed.text()[-1500:]}")
        return Report(chosen(simulated(listed.out), self.hold), self.waiting(), self._reboot())

    def waiting(self) -> tuple[Waiting, ...]:
        """Units that wait for a restart."""
        shown = self.runner.run(["systemctl", "show", "--timestamp=us+utc", f"--property={PROPERTIES}", "*.service"])
        reasons: Mapping[str, str] = {**outdated(), **refreshed(shown.out)}
        return tuple(Waiting(unit, kind(unit, self.apps), why) for unit, why in sorted(reasons.items()))

    def upgrade(self, names: Sequence[str]) -> None:
        """Install the newer versions of `names`; their services are not touched. Raises PackageError."""
        self._allow_no_restarts()
        try:
            # In a unit of its own: it ends what it began, also when the connection is lost.
            wrap = ["systemd-run", f"--unit={UNIT}", "--wait", "--pipe", "--collect", "--quiet"]
            wrap += [f"--setenv={key}={value}" for key, value in {**APT_ENVIRONMENT, "LC_ALL": "C.UTF-8"}.items()]
            # What a run that was killed has left half-way is finished first.
            script = 'dpkg --configure --pending && exec "$@"'
            done = self.runner.run([*wrap, "sh", "-c", script, "sh", *APT, "install", "--only-upgrade", *names], timeout=3600)
            if not done.ok:
                raise PackageError(f"apt-get install --only-upgrade {' '.join(names)} failed: {done.text()[-2000:]}")
        finally:
            disk.remove(self.policy)

    def _allow_no_restarts(self) -> None:
        old = disk.read_text(self.policy)
        if old not in (None, POLICY_TEXT):
            raise PackageError(f"{self.policy} is there and not ours; remove it, or have it let {UNIT} decide")
        if self.runner.run(["systemctl", "is-active", "--quiet", f"{UNIT}.service"]).ok:
            raise PackageError(f"another upgrade is under way on this host; wait for it: systemctl status {UNIT}.service")
        disk.atomic_write(self.policy, POLICY_TEXT, 0o755)

    def _apt(self, *arguments: str) -> Result:
        result = self.runner.run([*APT, *arguments], timeout=900, env=APT_ENVIRONMENT)
        if not result.ok:
            raise PackageError(f"apt-get {' '.join(arguments)} failed: {result.text()[-1500:]}")
        return result

    def _reboot(self) -> str:
        if not REBOOT.exists():
            return ""
        names = (disk.read_text(REBOOT.with_name("reboot-required.pkgs")) or "").split()
        return ", ".join(dict.fromkeys(names)) or str(REBOOT)
