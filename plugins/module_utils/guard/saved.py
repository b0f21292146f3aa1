# SPDX-License-Identifier: GPL-3.0-or-later
"""What stood at a path: kept so that it can be put back byte for byte, with its mode and owner, or be gone again."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ..host import files as disk


@dataclass(frozen=True)
class Saved:
    """`kind`: absent, file, link or directory; `copy`: name of the file that holds the bytes of a file."""

    path: str
    kind: str = "absent"
    mode: int = 0
    uid: int = 0
    gid: int = 0
    target: str = ""
    copy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def from_dict(data: Mapping[str, Any]) -> Saved:
    """The opposite of `as_dict`; raises TypeError."""
    return Saved(**data)


def with_missing_parents(paths: Iterable[Path]) -> list[Path]:
    """`paths` behind the directories above them that do not exist yet, so that these go again when the paths do."""
    found: dict[Path, None] = {}
    for path in paths:
        missing = [parent for parent in path.parents if not parent.exists()]
        found.update(dict.fromkeys([*reversed(missing), path]))
    return list(found)


def save(paths: Iterable[Path], folder: Path) -> list[Saved]:
    """Copy what stands at `paths` into `folder`, which nobody else can read, durably; raises OSError."""
    disk.make_directories(folder, 0o700)
    return [_save(path, folder, str(number)) for number, path in enumerate(with_missing_parents(paths))]


def _save(path: Path, folder: Path, copy: str) -> Saved:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Saved(str(path))
    mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    if stat.S_ISLNK(status.st_mode):
        return Saved(str(path), "link", target=os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return Saved(str(path), "directory", mode, *owner)
    disk.atomic_write(folder / copy, disk.read_text(path) or "", 0o600)
    return Saved(str(path), "file", mode, *owner, copy=copy)


def restore(saved: Iterable[Saved], folder: Path) -> list[str]:
    """Put everything back, the last first; says what could not be, and may be called again."""
    faults = []
    for item in reversed(list(saved)):
        try:
            _restore(item, Path(item.path), folder)
        except OSError as error:
            faults.append(f"{item.path} could not be put back: {error}")
    return faults


def _restore(item: Saved, path: Path, folder: Path) -> None:
    text: Optional[str] = item.target
    if item.kind == "file":
        text = disk.read_text(folder / item.copy)
        if text is None:
            raise FileNotFoundError(f"its copy {folder / item.copy} is gone")
    if not _stands(item, path, text or ""):  # a full disk takes no second copy of what was not changed
        disk.place(path, item.kind, text or "", item.mode, item.uid, item.gid)


def _stands(item: Saved, path: Path, text: str) -> bool:
    """Whether a file or link is as it was kept."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if item.kind == "link":
        return stat.S_ISLNK(status.st_mode) and os.readlink(path) == text
    same = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (item.mode, item.uid, item.gid)
    return item.kind == "file" and stat.S_ISREG(status.st_mode) and same and disk.read_text(path) == text
