# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of migrations: what a release wants to do to its database, whether it may, and doing it exactly once.

The candidate itself is asked, in its own environment. Its check says by exit status:

| status | pending    | then                                                                                |
|--------|------------|-------------------------------------------------------------------------------------|
| 0      | none       | nothing                                                                             |
| 10     | expand     | apply before traffic moves: the old release goes on with the wider schema           |
| 20     | contract   | apply only with a fresh backup; from then on nothing is taken back by itself        |
| other  | unknown    | an error; nothing is changed                                                        |

It is applied in a transient unit that outlives the process that started it. A record tells which; whoever comes next waits for it
and looks how it ended, and then asks the check again, so that nothing is applied twice.
"""

from __future__ import annotations

import json
import re
import shlex
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Optional

from ..health import secrets
from ..health.process import UnitProcess
from . import hooks, transient
from .config import App, Migrations
from .docker import ContainerPlace
from .drivers import Artifact, Once
from .errors import SlipwayError
from .host import Host
from .records import stamp
from .slots import Slots
from .units import UnitPlace

NONE, EXPAND, CONTRACT = "none", "expand", "contract"
STATUS = {0: NONE, 10: EXPAND, 20: CONTRACT}
CHECK_TIMEOUT = 120.0
FUTURE = 300.0
POLL = 0.5
IDENTIFIER = re.compile(r"[!-~]{1,200}")
SUCCESS, UNKNOWN = "success", "unknown"
SCHEMA = 1


def facts(kind: str) -> dict[str, object]:
    """What journal, results and history tell of a transaction with migrations of `kind`."""
    return {"migrations": kind, "rollback_allowed": kind != CONTRACT}


@dataclass(frozen=True)
class Proof:
    """A backup: its name, and when it was made in seconds since the epoch."""

    id: str
    at: float


def proof(text: Optional[str], now: float, max_age: float) -> Proof:
    """The backup that the JSON `text` tells of; raises SlipwayError that says why it proves nothing."""
    try:
        document = json.loads(text or "null")
    except ValueError:
        document = text
    if document is None:
        raise SlipwayError("there is none")
    name, at = (document.get("id"), document.get("at")) if isinstance(document, dict) else (None, None)
    number = isinstance(at, (int, float)) and not isinstance(at, bool)
    if not isinstance(name, str) or not IDENTIFIER.fullmatch(name) or not number:
        raise SlipwayError('its record is not {"id": "…", "at": seconds since the epoch}')
    found = Proof(name, float(at or 0))
    if found.at > now + FUTURE:
        raise SlipwayError(f"{name} claims to be made {found.at - now:.0f} s from now: compare the clocks of the hosts")
    if now - found.at > max_age:
        raise SlipwayError(f"{name} is {now - found.at:.0f} s old, but at most {max_age:.0f} s are accepted")
    return found


@dataclass(frozen=True)
class Run:
    """One application of migrations as the record tells it; `ended` is None until its end was seen."""

    txn: str
    release: str
    kind: str
    unit: str
    at: float
    ended: Optional[str] = None
    backup: Optional[str] = None


@dataclass(frozen=True)
class Request:
    """What is asked for. `active`: the slot that the edges serve; `backup`: a record read elsewhere, as JSON."""

    slot: str
    release: str
    txn: str
    active: Optional[str] = None
    backup: Optional[str] = None
    owner: str = "slipway"


class Migrator:
    """Migrations of one application, on the one host that runs them."""

    def __init__(self, host: Host, app: App) -> None:
        if app.migrations is None:
            raise SlipwayError(f"{app.name} declares no migrations. Add `migrations` to its entry of slipway_apps.")
        if app.migrations.host != app.host:
            raise SlipwayError(f"migrations of {app.name} run on {app.migrations.host}, not on {app.host}.")
        self.host = host
        self.app = app
        self.rules: Migrations = app.migrations
        self.records = host.records(app.name)
        self.path = host.layout.migration(app.name)

    def look(self, request: Request) -> dict[str, object]:
        """What `apply` would do, having asked the candidate; changes nothing. Raises SlipwayError where that would."""
        slot = self.records.slot(request.slot)
        if slot is None or slot.release != request.release or slot.artifact is None:
            return {
                "changed": False,
                "pending": None,
                "applied": False,
                "msg": f"{request.release} does not run here yet: not asked",
            }
        kind = self._check(request)
        backup = self._proof(request) if kind == CONTRACT else None
        return self._result(request, kind, changed=kind != NONE, applied=False, backup=backup.id if backup else None)

    def apply(self, request: Request) -> dict[str, object]:
        """Apply what is pending, or see how an interrupted run ended; raises SlipwayError with what to do."""
        with self.host.lock(self.app.name).held(f"{request.owner} migrating {self.app.name}", wait=2.0):
            self.host.leases(self.app.name).check(request.txn)
            earlier = self._last()
            if earlier is not None and earlier.ended is None:
                earlier = self._wait(earlier)
                said, why = self._settle(request, earlier)
                if earlier.txn == request.txn and earlier.ended != UNKNOWN:
                    return self._judge(request, earlier, said, why, attached=True)
            elif earlier is not None:
                self._clear(earlier.unit)
            kind = self._check(request)
            if kind == NONE:
                return self._result(request, kind, changed=False, applied=False)
            backup = self._proof(request) if kind == CONTRACT else None
            run = self._wait(self._start(request, kind, backup))
            return self._judge(request, run, *self._settle(request, run), attached=False)

    def _check(self, request: Request) -> str:
        command, name = shlex.split(self.rules.check), f"slipway-{self.app.name}-check-{uuid.uuid4().hex[:8]}"
        once = self._once(request, name, command)
        timeout = min(self.rules.timeout, CHECK_TIMEOUT)
        ended = transient.run(self.host.runner, name, once.argv, timeout, {}, properties=once.properties)
        kind = STATUS.get(ended.rc) if ended.result in ("success", "exit-code") else None
        if kind is None:
            raise SlipwayError(
                f"the check of migrations of {request.release} `{self.rules.check}` {ended.why(timeout)} on {self.app.host}; "
                "it has to end with 0 (none), 10 (expand) or 20 (contract). "
                f"Nothing was changed.{_said(ended.last(self._hidden()))}",
                {"pending": None, "rollback_allowed": True},
            )
        return kind

    def _once(self, request: Request, name: str, command: list[str]) -> Once:
        state = self.records.slot(request.slot)
        slot = self.app.slot(request.slot)
        if not slot.managed or state is None or state.release != request.release or state.artifact is None:
            raise SlipwayError(
                f"slot {request.slot} of {self.app.name} on {self.app.host} does not hold {request.release}: migrations are "
                "those of the candidate, so start it first."
            )
        place = Slots(self.host, self.app).driver(slot).places[0]
        env = {}
        if self.rules.direct:
            # A lock that the old release holds is not waited for: behind the one who waits, its queries would queue up.
            waits, ends = (f"{round(seconds * 1000)}ms" for seconds in (self.rules.lock_timeout, self.rules.timeout))
            env["PGOPTIONS"] = f"-c lock_timeout={waits} -c statement_timeout={ends}"
        artifact = Artifact(request.release, state.artifact)
        if not isinstance(place, (ContainerPlace, UnitPlace)):
            raise SlipwayError(f"slot {request.slot} of {self.app.name} is no slot that slipway starts.")
        return place.once(artifact, name, command, self.rules.env_file, env)

    def _proof(self, request: Request) -> Proof:
        rules, host, where = self.rules.backup, self.host, self.rules.backup.file
        text = request.backup
        if text is None and rules.command:
            where, name = f"`{rules.command}`", f"slipway-{self.app.name}-backup-{uuid.uuid4().hex[:8]}"
            asked = {"SLIPWAY_APP": self.app.name, "SLIPWAY_RELEASE": request.release}
            ended = transient.run(host.runner, name, transient.shell(rules.command), CHECK_TIMEOUT, asked)
            text = ended.out if ended.ok else None
        elif text is None and rules.file:
            text = host.disk.read(host.layout.path(rules.file))
        try:
            return proof(text, host.clock.now(), rules.max_age)
        except SlipwayError as error:
            raise SlipwayError(
                f"{request.release} of {self.app.name} changes its database so that the release before could not go on with it. "
                f"That needs a backup younger than {rules.max_age:.0f} s, but {error} ({where or 'none is declared'}). Make one "
                f'that leaves {{"id": "…", "at": seconds since the epoch}} there, and deploy again. Nothing was changed.',
                {"pending": CONTRACT, "outcome": "refused"},
            ) from error

    def _start(self, request: Request, kind: str, backup: Optional[Proof]) -> Run:
        unit = f"slipway-{self.app.name}-migrate-{request.txn}.service"
        found = Run(request.txn, request.release, kind, unit, self.host.clock.now(), None, backup.id if backup else None)
        once = self._once(request, f"slipway-{self.app.name}-migrate", shlex.split(self.rules.apply))
        self._clear(unit)
        self._save(found)
        # A oneshot that remains tells how it ended until it is asked; its time is that of its start.
        properties = [f"TimeoutStartSec={self.rules.timeout:g}s", f"TimeoutStopSec={transient.STOPPING:g}s", *once.properties]
        argv = transient.options(unit, {}, [f"Description=Migrations of {request.release} ({self.app.name})", *properties])
        started = self.host.runner.run(
            [*argv, "--service-type=oneshot", "--remain-after-exit", "--no-block", "--", *transient.literal(once.argv)],
            timeout=60,
        )
        if not started.ok:
            self._save(replace(found, ended="not started"))
            raise SlipwayError(f"{self.app.host} could not start {unit}: {started.text()}. Nothing was changed.")
        return found

    def _wait(self, run: Run) -> Run:
        """`run` with its end, as soon as it has one; a restart of the host leaves it unknown."""
        process = UnitProcess(self.host.runner, run.unit)
        until = self.host.clock.monotonic() + self.rules.timeout + transient.STOPPING + transient.STARTING
        while True:
            shown = self._show(run.unit)
            if shown.get("LoadState") == "not-found":
                return replace(run, ended=UNKNOWN)
            if shown.get("ActiveState") in ("failed", "inactive") or shown.get("SubState") == "exited":
                break
            if self.host.clock.monotonic() > until:
                raise SlipwayError(
                    f"{run.unit} on {self.app.host} has not ended in time and could not be stopped: {process.identity().state}. "
                    f"Look at it (systemctl status {run.unit}), then deploy again."
                )
            self.host.clock.sleep(POLL)
        result = shown.get("Result", UNKNOWN)
        words = {"exit-code": f"exit status {shown.get('ExecMainStatus', '?')}"}
        words["timeout"] = f"they had not ended after {self.rules.timeout:g} s and were killed"
        word = words.get(result, result)
        return replace(run, ended=word)

    def _show(self, unit: str) -> dict[str, str]:
        names = "LoadState,ActiveState,SubState,Result,ExecMainStatus"
        out = self.host.runner.run(["systemctl", "show", f"--property={names}", unit], timeout=15).out
        return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)

    def _settle(self, request: Request, run: Run) -> tuple[list[str], Optional[str]]:
        """Remember the end of `run`, its last lines and why it is a bad one; the record last, so that a crash repeats it all."""
        lines = UnitProcess(self.host.runner, run.unit).logs()
        said = [secrets.mask(line, self._hidden())[: transient.WIDTH] for line in lines]
        why = None if run.ended == SUCCESS else run.ended
        if run.ended == UNKNOWN:
            why = "whether it ran is unknown: it was killed before it started it, or the host was restarted"
        if why is None and run.txn == request.txn and self._check(request) != NONE:
            why = "it ended well, but the check still finds migrations pending"
        told = {"release": run.release, "kind": run.kind, "backup": run.backup, "unit": run.unit, "owner": request.owner}
        outcome = {"rollback_allowed": run.kind != CONTRACT} if why is None else {"reason": why}
        event = "migrated" if why is None else "migration_unknown" if run.ended == UNKNOWN else "migration_failed"
        self.records.remember_once(event, run.txn, stamp(run.at), **told, seconds=self._seconds(run), **outcome)
        self._save(run)
        self._clear(run.unit)
        return said, why

    def _judge(self, request: Request, run: Run, said: list[str], why: Optional[str], attached: bool) -> dict[str, object]:
        """The result of a `run` that ended; raises SlipwayError for a bad end."""
        if why is not None:
            waited = any("lock timeout" in line for line in said)
            hint = f" It may wait {self.rules.lock_timeout:g} s for a lock, so that it stops no query." if waited else ""
            raise SlipwayError(
                f"migrations of {run.release} (`{self.rules.apply}`, {run.kind}) failed on {self.app.host} after "
                f"{self._seconds(run):g} s: {why}. Traffic was not touched.{hint} Correct them and deploy again.{_said(said)}",
                {"pending": run.kind, "reason": why, "logs": {run.unit: said}},
            )
        result = self._result(request, run.kind, changed=True, applied=True, backup=run.backup)
        return {**result, "seconds": self._seconds(run), "attached": attached, "unit": run.unit, "output": said}

    def _seconds(self, run: Run) -> float:
        return round(self.host.clock.now() - run.at, 1)

    def _result(
        self, request: Request, kind: str, changed: bool, applied: bool, backup: Optional[str] = None
    ) -> dict[str, object]:
        bound = kind if kind == CONTRACT else CONTRACT if self._outlived(request) else kind
        return {
            "changed": changed,
            "pending": kind,
            "applied": applied,
            "backup": backup,
            **facts(bound),
        }

    def _outlived(self, request: Request) -> bool:
        """True when what serves now was started before the last destructive migration, and is not the release that brought it."""
        contract = self._document().get("contract")
        if not isinstance(contract, dict):
            return False
        active = Slots(self.host, self.app).active(request.active)
        state = self.records.slot(active) if active else None
        if state is not None and state.release == contract.get("release"):
            return False  # a candidate runs before its own migrations are applied
        return state is None or state.started is None or state.started < float(contract.get("at", 0.0))

    def _hidden(self) -> set[str]:
        path = self.rules.env_file
        text = (self.host.disk.read(self.host.layout.path(path)) if path else None) or ""
        return hooks.hidden(self.host, self.app) | secrets.values(text)

    def _clear(self, unit: str) -> None:
        self.host.runner.run(["systemctl", "stop", unit], timeout=30)
        self.host.runner.run(["systemctl", "reset-failed", unit], timeout=15)

    def _document(self) -> dict[str, object]:
        return self.host.disk.document(self.path) or {}

    def _last(self) -> Optional[Run]:
        last = self._document().get("last")
        if not isinstance(last, dict):
            return None
        known: dict[str, Any] = {name: last.get(name) for name in Run.__dataclass_fields__}
        return Run(**known)

    def _save(self, run: Run) -> None:
        kept: Mapping[str, object] = self._document()
        # One that failed leaves what serves as it is: going back to it is as good as staying with it.
        done = run.kind == CONTRACT and run.ended in (SUCCESS, UNKNOWN)
        contract = asdict(run) if done else kept.get("contract")
        text = json.dumps({"schema": SCHEMA, "last": asdict(run), "contract": contract}, indent=1, sort_keys=True) + "\n"
        self.host.disk.write(self.path, text)


def _said(lines: list[str]) -> str:
    return "\nLast log lines:" + "".join(f"\n  {line}" for line in lines) if lines else ""
