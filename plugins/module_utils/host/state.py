# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands at a path of this host."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files


@dataclass(frozen=True)
class State:
    """What stands at a path: nothing, a file with bytes, a link with its target, or a directory."""

    kind: str = "absent"
    content: str = ""
    owner: str = ""
    group: str = ""
    mode: int = 0


def name_of(lookup: Any, number: int) -> str:
    """The name of a user (`pwd.getpwuid`) or group (`grp.getgrgid`), or the number when there is none."""
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def observe(path: Path) -> State:
    """What stands at `path` now; raises OSError when it cannot be read."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return State()
    owner, group = name_of(pwd.getpwuid, status.st_uid), name_of(grp.getgrgid, status.st_gid)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return State("link", os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return State("directory", "", owner, group, mode)
    return State("file", files.read_text(path) or "", owner, group, mode)
