# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples of live traffic from nginx's JSON access log (log_format slipway), followed over rotations."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Optional

from .samples import Sample

BLOCK = 1 << 20
LINES = 200_000
MARKED = 128
CACHED = 10_000
SEGMENTS = 5
TRIES = 3
FIRST_ERROR = 500
UPGRADED = 101
PACKED = (".gz", ".xz", ".bz2", ".zst")
_VARIABLE = re.compile(r"[0-9%@=]|.{33}")
_SERVERS = re.compile(r", | : ")


@dataclass(frozen=True)
class Place:
    """A byte in a file. `mark` is a checksum of what lies before it: names and inode numbers come back, contents do not."""

    device: int = 0
    inode: int = 0
    offset: int = 0
    mark: int = 0


@dataclass(frozen=True)
class Position:
    """Up to where a log was read: its file, and the one before, which workers of nginx write to until they reopen."""

    current: Place = Place()
    former: Optional[Place] = None

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for a journal."""
        return asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Position:
        """What `as_dict` gave; raises ValueError for something else."""
        try:
            current, former = (
                {name: int(value) for name, value in part.items()} for part in (data["current"], data["former"] or {})
            )
            return cls(Place(**current), Place(**former) if former else None)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{data!r} is no position of a log") from error


_File = tuple[Path, Place]


class AccessLog:
    """The access log of one application. `members` names the slot of each ADDRESS:PORT.

    `foreign` counts lines that could not be read, `lost` files that were gone before they had been read to their end.
    """

    def __init__(self, path: Path, members: Mapping[str, str]) -> None:
        self.path = path
        self.members = members
        self.foreign = 0
        self.lost = 0
        self._endpoints: dict[tuple[str, str], str] = {}

    def position(self) -> Position:
        """The end of the log now; the beginning when there is none yet."""
        files = self._files()
        if not files or files[-1][0] != self.path:
            return Position()
        ends = [end for end in (_end(path) for path, _place in files[-2:]) if end is not None]
        return Position(ends[-1], ends[0] if len(ends) > 1 else None) if ends else Position()

    def read(self, since: Position, lines: int = LINES) -> tuple[list[Sample], Position]:
        """Samples after `since`, of `lines` lines at most, and where to go on. When that is `since`, there is no more."""
        samples: list[Sample] = []
        files = self._files()
        former, left = since.former, lines
        behind = _holding(files, former) if former else None
        if former is not None:
            former, left = self._take(behind[0], behind[1], samples, left) if behind else (None, left)
        current = since.current
        for index, (path, place) in enumerate(self._chain(files, current, behind)):
            if left <= 0:
                break
            reached, left = self._take(path, place, samples, left)
            # Moved away between the look at the directory and this one: the next read finds it under its new name.
            if reached is None:
                break
            # Nobody writes to a copy that was made before the file was emptied: the one before stays the one to look after.
            if index > 1 or (index and current.inode == since.current.inode):
                former = current
            current = reached
        return samples, Position(current, former)

    def _chain(self, files: list[_File], place: Place, behind: Optional[_File]) -> list[_File]:
        """What to read from `place` on, oldest first, without `behind`, which may have been written to after others."""
        for _try in range(TRIES):
            if not place.inode:
                return files[-1:] if files and files[-1][0] == self.path else []
            holder = _holding(files, place)
            if holder is not None:
                after = [path for path, _place in files].index(holder[0]) + 1
                return [holder, *(file for file in files[after:] if behind is None or file[0] != behind[0])]
            files = self._files()
        if not files or files[-1][0] != self.path:
            return []
        self.lost += 1
        return files[-1:]

    def _files(self) -> list[_File]:
        """The files of this log that can be read and their beginnings, oldest first; the current one is the last."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path.parent) as entries:
            for entry in entries:
                if entry.name.startswith(self.path.name) and not entry.name.endswith(PACKED):
                    with contextlib.suppress(FileNotFoundError):
                        seen = entry.stat()
                        newest = entry.name == self.path.name
                        found.append((newest, seen.st_mtime_ns, entry.name, Place(seen.st_dev, seen.st_ino)))
        return [(self.path.parent / name, place) for _newest, _time, name, place in sorted(found, key=lambda file: file[:3])]

    def _take(self, path: Path, place: Place, samples: list[Sample], left: int) -> tuple[Optional[Place], int]:
        """Read whole lines from `place` to the end; where that is and how many lines are left, None for another file there."""
        stream = _open(path)
        if stream is None:
            return None, left
        with stream:
            found = os.fstat(stream.fileno())
            if (found.st_dev, found.st_ino) != (place.device, place.inode):
                return None, left
            offset, rest = place.offset, b""
            stream.seek(offset)
            while left > 0:
                block = stream.read(BLOCK)
                if not block:
                    break
                pieces = (rest + block).split(b"\n")
                rest = pieces.pop()
                for line in pieces[:left]:
                    offset += len(line) + 1
                    self._parse(line, samples)
                left -= len(pieces)
                if len(rest) > BLOCK:
                    self.foreign += 1
                    offset, rest = offset + len(rest), b""
            return Place(found.st_dev, found.st_ino, offset, _mark(stream, offset)), max(left, 0)

    def _parse(self, line: bytes, samples: list[Sample]) -> None:
        """Add the samples of one line: one for each slot that was asked, an error where one of its attempts failed."""
        try:
            entry = json.loads(line.decode("utf-8", "replace"))
            if entry["probe"] or not entry["upstream_addr"]:
                return
            samples.extend(self._of(entry))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            self.foreign += 1

    def _of(self, entry: Mapping[str, str]) -> list[Sample]:
        at, final = float(entry["msec"]), int(entry["status"])
        if not 0.0 <= at < 1e11:
            raise ValueError(entry["msec"])
        endpoint = self._endpoint(entry["method"], entry["path"])
        addresses = _SERVERS.split(entry["upstream_addr"])
        codes = _SERVERS.split(entry["upstream_status"])
        times = _SERVERS.split(entry["upstream_response_time"])
        found: dict[str, tuple[bool, float, bool]] = {}
        for index, address in enumerate(addresses):
            slot = self.members.get(address) or str(entry["slot"])
            # Without a status nginx went on to the next server, or the request ended as its own status says.
            code = int(codes[index]) if codes[index] not in ("-", "") else final if index + 1 == len(addresses) else FIRST_ERROR
            took = float(times[index]) * 1000.0 if times[index] not in ("-", "") else -1.0
            error, ms, telling = found.get(slot, (False, 0.0, True))
            telling = telling and code != UPGRADED and 0.0 <= took < 1e9
            found[slot] = error or code >= FIRST_ERROR, ms + took, telling
        return [
            Sample(at, slot, endpoint, error, round(ms, 3) if telling and not error else None)
            for slot, (error, ms, telling) in found.items()
        ]

    def _endpoint(self, method: str, path: str) -> str:
        """Method and path with `*` for what looks like an identifier, so that requests of a kind are compared."""
        found = self._endpoints.get((method, path))
        if found is None:
            parts = path.split("/")
            kept = ["*" if _VARIABLE.search(part) else part for part in parts[: SEGMENTS + 1]]
            found = f"{method} {'/'.join(kept)}" + ("/…" if len(parts) > SEGMENTS + 1 else "")
            if len(self._endpoints) >= CACHED:
                self._endpoints.clear()
            self._endpoints[method, path] = found
        return found


