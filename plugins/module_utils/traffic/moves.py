# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps that cutover, rollback and recovery share. Each may be repeated after a crash.

Order matters and is the same everywhere: the journal's intent, the flag, the journal's done, and last of all the `end`
line; what lies between the deciding line and `end` is done again by recovery when the process dies there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from ..health import gate as gates
from ..health.gate import GateReport, GateRules
from ..health.model import Probe
from .config import App
from .errors import SlipwayError
from .flags import SwitchTimes
from .host import Host
from .journal import Transaction
from .records import Traffic, stamp

BRIEF = GateRules(successes=2, interval=0.02, min_healthy=0.0, deadline=3.0)
BRIEF_TIMEOUT = 1.5
VERIFY_LOOKS = 5
VERIFY_TIMEOUT = 5.0
STATES = {"confirmed": "CONFIRMED", "kept": "CONFIRMED", "rolled_back": "ROLLED_BACK"}
"""The state in which a transaction ends, by its outcome; all others failed before traffic moved."""


@contextlib.contextmanager
def though_the_disk_is_full() -> Iterator[None]:
    """Bookkeeping around taking traffic back must not stop it."""
    with contextlib.suppress(OSError):
        yield


@dataclass(frozen=True)
class Verified:
    """What came through nginx: milliseconds until the first and until the last of the looks that had to be well."""

    ok: bool
    detail: str
    first_ms: float
    all_ms: float
    looks: int


def verify(
    host: Host, app: App, slot: str, release: Optional[str], looks: int = VERIFY_LOOKS, timeout: float = VERIFY_TIMEOUT
) -> Verified:
    """Ask through nginx on fresh connections until `looks` in a row come from `slot`, for at most `timeout` seconds."""
    begun = host.clock.monotonic()
    probe = host.sensors.through_edge(app, app.slot(slot), release, timeout)
    row = tries = 0
    first = 0.0
    while True:
        result = probe.look()
        tries += 1
        passed = (host.clock.monotonic() - begun) * 1000
        row = row + 1 if result.ok else 0
        first = passed if row == 1 else first
        if row >= looks:
            return Verified(True, result.detail, round(first, 1), round(passed, 1), tries)
        if passed >= timeout * 1000:
            return Verified(False, result.detail, round(first, 1), round(passed, 1), tries)
        if not result.ok:
            host.clock.sleep(0.1)


def brief_gate(host: Host, app: App, slot: str, release: Optional[str], deadline: float = BRIEF.deadline) -> GateReport:
    """Two quick successes of every member of `slot` in a row, within `deadline` seconds."""
    probes = host.sensors.members(app.slot(slot), release, BRIEF_TIMEOUT)
    return gates.run(probes, replace(BRIEF, deadline=deadline), host.clock)


def spare(app: App, tx: Transaction) -> Optional[str]:
    """The slot that takes the requests which the target of `tx` does not take up."""
    return tx.source if tx.kind == "cutover" and app.failover and tx.rollback_allowed else None


def stay(host: Host, app: App, tx: Transaction, reason: str) -> None:
    """The target of `tx` failed, and there is no way back: it keeps the traffic, and everybody is told."""
    with though_the_disk_is_full():
        _remember_traffic(host, app, tx)
    end(host, app, tx, "failed", reason)


def take_back(host: Host, app: App, tx: Transaction, reason: str, bad: bool) -> SwitchTimes:
    """Move traffic of the unconfirmed transaction `tx` to where it came from, and end it as rolled back.

    `bad`: the release failed, so it is marked; a deadline that passes or a person's wish is no failure of the release.
    """
    journal = host.journal(app)
    with though_the_disk_is_full():
        if not tx.has("intent revert"):
            journal.write(tx.txn, "intent", "revert", reason=reason, mark_bad=bad)
    times = host.flags(app).switch(tx.source)
    with though_the_disk_is_full():
        journal.write(tx.txn, "done", "revert", switch_ms=times.switch_ms)
    tell(host, app, tx, "ROLLING_BACK", f"back to {tx.source}: {reason}", {}, reason)
    end(host, app, tx, "rolled_back", reason, mark_bad=bad)
    return times


