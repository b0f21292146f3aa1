# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpacking a release safely: nothing outside its directory, nothing that its user could change, all of it or nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Optional

from ..host import files
from .errors import SlipwayError

MARKER = ".slipway-release.json"


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def unpack(archive: Path, releases: Path, release: str, sha256: Optional[str] = None) -> tuple[Path, str, bool]:
    """Unpack `archive` as `releases`/`release`; the directory, the archive's digest, and whether that was new.

    A release that is there already with the same digest is left alone; with another one it is refused: what a release
    name means does not change. Raises SlipwayError.
    """
    if not archive.is_file():
        raise SlipwayError(f"the archive {archive} is not on this host. Check `archive` of release {release}.")
    actual = digest(archive)
    if sha256 is not None and actual != sha256.lower():
        raise SlipwayError(
            f"{archive} has SHA-256 {actual}, but {sha256.lower()} is wanted. Copy it again, or correct the digest."
        )
    target = releases / release
    present = _present(target)
    if present == actual:
        return target, actual, False
    if target.exists():
        raise SlipwayError(
            f"{target} holds release {release} with other content (SHA-256 {present or 'unknown'}, the archive has {actual}). "
            "Give the new content a new release name."
        )
    files.make_directories(releases)
    temporary = Path(tempfile.mkdtemp(prefix=f".{release}.", dir=releases))
    try:
        _extract(archive, temporary)
        files.atomic_write(temporary / MARKER, json.dumps({"release": release, "sha256": actual}) + "\n")
        temporary.chmod(0o755)
        os.sync()
        temporary.rename(target)
        files.fsync_directory(releases)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target, actual, True


def _present(target: Path) -> Optional[str]:
    with contextlib.suppress(ValueError, KeyError, OSError):
        return str(json.loads((target / MARKER).read_text(encoding="utf-8"))["sha256"])
    return None


def _extract(archive: Path, directory: Path) -> None:
    try:
        with tarfile.open(archive) as bundle:
            # The members are checked here; Python from 3.12 on would otherwise warn, from 3.14 on check by its own rules.
            bundle.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
            for member in _safe(bundle, archive):
                bundle.extract(member, directory, numeric_owner=True)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SlipwayError(f"{archive} cannot be unpacked: {error}") from error


def _safe(bundle: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    links: set[PurePosixPath] = set()
    for member in bundle:
        path = _inside(PurePosixPath(member.name), member.name, archive)
        if any(parent in links for parent in (path, *path.parents)):
            raise SlipwayError(f"{archive}: {member.name} goes through a link of the archive. Build it without.")
        if member.issym():
            _inside(path.parent / member.linkname, f"{member.name} -> {member.linkname}", archive)
            links.add(path)
        elif member.islnk():
            _inside(PurePosixPath(member.linkname), f"{member.name} -> {member.linkname}", archive)
        elif not (member.isfile() or member.isdir()):
            raise SlipwayError(f"{archive}: {member.name} is a device or a pipe. Only files, directories and links are allowed.")
        member.uid = member.gid = os.geteuid()
        member.uname = member.gname = ""
        if not member.issym():
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        yield member


def _inside(path: PurePosixPath, shown: str, archive: Path) -> PurePosixPath:
    depth = 0
    parts: list[str] = []
    for part in path.parts:
        if part == "/":
            depth = -1
            break
        depth += -1 if part == ".." else 0 if part == "." else 1
        if depth < 0:
            break
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    if depth < 0:
        raise SlipwayError(f"{archive}: {shown} lies outside of the archive. Build it with relative paths inside.")
    return PurePosixPath(*parts)
