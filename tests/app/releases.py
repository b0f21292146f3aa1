# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release of the sample application consists of, and the record of those that were made."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fleet.shell import STATE, lock

SOURCE = Path(__file__).with_name("release")
ARTIFACTS = STATE / "artifacts"
RECORD = ARTIFACTS / "releases.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")

STANDARD: Mapping[str, Mapping[str, str]] = {
    "v1": {},
    "v2": {},
    "v3": {},
    "bad-never": {"FAULT_HEALTH": "503"},
    "bad-lying": {"FAULT_HEALTH": "lying"},
    "bad-crash": {"CRASH_AFTER": "5"},
    "bad-boot": {"FAULT_BOOT": "exit"},
    "bad-errors": {"FAULT_ERRORS": "0.1"},
    "bad-slow": {"FAULT_LATENCY": "2"},
    "expand": {"MIGRATION": "expand:one"},
    "expand-slow": {"MIGRATION": "expand:two", "FAULT_MIGRATION": "slow:6"},
    "expand-fail": {"MIGRATION": "expand:three", "FAULT_MIGRATION": "fail"},
    "contract": {"MIGRATION": "contract:one"},
    "bad-worker": {"FAULT_WORKER": "exit"},
}
"""The releases of the tests, with the faults baked into them."""


def content(release: str, faults: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a release by their path in it. Raises ValueError for a name or a fault that cannot be stored."""
    if not NAME.fullmatch(release):
        raise ValueError(f"{release!r} is not a release name: letters, digits, dots, dashes and underscores")
    wrong = [f"{key}={value}" for key, value in faults.items() if not re.fullmatch(r"[A-Z_]+", key) or "\n" in value]
    if wrong:
        raise ValueError(f"not KEY=VALUE with an upper-case key: {', '.join(wrong)}")
    files = {str(path.relative_to(SOURCE)): path.read_bytes() for path in SOURCE.rglob("*.r[bu]")}
    files["RELEASE"] = f"{release}\n".encode()
    if faults:
        files["faults.env"] = "".join(f"{key}={value}\n" for key, value in sorted(faults.items())).encode()
    return files


def recorded() -> dict[str, dict[str, Any]]:
    """The releases made so far: {name: {archive, sha256, faults, digest, image}}; image once it is published."""
    loaded: dict[str, dict[str, Any]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return loaded


def publish_to(fleet: str, references: Mapping[str, str]) -> Path:
    """Write .fleet/<fleet>/releases.json, the `releases` of an inventory: {name: {image, archive, sha256}}."""
    known = recorded()
    target = STATE / fleet / "releases.json"
    entries = {
        name: {"image": image, "archive": known[name]["archive"], "sha256": known[name]["sha256"]}
        for name, image in references.items()
    }
    older = json.loads(target.read_text()) if target.exists() else {}
    target.write_text(json.dumps({**older, **entries}, indent=2, sort_keys=True) + "\n")
    return target


def record(release: str, values: Mapping[str, Any]) -> None:
    """Replace what is known of a release."""
    with lock("releases"):
        known = {**recorded(), release: dict(values)}
        temporary = RECORD.with_suffix(".new")
        temporary.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        temporary.replace(RECORD)