def end(host: Host, app: App, tx: Transaction, outcome: str, reason: str, mark_bad: bool = False) -> None:
    """Write the outcome of `tx` everywhere, stop its dead man, give back a lease that it took for itself."""
    records = host.records(app.name)
    with though_the_disk_is_full():
        if mark_bad:
            records.mark_bad(tx.release, tx.txn, reason)
        records.remember_once(outcome, tx.txn, stamp(tx.started), **summary(host, app, tx), reason=reason)
        if tx.facts.get("own_lease"):
            host.leases(app.name).release(tx.txn)
        host.journal(app).write(tx.txn, "done", "end", outcome=outcome, reason=reason)
    if tx.kind == "cutover":
        # Last of all: should this process die before, he is the one who finishes.
        host.end_deadman(app.name)
    text = f"{tx.release or tx.target}: {outcome}" + (f", {reason}" if reason else "")
    facts = {"share": host.flags(app).share(tx.target), "outcome": outcome}
    tell(host, app, tx, STATES.get(outcome, "FAILED"), text, facts, reason)
    if tx.kind == "cutover":
        from . import course

        course.tell(host, app, tx.txn)
    if app.notify is not None:
        from . import hooks, notify

        notify.send(host, app, {**hooks.facts_of(tx, reason), **summary(host, app, tx), "outcome": outcome, "reason": reason})


def tell(host: Host, app: App, tx: Transaction, state: str, text: str, facts: Mapping[str, object], reason: str = "") -> None:
    """A line of progress, and the hooks of `state`; raises SlipwayError when one of them aborts what can still be aborted."""
    host.progress(app, tx.txn).say(state, text, **facts)
    if app.hooks.get(state.lower()):
        from . import hooks

        hooks.run(host, app, state.lower(), hooks.facts_of(tx, reason))


def summary(host: Host, app: App, tx: Transaction) -> dict[str, object]:
    """What the history tells of a transaction, whatever its outcome."""
    return {
        "kind": tx.kind,
        "from": tx.source,
        "to": tx.target,
        "release": tx.release,
        "owner": tx.owner,
        "seconds": round(host.clock.now() - tx.started, 1),
        "switch_ms": tx.facts.get("switch_ms"),
        "verified_ms": tx.facts.get("verified_ms"),
        **({"migrations": tx.facts["migrations"]} if tx.facts.get("migrations", "none") != "none" else {}),
        **({} if tx.rollback_allowed else {"rollback_allowed": False}),
        **_course(host.progress(app, tx.txn).lines()[0]),
    }


def _course(lines: Sequence[dict[str, object]]) -> dict[str, object]:
    """When each state was reached, in seconds since the first, and the figures of the last verdict."""
    found: dict[str, object] = {}
    lines = [line for line in lines if line.get("state")]
    begun = next((line["at"] for line in lines), None)
    if isinstance(begun, float):
        reached: dict[str, float] = {}
        for line in lines:
            reached.setdefault(str(line.get("state")), float(str(line["at"])) - begun)
        found["timings"] = {state: round(seconds, 1) for state, seconds in reached.items()}
    verdict = next((line["verdict"] for line in reversed(lines) if line.get("verdict")), None)
    return {**found, "verdict": verdict} if verdict else found


def complete(host: Host, app: App, tx: Transaction) -> None:
    """All that follows a decision for `tx.target`: who is active, which release, what was before."""
    records = host.records(app.name)
    _remember_traffic(host, app, tx)
    bad = tx.facts.get("bad")
    reason = str(tx.facts.get("why", ""))
    if isinstance(bad, str):
        records.mark_bad(bad, tx.txn, reason)
    outcome = "confirmed" if tx.kind == "cutover" else "rolled_back"
    end(host, app, tx, outcome, reason)


def _remember_traffic(host: Host, app: App, tx: Transaction) -> None:
    records = host.records(app.name)
    releases = dict(records.traffic().releases)
    if tx.release:
        releases[tx.target] = tx.release
    previous = tx.source if tx.kind == "cutover" else None
    records.save_traffic(Traffic(tx.target, previous, releases, tx.txn, host.clock.now(), tx.rollback_allowed))


def well_now(probes: Sequence[Probe]) -> Optional[str]:
    """What is wrong with the first of `probes` that is not well at this moment, or None."""
    for probe, result in zip(probes, gates.look_at_all(probes)):
        if not result.ok:
            return f"{probe.name}: {result.detail}"
    return None


def current(host: Host, app: App, txn: str) -> Transaction:
    """The open transaction `txn` as the journal has it now; raises SlipwayError when it was ended by somebody else."""
    last = host.journal(app).last()
    if last is None or last.txn != txn:
        raise SlipwayError(f"the journal of {app.name} no longer tells of transaction {txn}: it was replaced meanwhile.")
    return last
