# SPDX-License-Identifier: GPL-3.0-or-later
"""One service's files and units as one transaction: stage, validate, swap, reload, check; or the old bytes again.

A marker on disk stands from before the first swap until the service has taken the new bytes. A run that was killed in
between is therefore finished by the next one, although no file differs any more. With a guard the host itself takes such
a run back when its time is up.
"""

from __future__ import annotations

import contextlib
import fnmatch
import grp
import json
import pwd
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ..guard.armed import Arming, GuardError
from ..guard.deadman import ArmingFailed
from ..host import files as disk
from ..host.clock import Clock, parse_time
from ..host.runner import CommandFailed, Runner
from ..host.state import State as State
from ..host.state import observe as observe
from . import manifest
from .readback import Seen, look

MARKERS = Path("/var/lib/slipway/converge")
EFFECTS = ("none", "daemon-reload", "reload", "restart")
UNIT_FOLDER = Path("/etc/systemd/system")
UNIT_KINDS = (".service", ".socket", ".timer", ".path", ".target")
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
    """Files of folder `path` whose name matches `pattern`, and whose first line has `marker`, go unless they are declared."""

    path: Path
    pattern: str
    marker: str = ""


@dataclass(frozen=True)
class Transaction:
    """What one service has to look like."""

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
    """What was (or, in check mode, would be) done."""

    changes: list[Change] = field(default_factory=list)
    resumed: str = ""
    stale: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    reloaded: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
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
            if path not in named and fnmatch.fnmatch(path.name, rule.pattern) and _marked(path, rule.marker):
                wanted.append((path, State(), "reload", True))
    changes = []
    for path, after, effect, secret in wanted:
        before = observe(path)
        occupied = after.kind == "absent" and before.kind == "directory" and any(path.iterdir())
        if before != after and not occupied:
            changes.append(Change(path, before, after, effect, secret))
    return changes


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


@dataclass(frozen=True)
class UnitState:
    """What systemd says of a unit. `unmet`: it was asked to start in this boot, and a condition of its own kept it off."""

    loaded: bool
    active: bool
    enabled: str
    needs_daemon_reload: bool
    unmet: bool = False
    since: float = 0.0


def parse_units(listing: str) -> dict[str, UnitState]:
    """Unit states from `systemctl show --property=Id,…` output, by unit name."""
    states = {}
    for block in listing.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in values:
            active = values.get("ActiveState") in ("active", "activating", "reloading")
            tried = values.get("ConditionTimestampMonotonic", "0") != "0"
            for name in {values["Id"], *values.get("Names", "").split()}:
                states[name] = UnitState(
                    loaded=values.get("LoadState") == "loaded",
                    active=active,
                    enabled=values.get("UnitFileState", ""),
                    needs_daemon_reload=values.get("NeedDaemonReload") == "yes",
                    unmet=not active and tried and values.get("ConditionResult") == "no",
                    since=parse_time(values.get("StateChangeTimestamp", "")),
                )
    return states


