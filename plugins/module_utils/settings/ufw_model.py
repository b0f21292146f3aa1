# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared firewall: rules as people write them, checked, ordered so that the most specific one decides.

The kernel takes the first rule that matches. Rules are therefore sorted by how much they match, not by where they stand in
the inventory: narrower source, then narrower destination, then fewer ports, then the stricter action. A rule for one network
is never hidden behind one for everybody.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

ANY = "any"
ACTIONS = ("deny", "reject", "limit", "allow")
"""In the order in which rules that match the same packets are asked."""
POLICIES = ("allow", "deny", "reject")
LOG_LEVELS = ("off", "low", "medium", "high", "full")
PROTOCOLS = ("tcp", "udp", ANY)
KEYS = frozenset({"port", "proto", "from", "to", "comment", "action", "direction"})
CONTAINER_KEYS = frozenset({"port", "proto", "from", "comment"})
INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}|[A-Za-z0-9_.@-]{1,14}\+")

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class RuleError(Exception):
    """The declared rules cannot be used; the message names every violation."""


@dataclass(frozen=True)
class Rule:
    """One rule for one source; `port` is `any`, a number or `first:last`, addresses are `any` or a network."""

    action: str
    proto: str
    port: str
    source: str = ANY
    dest: str = ANY
    comment: str = ""
    direction: str = "in"

    def families(self) -> tuple[int, ...]:
        """The IP versions the rule is for."""
        given = {network(address).version for address in (self.source, self.dest) if address != ANY}
        return tuple(sorted(given)) if given else (4, 6)

    def ports(self) -> range:
        """All port numbers that match."""
        if self.port == ANY:
            return range(0, 65536)
        first, _colon, last = self.port.partition(":")
        return range(int(first), int(last or first) + 1)

    def covers(self, address: Optional[str], port: int) -> bool:
        """Whether a new TCP connection from `address` (None: from no known address) to `port` matches."""
        if self.direction != "in" or self.proto not in ("tcp", ANY) or port not in self.ports():
            return False
        if self.dest != ANY:
            return False
        if self.source == ANY:
            return True
        return address is not None and within(address, self.source)

    def __str__(self) -> str:
        target = f"{self.port}/{self.proto}" if self.proto != ANY else self.port
        return f"{self.action} {self.direction} {target} from {self.source} to {self.dest}"


@dataclass(frozen=True)
class Session:
    """The connection this run came in by: client address and the server's port; both None when it is a local one."""

    client: Optional[str] = None
    port: Optional[int] = None


@dataclass(frozen=True)
class Firewall:
    """All that is declared of one host's firewall."""

    rules: tuple[Rule, ...]
    containers: tuple[Rule, ...] = ()
    close_containers: bool = True
    container_interfaces: tuple[str, ...] = ("docker+", "br-+")
    incoming: str = "deny"
    outgoing: str = "allow"
    routed: str = "deny"
    ipv6: bool = True
    logging: str = "low"

    def of(self, family: int) -> tuple[Rule, ...]:
        """The rules for IP version `family`, in the order in which they are asked."""
        return tuple(rule for rule in self.rules if family in rule.families())

    def containers_of(self, family: int) -> tuple[Rule, ...]:
        """The allowed ways to published container ports for IP version `family`."""
        return tuple(rule for rule in self.containers if family in rule.families())


def network(text: str) -> Network:
    """The network written as an address or as address/prefix; raises ValueError when host bits are set."""
    return ipaddress.ip_network(text)


