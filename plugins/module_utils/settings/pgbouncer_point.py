# SPDX-License-Identifier: GPL-3.0-or-later
"""The databases of a pooler led from one server to another by an edit of its file: a promotion must need no plan."""

from __future__ import annotations

import re
from pathlib import Path

from ..host import files as disk
from .pgbouncer_console import Console, ConsoleError

_SECTION = re.compile(r"^\[databases\]\n(?:(?!\[).*\n?)*", re.MULTILINE)
_HOST = r"(?<=\shost=)(['\"]?){}\1(?=\s|$)"


class PointError(Exception):
    """The pooler does not lead to the new server; the message says why."""


def pointed(text: str, old: str, new: str) -> str:
    """The configuration `text` with every database on `old` on `new` instead."""
    host = re.compile(_HOST.format(re.escape(old)), re.MULTILINE)
    return _SECTION.sub(lambda section: host.sub(new, section.group(0)), text)


def point(console: Console, path: Path, old: str, new: str, check_mode: bool = False) -> bool:
    """Lead the databases on `old` to `new`, in the file and in the running pooler; whether something had to change."""
    text = disk.read_text(path)
    if text is None:
        return False
    wanted = pointed(text, old, new)
    live = _left(console, old)
    if check_mode or (wanted == text and not live):
        return wanted != text or bool(live)
    if wanted != text:
        seen = path.stat()
        disk.atomic_write(path, wanted, seen.st_mode & 0o7777, seen.st_uid, seen.st_gid)
    if live:
        console.reload()
        left = _left(console, old)
        if left:
            raise PointError(
                f"pgbouncer on port {console.port} still leads {', '.join(left)} to {old} after a RELOAD; its log says why:"
                f" {path} has {new} already"
            )
    return True


def _left(console: Console, old: str) -> list[str]:
    """Databases that the running pooler has on `old`; none when it does not run, since it reads its file when it starts."""
    try:
        return [database.name for database in console.databases() if database.host == old]
    except ConsoleError as error:
        if Path(console.socket_dir, f".s.PGSQL.{console.port}").is_socket() and "refused" not in str(error):
            raise
        return []
