# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault in every state of a cutover, on real hosts, while somebody asks through nginx five times a second.

The hosts are those of scenario `cutover`. Each has an application of its own, so that two cells run at the same time; its
times are shortened on the host. A cell begins a move as module `cutover` does, waits for the state, makes the fault, and then
asks what a person would: does a healthy slot serve, do flags and journal agree, and does the next run finish?
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from tests.fleet import hosts
from tests.fleet.shell import ROOT, FleetError
from tests.path.lane import Answers, Asking, Lane, other, other_release
from tests.path.moments import FIRST, LAST, RECOVERY, STATES, Move, deadline
from tests.path.system import System

RESULTS = ROOT / ".cache" / "matrix.json"
FILL = """
dd if=/dev/zero of={state}/filler bs=64k 2>/dev/null
dd if=/dev/zero of={state}/filler bs=1 oflag=append conv=notrunc 2>/dev/null
i=0; while touch {state}/slots/filler.$i 2>/dev/null; do i=$((i+1)); done
! echo x 2>/dev/null >{state}/proof
"""
EMPTY = "rm -f {state}/filler {state}/proof; find {state}/slots -name 'filler.*' -delete"
# nginx sees its own tree of mounts: it is started anew for each, since a container that was restarted does not pass them on.
MOUNT = """
set -e
mkdir /run/aside && cp -a {state}/. /run/aside/
mount -t tmpfs -o size=4m,nr_inodes=400,mode=755 tmpfs {state}
cp -a /run/aside/. {state}/ && rm -r /run/aside
systemctl restart nginx
"""
UNMOUNT = """
set -e
mkdir /run/aside && cp -a {state}/. /run/aside/ && umount {state}
find {state} -mindepth 1 -delete && cp -a /run/aside/. {state}/ && rm -r /run/aside
systemctl restart nginx
"""
SESSIONS = "for try in $(seq 50); do pkill -9 -f 'ssh[d].*: root' && exit 0; sleep 0.05; done; exit 1"
CLOCK = "/usr/lib/slipway/slipway/host/clock.py"
# For a running process, too: the library on the host looks for a file whenever it looks at the clock.
SHIFT = "/run/slipway-jump"
JUMPED = f'time.time() + (float(open("{SHIFT}").read()) if __import__("os").path.exists("{SHIFT}") else 0)'
JUMPS = f"sed -i 's|return time.time()$|return {JUMPED}|' {CLOCK}"
NO_JUMPS = f"sed -i 's|return time.time() .*|return time.time()|' {CLOCK}; rm -f {SHIFT}"
BROKEN = "/etc/nginx/conf.d/broken.conf"


@dataclass
class Cell:
    """One fault in one state. `outcome`: how the journal ended the transaction; `dark`: seconds without a good answer."""

    fault: str
    state: str
    host: str
    outcome: str = ""
    reason: str = ""
    dark: float = 0.0
    failed: int = 0
    settled: float = 0.0
    rerun: str = ""
    problem: str = ""

    def text(self) -> str:
        """For the table."""
        word = "FAILED" if self.problem else {"confirmed": "finished", "rolled_back": "taken back", "aborted": "given up"}.get(
            self.outcome, self.outcome
        )  # fmt: skip
        return f"{word} {self.dark:.1f}"


@dataclass(frozen=True)
class Fault:
    """A fault: what it does to the lane of a move, how it is mended, and outcomes that it may have."""

    name: str
    make: Callable[[Move], object]
    outcomes: frozenset[str]
    mend: Callable[[Lane], object] = lambda _lane: None
    before: Callable[[Lane], object] = lambda _lane: None
    after: Callable[[Lane], object] = lambda _lane: None


def _kill_run(move: Move) -> None:
    """What is at work in that state."""
    app, left = move.lane.app, other(move.target)
    if move.state == "GATED":
        move.lane.shell("pkill -9 -f '^python3 - migrate'")
    elif move.state == "CONFIRM":
        move.tried = True
        move.lane.agent("confirm", txn=move.txn, kill=True)
    else:
        move.lane.kill(f"slipway-{app}-retire-{left}.service" if move.state in LAST else f"slipway-{app}-move.service")


def _kill_session(move: Move) -> None:
    assert move.follower is not None
    move.lane.shell(SESSIONS)
    move.follower.wait(timeout=30)
    assert move.follower.returncode != 0, "the session ended by itself"


