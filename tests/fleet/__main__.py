# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line: python -m tests.fleet up|down|list|restart|exec|ssh|images."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

import yaml

from tests.fleet import engine, hosts, images, molecule
from tests.fleet.shell import STATE, FleetError, say
from tests.fleet.spec import parse


def main() -> int:
    options = _parser().parse_args()
    try:
        engine.ensure()
        return int(options.action(options) or 0)
    except (FleetError, yaml.YAMLError, OSError) as error:
        say(f"fleet: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description="Servers for the demo and the tests.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start the hosts of a specification and wait until they answer")
    up.add_argument("spec", help="YAML file, the name of one in tests/fleet/specs/, or - for standard input")
    up.set_defaults(action=_up)
    down = commands.add_parser("down", help="remove fleets: their containers, volumes and network")
    down.add_argument("names", nargs="+", metavar="name")
    down.set_defaults(action=_down)
    listing = commands.add_parser("list", help="show all hosts of all fleets")
    listing.set_defaults(action=_list)
    restart = commands.add_parser("restart", help="restart all hosts of a fleet, or one, as a reboot would")
    restart.add_argument("name")
    restart.add_argument("host", nargs="?")
    restart.set_defaults(action=lambda options: hosts.restart(options.name, options.host))
    for verb, text in (("exec", "run a command on a host through Docker"), ("ssh", "log in to a host over SSH")):
        command = commands.add_parser(verb, help=text)
        command.add_argument("name")
        command.add_argument("host")
        command.add_argument("command", nargs=argparse.REMAINDER)
        command.set_defaults(action=_exec if verb == "exec" else _ssh)
    scenario = commands.add_parser("molecule", help="create, restart or destroy the hosts of a scenario; called by Molecule")
    scenario.add_argument("verb", choices=["create", "restart", "destroy"])
    scenario.set_defaults(action=_molecule)
    build = commands.add_parser("images", help="build host images that are missing or out of date")
    build.add_argument("names", nargs="*", default=["12", "13"])
    build.set_defaults(action=lambda options: images.ensure(options.names))
    return parser


def _up(options: argparse.Namespace) -> None:
    text = sys.stdin.read() if options.spec == "-" else hosts.spec_path(options.spec).read_text()
    spec = hosts.up(parse(yaml.safe_load(text)))
    print(json.dumps({"name": spec.name, "subnet": str(spec.subnet), "key": str(hosts.KEY),
                      "hosts": [asdict(host) for host in spec.hosts]}, indent=2))  # fmt: skip


def _molecule(options: argparse.Namespace) -> None:
    {"create": molecule.create, "restart": molecule.restart, "destroy": molecule.destroy}[options.verb]()


def _down(options: argparse.Namespace) -> None:
    for name in options.names:
        say(f"  ✓ fleet {name}: {hosts.down(name)} hosts removed")


def _list(options: argparse.Namespace) -> None:
    for row in hosts.listing():
        print(f"{row['fleet']:24} {row['host']:12} {row['status']:24} {row['container']}")


def _exec(options: argparse.Namespace) -> None:
    flags = ["--interactive", *(["--tty"] if sys.stdin.isatty() else [])]
    command = options.command or ["bash"]
    os.execvp("docker", ["docker", "exec", *flags, hosts.container_name(options.name, options.host), *command])


def _ssh(options: argparse.Namespace) -> None:
    inventory = yaml.safe_load((STATE / options.name / "hosts.yml").read_text())
    address = inventory["all"]["hosts"][options.host]["ansible_host"]
    arguments = ["ssh", "-i", str(hosts.KEY), *hosts.ssh_options(options.name).split(), f"root@{address}"]
    os.execvp("ssh", [*arguments, *options.command])


if __name__ == "__main__":
    sys.exit(main())
