# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP ports: which listen, which answer as seen from elsewhere, and which of those the firewall's declaration opens to whom."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional

USUAL = (
    21, 22, 23, 25, 53, 80, 110, 111, 139, 143, 389, 443, 445, 587, 873, 993, 2049, 2375, 2376, 2377, 2379, 3000, 3306, 5000,
    5432, 5900, 6379, 6432, 8000, 8080, 8443, 8888, 9000, 9090, 9093, 9100, 9187, 9200, 11211, 27017,
)  # fmt: skip
"""Ports that are tried whatever the host says of itself."""
LISTENER = re.compile(r"^LISTEN\s+\d+\s+\d+\s+(?P<address>\S+):(?P<port>\d+)\s+\S+(?:\s+users:\(\(\"(?P<process>[^\"]+)\")?")
PUBLISHED = re.compile(r"(?P<address>[0-9.]+|\[?[0-9a-f:]+\]?):(?P<first>\d+)(?:-(?P<last>\d+))?->[^/\s]+/tcp")


@dataclass(frozen=True)
class Seen:
    """A port that answered at `address`, asked from address `source`."""

    address: str
    port: int
    source: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"address": self.address, "port": self.port, "source": self.source}


def listening(table: str) -> dict[int, str]:
    """Ports that listen on more than the loopback, and the process, from `ss --listening --tcp --numeric --processes`."""
    found: dict[int, str] = {}
    for line in table.splitlines():
        row = LISTENER.match(line)
        if row and not _loopback(row.group("address")):
            found.setdefault(int(row.group("port")), row.group("process") or "")
    return found


def published(table: str) -> dict[int, str]:
    """Ports that containers publish, and the container, from lines of `docker ps` with name and ports and a tab between."""
    found: dict[int, str] = {}
    for line in table.splitlines():
        name, _tab, ports = line.partition("\t")
        for part in PUBLISHED.finditer(ports):
            first = int(part.group("first"))
            if not _loopback(part.group("address")):
                found.update(dict.fromkeys(range(first, int(part.group("last") or first) + 1), f"container {name}"))
    return found


def _loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def knock(address: str, port: int, timeout: float = 2.0) -> Optional[Seen]:
    """Whether the port answers, and from which own address it was asked."""
    try:
        with socket.create_connection((address, port), timeout=timeout) as connection:
            return Seen(address, port, str(connection.getsockname()[0]))
    except (OSError, ValueError):
        return None


def scan(addresses: Iterable[str], ports: Iterable[int], timeout: float = 2.0) -> list[Seen]:
    """The ports that answer."""
    pairs = [(address, port) for address in addresses for port in sorted(set(ports))]
    with ThreadPoolExecutor(max_workers=64) as pool:
        return [seen for seen in pool.map(lambda pair: knock(pair[0], pair[1], timeout), pairs) if seen]


def bounds(port: object) -> tuple[int, int]:
    """First and last port of a rule: 443, "3000:3009", or all."""
    text = str(port or "1:65535")
    first, _colon, last = text.partition(":")
    return int(first), int(last or first)


def opens(rules: Iterable[Mapping[str, Any]], seen: Seen) -> bool:
    """Whether one of the rules opens the port to that source."""
    return any(_fits(rule, seen) for rule in rules)


def _fits(rule: Mapping[str, Any], seen: Seen) -> bool:
    first, last = bounds(rule.get("port"))
    meant = rule.get("action", "allow") in ("allow", "limit") and rule.get("direction", "in") == "in"
    if not meant or rule.get("proto") == "udp" or not first <= seen.port <= last:
        return False
    sources = rule.get("from") or ["any"]
    sources = [sources] if isinstance(sources, str) else sources
    return any(_within(seen.source, str(source)) for source in sources) and _within(seen.address, str(rule.get("to") or "any"))


def _within(address: str, network: str) -> bool:
    if network == "any":
        return True
    try:
        return ipaddress.ip_address(address.partition("%")[0]) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def declared(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rules of a host's plan, SSH included unless a rule says for whom it is."""
    rules = [*(plan.get("ufw_rules") or ()), *(plan.get("ufw_container_rules") or ())]
    named = {bounds(rule.get("port")) for rule in rules}
    ssh: Sequence[Any] = plan.get("ufw_ssh_ports") or [22]
    return [*rules, *({"port": port} for port in ssh if bounds(port) not in named)]
