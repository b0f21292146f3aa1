# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking at a host, from inside and at its neighbours: everything that an audit wants of it, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..host import network
from ..host.runner import Runner
from ..settings import manifest
from ..settings.sysctl import in_container
from . import lynis, ports, services, ssh_audit

SCANNERS = ("lynis", "ssh-audit", "systemd")


def inside(runner: Runner, scanners: Iterable[str] = SCANNERS, folder: Path = manifest.FOLDER) -> dict[str, Any]:
    """What the host says of itself. Changes nothing."""
    wanted = set(scanners)
    sockets = runner.run(["ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header"]).out
    containers = runner.run(["docker", "ps", "--format", "{{.Names}}\t{{.Ports}}"], timeout=60)
    own = ports.listening(sockets)
    own.update(ports.published(containers.out) if containers.ok else {})
    exposed = runner.run(["systemd-analyze", "security", "--no-pager"], timeout=120).out if "systemd" in wanted else ""
    return {
        "container": in_container(runner),
        "lynis": lynis.scan(runner) if "lynis" in wanted else {},
        "ssh_audit": ssh_audit.version(runner) if "ssh-audit" in wanted else "",
        "exposure": services.exposures(exposed),
        "off": services.look(runner),
        "ports": [{"port": port, "process": process} for port, process in sorted(own.items())],
        "ipv6": [text for text in network.observe(runner).ipv6 if not text.lower().startswith("fe80:")],
        "drift": [asdict(entry) for entry in manifest.drift(folder)],
    }


def outside(runner: Runner, peers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What is seen of each peer from here: the ports that answer, and what ssh-audit says where it is asked for."""
    found: dict[str, dict[str, Any]] = {}
    for peer in peers:
        ssh = {}
        for port in peer["ssh_ports"]:
            ssh[str(port)] = ssh_audit.scan(runner, peer["addresses"][0], port, peer["ssh_audit"])
        found[str(peer["name"])] = {"ssh": ssh}
        if peer["ports"]:
            seen = ports.scan(peer["addresses"], [*ports.USUAL, *peer["ports"]])
            found[str(peer["name"])]["open"] = [each.as_dict() for each in seen]
    return found
