# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel really has, in a form in which it can be compared with what was declared.

`iptables-save` spells rules differently from those who write them: other order, implied matches added, addresses with a
prefix. `canonical` brings both to one spelling.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

FLAGS = frozenset({"--set", "--update", "--rsource", "--rdest"})
LONG = {"--protocol": "-p", "--source": "-s", "--destination": "-d", "--jump": "-j"}
IMPLIED = (("--name", "DEFAULT"), ("--rsource", ""), ("--limit-burst", "5"))
REJECTS = ("icmp-port-unreachable", "icmp6-port-unreachable")
DOORS = "slipway-doors"
GUARD = "slipway-guard"
FIRST = ("-s", "-d", "-i", "-o", "-p", "--dport", "--dports")


@dataclass
class Chain:
    """The policy of a built-in chain (None for others) and its rules in canonical spelling, in order."""

    policy: Optional[str] = None
    rules: list[str] = field(default_factory=list)


Table = dict[str, Chain]


def canonical(words: Sequence[str]) -> str:
    """One spelling for the words of a rule after its chain."""
    options: list[tuple[str, str]] = []
    position = 0
    while position < len(words):
        negated = words[position] == "!"
        position += negated
        name = LONG.get(words[position], words[position])
        value = ""
        if name not in FLAGS and position + 1 < len(words):
            position += 1
            value = words[position]
        position += 1
        value = _value(name, value)
        if name == "-m" or (name, value) in IMPLIED or name == "--mask" or (name == "--reject-with" and value in REJECTS):
            continue
        options.append((("! " if negated else "") + name, value))
    options.sort(key=lambda option: (option[0] == "-j", FIRST.index(option[0]) if option[0] in FIRST else len(FIRST), option))
    return " ".join(f"{name} {shlex.quote(value)}" if value else name for name, value in options)


def _value(name: str, value: str) -> str:
    if name in ("-s", "-d"):
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_network(value, strict=False))
    if name == "--ctstate":
        return ",".join(sorted(value.split(",")))
    if name == "--limit":
        return value.replace("/minute", "/min").replace("/second", "/sec")
    return value


def parse(text: str) -> Table:
    """The chains of a filter table as `iptables-save` prints it or as `iptables-restore` takes it."""
    table: Table = {}
    section = "*filter"
    for line in map(str.strip, text.splitlines()):
        if line.startswith("*"):
            section = line
        elif section != "*filter":
            continue
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            table[name] = Chain(None if policy == "-" else policy)
        elif line.startswith(("-A ", "-I ")):
            words = shlex.split(line)
            rules = table.setdefault(words[1], Chain()).rules
            rules.insert(0 if words[0] == "-I" else len(rules), canonical(words[2:]))
    return table


def differing(wanted: Table, live: Table) -> list[str]:
    """The chains whose live rules or policy are not the wanted ones.

    Docker adds a RETURN to its user chain when it starts; behind the final DROP that means nothing. Doors that are shut for
    maintenance refuse some requests more, for a while.
    """
    found = []
    for name, chain in wanted.items():
        actual = live.get(name, Chain())
        rules = actual.rules[:-1] if name == "DOCKER-USER" and actual.rules[-1:] == ["-j RETURN"] else actual.rules
        rules = [rule for rule in rules if f"--comment {DOORS} " not in f"{rule} "]
        builtin = name in ("INPUT", "OUTPUT", "FORWARD")
        if name not in live or actual.policy != chain.policy or (not builtin and rules != chain.rules):
            found.append(name)
    return found


def frame_faults(live: Table, name: str, framed: Table) -> list[str]:
    """What is missing of the frame that ufw-init sets up around the rules; `name` is the chains' prefix.

    `framed` holds the chains of before.rules and after.rules as ufw loads them. Their spelling in the file is free, so only
    the number of rules is compared.
    """
    faults = []
    for direction in ("input", "output", "forward"):
        builtin = live.get(direction.upper(), Chain()).rules
        kinds = ("before-logging", "before", "after", "after-logging", "reject", "track")
        jumps = [f"-j {name}-{kind}-{direction}" for kind in kinds]
        if [rule for rule in builtin if rule in jumps] != jumps:
            faults.append(f"{direction.upper()} does not pass through ufw")
        user = f"-j {name}-user-{direction}"
        before = live.get(f"{name}-before-{direction}", Chain()).rules
        if before[-1:] != [user]:
            faults.append(f"{name}-before-{direction} does not end in {name}-user-{direction}")
    for chain, content in framed.items():
        extra = 1 if chain.startswith(f"{name}-before-") else 0
        if len(live.get(chain, Chain()).rules) != len(content.rules) + extra:
            faults.append(f"{chain} is not what its file says")
    return faults


def docker_unhooked(live: Table) -> bool:
    """Whether a rule of Docker could accept a packet in FORWARD before DOCKER-USER has seen it.

    Docker puts its isolation chains in front when it restarts with running containers; those only drop.
    """
    forward = live.get("FORWARD", Chain()).rules
    marks = ("DOCKER", "docker", "br-")
    theirs = [
        place
        for place, rule in enumerate(forward)
        if any(mark in rule for mark in marks) and not rule.endswith(("-j DOCKER-USER", "-j DROP")) and "ISOLATION" not in rule
    ]
    return bool(theirs) and ("-j DOCKER-USER" not in forward or forward.index("-j DOCKER-USER") > min(theirs))


def guards(live: Table) -> list[str]:
    """Built-in chains in which a guard rule of an interrupted run is left."""
    return [name for name in ("INPUT", "OUTPUT") for rule in live.get(name, Chain()).rules if GUARD in rule]


def describe(table: Table, name: str) -> list[str]:
    """The effective rules for people: one line for each, grouped as they are asked."""
    titles = {f"{name}-user-input": "in", f"{name}-user-output": "out", f"{name}-user-forward": "routed"}
    titles["DOCKER-USER"] = "containers"
    version = "IPv4" if name == "ufw" else "IPv6"
    lines = []
    for direction, title in (("INPUT", "in"), ("OUTPUT", "out"), ("FORWARD", "routed")):
        lines.append(f"{version} {title}: default {table.get(direction, Chain()).policy or 'ACCEPT'}")
    for chain, title in titles.items():
        lines += [f"{version} {title}: {rule}" for rule in table.get(chain, Chain()).rules]
    return lines
