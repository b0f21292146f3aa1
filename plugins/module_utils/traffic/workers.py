# SPDX-License-Identifier: GPL-3.0-or-later
"""Handing workers over from slot to slot: the new ones prove themselves before the old ones end, singletons are never two.

What is to be done follows from what is seen alone (`steps`), so a handover that was killed is finished by looking again.
workers.json remembers to which slot the workers of this host belong, and, while they move, where to: a timer armed before
the first step, and the unit at boot, finish what a dead process left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Callable, Optional

from ..guard.deadman import ArmingFailed, Timer
from ..health import secrets
from ..health.process import LOG_LINES, Watcher
from ..host.runner import CommandFailed
from . import crew
from .config import App, Worker
from .drivers import Artifact
from .errors import SlipwayError
from .host import Host
from .layout import COMMAND

STARTED, RELEASED, HANDED_OVER, STOPPED = "started", "released", "handed_over", "stopped"
LOOK = 0.25
SPARE = 60.0


class Disproved(SlipwayError):
    """A worker did not start or did not stay up."""


@dataclass(frozen=True)
class Seen:
    """One worker process. `alive`: anything is left of it; `fit`: it works as its description says; `here`: it belongs here."""

    name: str
    worker: str
    slot: str
    singleton: bool
    alive: bool
    fit: bool = True
    here: bool = True

    @property
    def well(self) -> bool:
        """Nothing is to be done to have it."""
        return self.alive and self.fit


@dataclass(frozen=True)
class Step:
    """Something that is done to all of `names` before the next step: start, prove, keep, quiet or stop."""

    action: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.action} {', '.join(self.names)}"


@dataclass(frozen=True)
class Duty:
    """workers.json. `slot` has the workers of this host, `target` gets them; `cleared` are hosts whose singletons had ended then.

    `releases` by slot: release and, for containers, image. `quiet`: processes that were told to take no new jobs.
    """

    slot: Optional[str] = None
    target: Optional[str] = None
    cleared: tuple[str, ...] = ()
    releases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    quiet: tuple[str, ...] = ()


def steps(seen: Sequence[Seen], slot: str, phase: str = HANDED_OVER, clear: bool = True) -> list[Step]:
    """What is left to do until the workers belong to `slot`; empty when they do.

    Phases, each on all hosts before the next: `started` brings up what may run on both sides, `released` ends the singletons
    of others where `slot` has its own on another host, `handed_over` does all the rest. `stopped` ends those of `slot`.
    Without `clear` no singleton is started, because one may run on another host.
    """
    ours = [one for one in seen if one.slot == slot and one.here]
    others = [one for one in seen if one.alive and one not in ours]
    if phase == STOPPED:
        return _end([one for one in seen if one.alive and one.slot == slot])
    plan = [] if phase == RELEASED else _begin([one for one in ours if not one.singleton])
    if phase == STARTED:
        return plan
    singletons = [one for one in ours if one.singleton]
    if phase == HANDED_OVER or not singletons:
        plan += _step("stop", [one for one in others if one.singleton])
    if phase == HANDED_OVER:
        plan += _begin(singletons) if clear else []
        plan += _end([one for one in others if not one.singleton])
    return plan


def _step(action: str, members: Iterable[Seen]) -> list[Step]:
    names = tuple(one.name for one in members)
    return [Step(action, names)] if names else []


def _begin(members: Sequence[Seen]) -> list[Step]:
    missing = [one for one in members if not one.well]
    plan = _step("stop", [one for one in missing if one.alive])
    return plan + [step for action in ("start", "prove", "keep") for step in _step(action, missing)]


def _end(members: Sequence[Seen]) -> list[Step]:
    return _step("quiet", members) + _step("stop", members)


class Workers:
    """The workers of one application on this host."""

    def __init__(self, host: Host, app: App) -> None:
        self.host = host
        self.app = app
        self.path = host.layout.workers(app.name)
        self.places = {
            name: crew.place(host, app, worker, number)
            for worker in app.workers
            for number, name in enumerate(worker.instances, start=1)
        }

    @property
    def timer(self) -> Timer:
        """The timer that finishes a handover whose process died."""
        return Timer(self.host.runner, self.host.clock, f"slipway-{self.app.name}-workers")

    def duty(self) -> Duty:
        """What workers.json says."""
        found = self.host.disk.document(self.path) or {}
        known = {key: value for key, value in found.items() if key in Duty.__dataclass_fields__ and value is not None}
        duty = Duty(**known)  # type: ignore[arg-type]
        return replace(duty, cleared=tuple(duty.cleared), quiet=tuple(duty.quiet))

    def _save(self, duty: Duty) -> Duty:
        self.host.records(self.app.name).save(self.path, asdict(duty))
        return duty

    def artifact(self, slot: str) -> Optional[Artifact]:
        """The release of a slot as this host was told, or as its web instances run it; None when nobody said."""
        if not self.app.slot(slot).managed:
            return Artifact("external")
        told = self.duty().releases.get(slot)
        if told is not None:
            return Artifact(told["release"], told.get("image"))
        known = self.host.records(self.app.name).slot(slot)
        if known is None or known.release is None:
            return None
        return Artifact(known.release, known.artifact if "@sha256:" in (known.artifact or "") else None)

    def observe(self) -> list[Seen]:
        """All worker processes that are described for this host, or run here without being described."""
        duty, found = self.duty(), []
        artifacts = {slot: self.artifact(slot) for slot in {one.worker.slot for one in self.places.values()}}
        for name, place in self.places.items():
            worker, artifact = place.worker, artifacts[place.worker.slot]
            identity = place.process().identity()
            alive = not crew.over(identity)
            fit = identity.alive and name not in duty.quiet
            if fit and worker.unit is None:
                fit = artifact is not None and duty.fingerprints.get(name) == place.fingerprint(artifact)
            found.append(Seen(name, worker.name, worker.slot, worker.singleton, alive, fit))
        for place in crew.strays(self.host, self.app):
            self.places[place.instance.name] = place
            worker, alive = place.worker, not crew.over(place.process().identity())
            found.append(Seen(place.instance.name, worker.name, worker.slot, worker.singleton, alive, here=False))
        return found

    def prepare(self, slot: str, artifact: Artifact, write: bool = True) -> dict[str, object]:
        """Fetch the release for the workers of `slot` here and remember it; nothing is started."""
        workers = [worker for worker in self.app.workers if worker.slot == slot and worker.runtime is not None]
        drivers = {one.runtime.kind: crew.driver(self.host, self.app, one) for one in workers if one.runtime is not None}
        for driver in drivers.values():
            driver.check(artifact)
            if write:
                driver.prepare(artifact)
        told = {"release": artifact.release, **({"image": artifact.image} if artifact.image else {})}
        duty = self.duty()
        changed = bool(workers) and duty.releases.get(slot) != told
        if write and changed:
            self._save(replace(duty, releases={**duty.releases, slot: told}))
        return {"changed": changed, "slot": slot, "steps": [f"fetch {artifact.release}"] if changed else [], "held": []}

    def move(self, phase: str, slot: str, cleared: Collection[str] = (), write: bool = True) -> dict[str, object]:
        """Do one phase of the handover to `slot`, or with `write` false say what it would do.

        Raises Disproved when a worker does not start or stay up: what was started is then ended, and with phase
        `handed_over` the former workers have their duty back.
        """
        self._refuse_unconfirmed(phase, slot)
        held = self._rivals(slot, cleared)
        seen = self.observe()
        plan = steps(seen, slot, phase, not held)
        late = [one.name for one in seen if one.slot == slot and one.singleton and not one.alive] if held else []
        outdated = any(one.alive and not one.fit for one in seen if one.slot == slot and one.here)
        if write and (plan or self.duty().slot != slot or self.duty().target is not None):
            self._move(phase, slot, cleared, plan)
        why = [f"{name} is not started: {', '.join(held)} did not say that its own has ended" for name in late]
        told = {"changed": bool(plan), "slot": slot, "steps": [str(step) for step in plan], "outdated": outdated}
        return {**told, "held": why if phase == HANDED_OVER else []}

    def _move(self, phase: str, slot: str, cleared: Collection[str], plan: Sequence[Step]) -> None:
        before = self.duty()
        if phase != HANDED_OVER:
            self._execute(plan)
            if phase == STOPPED and before.slot == slot:
                self._save(replace(self.duty(), slot=None, target=None, cleared=()))
            return
        if plan:
            self._save(replace(before, target=slot, cleared=tuple(sorted(cleared))))
            self._arm()
            try:
                self._execute(plan)
            except Disproved as error:
                raise self._take_back(before, slot, error) from error
            self.host.records(self.app.name).remember("workers", slot=slot, steps=[str(step) for step in plan])
        self._settle(slot)

    def _settle(self, slot: Optional[str]) -> None:
        self._save(replace(self.duty(), slot=slot, target=None, cleared=()))
        self.timer.disarm()

    def _take_back(self, before: Duty, slot: str, error: Disproved) -> Disproved:
        """Give the former slot its workers back; the error that tells so."""
        reason = str(error)
        if before.slot is None or before.slot == slot:
            self._settle(before.slot)
            return error
        self._save(replace(self.duty(), target=before.slot, cleared=()))
        self._execute(steps(self.observe(), before.slot, HANDED_OVER, not self._rivals(before.slot, (), slot)))
        self._settle(before.slot)
        self.host.records(self.app.name).remember("workers", slot=before.slot, reason=reason.splitlines()[0])
        return Disproved(f"{reason}\nThe workers of {before.slot} go on.", error.facts)

    def _rivals(self, slot: str, cleared: Collection[str], holder: Optional[str] = None) -> list[str]:
        """Other hosts on which a singleton of the other side may still run."""
        holder = holder or self.duty().slot
        others = [one for one in self.app.workers if one.singleton and one.slot != slot]
        there = {host for one in others if holder in (None, slot, one.slot) for host in one.at}
        return sorted(there - {self.app.host} - set(cleared))

    def _refuse_unconfirmed(self, phase: str, slot: str) -> None:
        self.app.slot(slot)
        tx = self.host.journal(self.app).pending() if self.app.edge and phase == HANDED_OVER else None
        if tx is not None and tx.kind == "cutover" and tx.target == slot:
            raise SlipwayError(
                f"the move of {self.app.name} to {slot} is not confirmed yet, so its workers stay with {tx.source}. "
                f"Confirm it first: slipway confirm {self.app.name}."
            )

    def _arm(self) -> None:
        """Have this host finish what is begun, should this process die; the timer's own command cannot set it again."""
        patience = 2 * max(worker.stop_timeout + worker.min_healthy for worker in self.app.workers)
        if not self.timer.armed():
            self.timer.arm(
                patience + SPARE, [COMMAND, "workers", self.app.name], f"Finish the handover of workers of {self.app.name}"
            )

    def _execute(self, plan: Sequence[Step]) -> None:
        begun: list[str] = []
        actions: dict[str, Callable[[tuple[str, ...]], None]] = {
            "start": self._start,
            "prove": self._prove,
            "keep": self._keep,
            "quiet": self._quiet,
            "stop": self._stop,
        }
        for step in plan:
            begun += step.names if step.action == "start" else ()
            try:
                actions[step.action](step.names)
            except (SlipwayError, CommandFailed) as error:
                if step.action not in ("start", "prove", "keep"):
                    raise SlipwayError(f"{self.app.host} could not {step}: {error}") from error
                text = f"{self.app.host}: {error}{self._last_words(step.names)}"
                self._stop(tuple(begun))
                raise Disproved(text, {"disproved": True}) from error

    def _start(self, names: tuple[str, ...]) -> None:
        prints = {}
        for name in names:
            place = self.places[name]
            artifact = self.artifact(place.worker.slot)
            if artifact is None:
                raise SlipwayError(
                    f"the release of slot {place.worker.slot} of {self.app.name} is not known here, so {name} cannot run it. "
                    "Deploy it: ansible-playbook deploy.yml."
                )
            place.start(artifact)
            prints[name] = place.fingerprint(artifact)
        duty = self.duty()
        quiet = tuple(name for name in duty.quiet if name not in names)
        self._save(replace(duty, fingerprints={**duty.fingerprints, **prints}, quiet=quiet))

    def _prove(self, names: tuple[str, ...]) -> None:
        """All of them stay up for their minimum healthy time."""
        processes = [self.places[name].process() for name in names]
        until = self.host.clock.monotonic() + max(self.places[name].worker.min_healthy for name in names)
        watcher = Watcher(processes)
        while True:
            lost = watcher.died()
            if lost is not None:
                raise SlipwayError(f"worker {lost}")
            if self.host.clock.monotonic() >= until:
                return
            self.host.clock.sleep(LOOK)

    def _keep(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.places[name].keep()

    def _quiet(self, names: tuple[str, ...]) -> None:
        self._save(replace(self.duty(), quiet=tuple(sorted({*self.duty().quiet, *names}))))
        for name in names:
            self.places[name].quiet()

    def _stop(self, names: tuple[str, ...]) -> None:
        """End them all at once, each with its own patience; raises SlipwayError when one is still there."""
        together([self.places[name].stop for name in names])
        left = [name for name in names if not crew.over(self.places[name].process().identity())]
        if left:
            raise SlipwayError(f"{', '.join(left)} did not end; look at it, then run again")
        duty = self.duty()
        prints = {name: text for name, text in duty.fingerprints.items() if name not in names}
        self._save(replace(duty, fingerprints=prints, quiet=tuple(name for name in duty.quiet if name not in names)))

    def _last_words(self, names: Iterable[str]) -> str:
        text = ""
        for name in names:
            place = self.places[name]
            if place.process().identity().alive:
                continue
            lines = [secrets.mask(line, place.secrets()) for line in place.process().logs()]
            text += f"\nLast {LOG_LINES} log lines of {name}:\n  " + ("\n  ".join(lines) or "(none)")
        return text

    def report(self) -> dict[str, object]:
        """For status: whose the workers are, and what runs."""
        duty = self.duty()
        seen = [asdict(one) for one in self.observe()]
        return {"slot": duty.slot, "target": duty.target, "processes": seen}


def together(calls: Sequence[Callable[[], None]]) -> None:
    """Make all calls at once; the first error is raised when all are done."""
    if len(calls) < 2:
        for call in calls:
            call()
        return
    with ThreadPoolExecutor(max_workers=len(calls)) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()


def mine(app: App) -> list[Worker]:
    """Workers with processes on this host."""
    return [worker for worker in app.workers if worker.instances]


def hand_over(host: Host, app: App, slot: str) -> bool:
    """Have this host give its workers to `slot` by itself, beginning now; False when it has none. Takes a few milliseconds.

    For those who moved traffic and must not wait until workers ended. Singletons that may run on other hosts are left to
    the playbook.
    """
    if not mine(app):
        return False
    workers = Workers(host, app)
    duty = workers.duty()
    workers._save(replace(duty, target=slot, cleared=duty.cleared if duty.target == slot else ()))
    try:
        workers.timer.arm(0.1, [COMMAND, "workers", app.name], f"Hand the workers of {app.name} over to {slot}")
    except ArmingFailed:
        workers.move(HANDED_OVER, slot)
    return True


def resume(host: Host, app: App) -> Optional[dict[str, object]]:
    """Finish a handover that a dead process left; None when there is none."""
    workers = Workers(host, app)
    duty = workers.duty()
    return workers.move(HANDED_OVER, duty.target, duty.cleared) if duty.target is not None else None
