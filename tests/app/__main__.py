# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line: python -m tests.app build|publish|save."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.app import base, image, registry, releases
from tests.fleet import engine
from tests.fleet.shell import FleetError, say


def main() -> int:
    options = _parser().parse_args()
    try:
        options.action(options)
    except (FleetError, ValueError, OSError) as error:
        say(f"app: {error}")
        return 1
    return 0


def build(release: str, faults: Mapping[str, str]) -> image.Image:
    """Make archive and image of a release and record them; a reference of the same image in a registry stays."""
    files = releases.content(release, faults)
    releases.ARTIFACTS.mkdir(parents=True, exist_ok=True)
    archive = image.compress(image.tar(files))
    path = releases.ARTIFACTS / f"spotik-{release}.tar.gz"
    path.write_bytes(archive)
    made = image.image(release, base.ensure(), files)
    known = releases.recorded().get(release, {})
    values = {
        "archive": str(path),
        "sha256": image.digest(archive).removeprefix("sha256:"),
        "faults": dict(faults),
        "digest": made.digest,
    }
    if str(known.get("image", "")).endswith(made.digest):
        values["image"] = known["image"]
    releases.record(release, values)
    return made


def publish(names: list[str], fleet: str, host: str) -> None:
    """Build releases and push their images; all of the standard ones when none is named."""
    engine.ensure()
    target = registry.ensure(fleet, host)
    references = {}
    for name in names or releases.STANDARD:
        made = build(name, faults_of(name))
        reference = registry.push(target, made, name)
        releases.record(name, {**releases.recorded()[name], "image": reference})
        references[name] = reference
        print(f"{name} {reference}")
    releases.publish_to(fleet, references)


def faults_of(release: str) -> Mapping[str, str]:
    """The faults a release was built with, or has by its name among the standard ones."""
    known = releases.recorded().get(release)
    return known["faults"] if known else releases.STANDARD.get(release, {})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.app", description="Releases of the sample application.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    making = commands.add_parser("build", help="make .fleet/artifacts/spotik-RELEASE.tar.gz and the image of a release")
    making.add_argument("release", nargs="*", help="default: all standard releases")
    making.add_argument("--fault", action="append", metavar="KEY=VALUE", help="bake a fault into the release")
    making.set_defaults(action=_build)
    pushing = commands.add_parser("publish", help="build releases and push their images to the fleet's registry")
    pushing.add_argument("release", nargs="*", help="default: all standard releases")
    pushing.add_argument("--fleet", default="demo")
    pushing.add_argument("--host", default="registry")
    pushing.set_defaults(action=lambda options: publish(options.release, options.fleet, options.host))
    saving = commands.add_parser("save", help="write the image of a release to a file for 'docker load'")
    saving.add_argument("release")
    saving.add_argument("file", type=Path)
    saving.set_defaults(action=_save)
    return parser


def _build(options: argparse.Namespace) -> None:
    for release in options.release or releases.STANDARD:
        faults = releases.STANDARD.get(release, {})
        if options.fault is not None:
            faults = dict(fault.split("=", 1) if "=" in fault else (fault, "1") for fault in options.fault)
        made = build(release, faults)
        print(f"{release} {releases.recorded()[release]['archive']} {made.digest}")


def _save(options: argparse.Namespace) -> None:
    image.save(build(options.release, faults_of(options.release)), f"spotik:{options.release}", options.file)


if __name__ == "__main__":
    sys.exit(main())
