# SPDX-License-Identifier: GPL-3.0-or-later
"""Molecule's side of fleets: its platforms become hosts, and it is told how to reach them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.fleet import hosts
from tests.fleet.spec import Spec, parse


def create() -> Spec:
    """Start the platforms of the scenario that Molecule describes in the environment, and write its instance config."""
    config = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())
    spec = hosts.up(parse(specification(_name(), config["platforms"])))
    path = Path(os.environ["MOLECULE_INSTANCE_CONFIG"])
    path.write_text(yaml.safe_dump(instance_config(spec), sort_keys=False))
    return spec


def destroy() -> int:
    """Remove the hosts of the scenario; returns how many there were."""
    Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).unlink(missing_ok=True)
    return hosts.down(_name())


def restart() -> None:
    """Restart the hosts of the scenario, as a reboot would."""
    hosts.restart(_name())


def fleet_name(scenario: str, project: str) -> str:
    """A name of its own for each scenario of each checkout, so that all can run at once."""
    checkout = hashlib.sha256(project.encode()).hexdigest()[:4]
    return f"mol-{scenario.replace('/', '-').replace('_', '-')}-{checkout}"


def specification(name: str, platforms: Iterable[Mapping[str, Any]]) -> dict[str, object]:
    """The specification of a fleet from Molecule's platforms; keys that only Molecule knows are left out."""
    keys = ("image", "docker", "groups")
    return {
        "name": name,
        "hosts": {platform["name"]: {key: platform[key] for key in keys if key in platform} for platform in platforms},
    }


def instance_config(spec: Spec) -> list[dict[str, object]]:
    """What Molecule's default driver reads to connect to each host."""
    return [
        {
            "instance": host.name,
            "address": host.address,
            "user": "root",
            "port": 22,
            "identity_file": str(hosts.KEY),
            "connection": "ssh",
        }
        for host in spec.hosts
    ]


def _name() -> str:
    return fleet_name(os.environ["MOLECULE_SCENARIO_NAME"], os.environ["MOLECULE_PROJECT_DIRECTORY"])
