# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports of this host shut to new connections for a while, without anything being reloaded.

`refused`: nginx elsewhere is told at once and asks another host of the application. `waiting`: packets are dropped, so that
clients ask again after a second. Connections that are open go on. A timer opens the doors whatever becomes of this process;
so does a restart of the host.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ..guard.deadman import Timer
from ..host.clock import Clock
from ..host.runner import CommandFailed, Runner
from .config import App
from .errors import SlipwayError

COMMENT = "slipway-doors"
WEB_COMMENT = "slipway-web-door"
WEB_USER = "www-data"
DOCKER_CHAIN = "DOCKER-USER"
NEW = ("-p", "tcp", "-m", "conntrack", "--ctstate", "NEW")
TARGETS = {"refused": ("-j", "REJECT", "--reject-with", "tcp-reset"), "waiting": ("-j", "DROP")}


@dataclass(frozen=True)
class Place:
    """Where an instance of an application is reached on this host."""

    address: str
    port: int


def places(apps: Sequence[App]) -> list[Place]:
    """Where the instances of all slots of `apps` are reached here."""
    found = {Place(item.address, item.port): None for app in apps for slot in app.slots.values() for item in slot.instances}
    return list(found)


def served_elsewhere(app: App, active: str) -> bool:
    """Whether edges have another host for the requests of the slot with the traffic."""
    slot = app.slot(active)
    mine = {f"{item.address}:{item.port}" for item in slot.instances}
    return any(member not in mine and not _local(member, app) for member in slot.members)


def _local(member: str, app: App) -> bool:
    ports = {item.port for item in app.slot(app.slot_order[0]).instances}
    return member.startswith("127.") and int(member.rpartition(":")[2]) in ports


def _mark(name: str) -> tuple[str, ...]:
    return ("-m", "comment", "--comment", name)


def rules(places: Sequence[Place], mode: str) -> list[tuple[str, ...]]:
    """The rules, each with its chain first, for requests from other hosts and from the web server of this one."""
    found: list[tuple[str, ...]] = []
    for place in places:
        port = ("--ctorigdstport", str(place.port))
        found.append(("INPUT", "!", "-i", "lo", *NEW, *port, *_mark(COMMENT), *TARGETS[mode]))
        # The gate asks as another user, so that it can look behind the shut door.
        found.append(("OUTPUT", "-m", "owner", "--uid-owner", WEB_USER, *NEW, *port, *_mark(COMMENT), *TARGETS[mode]))
        if not place.address.startswith("127."):
            found.append((DOCKER_CHAIN, *NEW, "--ctorigdst", place.address, *port, *_mark(COMMENT), *TARGETS[mode]))
    return list(dict.fromkeys(found))


def web(ports: Sequence[int]) -> list[tuple[str, ...]]:
    """Rules that let new connections to `ports` of this host wait."""
    return [("INPUT", *NEW, "--ctorigdstport", str(port), *_mark(WEB_COMMENT), *TARGETS["waiting"]) for port in ports]


def opening(programs: Sequence[str], name: str = COMMENT) -> str:
    """A script that takes every rule of ours away, in whatever order they stand, and nothing else."""
    lines = []
    for program in programs:
        find = f"{program} -w 10 -S | grep -- '--comment {name} ' | sed 's/^-A/-D/'"
        lines.append(f"{find} | while read -r line; do {program} -w 10 $line || exit 1; done")
    return " && ".join(f"( {line} )" for line in lines)


class Doors:
    """The doors of this host, all opened together."""

    def __init__(self, runner: Runner, clock: Clock, name: str = COMMENT) -> None:
        self.runner = runner
        self.name = name
        self.timer = Timer(runner, clock, name)
        self.programs = [name for name in ("iptables", "ip6tables") if runner.run([name, "-w", "10", "-S", "INPUT"]).ok]

    def shut(self, wanted: Sequence[tuple[str, ...]], seconds: float) -> bool:
        """Shut them for at most `seconds`; False when they were shut already, and are so for `seconds` more.

        Raises SlipwayError, ArmingFailed, and CommandFailed with the doors open again.
        """
        if not self.programs:
            raise SlipwayError("the doors of this host cannot be shut: there is no iptables. Run site.yml, which installs it.")
        command = ["/bin/sh", "-c", opening(self.programs, self.name)]
        self.timer.arm(seconds, command, "open the doors of this host to new connections", insist=True)
        changed = False
        try:
            for program in self.programs:
                for chain, *rest in wanted:
                    if not self._fits(program, chain, rest):
                        continue
                    if not self.runner.run([program, "-w", "10", "-C", chain, *rest]).ok:
                        self.runner.must([program, "-w", "10", "-I", chain, "1", *rest])
                        changed = True
        except CommandFailed:
            self.open()
            raise
        return changed

    def _fits(self, program: str, chain: str, rest: Sequence[str]) -> bool:
        six = program == "ip6tables"
        address = rest[rest.index("--ctorigdst") + 1] if "--ctorigdst" in rest else ""
        if address and (":" in address) != six:
            return False
        return chain != DOCKER_CHAIN or self.runner.run([program, "-w", "10", "-S", chain]).ok

    def are_shut(self) -> bool:
        """True when a rule of ours stands."""
        return any(f"--comment {self.name} " in self.runner.run([name, "-w", "10", "-S"]).out for name in self.programs)

    def open(self) -> bool:
        """Open them; False when they were open. Raises CommandFailed; the timer then goes on trying."""
        changed = self.are_shut()
        self.runner.must(["/bin/sh", "-c", opening(self.programs, self.name)])
        self.timer.disarm()
        return changed

    def keep(self) -> None:
        """Leave them shut until somebody opens them, or the host is restarted."""
        self.timer.disarm()

    def by_hand(self) -> str:
        """How a person opens them."""
        return f"sh -c {shlex.quote(opening(self.programs, self.name))}"
