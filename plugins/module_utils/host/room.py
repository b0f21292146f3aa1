# SPDX-License-Identifier: GPL-3.0-or-later
"""Room on disks, held before a change so that the old bytes can be written again when the disk has become full."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

SPARE = 8192  # for each file: its last block, and what its directory may need


def standing(path: Path) -> Path:
    """The nearest directory above `path` that is there."""
    return next(parent for parent in path.parents if parent.is_dir())


class Room:
    """Files without a name: they are gone with the process, however that ends."""

    def __init__(self) -> None:
        self.held: list[int] = []

    def reserve(self, needs: Iterable[tuple[Path, int]]) -> None:
        """Hold as many bytes as are given for each path, on the disk that it lies on; raises OSError, nothing being held then."""
        folders: dict[int, tuple[Path, int]] = {}
        for path, size in needs:
            folder = standing(path)
            first, sum_ = folders.get(folder.stat().st_dev, (folder, 0))
            folders[folder.stat().st_dev] = (first, sum_ + size + SPARE)
        try:
            for folder, size in folders.values():
                name = folder / f".slipway-room.{os.urandom(6).hex()}"
                self.held.append(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
                os.unlink(name)
                os.posix_fallocate(self.held[-1], 0, size)
        except OSError as error:
            self.release()
            raise OSError(error.errno, f"no room for {size} bytes: {error.strerror}", str(folder)) from error

    def release(self) -> None:
        """Give it back; may be called again."""
        while self.held:
            os.close(self.held.pop())
