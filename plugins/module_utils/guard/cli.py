# SPDX-License-Identifier: GPL-3.0-or-later
"""`slipway guard` on a managed host: what waits for a confirmation, and its end. Also called by the timer and at boot.

Exit status: 0 done, or nothing to do; 1 refused or failed; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from ..host.runner import CommandFailed, Runner
from .armed import STATE, Guard, GuardError, names


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="slipway guard", description="Changes of this host that wait for a confirmation.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    status = commands.add_parser("status", help="Show what is armed, and how the change before ended.")
    status.add_argument("name", metavar="NAME", nargs="?")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.add_argument("--txn", default="", metavar="ID", help="fail unless this change waits")
    for name, text in (("confirm", "Make a change final."), ("revert", "Take a change back now.")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("name", metavar="NAME")
        command.add_argument("--txn", default="", metavar="ID", help="only this change")
        if name == "revert":
            command.add_argument("--reason", default="by hand", metavar="TEXT", help="why")
    commands.add_parser("boot", help="Take everything back that was armed when this host went down.")
    return top


def status_of(guard: Guard) -> dict[str, Any]:
    """What is to be said of one guard."""
    record = guard.record()
    armed: dict[str, Any] = {}
    if record is not None:
        armed = {"txn": record.txn, "owner": record.owner, "left": round(guard.left(record), 1)}
        armed["paths"] = [item.path for item in record.saved]
    return {"name": guard.name, "armed": armed, "last": guard.last()}


def line_of(status: dict[str, Any]) -> str:
    """The same for a person."""
    armed, last = status["armed"], status["last"]
    if armed:
        paths = ", ".join(armed["paths"])
        return f"{status['name']}: change {armed['txn']} waits, takes itself back in {armed['left']:.0f} s ({paths})"
    ended = f"the last change, {last['txn']}, was {last['outcome']} ({last['reason']})" if last else "never changed"
    return f"{status['name']}: nothing is armed; {ended}" + "".join(f"; {fault}" for fault in last.get("faults", []))


def main(arguments: Optional[Sequence[str]] = None, runner: Optional[Runner] = None, root: Path = Path("/")) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given[1:] if given[:1] == ["guard"] else given)
    runner = runner or Runner()
    known = names(root / STATE)
    try:
        if options.command == "status":
            found = [status_of(Guard(name, runner, root=root)) for name in ([options.name] if options.name else known)]
            text = json.dumps(found, indent=1) if options.json else "\n".join(map(line_of, found))
            print(text or "Nothing is guarded on this host.")
            waiting = [each["armed"].get("txn") for each in found]
            return int(bool(options.txn) and options.txn not in waiting)
        if options.command == "boot":
            return max([_boot(Guard(name, runner, root=root)) for name in known], default=0)
        if options.command == "confirm":
            record = Guard(options.name, runner, root=root).confirm(options.txn)
            print(f"{options.name}: change {record.txn} is confirmed.")
        else:
            last = Guard(options.name, runner, root=root).revert(options.txn, options.reason, alone=bool(options.txn))
            print(
                f"{options.name}: nothing was armed." if last is None else f"{options.name}: change {last['txn']} was taken back."
            )
    except (GuardError, CommandFailed, OSError) as error:
        print(f"slipway: {error}", file=sys.stderr)
        return 1
    return 0


def command(arguments: Optional[Sequence[str]] = None) -> int:
    """`slipway` on a host that has guards and no applications."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["guard"]:
        return main(given[1:])
    said = "no application is described on this host; it knows `slipway guard` only"
    if "--json" in given:
        print(json.dumps({"failed": True, "message": said}))
    print(f"slipway: {said}", file=sys.stderr)
    return 2


def _boot(guard: Guard) -> int:
    try:
        last = guard.revert(reason="the host was restarted before it was confirmed", booting=True, alone=True)
    except (GuardError, OSError) as error:
        print(f"slipway: {error}", file=sys.stderr)
        return 1
    if last is not None:
        print(f"{guard.name}: change {last['txn']} was taken back.")
    return 0
