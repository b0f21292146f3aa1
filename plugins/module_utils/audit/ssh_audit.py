# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh-audit: how it is run against another host, and what it says. Before version 3 only its text has marks, no JSON."""

from __future__ import annotations

import re
from typing import Any

from ..host.runner import Runner

MARK = re.compile(r"^(?:\((?P<kind>[a-z]{3})\) (?P<name>\S+)\s+--|\s+`-) \[(?P<level>fail|warn)\] (?P<text>.*)$")
NAME = re.compile(r"^\((?P<kind>[a-z]{3})\) (?P<name>\S+)")
VERSION = re.compile(r"ssh-audit v?(\d+(?:\.\d+)+)")


def version(runner: Runner) -> str:
    """Its version; empty where it is not installed."""
    asked = runner.run(["ssh-audit", "--help"], timeout=30)
    found = VERSION.search(asked.out + asked.err)
    return found.group(1) if found else ""


def number(text: str) -> tuple[int, ...]:
    """A version to compare with."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def scan(runner: Runner, address: str, port: int, own: str) -> dict[str, Any]:
    """Ask the server at `address` and `port`; `own` is the version of this ssh-audit."""
    # A test of the rate would be an attack, and would count against this address where sshd counts.
    calm = ["--skip-rate-test"] if number(own) >= (3, 2) else []
    done = runner.run(["ssh-audit", "--no-colors", *calm, "--port", str(port), address], timeout=120)
    if "(gen) banner" not in done.out:
        return {"version": own, "problem": done.text()[-300:] or f"no answer (status {done.rc})", "findings": []}
    return {"version": own, "problem": "", "findings": parse(done.out)}


def parse(text: str) -> list[dict[str, str]]:
    """Findings (`id`, `kind`, `text`) marked fail or warn in its output."""
    findings, last = [], ""
    for line in text.splitlines():
        named = NAME.match(line)
        if named:
            last = named.group("name")
        marked = MARK.match(line)
        if marked:
            findings.append({"id": last, "kind": marked.group("level"), "text": marked.group("text").strip()})
    return findings
