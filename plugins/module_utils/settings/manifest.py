# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files this collection owns on a host, and as what: so that a later look can tell what was changed by hand.

Digests only: no content of a file is kept here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..host import files as disk
from ..host.state import State, observe

FOLDER = Path("/var/lib/slipway/files")
"""One file for each owner, which root alone may read."""


@dataclass(frozen=True)
class Drift:
    """A path of `owner` that is not as it was declared last."""

    path: str
    owner: str
    what: str


def digest(content: str) -> str:
    """SHA-256 of a text as it stands on disk."""
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def entry(declared: State) -> dict[str, str]:
    """What is kept of a declared path."""
    if declared.kind == "link":
        return {"kind": "link", "target": declared.content}
    found = {"kind": declared.kind, "owner": declared.owner, "group": declared.group, "mode": f"{declared.mode:04o}"}
    return {**found, "sha256": digest(declared.content)} if declared.kind == "file" else found


def place(owner: str, folder: Path = FOLDER) -> Path:
    """The file with what `owner` declared. A guarded change holds it, too: taken back, the old record is right again."""
    return folder / (re.sub(r"[^A-Za-z0-9@._-]", "_", owner) + ".json")


def record(owner: str, declared: Iterable[tuple[Path, State]], folder: Path = FOLDER) -> None:
    """Keep what `owner` declares; paths that are to be gone are forgotten, and so is an owner that has nothing else."""
    kept = {str(path): entry(state) for path, state in declared if state.kind != "absent"}
    path = place(owner, folder)
    text = json.dumps(kept, indent=1, sort_keys=True) + "\n" if kept else None
    if disk.read_text(path) == text:
        return
    if text is None:
        disk.remove(path)
        return
    disk.make_directories(folder.parent)
    disk.make_directories(folder, 0o700)
    disk.atomic_write(path, text, 0o600)


def differences(kept: Mapping[str, Any], actual: State) -> str:
    """How what stands at a path differs from what is kept of it; empty when it does not."""
    if actual.kind == "absent":
        return "is gone"
    found = entry(actual)
    if found["kind"] != kept.get("kind"):
        return f"is a {found['kind']}, no {kept.get('kind')}"
    parts = ["has other content"] if found.get("sha256") != kept.get("sha256") else []
    names = {"target": "leads to", "owner": "belongs to", "group": "has group", "mode": "has mode"}
    parts += [f"{words} {found[key]}, not {kept[key]}" for key, words in names.items() if key in kept and found[key] != kept[key]]
    return "; ".join(parts)


def drift(folder: Path = FOLDER) -> list[Drift]:
    """Every owned path that is not as it was declared last; a record that cannot be read is one, too."""
    found = []
    for place in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            kept = json.loads(disk.read_text(place) or "{}").items()
        except (ValueError, AttributeError):
            found.append(Drift(str(place), place.stem, "cannot be read; run the role again"))
            continue
        for path, state in kept:
            what = differences(state, observe(Path(path)))
            found += [Drift(path, place.stem, what)] if what else []
    return found