def _holding(files: list[_File], place: Place) -> Optional[_File]:
    """The file that has `place` in it: that of the inode number, or a copy of it that was made before it was emptied."""
    copy = None
    for path, file in reversed(files):
        stream = _open(path)
        if stream is None:
            continue
        with stream:
            found = os.fstat(stream.fileno())
            if found.st_size < place.offset or _mark(stream, place.offset) != place.mark:
                continue
        here = replace(place, device=found.st_dev, inode=found.st_ino)
        if here == place:
            return path, here
        if place.offset and copy is None and (file.device, file.inode) == (here.device, here.inode):
            copy = path, here
    return copy


def _open(path: Path) -> Optional[BinaryIO]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _mark(stream: BinaryIO, offset: int) -> int:
    """Checksum of the bytes before `offset`."""
    begin = max(0, offset - MARKED)
    return zlib.crc32(os.pread(stream.fileno(), offset - begin, begin))


def _end(path: Path) -> Optional[Place]:
    """The end of the last whole line, None when there is no such file."""
    stream = _open(path)
    if stream is None:
        return None
    with stream:
        found = os.fstat(stream.fileno())
        offset = found.st_size
        while offset:
            begin = max(0, offset - BLOCK)
            last = os.pread(stream.fileno(), offset - begin, begin).rfind(b"\n")
            offset = begin + last + 1
            if last >= 0:
                break
        return Place(found.st_dev, found.st_ino, offset, _mark(stream, offset))
