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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.fleet import hosts
from tests.fleet.shell import ROOT, FleetError, run
from tests.path.system import System

AGENT = Path(__file__).with_name("agent.py")
RESULTS = ROOT / ".cache" / "matrix.json"
STATES = ("STAGED", "CANARY", "SWITCHED", "BAKING", "HOLD", "CONFIRM")
DEADLINE = 10.0
"""Seconds after the switch until the dead man takes an unconfirmed one back."""
CANARY_DEADLINE = 1.5 + 30.0
"""The same for a canary: its patience, and the grace of run.py."""
RECOVERY = 4.0
"""Seconds that a busy machine may need on top: to start the dead man, to ask the old slot, to ask again."""
TIMES: dict[str, Any] = {
    "gate": {"successes": 2, "interval": 0.5, "min_healthy": 2.0, "deadline": 15, "timeout": 2, "warmup": []},
    "canary": {"steps": [50], "dwell": 1.5, "patience": 1.5},
    "verdict": {"min_samples": 1000, "on_inconclusive": "pass"},
    "bake": 2,
    "confirm_deadline": DEADLINE,
    "standby": 3600,
    # The time between the switch and its proof, long enough to be hit.
    "hooks": {"switched": [{"command": "sleep 1.2", "on_failure": "warn"}]},
}
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
JUMP = "sed -i 's/return time.time().*/return time.time() + {seconds}/' " + CLOCK
BROKEN = "/etc/nginx/conf.d/broken.conf"


@dataclass
class Answers:
    """What came through nginx: when each request began and ended, and the release that answered well, else None."""

    seen: list[tuple[float, float, str | None]] = field(default_factory=list)

    def dark(self, since: float, until: float) -> float:
        """Seconds of the longest time without a good answer."""
        good = [since, *(end for begun, end, release in self.seen if release and since <= begun and end <= until), until]
        return max(later - earlier for earlier, later in zip(good, good[1:], strict=False))

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(release is None for _begun, _end, release in self.seen)


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


class Lane:
    """One host with its application."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.app = system.app
        self.host = system.edge
        self.container = hosts.container_name(system.fleet, system.edge)
        self.state = f"/var/lib/slipway/{system.app}"
        self.number = 0
        self.release = ""

    def agent(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Have the agent do something on the host; raises FleetError."""
        argv = ["docker", "exec", "--interactive", self.container, "python3", "-", verb]
        answer = run([*argv, json.dumps({"app": self.app, **arguments})], input=AGENT.read_text(), timeout=120)
        return dict(json.loads(answer.splitlines()[-1]))

    def shell(self, script: str) -> str:
        """Run a script on the host."""
        return self.system.on(self.host, "sh", "-c", script.format(state=self.state))

    def unit(self, slot: str) -> str:
        """The unit of the one instance of a slot."""
        return f"{self.app}@{slot}-1.service"

    def kill(self, unit: str) -> None:
        """kill -9 of the main process of a unit; its systemd does what it was told to do then."""
        self.shell(f"kill -9 $(systemctl show --property=MainPID --value {unit})")

    def idle(self) -> str:
        """The slot that has no traffic."""
        return _other(str(self.agent("look")["active"]))

    def prepare(self) -> None:
        """Both slots run a release, and all times are short."""
        known = json.loads((self.system.files / "releases.json").read_text())
        self.agent("tune", **TIMES)
        other, release = self.idle(), "v2" if self.system.release() == "v1" else "v1"
        self.shell("mkdir -p {state}/runs")
        run(["docker", "cp", known[release]["archive"], f"{self.container}:{self.state}/release.tar.gz"])
        self.agent("start", to=other, release=release, archive=f"{self.state}/release.tar.gz")

    def ready(self) -> tuple[str, str]:
        """The idle slot and its release, once both slots are well and nothing is open."""
        self.shell("rm -f {state}/bad/*")
        for slot in ("blue", "green"):
            self.shell(f"systemctl reset-failed {self.unit(slot)} 2>/dev/null; systemctl start {self.unit(slot)}")
        found = self.agent("ready")
        return str(found["target"]), str(found["release"])


