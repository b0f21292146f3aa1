# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service has to look like on a host, and which paths differ from it."""

from __future__ import annotations

import fnmatch
import grp
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ..host import files as disk
from ..host.state import State as State
from ..host.state import observe as observe
from . import manifest
from .readback import Seen

EFFECTS = ("none", "daemon-reload", "reload", "restart")
ANY_PATH = Path("/")
HIDDEN = "(secret content is not shown)\n"


class ConvergeError(Exception):
    """The transaction failed; the message says where, why and what state the host is in now."""


@dataclass(frozen=True)
class FileSpec:
    """A file that has to be there with these bytes, or has to be gone (`content` None)."""

    path: Path
    content: Optional[str]
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    validate: str = ""
    effect: str = "reload"
    secret: bool = False


@dataclass(frozen=True)
class DirectorySpec:
    """A directory with owner and mode, or one that has to be gone when it is empty (`present` False)."""

    path: Path
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755
    present: bool = True


@dataclass(frozen=True)
class LinkSpec:
    """A symbolic link, or one that has to be gone (`target` None)."""

    path: Path
    target: Optional[str]
    effect: str = "reload"


@dataclass(frozen=True)
class UnitSpec:
    """A systemd unit: whether it is enabled (None: as it is), runs (`started`, `stopped`, `none`), and follows changes.

    `follows` are the paths whose change concerns it; none means every path of the transaction.
    `settle`: seconds for which it has to stay up after it was started or took a change.
    """

    name: str
    enabled: Optional[bool] = True
    state: str = "started"
    on_change: str = "auto"
    follows: tuple[Path, ...] = ()
    settle: float = 0.0


class Exclusive(NamedTuple):
    """Files of folder `path` whose name matches `pattern`, and whose first line has `marker`, go unless declared or in `keep`."""

    path: Path
    pattern: str
    marker: str = ""
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transaction:
    """What one service has to look like. `originals`: what stands at its paths is kept, so that it can be let go."""

    name: str
    directories: tuple[DirectorySpec, ...] = ()
    files: tuple[FileSpec, ...] = ()
    links: tuple[LinkSpec, ...] = ()
    exclusive: tuple[Exclusive, ...] = ()
    watches: tuple[Path, ...] = ()
    units: tuple[UnitSpec, ...] = ()
    validate: tuple[tuple[str, ...], ...] = ()
    apply: tuple[tuple[str, ...], ...] = ()
    check: tuple[tuple[str, ...], ...] = ()
    readback: tuple[Mapping[str, Any], ...] = ()
    check_timeout: float = 15.0
    originals: bool = False


@dataclass(frozen=True)
class Change:
    """One path whose state differs from the declared one."""

    path: Path
    before: State
    after: State
    effect: str
    secret: bool = False


@dataclass
class Outcome:
    """What was (or, in check mode, would be) done. `foreign`: files that somebody else had written and that are replaced."""

    changes: list[Change] = field(default_factory=list)
    resumed: str = ""
    stale: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    reloaded: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)

    @property
    def changed(self) -> bool:
        """True when anything differs, a watched file is news to a unit, or an interrupted run has to be finished."""
        return bool(self.changes or self.actions or self.resumed or self.stale)

    def diff(self) -> list[dict[str, str]]:
        """One entry for each changed path, as Ansible shows it."""
        return [_diff(change) for change in self.changes]


def _wanted_file(spec: FileSpec) -> State:
    return State() if spec.content is None else State("file", spec.content, spec.owner, spec.group, spec.mode)


def _wanted_directory(spec: DirectorySpec) -> State:
    return State("directory", "", spec.owner, spec.group, spec.mode) if spec.present else State()


def declared(transaction: Transaction) -> list[tuple[Path, State, str, bool]]:
    """Every path that `transaction` names: its state, the effect of a change, whether its content is secret."""
    found = [(directory.path, _wanted_directory(directory), "none", False) for directory in transaction.directories]
    found += [(spec.path, _wanted_file(spec), spec.effect, spec.secret) for spec in transaction.files]
    links = [(link, State() if link.target is None else State("link", link.target)) for link in transaction.links]
    return found + [(link.path, state, link.effect, False) for link, state in links]


def plan(transaction: Transaction) -> list[Change]:
    """The paths that differ from what `transaction` declares, directories first."""
    wanted = declared(transaction)
    named = {path for path, *_rest in wanted}
    for rule in transaction.exclusive:
        for path in sorted(rule.path.iterdir()) if rule.path.is_dir() else ():
            stays = path in named or path.name in rule.keep
            if not stays and fnmatch.fnmatch(path.name, rule.pattern) and _marked(path, rule.marker):
                wanted.append((path, State(), "reload", True))
    changes = []
    for path, after, effect, secret in wanted:
        before = observe(path)
        if before != after:
            changes.append(Change(path, before, after, effect, secret))
    return _leaving_last(changes)


def _leaving_last(changes: list[Change]) -> list[Change]:
    """`changes` without the directories in which others have something, and those that go behind what goes out of them."""
    going = {change.path for change in changes if change.after.kind == "absent"}
    folders = [change for change in changes if change.path in going and change.before.kind == "directory"]
    folders.sort(key=lambda change: -len(change.path.parts))
    staying = []
    for change in folders:
        if any(inside not in going for inside in change.path.iterdir()):
            going.discard(change.path)
            staying.append(change)
    return [c for c in changes if c not in folders] + [c for c in folders if c not in staying]


def remember(transaction: Transaction, folder: Path = manifest.FOLDER) -> None:
    """Keep which files are owned, for later looks at what was changed by hand."""
    manifest.record(transaction.name, ((path, state) for path, state, _effect, _secret in declared(transaction)), folder)


def _marked(path: Path, marker: str) -> bool:
    return not marker or (path.is_file() and not path.is_symlink() and marker in (disk.read_text(path) or "").split("\n", 1)[0])


def _diff(change: Change) -> dict[str, str]:
    def show(state: State) -> str:
        if state.kind == "absent":
            return ""
        if state.kind == "link":
            return f"-> {state.content}\n"
        head = f"# {state.owner}:{state.group} {state.mode:04o}\n"
        if state.kind == "directory":
            return head
        return head + (HIDDEN if change.secret else state.content)

    before, after = show(change.before), show(change.after)
    if change.secret and change.before.kind == change.after.kind and change.before.content != change.after.content:
        after += "(differs)\n"
    return {"before_header": str(change.path), "after_header": str(change.path), "before": before, "after": after}


def _identifier(kind: str, name: str, lookup: Any, path: Path) -> int:
    try:
        return int(name) if name.isdigit() else int(lookup(name)[2])
    except KeyError:
        raise ConvergeError(f"{path}: there is no {kind} `{name}` on this host; create it first") from None


def put(path: Path, state: State) -> None:
    """Bring `path` to `state` in one step; raises OSError or ConvergeError."""
    owned = state.kind in ("file", "directory")
    uid = _identifier("user", state.owner, pwd.getpwnam, path) if owned else -1
    gid = _identifier("group", state.group, grp.getgrnam, path) if owned else -1
    disk.place(path, state.kind, state.content, state.mode, uid, gid)
