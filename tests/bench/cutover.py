# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways of moving traffic to another release, beside each other in one run: `python -m tests.bench.cutover [--quick]`.

See README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench import judge, place
from tests.bench.judge import Figures, Move, Took
from tests.bench.measure import CommandFailed
from tests.bench.system import CACHE, FIRST
from tests.client import records
from tests.fleet import engine, hosts
from tests.fleet.shell import ROOT, FleetError, say, step
from tests.fleet.spec import Spec

RESULT = CACHE / "cutover.json"
EVERY = 2.2
"""Seconds from one cutover to the next, when it does not take longer."""
REST = {"restart": 6.0}
"""Seconds of quiet after a move, where the new process needs some to listen."""
RELAY_BASE = 21000
LONGEST = 420.0
"""Seconds after which our way stops, even with fewer requests than wanted."""


@dataclass(frozen=True)
class Plan:
    """How much is done. `steady`: seconds without a move before the first; `moves` by way; `requests` that our way needs."""

    steady: float
    moves: dict[str, int]
    requests: int
    rollbacks: int
    playbooks: int
    whole: bool = False


FULL = Plan(8, {"flag": judge.CUTOVERS_GOAL, "haproxy": 20, "reload": 20, "restart": 4}, judge.REQUESTS_GOAL, 15, 5, True)
QUICK = Plan(3, {"flag": 10, "haproxy": 4, "reload": 4, "restart": 1}, 0, 4, 1)


