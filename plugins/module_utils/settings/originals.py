# SPDX-License-Identifier: GPL-3.0-or-later
"""What stood where this collection changes files that are not its own: kept once, put back when they are let go."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional, Union

from ..guard import saved as snapshot
from ..guard.saved import Saved
from ..host import files as disk
from .declared import DirectorySpec, FileSpec, LinkSpec

Spec = Union[DirectorySpec, FileSpec, LinkSpec]
Undo = Callable[[str, str], str]
"""From the text that stands there now and the original one to the one that is to stand there."""


def _name(lookup: Any, number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


@dataclass
class Originals:
    """`units` are the steps by which units were switched off, by the unit's name."""

    folder: Path
    files: dict[str, Saved] = field(default_factory=dict)
    units: dict[str, list[str]] = field(default_factory=dict)

    def load(self) -> Originals:
        """What was kept so far; raises OSError or ValueError when that cannot be read."""
        data = json.loads(disk.read_text(self.folder / "originals.json") or "{}")
        self.files = {item["path"]: snapshot.from_dict(item) for item in data.get("files", [])}
        self.units = dict(data.get("units", {}))
        return self

    def keep(self, paths: Iterable[Path]) -> None:
        """Keep what stands at those of `paths` that nothing is kept of yet, before they are changed."""
        fresh = [path for path in paths if str(path) not in self.files]
        if not fresh:
            return
        disk.make_directories(self.folder.parent)
        token = os.urandom(4).hex()
        for item in snapshot.save(fresh, self.folder / token):
            if Path(item.path) in fresh:
                self.files[item.path] = replace(item, copy=f"{token}/{item.copy}" if item.copy else "")
        self.store()

    def store(self) -> None:
        """Write the list; nothing is left when it is empty."""
        if not self.files and not self.units:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        disk.make_directories(self.folder.parent)
        disk.make_directories(self.folder, 0o700)
        data = {"files": [item.as_dict() for item in self.files.values()], "units": self.units}
        disk.atomic_write(self.folder / "originals.json", json.dumps(data, indent=1) + "\n", 0o600)

    def back(self, kept: Iterable[Path], undo: Mapping[Path, Undo]) -> list[Spec]:
        """What puts everything back but the paths in `kept`; `undo` where only parts of a file are to go back."""
        still = {str(path) for path in kept}
        found = [self._back(item, undo.get(Path(item.path))) for path, item in self.files.items() if path not in still]
        return [spec for spec in found if spec is not None]

    def _back(self, item: Saved, undo: Optional[Undo]) -> Optional[Spec]:
        path = Path(item.path)
        owner, group = _name(pwd.getpwuid, item.uid), _name(grp.getgrgid, item.gid)
        if item.kind == "absent":
            return FileSpec(path, None)
        if item.kind == "link":
            return LinkSpec(path, item.target, "none")
        if item.kind == "directory":  # one that has gone meanwhile is not made again
            return DirectorySpec(path, owner, group, item.mode) if path.is_dir() else None
        text = disk.read_text(self.folder / item.copy) or ""
        now = disk.read_text(path)
        return FileSpec(path, text if undo is None or now is None else undo(now, text), owner, group, item.mode, effect="none")

    def forget(self, paths: Sequence[Path]) -> None:
        """They have been put back."""
        for path in paths:
            item = self.files.pop(str(path), None)
            if item is not None and item.copy:
                disk.remove(self.folder / item.copy)

    def forget_all(self) -> None:
        """Everything is as it was."""
        self.files.clear()
        self.units.clear()
        self.store()