class Asking(threading.Thread):
    """Asks through nginx every 0.2 s on a fresh connection while the block runs."""

    def __init__(self, system: System) -> None:
        super().__init__(daemon=True)
        self.system, self.answers, self.ended = system, Answers(), threading.Event()
        self.address = system.address(system.edge)

    def __enter__(self) -> Answers:
        self.start()
        return self.answers

    def __exit__(self, *_error: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        """Until the end."""
        while not self.ended.is_set():
            begun, release = time.time(), None
            with suppress(OSError, ValueError, KeyError, EOFError):
                status, headers, _body = self.system.get("/version", timeout=2, address=self.address)
                release = headers["x-release"] if status == 200 else None
            self.answers.seen.append((begun, time.time(), release))
            self.ended.wait(max(0.0, begun + 0.2 - time.time()))


@dataclass(frozen=True)
class Fault:
    """A fault: what it does to a lane (with the target of the move), how it is mended, and outcomes that it may have."""

    name: str
    make: Callable[[Lane, str, str], None]
    outcomes: frozenset[str]
    mend: Callable[[Lane], None] = lambda _lane: None
    before: Callable[[Lane], None] = lambda _lane: None
    after: Callable[[Lane], None] = lambda _lane: None
    states: tuple[str, ...] = STATES


def _other(slot: str) -> str:
    return "green" if slot == "blue" else "blue"


def _second(lane: Lane, target: str, txn: str) -> None:
    """Another release is refused, the same one attaches."""
    refused = lane.agent("begin", to=target, release="v9", txn=f"{txn}-other")
    if refused.get("kind") != "Busy":
        raise FleetError(f"a second transaction was not refused: {refused}")
    if lane.agent("begin", to=target, release=lane.release, txn=txn)["refused"]:
        raise FleetError("a second run of the same transaction does not attach")


def _broken(lane: Lane, _target: str, _txn: str) -> None:
    lane.shell(f"echo 'no such directive;' >{BROKEN}; ! nginx -t 2>/dev/null")


def _restart(lane: Lane, _target: str, _txn: str) -> None:
    hosts.restart(lane.system.fleet, lane.host)


ENDED = frozenset({"confirmed"})
BACK = frozenset({"rolled_back", "aborted"})
FAULTS = (
    Fault("kill -9 run", lambda lane, _to, _txn: lane.kill(f"slipway-{lane.app}-move.service"), BACK | ENDED,
          states=("STAGED", "CANARY", "SWITCHED", "BAKING", "CONFIRM")),
    Fault("kill -9 SSH session", lambda lane, _to, _txn: lane.shell(SESSIONS) and None, ENDED,
          states=("STAGED", "CANARY", "SWITCHED", "BAKING")),
    Fault("kill -9 nginx", lambda lane, _to, _txn: lane.kill("nginx.service"), BACK | ENDED),
    Fault("kill -9 new slot", lambda lane, to, _txn: lane.kill(lane.unit(to)), BACK | ENDED),
    Fault("kill -9 old slot", lambda lane, to, _txn: lane.kill(lane.unit(_other(to))), ENDED),
    Fault("host restart", _restart, BACK | ENDED, states=STATES[:-1]),
    Fault("full disk", lambda lane, _to, _txn: lane.shell(FILL) and None, BACK | ENDED, lambda lane: lane.shell(EMPTY) and None,
          lambda lane: lane.shell(MOUNT) and None, lambda lane: lane.shell(UNMOUNT) and None),
    Fault("failing nginx -t", _broken, ENDED, lambda lane: lane.shell(f"rm -f {BROKEN}") and None),
    Fault("second deploy", _second, ENDED, states=STATES),
    Fault("clock +1 h", lambda lane, _to, _txn: lane.shell(JUMP.format(seconds=3600)) and None, ENDED,
          lambda lane: lane.shell(JUMP.format(seconds=0)) and None),
    Fault("clock -1 h", lambda lane, _to, _txn: lane.shell(JUMP.format(seconds=-3600)) and None, ENDED,
          lambda lane: lane.shell(JUMP.format(seconds=0)) and None),
)  # fmt: skip
CELLS = tuple((fault.name, state) for fault in FAULTS for state in fault.states)
SHORT = (
    ("host restart", "SWITCHED"), ("full disk", "CONFIRM"), ("kill -9 run", "CONFIRM"), ("kill -9 run", "STAGED"),
    ("kill -9 SSH session", "CANARY"), ("kill -9 nginx", "SWITCHED"), ("kill -9 new slot", "HOLD"),
    ("kill -9 old slot", "STAGED"), ("failing nginx -t", "SWITCHED"), ("second deploy", "BAKING"), ("clock +1 h", "BAKING"),
    ("clock -1 h", "SWITCHED"),
)  # fmt: skip
"""What CI runs: each fault and each state at least once."""


def play(lane: Lane, fault: Fault, state: str) -> Cell:
    """One cell."""
    cell = Cell(fault.name, state, lane.host)
    try:
        fault.before(lane)
        try:
            target, release = lane.ready()
            lane.number, lane.release = lane.number + 1, release
            txn = f"m{int(time.time())}-{lane.number}"
            with Asking(lane.system) as answers:
                _move(lane, fault, state, cell, target, release, txn, answers)
        finally:
            fault.mend(lane)
            fault.after(lane)
    except (FleetError, AssertionError, KeyError, ValueError, subprocess.TimeoutExpired) as error:
        cell.problem = f"{type(error).__name__}: {error}"[-900:]
        lane.shell(f"systemctl stop slipway-{lane.app}-move.service || true")
        lane.shell(f"slipway recover {lane.app}; slipway unlock {lane.app}; slipway rollback {lane.app}; true")
    return cell


def _move(lane: Lane, fault: Fault, state: str, cell: Cell, target: str, release: str, txn: str, answers: Answers) -> None:
    session = None
    begun = lane.agent("begin", to=target, release=release, txn=txn)
    assert not begun["refused"], begun
    if fault.name == "kill -9 SSH session":
        session = _session(lane, txn)
    wanted = {"STAGED": "PLANNED", "HOLD": "ended", "CONFIRM": "ended"}.get(state, state)
    reached = lane.agent("reached", txn=txn, state=wanted)["reached"]
    assert reached == wanted, f"reached {reached} instead of {state}: {lane.agent('look')}"
    time.sleep(0.0 if state == "STAGED" else 0.3)
    at = time.time()
    tried = state == "CONFIRM"
    if state == "CONFIRM" and fault.name == "kill -9 run":
        lane.agent("confirm", txn=txn, kill=True)
    else:
        fault.make(lane, target, txn)
        if tried:
            said = lane.agent("confirm", txn=txn, twice=fault.name == "second deploy")
            cell.reason = " ".join(said["said"])[-200:]
    if session is not None:
        session.wait(timeout=30)
        assert session.returncode != 0, "the session ended by itself"
    # While a host is down nobody serves; what counts is the time from when it is up.
    up = time.time() if fault.name == "host restart" else at
    found = _settle(lane, txn, state, tried, up, fault)
    cell.settled = round(time.time() - up, 1)
    cell.outcome = str(found["journal"]["outcome"])
    cell.reason = str(found["journal"]["reason"]) or cell.reason
    if fault.name != "kill -9 run" or state not in ("STAGED",):
        _agree(lane, found, target, release)
    fault.mend(lane)
    assert cell.outcome in fault.outcomes, f"ended as {cell.outcome}: {cell.reason}"
    if cell.outcome != "confirmed":
        cell.rerun = _again(lane, txn)
    time.sleep(0.5)
    cell.dark = round(answers.dark(up, time.time()), 2)
    cell.failed = answers.failed
    limit = (CANARY_DEADLINE if state == "CANARY" else DEADLINE) + RECOVERY
    assert cell.dark <= limit, f"no good answer for {cell.dark} s"


def _session(lane: Lane, txn: str) -> subprocess.Popen[str]:
    """A real SSH session that follows the run, as a task of a playbook does."""
    address = lane.system.address(lane.host)
    argv = ["ssh", *hosts.ssh_options(lane.system.fleet).split(), "-i", str(hosts.KEY), f"root@{address}"]
    remote = f"python3 - follow '{json.dumps({'app': lane.app, 'txn': txn})}'"
    process = subprocess.Popen(
        [*argv, remote], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    process.stdin.write(AGENT.read_text())
    process.stdin.close()
    return process


def _settle(lane: Lane, txn: str, state: str, tried: bool, since: float, fault: Fault) -> dict[str, Any]:
    """Wait until nothing is open; a switch that is held is confirmed once.

    What nobody on the host waits for is told as given up: a run that died before traffic moved. On a full disk no end can be
    written: there is made room once traffic is back and the dead man has gone.
    """
    limit = CANARY_DEADLINE if state in ("STAGED", "CANARY") else DEADLINE
    until = since + 30 + limit + RECOVERY
    while time.time() < until:
        found = lane.agent("look")
        if not found["running"]:
            if found["transaction"] is None and not found["armed"]:
                return found
            if found["transaction"] is None:
                continue  # the dead man is about to end
            if found["held"] and not tried:
                tried = True
                lane.agent("confirm", txn=txn)
                continue
            if fault.name == "full disk" and not found["armed"] and 100 in found["shares"].values():
                fault.mend(lane)
                lane.shell(f"slipway recover {lane.app}")
                continue
            if state == "STAGED" and not found["armed"]:
                return {**found, "journal": {**found["journal"], "outcome": "aborted", "reason": "killed before traffic moved"}}
        time.sleep(0.3)
    raise FleetError(f"still open: {lane.agent('look')}")


def _agree(lane: Lane, found: dict[str, Any], target: str, release: str) -> None:
    """Flags, journal, records and what is served say the same, and nothing is armed."""
    journal = found["journal"]
    wanted = target if journal["outcome"] in ("confirmed", "kept") else _other(target)
    assert found["active"] == wanted, f"traffic is on {found['active']} after {journal}"
    assert found["shares"] == {wanted: 100}, found["shares"]
    assert found["unknown"] == [], found["unknown"]
    assert not found["armed"], "the dead man is still armed"
    until = time.monotonic() + RECOVERY
    while _ask(lane) is None and time.monotonic() < until:
        time.sleep(0.2)
    served = {_ask(lane) for _ in range(4)}
    right = release if wanted == target else "v2" if release == "v1" else "v1"
    assert served == {right}, f"{served} answers instead of {right}"


def _ask(lane: Lane) -> str | None:
    with suppress(OSError, ValueError, EOFError):
        return lane.system.get("/version", timeout=5)[1].get("x-release")
    return None


def _again(lane: Lane, txn: str) -> str:
    """The same transaction once more: it must end with the new release in charge."""
    target, release = lane.ready()
    begun = lane.agent("begin", to=target, release=release, txn=txn)
    assert not begun["refused"], f"the second run was refused: {begun}"
    time.sleep(0.3)
    assert lane.agent("reached", txn=txn, state="ended")["reached"] == "ended"
    said = lane.agent("confirm", txn=txn)
    found = lane.agent("look")
    assert found["journal"]["outcome"] == "confirmed", f"the second run: {found}, {said}"
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
    rows = [("", *STATES)]
    rows += [(fault.name, *(by.get((fault.name, state), "-") for state in STATES)) for fault in FAULTS]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