def _second(move: Move) -> None:
    """Another release is refused, the same one attaches. A slot that is being drained may be asked to serve again."""
    lane = move.lane
    if move.state in LAST:
        back = replace(move, target=other(move.target), release=other_release(move.release), txn=f"{move.txn}-other", tried=False)
        back.begin({})
        move.target, move.release, move.txn, move.state = back.target, back.release, back.txn, "STAGED"
        move.tried = False
        return
    asked = {"to": move.target, "release": "v9", "txn": f"{move.txn}-other"}
    for verb in ("begin", "migrate") if move.state == "GATED" else ("begin",):
        refused = lane.agent(verb, **asked)
        if refused.get("kind") != "Busy":
            raise FleetError(f"a second transaction was not refused: {refused}")
    if move.state not in FIRST:
        said = lane.agent("begin", to=move.target, release=move.release, txn=move.txn)
        if said["refused"]:
            raise FleetError(f"a second run of the same transaction does not attach: {said}")


def _restart(move: Move) -> None:
    if move.state == "CONFIRM":
        _kill_run(move)
    hosts.restart(move.lane.system.fleet, move.lane.host)


def _full(move: Move) -> None:
    move.full = True
    move.lane.shell(FILL)


def _jump(seconds: int) -> Callable[[Move], object]:
    return lambda move: move.lane.shell(f"echo {seconds} >{SHIFT}.new; mv {SHIFT}.new {SHIFT}")


ENDED = frozenset({"confirmed"})
BACK = frozenset({"rolled_back", "aborted"})
FAULTS = (
    Fault("kill -9 run", _kill_run, BACK | ENDED),
    Fault("kill -9 SSH session", _kill_session, ENDED),
    Fault("kill -9 nginx", lambda move: move.lane.kill("nginx.service"), BACK | ENDED),
    Fault("kill -9 new slot", lambda move: move.lane.kill(move.lane.unit(move.target)), BACK | ENDED),
    Fault("kill -9 old slot", lambda move: move.lane.kill(move.lane.unit(other(move.target))), ENDED),
    Fault("host restart", _restart, BACK | ENDED),
    Fault("full disk", _full, BACK | ENDED, lambda lane: lane.shell(EMPTY), lambda lane: lane.shell(MOUNT),
          lambda lane: lane.shell(UNMOUNT)),
    Fault("failing nginx -t", lambda move: move.lane.shell(f"echo 'no such directive;' >{BROKEN}; ! nginx -t 2>/dev/null"), ENDED,
          lambda lane: lane.shell(f"rm -f {BROKEN}")),
    Fault("second deploy", _second, ENDED),
    Fault("clock +1 h", _jump(3600), ENDED, lambda lane: lane.shell(f"rm -f {SHIFT}"), lambda lane: lane.shell(JUMPS),
          lambda lane: lane.shell(NO_JUMPS)),
    Fault("clock -1 h", _jump(-3600), ENDED, lambda lane: lane.shell(f"rm -f {SHIFT}"), lambda lane: lane.shell(JUMPS),
          lambda lane: lane.shell(NO_JUMPS)),
)  # fmt: skip
MEANINGLESS = {
    ("kill -9 run", "LOCKED"): "nothing runs on the host: the lease is a file",
    ("kill -9 run", "HOLD"): "the run has ended: only the dead man waits",
    ("kill -9 SSH session", "LOCKED"): "no session stays: the lease is a file",
    ("kill -9 SSH session", "HOLD"): "no session stays: the run has ended",
    ("kill -9 SSH session", "CONFIRM"): "its process is that of kill -9 run",
    ("kill -9 SSH session", "RETIRED"): "no session stays: the drain has ended",
    ("kill -9 old slot", "RETIRED"): "the old slot has ended",
}
"""Cells that cannot be, and why."""
CELLS = tuple((fault.name, state) for fault in FAULTS for state in STATES if (fault.name, state) not in MEANINGLESS)
SHORT = (
    ("host restart", "SWITCHED"), ("full disk", "PLANNED"), ("kill -9 run", "CONFIRM"),
    ("kill -9 SSH session", "CANARY"), ("kill -9 nginx", "ROLLING_BACK"), ("kill -9 new slot", "HOLD"),
    ("kill -9 old slot", "STAGED"), ("failing nginx -t", "LOCKED"), ("second deploy", "HEALTHY"), ("clock +1 h", "BAKING"),
    ("clock -1 h", "RETIRED"), ("kill -9 run", "DRAINING"), ("kill -9 run", "GATED"),
)  # fmt: skip
"""What CI runs: each fault and each state at least once."""


def play(lane: Lane, fault: Fault, state: str) -> Cell:
    """One cell."""
    cell = Cell(fault.name, state, lane.host)
    try:
        fault.before(lane)
        try:
            target, release = lane.ready()
            lane.number += 1
            move = Move(lane, target, release, f"m{int(time.time())}-{lane.number}", state, fault.name == "kill -9 SSH session",
                        mend=lambda: fault.mend(lane) and None)  # fmt: skip
            with Asking(lane.system) as answers:
                _play(move, fault, cell, answers)
        finally:
            fault.mend(lane)
            fault.after(lane)
            if state in LAST:
                lane.fill(lane.idle())
    except (FleetError, AssertionError, KeyError, ValueError, OSError, subprocess.TimeoutExpired) as error:
        cell.problem = f"{type(error).__name__}: {error}"[-900:]
        lane.shell(f"systemctl stop slipway-{lane.app}-move.service || true")
        lane.shell(f"slipway recover {lane.app}; slipway unlock {lane.app}; slipway rollback {lane.app}; true")
    return cell