class Agent:
    """The program on a host that moves traffic there."""

    def __init__(self, host: str) -> None:
        command = ["docker", "exec", "--interactive", hosts.container_name(place.FLEET, host), "python3", "-IS", "/root/agent.py"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def move(self, way: str, to: str) -> Move:
        """Raises FleetError when it could not."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"way": way, "to": to}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline() or '{"error": "the agent ended"}')
        if "error" in answer:
            raise FleetError(f"{way} to {to} failed: {answer['error']}")
        return Move(RELEASE_OF[to], answer["at"], answer["done"], answer["total_ms"], answer["cpu"])

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=30)


RELEASE_OF = dict(zip(("blue", "green"), place.RELEASES, strict=True))


def other(slot: str) -> str:
    return "green" if slot == "blue" else "blue"


@contextmanager
def relay(address: str) -> Iterator[dict[str, int]]:
    """Ports by way, behind which the first host is 20 ms away."""
    ports = {way: RELAY_BASE + number for number, way in enumerate(place.PORTS)}
    routes = [f"{ports[way]}={address}:{port}" for way, port in place.PORTS.items()]
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.relay", *routes], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        if process.stdout.readline().strip() != "ready":
            raise FleetError("the relay did not start; is one of its ports taken?")
        yield ports
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextmanager
def clients(log: Path, port: int, connections: int) -> Iterator[None]:
    """The clients of one way, while the block runs."""
    url, connect = f"https://{place.DOMAIN}", f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "tests.bench.load", "--url", url, "--connect", connect, "--log", str(log)]
    process = subprocess.Popen([*command, "--connections", str(connections)], cwd=ROOT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


class Counter:
    """Requests in a log that grows."""

    def __init__(self, log: Path) -> None:
        self.log, self.offset, self.count = log, 0, 0

    def now(self) -> int:
        with self.log.open("rb") as file:
            file.seek(self.offset)
            new = file.read()
        self.offset += len(new)
        self.count += new.count(b'"kind": ') - new.count(b'"ECHO"')
        return self.count


def measure(way: str, agent: Agent, start: str, plan: Plan, port: int, connections: int) -> Figures:
    """One way: clients, quiet, moves, quiet."""
    log, moves, slot = place.LOGS / f"{way}.jsonl", [], start
    with step(f"{judge.NAMES[way]}: {plan.moves[way]} cutovers"), clients(log, port, connections):
        time.sleep(plan.steady)
        counter, begun, due = Counter(log), time.monotonic(), time.monotonic()
        wanted = plan.requests if way == "flag" else 0
        while len(moves) < plan.moves[way] or (counter.now() < wanted and time.monotonic() - begun < LONGEST):
            slot = other(slot)
            moves.append(agent.move(way, slot))
            due = max(due + EVERY, time.monotonic() + REST.get(way, judge.AFTER))
            time.sleep(due - time.monotonic())
    return judge.figures(records.load(log), moves)


def rollbacks(agents: list[Agent], plan: Plan, port: int, inventory: Path) -> tuple[list[Took], list[Took], Figures]:
    """What the command on the host took and what rollback.yml did, each after a cutover, with the figures of its clients."""
    log, moves = place.LOGS / "rollback.jsonl", []
    commands: list[Took] = []
    playbooks: list[Took] = []
    slot = place.description()["default_slot"]
    with step(f"{plan.rollbacks} rollbacks on the host, {plan.playbooks} by rollback.yml"), clients(log, port, 12):
        time.sleep(plan.steady)
        for _ in range(plan.rollbacks):
            moves.append(agents[0].move("flag", other(slot)))
            time.sleep(1)
            done = agents[0].move("rollback", slot)
            commands.append(Took(done.switch_ms / 1000, done.cpu))
            moves.append(done)
            time.sleep(0.5)
        for _ in range(plan.playbooks):
            moves.append(agents[0].move("flag", other(slot)))
            agents[1].move("flag", other(slot))
            time.sleep(1)
            begun = time.time()
            cost = place.play("rollback", inventory, "rollback.yml", "-e", f"app={place.APP}")
            playbooks.append(Took(cost.wall, cost.controller))
            moves.append(Move(RELEASE_OF[slot], begun, begun + cost.wall, cost.wall * 1000))
    return commands, playbooks, judge.figures(records.load(log), moves)


def run(spec: Spec, inventory: Path, plan: Plan, connections: int) -> int:
    """Measure on hosts that stand; 1 when our way lost something, or when the clients did not see what a reload loses."""
    slot = "green"
    begun = time.monotonic()
    with step("preparing the other ways"):
        place.others(slot)
    address = next(host.address for host in spec.hosts if host.name == FIRST)
    agents = [Agent(FIRST), Agent("server2")]
    ways: dict[str, Figures] = {}
    try:
        with relay(address) as ports:
            for way in plan.moves:
                ways[way] = measure(way, agents[0], slot, plan, ports[way], connections)
            active = place.active()
            # Both edges begin where the first slot is, so that each rollback has one before it.
            for host, agent in zip((FIRST, "server2"), agents, strict=True):
                if active[host] != "blue":
                    agent.move("flag", "blue")
            commands, playbooks, around = rollbacks(agents, plan, ports["flag"], inventory)
    finally:
        for agent in agents:
            agent.end()
    report(ways, commands, playbooks, around, plan, time.monotonic() - begun)
    lost = sum(each.failed + each.websockets_cut for each in (ways["flag"], around))
    blind = not ways["reload"].failed
    if blind:
        print("\nThe reload lost nothing: these clients are too weak a judge.")
    return 1 if lost or (blind and plan.whole) else 0


def report(
    ways: dict[str, Figures], commands: list[Took], playbooks: list[Took], around: Figures, plan: Plan, seconds: float
) -> None:
    """Print the table and the goals, and keep everything as JSON."""
    goals = judge.goals(ways, commands, playbooks, plan.whole)
    print(f"\nOne host, {os.cpu_count()} cores for everything, load {os.getloadavg()[0]:.1f}; 20 ms each way to the clients.")
    print("Three figures are median / 95th percentile / maximum.\n")
    print(judge.table(ways))
    times = f"{len(commands)} times slipway rollback, {len(playbooks)} times rollback.yml"
    print(f"\nAround {times}: {around.failed} of {around.requests} requests failed, {around.websockets_cut} WebSockets cut")
    for name, each in (*ways.items(), ("rollback", around)):
        for text, count in each.failures.items():
            print(f"  {judge.NAMES.get(name, name)}: {count} x {text}")
    print("")
    print("\n".join(f"{'met    ' if met else 'NOT MET'} {text}" for text, met in goals))
    document = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "seconds": round(seconds, 1),
        "ways": {name: each.as_dict() for name, each in ways.items()},
        "rollback": [asdict(each) for each in commands],
        "rollback_yml": [asdict(each) for each in playbooks],
        "around_rollbacks": around.as_dict(),
        "goals": [{"goal": text, "met": met} for text, met in goals],
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\nAll figures: {RESULT.relative_to(ROOT)}; the clients' logs in {place.LOGS.relative_to(ROOT)}.")


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        engine.ensure()
        spec, inventory = place.stand(options.image) if options.reuse else place.make(options.image)
        return run(spec, inventory, QUICK if options.quick else FULL, options.connections)
    except (FleetError, CommandFailed, OSError, ValueError) as error:
        say(f"bench: {error}")
        return 1
    finally:
        if not options.keep:
            hosts.down(place.FLEET)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cutover", description="Ways of moving traffic, in one run.")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of about nine")
    parser.add_argument("--image", default="debian12", help="image of both hosts (default debian12)")
    parser.add_argument("--connections", type=int, default=60, metavar="N", help="keep-alive connections (default 60)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts up")
    parser.add_argument("--reuse", action="store_true", help="measure on hosts that an earlier run left up")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
