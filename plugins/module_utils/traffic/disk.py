# SPDX-License-Identifier: GPL-3.0-or-later
"""Every change that the traffic room makes to the disk goes through here, so that a test can stop the world at each."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Optional

from ..host import files
from .errors import SlipwayError


class Disk:
    """Durable single operations: each is done or not done after a power loss, never half done."""

    def read(self, path: Path) -> Optional[str]:
        """The text of `path`, or None when there is none."""
        return files.read_text(path)

    def write(self, path: Path, text: str, mode: int = 0o644) -> None:
        """Replace `path` by `text`, making its directories."""
        files.make_directories(path.parent)
        files.atomic_write(path, text, mode)

    def create_flag(self, path: Path, aside: Optional[Path] = None) -> None:
        """An empty file, in one operation; durable after `settle`. The one put `aside` before needs no space on a full disk."""
        if aside is not None:
            with contextlib.suppress(FileNotFoundError):
                os.rename(aside, path)
                return
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))

    def remove_flag(self, path: Path, aside: Optional[Path] = None) -> None:
        """No such file any more, in one operation, but one put `aside` if that is given; durable after `settle`."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink() if aside is None else os.rename(path, aside)

    def settle(self, directory: Path) -> None:
        """Make the entries of `directory` durable."""
        files.fsync_directory(directory)

    def create_exclusive(self, path: Path, text: str) -> bool:
        """Create `path` with all of `text` at once, only if there is none; False when there is one."""
        files.make_directories(path.parent)
        temporary = path.parent / f".{path.name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        files.fsync_directory(path.parent)
        return True

    def append(self, path: Path, line: str) -> None:
        """Add one line durably; a torn last line of a crash is closed first, so that it stays apart."""
        files.make_directories(path.parent)
        fresh = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            _write_whole(descriptor, (("\n" if torn else "") + line + "\n").encode("utf-8"), size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            files.fsync_directory(path.parent)

    def note(self, path: Path, line: str) -> None:
        """Add one line that may be lost in a power cut."""
        files.make_directories(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, (line + "\n").encode("utf-8"))
        finally:
            os.close(descriptor)

    def changed_at(self, path: Path) -> float:
        """When `path` was last written, in seconds since the epoch; 0 when there is none."""
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def rename(self, path: Path, to: Path) -> None:
        """Move `path` to `to` in the same file system."""
        os.rename(path, to)
        files.fsync_directory(to.parent)

    def rotate(self, path: Path, at: int, kept: int) -> None:
        """Put `path` aside as .1 once it has `at` bytes, and what was put aside before one further, up to `kept` of them."""
        if self.size(path) < at:
            return
        for number in range(kept, 1, -1):
            older = path.with_name(f"{path.name}.{number - 1}")
            if self.size(older):
                self.rename(older, path.with_name(f"{path.name}.{number}"))
        self.rename(path, path.with_name(f"{path.name}.1"))

    def remove(self, path: Path) -> bool:
        """Remove `path`; False when it was not there."""
        return files.remove(path)

    def make_directories(self, path: Path) -> None:
        """Create `path` and what is missing above it."""
        files.make_directories(path)

    def shut(self, directory: Path) -> list[Path]:
        """`directory` and the two above it, as far as not everybody may look for a name there."""
        found = []
        for path in (directory.parent.parent, directory.parent, directory):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mode & 0o005 != 0o005:
                    found.append(path)
        return found

    def open_up(self, directory: Path) -> None:
        """Have `directory`, where everybody may look for a name."""
        files.make_directories(directory)
        for path in self.shut(directory):
            path.chmod(0o755)

    def names(self, directory: Path) -> list[str]:
        """Names of regular files in `directory`, sorted; empty when there is no such directory."""
        try:
            return sorted(entry.name for entry in os.scandir(directory) if entry.is_file())
        except FileNotFoundError:
            return []

    def size(self, path: Path) -> int:
        """Bytes of `path`; 0 when there is none."""
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def document(self, path: Path) -> Optional[dict[str, object]]:
        """The JSON object in `path`, or None when there is no file; raises SlipwayError when it is something else."""
        text = self.read(path)
        if text is None:
            return None
        try:
            value = json.loads(text)
        except ValueError as error:
            raise SlipwayError(f"{path} is not JSON ({error}). Move it away; it is written anew.") from error
        if not isinstance(value, dict):
            raise SlipwayError(f"{path} holds no JSON object. Move it away; it is written anew.")
        return value


def _write_whole(descriptor: int, data: bytes, size: int) -> None:
    """All of `data`; raises OSError, and leaves the file with its `size` as before, where the disk has room for a part only."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        os.ftruncate(descriptor, size)
        raise
