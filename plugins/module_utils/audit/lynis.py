# SPDX-License-Identifier: GPL-3.0-or-later
"""Lynis: how it is run, and what its report says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..host import files
from ..host.runner import Runner

UNCOUNTED = ("CRYP-7902", "NETW-2600", "PKGS-7345")
"""Slow tests that give no points and no finding of their own; our own checks look at certificates."""
TIMEOUT = 1800.0


def profile() -> str:
    """What is different from the default profile: nothing is fetched, and slow tests without points are left out."""
    return "".join(["refresh-repositories=no\n", *(f"skip-test={test}\n" for test in UNCOUNTED)])


def scan(runner: Runner) -> dict[str, Any]:
    """Run Lynis; `version` is empty where it is not installed. Nothing stays on the host but the result."""
    asked = runner.run(["lynis", "--version"], timeout=60)
    if not asked.ok:
        return {"version": ""}
    with tempfile.TemporaryDirectory(prefix="slipway-lynis-") as name:
        report, own = Path(name) / "report.dat", Path(name) / "slipway.prf"
        files.atomic_write(own, profile())
        argv = ["lynis", "audit", "system", "--quick", "--quiet", "--no-colors", "--no-log"]
        done = runner.run([*argv, "--profile", str(own), "--report-file", str(report)], timeout=TIMEOUT)
        found = parse(files.read_text(report) or "")
    version = asked.out.strip()
    if found["index"] is None:
        return {"version": version, "index": None, "tests": 0, "findings": [], "problem": done.text()[-500:] or "it ended early"}
    return {"version": version, **found}


def parse(report: str) -> dict[str, Any]:
    """Index, number of tests, and findings (`id`, `kind`, `text`, `detail`) from the text of a report.dat."""
    index, tests = None, 0
    findings: list[dict[str, str]] = []
    for line in report.splitlines():
        key, _equals, value = line.partition("=")
        if key == "hardening_index" and value.isdigit():
            index = int(value)
        elif key == "lynis_tests_done" and value.isdigit():
            tests = int(value)
        elif key in ("warning[]", "suggestion[]"):
            parts = [part.strip() for part in value.split("|")] + ["", "", ""]
            detail = "" if parts[2] in ("", "-") else parts[2]
            findings.append({"id": parts[0], "kind": key[:-2], "text": parts[1], "detail": detail})
    return {"index": index, "tests": tests, "findings": findings}
