# SPDX-License-Identifier: GPL-3.0-or-later
"""What every server needs, and its hardening, in one go; what could keep the operator out waits for a new login.

Files of others are changed only after their originals were kept, and what is no longer declared goes back to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..guard.armed import Arming
from ..host.clock import Clock
from ..host.runner import Runner
from ..host.session import Login
from . import base_parts, base_texts, manifest
from .base_aide import aide
from .base_options import options
from .base_pam import FOLDER, MEMORY, Pam, PamFiles
from .base_parts import BaseError, Parts, Settings
from .converge import Change, Converger, DirectorySpec, FileSpec, LinkSpec, Outcome, Transaction, UnitSpec, plan, put, remember
from .originals import Originals, Spec, Undo
from .packages import ensure_present
from .readback import Seen

NAME = "base"
LOGIN = "base-login"
LOG = ("sshd", "sshd-session", "sudo")
"""Under which names it is said why a login failed."""
PARTS = (
    base_parts.journal_and_time,
    base_parts.archive,
    base_parts.core_dumps,
    base_parts.modules,
    base_parts.banner,
    base_parts.shells,
    base_parts.passwords,
    base_parts.sudo,
    base_parts.permissions,
    base_parts.noexec,
    aide,
)


@dataclass
class Done:
    """What was, or in check mode would be, done."""

    outcome: Outcome = field(default_factory=Outcome)
    login: list[Change] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def shown(self) -> list[Change]:
        """Every change but that of our own memory."""
        return [*self.outcome.changes, *(change for change in self.login if not str(change.path).endswith(MEMORY))]

    @property
    def changed(self) -> bool:
        """True when anything differs."""
        return bool(self.outcome.changed or self.login)

    def diff(self) -> list[dict[str, str]]:
        """One entry for each file."""
        return Outcome(changes=self.shown).diff()


class Base:
    """This host; `root` is / except in tests."""

    def __init__(self, runner: Runner, connection: Login, clock: Optional[Clock] = None, root: Path = Path("/")) -> None:
        self.runner = runner
        self.connection = connection
        self.clock = clock
        self.root = root
        self.originals = Originals(root / FOLDER / "originals").load()

    def converge(self, settings: Settings, present: bool = True, arming: Optional[Arming] = None) -> Done:
        """Bring the host to `settings`, or to what it was before; only tells what would be done without `arming`.

        A change of what logins depend on is armed and not confirmed when this returns. Raises BaseError, PamError,
        ConvergeError, PackageError, TakenBack, and what arming does.
        """
        if arming:
            _refuse_unfinished(arming)
        faults = base_parts.faults(settings, self.root) if present else []
        if faults:
            raise BaseError("refused, nothing was changed:\n" + "\n".join(f"- {fault}" for fault in faults))
        parts = self._parts(settings, present)
        login, plain, back = self._split(parts, settings, present)
        done = Done(login=plan(login), warnings=parts.warnings)
        self._validate(done.login)
        if arming is None:
            done.outcome = self._converger().run(plain, check_mode=True)
            return done
        self._install(parts)
        edited = {spec.path for spec in (*parts.edited, *parts.login_edited)}
        self.originals.keep(change.path for change in (*plan(plain), *done.login) if change.path in edited)
        done.outcome = self._converger().run(plain)
        self._remember_units(done.outcome, settings.services_off if present else ())
        self._forget(back, done.login)
        # What did not arrive ends the run; nothing may then wait for a confirmation that never comes.
        if done.login and not done.outcome.seen.mismatches:
            self._carry_out(done, arming, present)
        for owned in (login, plain):  # what is back as it was belongs to nobody
            remember(owned if present else Transaction(owned.name), self.root / str(manifest.FOLDER).lstrip("/"))
        return done

    def verify(self, settings: Settings) -> Seen:
        """Read everything back, changing nothing."""
        done = self.converge(settings)
        lines = tuple(f"{change.path} is not as declared. Run the role again." for change in done.shown)
        seen = done.outcome.seen
        return Seen((*lines, *seen.mismatches), seen.pending)

    # What is wanted

    def _parts(self, settings: Settings, present: bool) -> Parts:
        parts = Parts()
        for part in PARTS:
            part(settings, self.root, parts)
        options(settings, self.root, self.runner, self.connection, parts)
        parts.units += [UnitSpec(name, False, "stopped", "none") for name in settings.services_off]
        stacks = PamFiles(self.runner, self.root).wanted(_pam(settings) if present else None)
        if present:
            parts.login += stacks
            return parts
        gone = Parts(units=[unit for unit in parts.units if unit.name not in settings.services_off])
        gone.folders = [DirectorySpec(self.root / "etc/slipway", present=False)]
        gone.own = [FileSpec(spec.path, None, effect=spec.effect) for spec in parts.own]
        gone.login = [*(FileSpec(spec.path, None, effect="none") for spec in parts.login), *stacks]
        return gone

    def _split(self, parts: Parts, settings: Settings, present: bool) -> tuple[Transaction, Transaction, list[Path]]:
        """What a login has to confirm, the rest, and the paths that go back to their originals."""
        guarded = {self.root / "etc/login.defs", self.root / "etc/sudoers.d"}
        kept = [spec.path for spec in (*parts.edited, *parts.login_edited)]
        back = self.originals.back(kept, self._undo(settings))
        login = [*parts.login, *parts.login_edited, *(spec for spec in back if spec.path in guarded)]
        plain = [*parts.folders, *parts.own, *parts.edited, *(spec for spec in back if spec.path not in guarded)]
        off = settings.services_off if present else ()
        units = [*parts.units, *(_on_again(name, steps) for name, steps in self.originals.units.items() if name not in off)]
        return (
            Transaction(LOGIN, **_sorted(login)),
            Transaction(
                NAME,
                **_sorted(plain),
                units=tuple(units),
                validate=tuple(parts.validate),
                apply=tuple(parts.apply),
                # From memory to the disk that the journal may use from now on.
                check=(("journalctl", "--flush"),),
                readback=tuple(parts.checks),
            ),
            [spec.path for spec in back],
        )

    def _undo(self, settings: Settings) -> Mapping[Path, Undo]:
        """Where lines of others stay as they are now."""
        keys = [*base_parts.login_defs(settings), "UMASK", "HOME_MODE"]
        return {
            self.root / "etc/crontab": lambda now, _old: now,
            self.root / "etc/login.defs": lambda now, old: base_texts.without_keys(now, old, dict.fromkeys(keys)),
            self.root / "etc/default/debsums": lambda now, old: base_texts.without_keys(now, old, ["CRON_CHECK"], "="),
        }

    # Doing it

    def _install(self, parts: Parts) -> None:
        if parts.packages:
            ensure_present(self.runner, parts.packages, check_mode=False)

    def _converger(self) -> Converger:
        return Converger(self.runner, self.clock, self.root / "var/lib/slipway/converge")

    def _validate(self, changes: Sequence[Change]) -> None:
        """Have visudo read new settings of sudo before they count; raises BaseError in its words."""
        for change in changes:
            if change.path.parent == self.root / "etc/sudoers.d" and change.after.kind == "file":
                said = self.runner.run(["visudo", "-c", "-f", "-"], data=change.after.content)
                if not said.ok:
                    raise BaseError(f"sudo would not take these settings, nothing was changed: {said.text()}")

    def _remember_units(self, outcome: Outcome, off: Sequence[str]) -> None:
        for verb, name in (action.split(" ", 1) for action in outcome.actions):
            if name in off:
                self.originals.units.setdefault(name, []).append(verb)
        self.originals.units = {name: steps for name, steps in self.originals.units.items() if name in off}

    def _forget(self, back: Sequence[Path], waiting: Sequence[Change]) -> None:
        """What is back where it was needs no copy; what still waits for a login keeps it."""
        still = {change.path for change in waiting}
        self.originals.forget([path for path in back if path not in still])
        self.originals.store()

    def _carry_out(self, done: Done, arming: Arming, present: bool) -> None:
        def change() -> None:
            for item in done.login:
                put(item.path, item.after)
            if (self.root / "etc/sudoers.d").is_dir():
                self.runner.must(["visudo", "-c", "-q"])

        then: list[list[str]] = [] if present else [["rm", "--recursive", "--force", str(self.originals.folder)]]
        record = manifest.place(LOGIN, self.root / str(manifest.FOLDER).lstrip("/"))
        arming.carry(change, [*(item.path for item in done.login), record], [], then)


def _refuse_unfinished(arming: Arming) -> None:
    """What waits looks like what is declared, and would be taken back after a run that found nothing to do."""
    record = arming.guard.record()
    if record is not None:
        raise BaseError(
            f"change {record.txn} by {record.owner or 'somebody'} is not confirmed yet; it takes itself back in"
            f" {arming.guard.left(record):.0f} s. Wait, or end it on the host: `slipway guard confirm {NAME}` or"
            f" `slipway guard revert {NAME}`. Nothing was changed."
        )


def _pam(settings: Settings) -> Pam:
    given = settings.passwords
    cost = (given.get("ageing") or {}).get("YESCRYPT_COST_FACTOR") or 0
    return Pam(given.get("lockout") or {}, int(given.get("history") or 0), settings.umask[-3:], int(cost))


def _on_again(name: str, steps: Sequence[str]) -> UnitSpec:
    return UnitSpec(name, True if "disable" in steps else None, "started" if "stop" in steps else "none", "none")


def _sorted(specs: Sequence[Spec]) -> dict[str, Any]:
    """The specifications by what a transaction calls them."""
    kinds: dict[str, type] = {"directories": DirectorySpec, "files": FileSpec, "links": LinkSpec}
    return {name: tuple(spec for spec in specs if isinstance(spec, kind)) for name, kind in kinds.items()}
