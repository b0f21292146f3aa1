# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line: python -m tests.client run|report."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from dataclasses import fields
from pathlib import Path

from .connection import Target
from .records import Log, load
from .report import Switch, summarise, switches_of, text
from .traffic import Mix, Traffic


def main() -> int:
    options = _parser().parse_args()
    return int(options.action(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.client", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="make traffic and log each request; exit status 1 when any failed")
    run.add_argument("--url", required=True, help="https://NAME[:PORT]")
    run.add_argument("--connect", metavar="ADDRESS:PORT", help="connect there instead of to the URL's name")
    trust = run.add_mutually_exclusive_group()
    trust.add_argument("--ca", help="PEM file of the authority to trust instead of the system's")
    trust.add_argument("--insecure", action="store_true", help="accept any certificate")
    run.add_argument("--log", type=Path, required=True, help="JSON lines file; an old one is overwritten")
    run.add_argument("--duration", type=float, default=0, help="seconds; 0: until SIGTERM or SIGINT (default)")
    for each in fields(Mix):
        kind = int if isinstance(each.default, int) else float
        run.add_argument(f"--{each.name}", type=kind, default=each.default, help=f"default {each.default}")
    run.set_defaults(action=_run)
    report = commands.add_parser("report", help="summarise a log")
    report.add_argument("file", type=Path)
    report.add_argument("--switches", type=Path, help="JSON with the keys at, to, name, done")
    report.add_argument("--window", help="A,B: only what started between these times (seconds since 1970)")
    report.add_argument("--around", type=float, default=5.0, help="seconds before and after a switch (default 5)")
    report.add_argument("--grace", type=float, default=0.0, help="seconds after a switch in which old answers are allowed")
    report.add_argument("--json", action="store_true")
    report.set_defaults(action=_report)
    return parser


def _run(options: argparse.Namespace) -> int:
    target = Target.of(options.url, options.connect, options.ca, options.insecure)
    mix = Mix(**{each.name: getattr(options, each.name) for each in fields(Mix)})
    with options.log.open("w") as file:
        asyncio.run(_until_told(Traffic(target, mix, Log(file)), options.duration))
    summary = summarise(load(options.log))
    print(text(summary))
    return 1 if summary["failures"] or summary["websockets"]["cut"] else 0


async def _until_told(traffic: Traffic, duration: float) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, traffic.stop.set)
    if duration > 0:
        loop.call_later(duration, traffic.stop.set)
    await traffic.run()


def _report(options: argparse.Namespace) -> int:
    records = list(load(options.file))
    if options.window:
        start, end = (float(part) for part in options.window.split(","))
        records = [record for record in records if start <= record["t"] < end]
    switches: list[Switch] = switches_of(options.switches) if options.switches else []
    summary = summarise(records, switches, options.around, options.grace)
    print(json.dumps(summary, indent=2) if options.json else text(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