class Converger:
    """Brings a host to a Transaction."""

    def __init__(
        self,
        runner: Runner,
        clock: Optional[Clock] = None,
        markers: Path = MARKERS,
        applied: Optional[Callable[[], None]] = None,
        arming: Optional[Arming] = None,
    ) -> None:
        """`applied` tells a running server of new files, and again when the old ones are back.

        With `arming` the host puts the old files back by itself when a run ends between the first swap and the last check.
        """
        self.runner = runner
        self.clock = clock or Clock()
        self.markers = markers
        self.applied = applied or (lambda: None)
        self.arming = arming

    def run(self, transaction: Transaction, check_mode: bool = False) -> Outcome:
        """Do what is needed and say what was done; raises ConvergeError after having restored the old state.

        What is not effective after a change takes the change back; without a change it is in the outcome.
        """
        if self.arming and not check_mode:
            self.arming.guard.revert(reason="a new run found it unfinished")
        outcome = Outcome(changes=plan(transaction))
        marker = self.markers / transaction.name
        left_over = _marked_effects(disk.read_text(marker))
        outcome.resumed = _strongest(left_over.values()) if left_over else ""
        stale = self._stale(transaction)
        outcome.stale = [str(path) for path in stale]
        news = dict.fromkeys(stale, "reload")
        effects = {**left_over, **news, **{change.path: change.effect for change in outcome.changes}}
        if check_mode:
            self._retire(outcome, check_mode=True)
            self._units(transaction, effects, outcome, check_mode=True)
            outcome.seen = look(self.runner, transaction.readback)
            return outcome
        self._validate_staged(transaction, outcome.changes)
        if outcome.changes:
            self._arm(transaction, outcome.changes, effects, marker)
            self._make_markers()
            disk.atomic_write(marker, json.dumps({str(path): effect for path, effect in effects.items()}) + "\n", 0o600)
        swapped: list[Change] = []
        reached = left_over  # what the units have to be told of when the old bytes come back; a mere validation concerns none
        retired: list[tuple[str, str]] = []
        try:
            # Units that go are stopped only when everything else has been accepted.
            leaving = [change for change in outcome.changes if _is_leaving_unit(change)]
            for change in outcome.changes:
                if change not in leaving:
                    swapped.append(change)
                    put(change.path, change.after)
            if outcome.changed:
                self._commands("validation", transaction.validate)
            self._retire(outcome, check_mode=False, retired=retired)
            for change in leaving:
                swapped.append(change)
                put(change.path, change.after)
            reached = effects
            if _strongest(effects.values()) != "none" and self._touches_units(outcome.changes):
                self.runner.must(["systemctl", "daemon-reload"])
            if outcome.changed:
                self._commands("applying", transaction.apply)
                self.applied()
            self._units(transaction, effects, outcome, check_mode=False)
            if outcome.changed:
                outcome.seen = self._check(transaction)
            if self.arming and outcome.changes:
                self.arming.guard.confirm(self.arming.txn)
        except Exception as error:
            self._restore(transaction, swapped, retired, reached, marker)
            if self.arming:
                self.arming.guard.taken_back(self.arming.txn, f"not well on the host: {error}")
            where = ", ".join(str(c.path) for c in outcome.changes) or "no file"
            raise ConvergeError(f"{transaction.name}: {error}\nThe old state is back ({where}).") from error
        disk.remove(marker)
        remember(transaction, self.markers.parent / manifest.FOLDER.name)
        if not outcome.changed:
            outcome.seen = look(self.runner, transaction.readback)
        return outcome

    def _arm(self, transaction: Transaction, changes: Sequence[Change], effects: Mapping[Path, str], marker: Path) -> None:
        """Set the timer that puts back what is about to change; raises ConvergeError, nothing being changed."""
        if not self.arming:
            return
        back = [["systemctl", "daemon-reload"]] if self._touches_units(changes) else []
        for unit in transaction.units:
            if effect_on(unit, effects) in ("reload", "restart") and unit.on_change != "none":
                back.append(["systemctl", "try-reload-or-restart", unit.name])
        try:
            self.arming.program()
            paths = [marker, *(change.path for change in changes)]
            self.arming.guard.arm(self.arming.txn, paths, back, self.arming.seconds, self.arming.owner)
        except (GuardError, ArmingFailed, CommandFailed) as error:
            raise ConvergeError(f"{transaction.name}: nothing was changed, the way back could not be armed: {error}") from error

    def _retire(self, outcome: Outcome, check_mode: bool, retired: Optional[list[tuple[str, str]]] = None) -> None:
        """Stop and disable the units whose files go; `retired` gets the verb and unit that would bring each of them back."""
        for change in outcome.changes:
            if not _is_leaving_unit(change):
                continue
            name = change.path.name
            pattern = name.replace("@.", "@*.")
            listed = self.runner.run(["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "--", pattern])
            running = [line.split()[0] for line in listed.out.splitlines() if line.strip()]
            enabled = self.runner.run(["systemctl", "is-enabled", "--", name]).out.strip() == "enabled"
            steps = [("stop", "start", unit) for unit in running] + ([("disable", "enable", name)] if enabled else [])
            for verb, back, unit in steps:
                outcome.actions.append(f"{verb} {unit}")
                if not check_mode:
                    self._systemctl(verb, unit)
                    self.runner.run(["systemctl", "reset-failed", "--", unit])
                    if retired is not None:
                        retired.append((back, unit))

    def _make_markers(self) -> None:
        # Others keep state that everyone may read beside the markers, so only the last directory is closed.
        disk.make_directories(self.markers.parent)
        disk.make_directories(self.markers, 0o700)

    def _stale(self, transaction: Transaction) -> list[Path]:
        """The watched files whose inode changed after a running unit was last started or reloaded."""
        changed = {path: path.stat().st_ctime for path in transaction.watches if path.exists()}
        if not changed:
            return []
        states = self._states(transaction.units)
        units = [unit for unit in transaction.units if unit.name in states and states[unit.name].active]
        return [
            path
            for path, when in changed.items()
            if any(0 < states[u.name].since < when for u in units if not u.follows or path in u.follows)
        ]

    def _validate_staged(self, transaction: Transaction, changes: Sequence[Change]) -> None:
        changed = {change.path for change in changes}
        for spec in transaction.files:
            if not spec.validate or spec.content is None or spec.path not in changed:
                continue
            self._make_markers()
            staged = self.markers / f"{transaction.name}.staged"
            disk.atomic_write(staged, spec.content, 0o600)
            argv = [part.replace("%s", str(staged)) for part in shlex.split(spec.validate)]
            result = self.runner.run(argv)
            disk.remove(staged)
            if not result.ok:
                raise ConvergeError(f"{spec.path} was not written: `{spec.validate}` says {result.text()}")

    @staticmethod
    def _touches_units(changes: Sequence[Change]) -> bool:
        return any(str(c.path).startswith(("/etc/systemd/", "/usr/lib/systemd/", "/lib/systemd/")) for c in changes)

    def _commands(self, phase: str, commands: Sequence[Sequence[str]]) -> None:
        for argv in commands:
            result = self.runner.run(argv)
            if not result.ok:
                raise ConvergeError(f"{phase} failed: `{' '.join(argv)}` says {result.text()[-3000:]}")

    def _check(self, transaction: Transaction) -> Seen:
        deadline = self.clock.monotonic() + transaction.check_timeout
        for argv in transaction.check:
            while not (result := self.runner.run(argv)).ok:
                if self.clock.monotonic() >= deadline:
                    raise ConvergeError(
                        f"not healthy {transaction.check_timeout:g} s after the change:"
                        f" `{' '.join(argv)}` says {result.text()[-3000:]}"
                    )
                self.clock.sleep(0.3)
        while (seen := look(self.runner, transaction.readback)).mismatches:
            if self.clock.monotonic() >= deadline:
                raise ConvergeError(f"{transaction.check_timeout:g} s after the change {seen}")
            self.clock.sleep(0.3)
        return seen

    def _states(self, units: Sequence[UnitSpec]) -> dict[str, UnitState]:
        if not units:
            return {}
        properties = "--property=Id,Names,LoadState,ActiveState,UnitFileState,NeedDaemonReload"
        properties += ",ConditionResult,ConditionTimestampMonotonic,StateChangeTimestamp"
        argv = ["systemctl", "show", "--timestamp=us+utc", properties, "--", *(u.name for u in units)]
        return parse_units(self.runner.run(argv).out)

    def _units(self, transaction: Transaction, effects: Mapping[Path, str], outcome: Outcome, check_mode: bool) -> None:
        states = self._states(transaction.units)
        if not check_mode and any(state.needs_daemon_reload for state in states.values()):
            self.runner.must(["systemctl", "daemon-reload"])
        touched = []
        for unit in transaction.units:
            state = states.get(unit.name, UnitState(False, False, "", False))
            for verb in unit_steps(unit, state, effect_on(unit, effects)):
                touched += [unit] if unit.settle > 0 and verb in ("start", "restart", "reload-or-restart") else []
                {"reload-or-restart": outcome.reloaded, "restart": outcome.restarted}.get(verb, []).append(unit.name)
                outcome.actions.append(f"{verb} {unit.name}")
                if not check_mode:
                    self._systemctl(verb, unit.name)
        if any(action.startswith("start ") for action in outcome.actions) and not check_mode:
            states = self._states(transaction.units)
        if touched and not check_mode:
            self._settle([unit for unit in touched if not (unit.name in states and states[unit.name].unmet)])
        outcome.unmet = [unit.name for unit in transaction.units if unit.name in states and states[unit.name].unmet]

    def _settle(self, units: Sequence[UnitSpec]) -> None:
        def observe_lives() -> list[str]:
            shown = "--property=ActiveState,InvocationID"
            return [self.runner.run(["systemctl", "show", shown, "--", unit.name]).out for unit in units]

        first = observe_lives()
        self.clock.sleep(max((unit.settle for unit in units), default=0.0))
        for unit, before, after in zip(units, first, observe_lives()):
            if before != after or "ActiveState=active\n" not in f"{after}\n":
                raise ConvergeError(f"{unit.name} did not stay up for {unit.settle:g} s{self._last_words(unit.name)}")

    def _systemctl(self, verb: str, unit: str) -> None:
        result = self.runner.run(["systemctl", verb, "--", unit])
        if not result.ok:
            raise ConvergeError(f"systemctl {verb} {unit} failed: {result.text()}{self._last_words(unit)}")

    def _last_words(self, unit: str) -> str:
        log = self.runner.run(["journalctl", "--unit", unit, "--lines=20", "--no-pager", "--output=cat"])
        return f"\nIts last log lines:\n{log.out.strip()}"

    def _restore(
        self,
        transaction: Transaction,
        swapped: Sequence[Change],
        retired: Sequence[tuple[str, str]],
        effects: Mapping[Path, str],
        marker: Path,
    ) -> None:
        for change in swapped:
            if change.before.kind == "absent" and change.path.parent == UNIT_FOLDER and "@." not in change.path.name:
                self.runner.run(["systemctl", "disable", "--now", "--", change.path.name])
        for change in reversed(swapped):
            put(change.path, change.before)
        if self._touches_units(swapped):
            self.runner.run(["systemctl", "daemon-reload"])
        with contextlib.suppress(Exception):
            self.applied()
        for verb, name in retired:
            self.runner.run(["systemctl", verb, "--", name])
        states = self._states(transaction.units)
        for unit in transaction.units:
            state = states.get(unit.name)
            if effect_on(unit, effects) in ("reload", "restart") and unit.on_change != "none" and state and state.loaded:
                self.runner.run(["systemctl", "reset-failed", "--", unit.name])
                self.runner.run(["systemctl", "reload-or-restart" if state.active else "restart", "--", unit.name])
        disk.remove(marker)


def _is_leaving_unit(change: Change) -> bool:
    return change.after.kind == "absent" and change.path.parent == UNIT_FOLDER and change.path.suffix in UNIT_KINDS


def _strongest(effects: Iterable[str]) -> str:
    return max(effects, key=EFFECTS.index, default="none")


def _marked_effects(text: Optional[str]) -> dict[Path, str]:
    """The changes that an interrupted run had not yet brought to its units; an unreadable marker concerns all of them."""
    if text is None:
        return {}
    try:
        found = {Path(path): effect for path, effect in json.loads(text).items() if effect in EFFECTS}
    except (ValueError, AttributeError):
        found = {}
    return found or {ANY_PATH: "restart"}


def effect_on(unit: UnitSpec, effects: Mapping[Path, str]) -> str:
    """The strongest effect among the changes that concern `unit`."""
    return _strongest(effect for path, effect in effects.items() if not unit.follows or path in unit.follows or path == ANY_PATH)


def unit_steps(unit: UnitSpec, state: UnitState, effect: str) -> list[str]:
    """The systemctl verbs that bring `unit` from `state` to its declared state after a change with `effect`."""
    verbs = []
    if unit.enabled is True and state.enabled not in ("enabled", "static", "alias", "indirect", "generated"):
        verbs.append("enable")
    if unit.enabled is False and state.enabled == "enabled":
        verbs.append("disable")
    if unit.state == "stopped" and state.active:
        verbs.append("stop")
    if unit.state == "started" and not state.active and not (state.unmet and effect == "none"):
        verbs.append("start")
    elif unit.state == "started" and state.active and effect in ("reload", "restart") and unit.on_change != "none":
        wanted = effect if unit.on_change == "auto" else unit.on_change
        verbs.append("restart" if wanted == "restart" else "reload-or-restart")
    return verbs
