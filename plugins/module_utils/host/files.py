# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are either the old bytes or the new bytes, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Optional


def fsync_directory(path: Path) -> None:
    """Make the entries of directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: Path) -> Optional[str]:
    """The text of `path`, every byte of it, or None when there is no such file."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def atomic_write(path: Path, text: str, mode: int = 0o644, uid: int = -1, gid: int = -1) -> None:
    """Replace `path` by `text` with permission bits `mode`: temporary file, fsync, rename, fsync of the directory.

    `uid` and `gid` of -1 leave the owner that a new file gets. Raises OSError; the old file is then untouched.
    """
    name = path.parent / f".{path.name}.{os.urandom(6).hex()}"
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            os.fchown(stream.fileno(), uid, gid)
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(name, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say where
        raise
    fsync_directory(path.parent)


def atomic_symlink(path: Path, target: str) -> None:
    """Point the symbolic link `path` to `target` in one rename; raises OSError."""
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    os.rename(temporary, path)
    fsync_directory(path.parent)


def remove(path: Path) -> bool:
    """Unlink `path` durably; False when it was not there."""
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    fsync_directory(path.parent)
    return True


def make_directories(path: Path, mode: int = 0o755) -> None:
    """Create `path` and what is missing above it, each with permission bits `mode`, durably."""
    if path.is_dir():
        return
    make_directories(path.parent, mode)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=mode)
        path.chmod(mode)
        fsync_directory(path.parent)


def exchange(one: Path, other: Path) -> None:
    """Have two paths change places in one step: nobody sees half of it. Raises OSError, also where a file system cannot."""
    import ctypes  # here, since every module has this file and hardly any needs what this one loads

    here, exchanged = -100, 2  # AT_FDCWD and RENAME_EXCHANGE: rename(2)
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchanged):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))
    fsync_directory(one.parent)


def place(path: Path, kind: str, content: str = "", mode: int = 0, uid: int = -1, gid: int = -1) -> None:
    """Have at `path` a `file` with `content`, a `link` to it, a `directory`, or, being `absent`, nothing; raises OSError.

    A directory with something in it stays: somebody else has put that there.
    """
    if kind == "absent":
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
        else:
            remove(path)
        return
    make_directories(path.parent)
    if kind == "link":
        atomic_symlink(path, content)
    elif kind == "directory":
        make_directories(path, mode)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
    else:
        atomic_write(path, content, mode, uid, gid)
