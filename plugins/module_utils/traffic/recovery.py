# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do with what a crash left behind. Flags are read first, the journal second; every answer may be given again.

| flags say          | the journal's open transaction says      | then                                              |
|--------------------|------------------------------------------|---------------------------------------------------|
| anything           | none open                                | nothing                                           |
| the old slot       | cutover                                  | end it and any canary: nothing is proven          |
| the old slot       | rollback, switch intended                | finish it: its target was proven before           |
| the new slot       | confirmed, or a rollback as far as told  | finish the bookkeeping                            |
| the new slot       | taking back was intended                 | take back                                         |
| the new slot       | unconfirmed, destructive migrations      | leave it there: the old slot cannot serve         |
| the new slot       | unconfirmed, within the deadline         | arm the dead man for the rest of the time         |
| the new slot       | unconfirmed, deadline passed             | take back, unless only the new slot is alive      |
| anything           | the dead man comes before the deadline   | he waits: the run has moved it                    |
| neither            | anything                                 | somebody moved the flags by hand: leave them      |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from ..guard.deadman import ArmingFailed
from . import moves
from .config import App
from .host import Host
from .journal import Transaction

LATE = 0.5


@dataclass(frozen=True)
class Recovered:
    """What was found and done; `waiting` is the transaction that still waits for its confirmation.

    `rollback`: an operator's rollback was finished, so that the workers here belong to the slot that is active now.
    """

    action: str
    message: str
    active: str
    txn: Optional[str] = None
    changed: bool = False
    waiting: Optional[Transaction] = None
    left: float = 0.0
    rollback: bool = False


def recover(host: Host, app: App, fired: bool = False) -> Recovered:
    """Bring an edge back to a state that explains itself.

    `fired`: the dead man calls. Unless the deadline was moved meanwhile, the time is over.
    """
    flags = host.flags(app)
    active = flags.active()
    tx = host.journal(app).pending()
    if tx is None:
        with moves.though_the_disk_is_full():
            host.records(app.name).restore_traffic()
        stray = bool(flags.plan(active, flags.spare()))
        flags.switch(active, flags.spare())
        said = "no transaction is open" + (": flags that none explains were removed" if stray else "")
        return Recovered("tidied" if stray else "nothing", said, active, changed=stray)
    left = tx.deadline.left(host.machine.moment(host.clock)) if tx.deadline is not None else 0.0
    if fired and left > LATE and not tx.has("intent revert"):
        return Recovered("waiting", f"the run may go on for another {left:.0f} s", active, tx.txn, False, tx, left)
    if active not in (tx.source, tx.target):
        text = f"traffic is on {active}, which is neither {tx.source} nor {tx.target}: flags were moved by hand"
        moves.end(host, app, tx, "overridden", text)
        return Recovered("ended", text, active, tx.txn, True)
    if tx.kind == "rollback" and (tx.has("intent switch") or active == tx.target):
        flags.switch(tx.target)
        moves.complete(host, app, tx)
        return Recovered("finished", f"finished the rollback to {tx.target}", tx.target, tx.txn, True, rollback=True)
    if active == tx.source:
        share = flags.share(tx.target)
        flags.switch(tx.source)
        moved = share or tx.has("intent revert") or tx.has("done canary") or tx.has("done switch")
        text = f"interrupted with {share} % on {tx.target}" if share else "interrupted before traffic moved"
        text = tx.reason or ("interrupted once traffic was back" if moved and not share else text)
        moves.end(host, app, tx, "rolled_back" if moved else "aborted", text, _bad(tx))
        return Recovered("ended", f"traffic stays on {active}: {text}", active, tx.txn, True)
    if tx.has("done confirm"):
        flags.switch(tx.target, moves.spare(app, tx))
        moves.complete(host, app, tx)
        return Recovered("finished", f"finished the confirmation of {tx.target}", active, tx.txn, True)
    if tx.has("intent revert"):
        moves.take_back(host, app, tx, tx.reason, _bad(tx))
        return Recovered("reverted", f"took traffic back to {tx.source}: {tx.reason}", tx.source, tx.txn, True)
    if not tx.rollback_allowed:
        text = f"{tx.target} keeps the traffic unconfirmed: after its destructive migrations {tx.source} cannot serve"
        moves.stay(host, app, tx, text)
        return Recovered("kept", text, tx.target, tx.txn, True)
    if left > LATE and not fired:
        return _wait(host, app, tx, left)
    return _expire(host, app, tx)


def _bad(tx: Transaction) -> bool:
    return tx.has("intent revert") and tx.facts.get("mark_bad") is True


def _wait(host: Host, app: App, tx: Transaction, left: float) -> Recovered:
    text = f"{tx.target} waits for its confirmation for another {left:.0f} s, then traffic returns to {tx.source}"
    if not host.deadman(app.name).armed():
        try:
            host.arm_deadman(app.name, left)
        except ArmingFailed as error:
            moves.take_back(host, app, tx, f"the dead man could not be armed again: {error}", False)
            return Recovered("reverted", f"took traffic back to {tx.source}: {error}", tx.source, tx.txn, True)
    return Recovered("waiting", text, tx.target, tx.txn, False, tx, left)


def _expire(host: Host, app: App, tx: Transaction) -> Recovered:
    """Past the deadline: back to the old slot, unless that one is dead and the new one is not."""
    rebooted = tx.deadline is not None and tx.deadline.boot_id != host.machine.boot_id()
    patience = app.slot(tx.source).gate.rules.deadline if rebooted else moves.BRIEF.deadline
    old = moves.brief_gate(host, app, tx.source, None, patience)
    reason = f"not confirmed within {app.confirm_deadline:g} s"
    if not old.healthy and moves.brief_gate(host, app, tx.target, None).healthy:
        text = f"{reason}, but {tx.source} does not answer ({old.reason}) and {tx.target} does: traffic stays there"
        moves.end(host, app, tx, "kept", text)
        return Recovered("kept", text, tx.target, tx.txn, True)
    moves.take_back(host, app, tx, reason, False)
    lease = host.leases(app.name).read()
    if lease is not None and lease.txn == tx.txn:
        host.leases(app.name).release(tx.txn)
    return Recovered("reverted", f"took traffic back to {tx.source}: {reason}", tx.source, tx.txn, True)


def rearm_retirements(host: Host, app: App) -> list[str]:
    """Set the timers again that a reboot took; names of their slots."""
    armed = []
    for slot, state in host.records(app.name).slots().items():
        if state.state == "standby" and state.retire_at is not None and not host.retire_timer(app.name, slot).armed():
            host.arm_retire(app.name, slot, max(state.retire_at - state.window - host.clock.now(), 1.0))
            armed.append(slot)
    return armed