def within(address: str, wanted: str) -> bool:
    """Whether `address` lies in network `wanted`; an IPv4 address written as IPv6 counts as IPv4."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed) in network(wanted)


def parse(entries: Iterable[Mapping[str, Any]], where: str, keys: frozenset[str] = KEYS) -> tuple[list[Rule], list[str]]:
    """Rules, one for each source of each entry, and what is wrong with the entries."""
    rules: list[Rule] = []
    problems: list[str] = []
    for number, entry in enumerate(entries):
        place = f"{where}[{number}]"
        found: list[str] = [f"unknown key `{key}`, known are {', '.join(sorted(keys))}" for key in sorted(set(entry) - keys)]
        port = _port(entry.get("port"), found)
        proto = _choice(entry, "proto", "tcp" if port != ANY else ANY, PROTOCOLS, found)
        action = _choice(entry, "action", "allow", ACTIONS, found)
        direction = _choice(entry, "direction", "in", ("in", "out"), found)
        comment = str(entry.get("comment") or "")
        if "'" in comment or "\n" in comment:
            found.append("comment: neither a quote (') nor a line break is possible in it")
        if keys is CONTAINER_KEYS and port == ANY:
            found.append("port: is missing; name the published port")
        if ":" in port and proto == ANY:
            found.append(f"port: a range like {port} needs proto tcp or udp")
        sources = [_address(source, "from", found) for source in _listed(entry.get("from"))]
        dest = _address(entry.get("to") or ANY, "to", found)
        if not sources:
            found.append("from: is an empty list; say any, or leave the rule out")
        problems += [f"{place}: {problem}" for problem in found]
        if not found:
            rules += [Rule(action, proto, port, source, dest, comment, direction) for source in sources]
    mixed = [rule for rule in rules if len(set(rule.families())) == 2 and ANY not in (rule.source, rule.dest)]
    problems += [f"{where}: {rule}: source and destination are of different IP versions" for rule in mixed]
    return rules, problems


def _listed(value: Any) -> list[Any]:
    if value is None:
        return [ANY]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _choice(entry: Mapping[str, Any], key: str, default: str, choices: Iterable[str], problems: list[str]) -> str:
    value = str(entry.get(key) or default)
    if value not in choices:
        problems.append(f"{key}: `{value}` is none of {', '.join(choices)}")
    return value


def _port(value: Any, problems: list[str]) -> str:
    text = ANY if value in (None, "") else str(value)
    first, colon, last = text.partition(":")
    numbers = [int(part) for part in (first, last) if part.isdigit()]
    if text != ANY and (
        len(numbers) != 1 + bool(colon) or not all(1 <= n <= 65535 for n in numbers) or numbers != sorted(numbers)
    ):
        problems.append(f"port: `{text}` is no port (443) and no range (3000:3009)")
        return ANY
    if colon and len(set(numbers)) == 1:
        return first
    return ":".join(str(number) for number in numbers) if numbers else ANY


def _address(value: Any, key: str, problems: list[str]) -> str:
    text = str(value).strip().lower()
    if text in (ANY, "0.0.0.0/0", "::/0"):
        return ANY
    try:
        parsed = network(text)
    except ValueError as error:
        hint = ""
        if "host bits" in str(error):
            hint = f"; did you mean {ipaddress.ip_network(text, strict=False)}?"
        problems.append(f"{key}: `{value}` is neither any, an address nor a network{hint}")
        return ANY
    return str(parsed.network_address) if parsed.num_addresses == 1 else str(parsed)


def _width(address: str) -> int:
    """Host bits that `address` leaves open; `any` leaves more than every network."""
    return 129 if address == ANY else network(address).max_prefixlen - network(address).prefixlen


def _rank(rule: Rule) -> tuple[Any, ...]:
    match = (_width(rule.source), _width(rule.dest), len(rule.ports()), rule.proto == ANY)
    return (*match, ACTIONS.index(rule.action), rule.ports()[0], rule.proto, rule.source, rule.dest, rule.direction)


def order(rules: Iterable[Rule]) -> tuple[tuple[Rule, ...], list[str]]:
    """The rules without repetitions in the order in which they have to be asked, and contradictions among them."""
    kept: dict[Rule, Rule] = {}
    for rule in rules:
        kept.setdefault(replace(rule, comment=""), rule)
    ordered = sorted(kept.values(), key=_rank)
    problems = []
    seen: dict[Rule, Rule] = {}
    for rule in ordered:
        other = seen.setdefault(replace(rule, comment="", action=""), rule)
        if other is not rule:
            problems.append(f"`{other}` and `{rule}` contradict each other; keep one")
    return tuple(ordered), problems


def redundant(rules: Iterable[Rule]) -> list[str]:
    """Rules for some sources that restrict nothing, because the same port is open to everybody."""
    listed = list(rules)
    found = []
    for rule in listed:
        for wide in listed:
            same = (wide.action, wide.proto, wide.dest, wide.direction) == (rule.action, rule.proto, rule.dest, rule.direction)
            inside = wide.ports()[0] <= rule.ports()[0] and rule.ports()[-1] <= wide.ports()[-1]
            if rule.action == "allow" and rule.source != ANY and wide.source == ANY and same and inside:
                found.append(f"`{rule}` restricts nothing, because `{wide}` opens it to everybody; remove one of the two")
    return found


def verdict(rules: Iterable[Rule], policy: str, address: Optional[str], port: int) -> tuple[str, Optional[Rule]]:
    """What happens to a new TCP connection from `address` to `port`, and the rule that says so (None: the policy)."""
    for rule in rules:
        if rule.covers(address, port):
            return rule.action, rule
    return policy, None


def with_ssh(rules: Iterable[Rule], ports: Iterable[int], session: Session) -> list[Rule]:
    """The rules and, for each SSH port that no rule of the inventory opens, one that opens it to everybody."""
    listed = list(rules)
    wanted = sorted({*ports, *([session.port] if session.port else [])})
    for port in wanted:
        own = [
            r for r in listed if r.action in ("allow", "limit") and r.port != ANY and r.direction == "in" and port in r.ports()
        ]
        if not any(rule.proto in ("tcp", ANY) for rule in own):
            listed.append(Rule("allow", "tcp", str(port), comment="SSH"))
    return listed


def cut_off(ordered: Iterable[Rule], policy: str, ports: Iterable[int], session: Session) -> list[str]:
    """Why these rules would cut SSH: this very session, or every possible client of an SSH port."""
    listed = list(ordered)
    problems = []
    if session.port and session.client:
        action, rule = verdict(listed, policy, session.client, session.port)
        if action in ("deny", "reject"):
            reason = f"`{rule}`" if rule else "no rule allows it"
            problems.append(
                f"this SSH session comes from {session.client} to port {session.port}, and that would be cut ({reason});"
                f" allow {session.client} to port {session.port} in ufw_rules"
            )
    for port in sorted({*ports, *([session.port] if session.port else [])}):
        samples = [None if r.source == ANY else str(network(r.source)[0]) for r in listed if port in r.ports()]
        if not any(verdict(listed, policy, sample, port)[0] in ("allow", "limit") for sample in samples):
            problems.append(f"no client could reach SSH on port {port}; remove the rule that denies it from ufw_rules")
    return problems


def build(
    rules: Iterable[Mapping[str, Any]],
    containers: Iterable[Mapping[str, Any]],
    ssh_ports: Iterable[int],
    session: Session,
    **settings: Any,
) -> tuple[Firewall, list[str]]:
    """The firewall and warnings on it; raises RuleError that names every violation at once. `settings`: see Firewall."""
    parsed, problems = parse(rules, "ufw_rules")
    published, more = parse(containers, "ufw_container_rules", CONTAINER_KEYS)
    problems += more
    ports = list(ssh_ports)
    problems += [f"ufw_ssh_ports: {port} is no port" for port in ports if not 1 <= port <= 65535]
    interfaces = settings.get("container_interfaces", ())
    problems += [
        f"ufw_container_interfaces: `{name}` is no interface name" for name in interfaces if not INTERFACE.fullmatch(name)
    ]
    if problems:
        raise RuleError("\n".join(problems))
    ordered, contradictions = order(with_ssh(parsed, ports, session))
    published_ordered, more = order(published)
    firewall = Firewall(rules=ordered, containers=published_ordered, **settings)
    problems = contradictions + more + cut_off(ordered, firewall.incoming, ports, session)
    if problems:
        raise RuleError("\n".join(problems))
    return firewall, redundant(ordered) + redundant(published_ordered)
