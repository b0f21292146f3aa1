# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scenario needs before its playbooks run: `python -m tests.path prepare DIRECTORY [--registry HOST]`."""

from __future__ import annotations

import argparse
import json
import os
import secrets
from pathlib import Path

from tests.app import registry, releases
from tests.app.__main__ import build, faults_of, publish
from tests.fleet.molecule import fleet_name
from tests.fleet.shell import STATE


def prepare(directory: Path, host: str, names: list[str]) -> None:
    """Write releases.json and secrets into `directory`; push the images to the registry `host` of the fleet when it is named."""
    fleet = fleet_name(os.environ["MOLECULE_SCENARIO_NAME"], os.environ["MOLECULE_PROJECT_DIRECTORY"])
    if host:
        publish(names, fleet, host)
        (directory / "releases.json").write_text((STATE / fleet / "releases.json").read_text())
        (directory / "registry-password").write_text(registry.password())
        (directory / "ca.pem").write_text((STATE / "ca" / "ca.pem").read_text())
    else:
        for name in names or releases.STANDARD:
            build(name, faults_of(name))
        known = releases.recorded()
        entries = {name: {key: known[name][key] for key in ("archive", "sha256")} for name in names or releases.STANDARD}
        (directory / "releases.json").write_text(json.dumps(entries))
    for name in ("database-password", "jwt-secret", "notify-token"):
        (directory / name).write_text(secrets.token_hex(32))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.path")
    command = parser.add_subparsers(required=True).add_parser("prepare")
    command.add_argument("directory", type=Path)
    command.add_argument("--registry", default="", metavar="HOST")
    command.add_argument("releases", nargs="*", metavar="RELEASE", help="default: all standard releases")
    options = parser.parse_args()
    prepare(options.directory, options.registry, options.releases)


if __name__ == "__main__":
    main()
