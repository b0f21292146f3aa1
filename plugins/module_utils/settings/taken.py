# SPDX-License-Identifier: GPL-3.0-or-later
"""What stood at the paths of a service before it was taken over: kept with its first change, put back when it is let go."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..guard import saved as snapshot
from ..host import files as disk
from ..host.state import observe
from . import manifest
from .declared import DirectorySpec, FileSpec, LinkSpec, Outcome, Transaction
from .originals import Originals, Undo

STATE = Path("/var/lib/slipway")
FOLDER = "originals"
PACKAGES = Path("/var/lib/dpkg/status")


def tell(warn: Callable[[str], None], name: str, outcome: Outcome, state: Path = STATE) -> None:
    """Say what was replaced that somebody else had written, and what letting go could not do."""
    if outcome.foreign:
        where = manifest.place(name, state / FOLDER).with_suffix("")
        warn(
            f"{name}: changed what others had written: {', '.join(outcome.foreign)}."
            f" The old text is kept in {where}, and comes back with state absent"
        )
    for words in outcome.words:
        warn(words)


@dataclass(frozen=True)
class Back:
    """What lets a service go. `edited`: files that somebody changed since; `unknown`: those of which nothing was kept."""

    transaction: Transaction
    edited: tuple[str, ...]
    unknown: tuple[str, ...]

    def words(self) -> list[str]:
        """What the operator has to know."""
        name = self.transaction.name
        found = (
            [f"{name}: changed by hand since the last run, and given up with it: {', '.join(self.edited)}"] if self.edited else []
        )
        if self.unknown:
            found.append(f"{name}: nothing is kept of what stood there before, so they stay: {', '.join(self.unknown)}")
        return found


class Taken:
    """The originals of one service; `state` is where this collection keeps what it knows."""

    def __init__(self, name: str, state: Path = STATE) -> None:
        self.name = name
        self.originals = Originals(manifest.place(name, state / FOLDER).with_suffix(""))
        self.record = manifest.place(name, state / manifest.FOLDER.name)
        self.fresh: list[Path] = []

    def owned(self) -> dict[str, dict[str, str]]:
        """What is declared of this service's paths, by path; nothing when that cannot be read."""
        try:
            return dict(json.loads(disk.read_text(self.record) or "{}"))
        except ValueError:
            return {}

    def keep(self, paths: Iterable[Path], begun: Collection[Path] = ()) -> list[str]:
        """Keep what stands at those of `paths` that are somebody else's, and say what of it is not as its package made it.

        `begun`: paths that an interrupted run may have changed. Raises OSError or ValueError.
        """
        owned = self.owned()
        known = self.originals.load().files
        fresh = [path for path in dict.fromkeys(paths) if str(path) not in owned and path not in begun]
        # What has to be gone is no longer ours to declare, and is still gone.
        fresh = [path for path in fresh if str(path) not in known or os.path.lexists(path)]
        if not fresh:
            return []
        self.fresh = [path for path in snapshot.with_missing_parents(fresh) if str(path) not in owned]
        self.originals.forget(self.fresh)
        self.originals.keep(self.fresh)
        theirs = [path for path in fresh if self.originals.files[str(path)].kind in ("file", "link")]
        return foreign(theirs, conffiles(disk.read_text(PACKAGES) or "")) if theirs else []

    def unkeep(self) -> None:
        """The change was taken back: what stands there is somebody else's again."""
        if self.fresh:
            self.originals.forget(self.fresh)
            self.originals.store()

    def back(
        self, transaction: Transaction, undo: Mapping[Path, Undo], effect: str = "reload", staying: Collection[Path] = ()
    ) -> Back:
        """`transaction` with everything as it was before; raises OSError or ValueError.

        `undo`: files of which others' parts stay when somebody changed them since. `effect` is what a changed file asks of units.
        `staying`: paths that somebody else still needs.
        """
        owned, kept = self.owned(), self.originals.load()
        specs = kept.back(staying, {})
        edited = [
            path for path, entry in owned.items() if manifest.differences(entry, observe(Path(path))) not in ("", "is gone")
        ]
        unknown = tuple(path for path in owned if path not in kept.files)
        merged = {path: self._merged(path, undo[path], owned[str(path)]) for path in undo if str(path) in edited}

        def file(spec: FileSpec) -> FileSpec:
            return replace(merged.get(spec.path, spec), effect=_effect(spec.path, effect), secret=True)

        return Back(
            Transaction(
                transaction.name,
                units=transaction.units,
                validate=transaction.validate,
                check=transaction.check,
                check_timeout=transaction.check_timeout,
                directories=tuple(spec for spec in specs if isinstance(spec, DirectorySpec)),
                files=tuple(file(spec) for spec in specs if isinstance(spec, FileSpec)),
                links=tuple(replace(s, effect=_effect(s.path, effect)) for s in specs if isinstance(s, LinkSpec)),
            ),
            tuple(path for path in edited if path not in unknown and Path(path) not in merged),
            unknown,
        )

    def _merged(self, path: Path, undo: Undo, entry: Mapping[str, str]) -> FileSpec:
        item = self.originals.files[str(path)]
        before = disk.read_text(self.originals.folder / item.copy) if item.copy else None
        text = undo(disk.read_text(path) or "", before or "")
        return FileSpec(path, text or None, entry["owner"], entry["group"], int(entry["mode"], 8))

    def forget(self) -> None:
        """It was let go."""
        self.originals.forget_all()
        disk.remove(self.record)


def _effect(path: Path, effect: str) -> str:
    return "daemon-reload" if str(path).startswith("/etc/systemd/") and effect != "restart" else effect


def conffiles(status: str) -> dict[str, str]:
    """MD5 sums of the packages' configuration files, from dpkg's status."""
    found: dict[str, str] = {}
    inside = False
    for line in status.splitlines():
        if inside and line.startswith(" /"):
            path, digest = line.split()[:2]
            found[path] = digest
            continue
        inside = line == "Conffiles:"
    return found


def foreign(paths: Sequence[Path], sums: Mapping[str, str]) -> list[str]:
    """Those of `paths`, files or links to files, that are not as their package made them."""
    found = []
    for path in paths:
        real = path.resolve()
        content = disk.read_text(real) if real.is_file() else None
        if content is not None:
            digest = hashlib.md5(content.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
            found += [str(path)] if sums.get(str(real)) != digest else []
    return found