def _play(move: Move, fault: Fault, cell: Cell, answers: Answers) -> None:
    lane, state = move.lane, move.state
    with move.reached():
        at = time.time()
        fault.make(move)
        # While a host is down nobody serves; what counts is the time from when it is up.
        up = time.time() if fault.name == "host restart" else at
        if state == "CONFIRM" and not move.tried:
            cell.reason = move.confirm(twice=fault.name == "second deploy")[-200:]
        found = move.settle(up)
    cell.settled = round(time.time() - up, 1)
    cell.outcome = str(found["journal"]["outcome"])
    cell.reason = str(found["journal"]["reason"]) or cell.reason
    _agree(lane, found, move.target, move.release)
    fault.mend(lane)
    another = move.state != state
    wanted = frozenset({"rolled_back"}) if state == "ROLLING_BACK" else ENDED if state in LAST and not another else fault.outcomes
    assert cell.outcome in (BACK | ENDED if another else wanted), f"ended as {cell.outcome}: {cell.reason}"
    if cell.outcome != "confirmed" and not another:
        cell.rerun = _again(move)
    time.sleep(0.5)
    cell.dark = round(answers.dark(up, time.time()), 2)
    cell.failed = answers.failed
    assert cell.dark <= deadline(state), f"no good answer for {cell.dark} s"


def _agree(lane: Lane, found: dict[str, Any], target: str, release: str) -> None:
    """Flags, journal, records and what is served say the same, and nothing is armed."""
    journal = found["journal"]
    wanted = target if journal["outcome"] in ("confirmed", "kept") else other(target)
    assert found["active"] == wanted, f"traffic is on {found['active']} after {journal}"
    assert found["shares"] == {wanted: 100}, found["shares"]
    assert found["unknown"] == [], found["unknown"]
    assert not found["armed"], "the dead man is still armed"
    until = time.monotonic() + RECOVERY
    while _ask(lane) is None and time.monotonic() < until:
        time.sleep(0.2)
    served = {_ask(lane) for _ in range(4)}
    right = release if wanted == target else other_release(release)
    assert served == {right}, f"{served} answers instead of {right}"


def _ask(lane: Lane) -> str | None:
    with suppress(OSError, ValueError, EOFError):
        return lane.system.get("/version", timeout=5)[1].get("x-release")
    return None


def _again(move: Move) -> str:
    """The same transaction once more: it must end with the new release in charge."""
    lane = move.lane
    target, release = lane.ready()
    once = replace(
        move, target=target, release=release, state="HOLD", session=False, full=False, tried=False, follower=None, held=[]
    )
    with once.reached():
        found = once.settle(time.time())
    assert found["journal"]["outcome"] == "confirmed", f"the second run: {found}"
    _agree(lane, found, target, release)
    return "finished"


def lanes() -> list[Lane]:
    """The hosts of the scenario."""
    return [Lane(System("left", "left.example", "web1")), Lane(System("right", "right.example", "web2"))]


def play_all(cells: Sequence[tuple[str, str]], told: Callable[[Cell], None] = lambda _cell: None) -> list[Cell]:
    """All of `cells`, each on the next host that is free."""
    waiting, done, faults = list(cells), [], {fault.name: fault for fault in FAULTS}
    guard = threading.Lock()

    def work(lane: Lane) -> None:
        while True:
            with guard:
                if not waiting:
                    return
                name, state = waiting.pop(0)
            cell = play(lane, faults[name], state)
            with guard:
                done.append(cell)
                told(cell)

    ready = lanes()
    with ThreadPoolExecutor(max_workers=len(ready)) as pool:
        list(pool.map(Lane.prepare, ready))
        list(pool.map(work, ready))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(cell) for cell in done], indent=1))
    RESULTS.with_suffix(".txt").write_text(table(done) + "\n")
    return done


def table(cells: Iterable[Cell]) -> str:
    """Faults down, states across: how the transaction ended, and the longest time without a good answer in seconds."""
    by = {(cell.fault, cell.state): cell.text() for cell in cells}
    reasons = list(dict.fromkeys(MEANINGLESS.values()))
    notes = {place: f"({reasons.index(reason) + 1})" for place, reason in MEANINGLESS.items()}
    rows = [("", *STATES)]
    rows += [(fault.name, *({**notes, **by}.get((fault.name, state), "-") for state in STATES)) for fault in FAULTS]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"({number}) {reason}" for number, reason in enumerate(reasons, start=1))])
