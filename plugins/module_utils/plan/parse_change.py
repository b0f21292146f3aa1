# SPDX-License-Identifier: GPL-3.0-or-later
"""What an entry of slipway_apps says about a change beside moving traffic: migrations, hooks, notification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..traffic.config import ABORTABLE, FAILURES, HOOK_STATES
from . import reader as shape
from .model import Backend, Hook, Migrations, Notify
from .placeholders import Undefined, is_placeholder_secret
from .reader import Reader, kind


def migrations(read: Reader, data: Mapping[str, Any], key: str, backends: Sequence[Backend]) -> Optional[Migrations]:
    """The commands that ask for and apply changes of the database."""
    path = key + ".migrations"
    if data.get("migrations") is None:
        return None
    entry = read.mapping(data["migrations"], path, ("check", "apply", "timeout", "lock_timeout", "backup"))
    backup = read.mapping(entry.get("backup") or {}, path + ".backup", ("file", "command", "max_age"))
    if backends and not any(backend.managed for backend in backends):
        read.fail(path, "needs a backend that slipway starts", "Add a backend without `unit`, or remove it")
    found = Migrations(
        check=_line(read, entry, "check", path, "a command that ends with 0, 10 or 20", required=True),
        apply=_line(read, entry, "apply", path, "a command that migrates the database", required=True),
        timeout=read.number(entry, "timeout", path, 1, 86400, 600),
        lock_timeout=read.number(entry, "lock_timeout", path, 1, 3600, 5),
        backup_file=read.text(backup, "file", path + ".backup", shape.FILE_PATH, "an absolute path on the database's host"),
        backup_command=_line(read, backup, "command", path + ".backup", "a command that prints id and at as JSON"),
        backup_max_age=read.number(backup, "max_age", path + ".backup", 60, 31536000, 3600),
    )
    if found.backup_file and not found.backup_file.startswith("/"):
        read.fail(path + ".backup.file", "is no absolute path", "Write /var/lib/…")
    if found.backup_file and found.backup_command:
        read.fail(path + ".backup", "names a file and a command", "Keep one of the two")
    if found.lock_timeout >= found.timeout:
        read.fail(path + ".lock_timeout", f"is {found.lock_timeout} s, not below timeout {found.timeout} s", "Lower it")
    return found


def hooks(read: Reader, data: Mapping[str, Any], key: str) -> dict[str, tuple[Hook, ...]]:
    """Commands by state."""
    path = key + ".hooks"
    found = {}
    for state, listed in read.mapping(data.get("hooks") or {}, path, HOOK_STATES).items():
        below = f"{path}.{state}"
        if not isinstance(listed, list):
            read.fail(below, f"must be a list, but is {kind(listed)}", "Write it as a list of {command: …}")
            continue
        found[state] = tuple(_hook(read, item, f"{below}[{index}]", state) for index, item in enumerate(listed))
    return found


def _hook(read: Reader, raw: Any, path: str, state: str) -> Hook:
    entry = read.mapping(raw, path, ("command", "on_failure", "timeout", "user"))
    on_failure = read.choice(entry, "on_failure", path, FAILURES, "abort" if state in ABORTABLE else "warn")
    if on_failure == "abort" and state not in ABORTABLE:
        read.fail(path + ".on_failure", f"cannot be abort, because nothing can be aborted at {state}", "Set it to warn")
    return Hook(
        command=read.text(entry, "command", path, shape.LINE, "one line for a shell", required=isinstance(raw, dict)),
        on_failure=on_failure,
        timeout=read.number(entry, "timeout", path, 1, 3600, 60),
        user=read.text(entry, "user", path, shape.USER, "a user such as deploy", "root"),
    )


def notify(read: Reader, data: Mapping[str, Any], key: str) -> Optional[Notify]:
    """Who is told; the URL is checked here and left behind, because it may hold a token."""
    path = key + ".notify"
    if data.get("notify") is None:
        return None
    entry = read.mapping(data["notify"], path, ("command", "url", "timeout"))
    url = entry.get("url")
    if isinstance(url, str) and is_placeholder_secret(url):
        read.fail(path + ".url", "is still a placeholder or empty", "Put the real address there, from a vault")
    elif isinstance(url, str) and (not url.startswith("https://") or any(char.isspace() or ord(char) < 33 for char in url)):
        read.fail(path + ".url", "is not an address that begins with https://", "Plain http would show its token: use https")
    elif url is not None and not isinstance(url, (str, Undefined)):
        read.fail(path + ".url", f"must be text, but YAML read {kind(url)}", "Put it in quotes")
    if url is None and entry.get("command") is None:
        read.fail(path, "says neither command nor url", "Add one of the two, or remove it")
    return Notify(
        command=read.text(entry, "command", path, shape.LINE, "one line for a shell, which gets JSON on standard input"),
        url=url is not None,
        timeout=read.number(entry, "timeout", path, 1, 60, 5),
    )


def _line(read: Reader, entry: Mapping[str, Any], name: str, path: str, hint: str, required: bool = False) -> str:
    """A command line whose quotes match."""
    return read.command(read.text(entry, name, path, shape.LINE, hint, required=required), f"{path}.{name}")
