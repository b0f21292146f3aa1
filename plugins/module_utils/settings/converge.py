# SPDX-License-Identifier: GPL-3.0-or-later
"""One service's files and units as one transaction: stage, validate, swap, reload, check; or the old bytes again.

A marker on disk stands from before the first swap until the service has taken the new bytes. A run that was killed in
between is therefore finished by the next one, although no file differs any more. With a guard the host itself takes such
a run back when its time is up.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

from ..guard.armed import Arming, GuardError
from ..guard.deadman import ArmingFailed
from ..guard.saved import with_missing_parents
from ..host import files as disk
from ..host.clock import Clock
from ..host.room import Room
from ..host.runner import CommandFailed, Runner
from . import manifest
from .declared import EFFECTS as EFFECTS
from .declared import Change as Change
from .declared import ConvergeError as ConvergeError
from .declared import DirectorySpec as DirectorySpec
from .declared import Exclusive as Exclusive
from .declared import FileSpec as FileSpec
from .declared import LinkSpec as LinkSpec
from .declared import Outcome as Outcome
from .declared import State as State
from .declared import Transaction as Transaction
from .declared import UnitSpec as UnitSpec
from .declared import declared
from .declared import observe as observe
from .declared import plan as plan
from .declared import put as put
from .declared import remember as remember
from .hints import hint
from .originals import Undo
from .readback import Seen, look
from .taken import Taken
from .unit_states import UnitState, effect_on, marked_effects, parse_units, strongest, unit_steps

MARKERS = Path("/var/lib/slipway/converge")
UNIT_FOLDER = Path("/etc/systemd/system")
UNIT_KINDS = (".service", ".socket", ".timer", ".path", ".target")


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
        left_over = marked_effects(disk.read_text(marker))
        outcome.resumed = strongest(left_over.values()) if left_over else ""
        stale = self._stale(transaction)
        outcome.stale = [str(path) for path in stale]
        taken = Taken(transaction.name, self.markers.parent)
        news = dict.fromkeys(stale, "reload")
        effects = {**left_over, **news, **{change.path: change.effect for change in outcome.changes}}
        if check_mode:
            self._retire(outcome, check_mode=True)
            self._units(transaction, effects, outcome, check_mode=True)
            outcome.seen = look(self.runner, transaction.readback)
            return outcome
        self._validate_staged(transaction, outcome.changes)
        room = Room()
        paths = [change.path for change in outcome.changes]
        made = [folder for folder in reversed(with_missing_parents(paths)) if folder not in paths]
        try:
            if transaction.originals:
                outcome.foreign = taken.keep([*(path for path, *_rest in declared(transaction)), *paths], left_over)
            if outcome.changes:
                room.reserve((change.path, _size(change.before)) for change in outcome.changes)
                self._arm(transaction, outcome.changes, effects, marker)
                self._make_markers()
                disk.atomic_write(marker, json.dumps({str(path): effect for path, effect in effects.items()}) + "\n", 0o600)
        except (ConvergeError, OSError, ValueError) as error:
            room.release()
            with contextlib.suppress(OSError):
                taken.unkeep()
            if isinstance(error, ConvergeError):
                raise
            raise ConvergeError(f"{transaction.name}: nothing was changed: {error}") from error
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
            if strongest(effects.values()) != "none" and self._touches_units(outcome.changes):
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
            room.release()
            faults = self._restore(transaction, swapped, retired, reached, marker)
            for folder in made:
                disk.place(folder, "absent")
            if faults:
                again = "the host tries again by itself" if self.arming else "make room, and run this again"
                raise ConvergeError(
                    f"{transaction.name}: {error}\nNot all is as it was; {again}:\n" + "\n".join(faults)
                ) from error
            taken.unkeep()
            if self.arming:
                self.arming.guard.taken_back(self.arming.txn, f"not well on the host: {error}")
            where = ", ".join(str(c.path) for c in outcome.changes) or "no file"
            raise ConvergeError(f"{transaction.name}: {error}\nThe old state is back ({where}).") from error
        finally:
            room.release()
        disk.remove(marker)
        remember(transaction, self.markers.parent / manifest.FOLDER.name)
        if not outcome.changed:
            outcome.seen = look(self.runner, transaction.readback)
        return outcome

    def let_go(
        self,
        transaction: Transaction,
        check_mode: bool = False,
        undo: Optional[Mapping[Path, Undo]] = None,
        effect: str = "reload",
        staying: Collection[Path] = (),
    ) -> Outcome:
        """Have everything of `transaction` as it was before its first run; what has to be said of it is in the outcome.

        Of `transaction` only its name, units, validation and checks count. Units that do not run are not started.
        """
        taken = Taken(transaction.name, self.markers.parent)
        try:
            back = taken.back(transaction, undo or {}, effect, staying)
        except (OSError, ValueError) as error:
            raise ConvergeError(f"{transaction.name}: nothing was changed, what was kept cannot be read: {error}") from error
        states = self._states(transaction.units)
        there = [unit for unit in transaction.units if unit.name in states]
        units = tuple(unit for unit in there if states[unit.name].active or unit.enabled is not None)
        outcome = self.run(replace(back.transaction, units=units), check_mode)
        outcome.words = back.words()
        if not check_mode:
            taken.forget()
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
                said = result.text()[-3000:]
                raise ConvergeError(f"{phase} failed: `{' '.join(argv)}` says {said}{hint(said)}")

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
        if verb in ("start", "restart"):
            # A start that is asked for is none of a crash loop: systemd would refuse a unit's third change within a minute.
            self.runner.run(["systemctl", "reset-failed", "--", unit])
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
    ) -> list[str]:
        """Put everything back, tell the units, and say what could not be put back."""
        for change in swapped:
            if change.before.kind == "absent" and change.path.parent == UNIT_FOLDER and "@." not in change.path.name:
                self.runner.run(["systemctl", "disable", "--now", "--", change.path.name])
        faults = []
        # What goes makes room for what comes back.
        back = swapped[::-1]
        for change in sorted(back, key=lambda change: change.before.kind != "absent"):
            try:
                put(change.path, change.before)
            except (OSError, ConvergeError) as error:
                faults.append(f"- {change.path} could not be put back: {error}")
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
        if not faults:
            disk.remove(marker)
        return faults


def _size(state: State) -> int:
    return len(state.content.encode("utf-8", "surrogateescape"))


def _is_leaving_unit(change: Change) -> bool:
    return change.after.kind == "absent" and change.path.parent == UNIT_FOLDER and change.path.suffix in UNIT_KINDS
