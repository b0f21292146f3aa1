# SPDX-License-Identifier: GPL-3.0-or-later
"""Cutovers that prove themselves: releases judged by live traffic, every fault in every state, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.client import records, report
from tests.fleet.shell import attempt
from tests.path import matrix, rounds
from tests.path.lane import TIMES, Lane
from tests.path.system import COLOUR, System

ROUNDS = int(os.environ.get("SLIPWAY_ROUNDS", "1"))
"""Of a good release and two bad ones, on each of the two hosts; 10 for the whole proof."""
EDGES = ("web1", "web2")
LOAD = ("--keepalive", "4", "--fresh", "2", "--post", "0", "--slow", "0", "--websockets", "0")
"""Enough for a verdict within a step's patience, and little enough for playbooks to be quick beside it."""
FIGURES = "requests, "
SLIPWAY = "/usr/local/sbin/slipway"


@dataclass(frozen=True)
class Said:
    """What a deployment printed, with the time of each line."""

    rc: int
    lines: Sequence[tuple[float, str]]
    ended: float

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(line for _at, line in self.lines)

    def when(self, *words: str) -> float:
        """When the first line with all of `words` came."""
        return next((at for at, line in self.lines if all(word in line for word in words)), 0.0)


@pytest.fixture(scope="module")
def system() -> System:
    return System("shop", "shop.example", "web1")


def command(system: System, release: str, *more: str) -> list[str]:
    """The command line of a deployment, with questions of a survey that nobody answered."""
    inventory, survey = os.environ["MOLECULE_INVENTORY_FILE"], '{"image": "", "sha256": "", "force": "", "owner": ""}'
    asked = ["-e", survey, "-e", f"app={system.app}", "-e", f"release={release}"]
    return ["ansible-playbook", "deploy.yml", "-i", inventory, *asked, *more]


def deploy(system: System, release: str, *more: str) -> Said:
    """Deploy and note when each line was printed."""
    argv = command(system, release, *more)
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    lines = [(time.time(), COLOUR.sub("", line.rstrip())) for line in process.stdout]
    return Said(process.wait(timeout=30), lines, time.time())


@contextmanager
def load(system: System, directory: Path) -> Iterator[dict[str, Path]]:
    """The continuous client at both edges; the log of each."""
    logs = {edge: directory / f"{edge}-{time.time():.0f}.jsonl" for edge in EDGES}
    with ExitStack() as stack:
        for edge, log in logs.items():
            stack.enter_context(replace(system, edge=edge).client(log, *LOAD))
        yield logs


def requests_of(log: Path) -> list[records.Record]:
    """The requests in a log."""
    return [record for record in records.load(log) if "kind" in record]


def course(system: System, edge: str) -> list[dict]:
    """What the last transaction told on an edge."""
    txn = replace(system, edge=edge).journal()[-1]["txn"]
    text = system.on(edge, "cat", f"/var/lib/slipway/{system.app}/runs/{txn}.jsonl")
    return [json.loads(line) for line in text.splitlines()]


def share(requests: Sequence[records.Record], release: str, since: float, until: float) -> float:
    """Percent of the requests that began then and were answered by `release`."""
    seen = [record.get("release") for record in requests if since < record["t"] < until]
    return 100 * seen.count(release) / max(len(seen), 1)


def status(system: System, edge: str, app: str = "") -> dict:
    """slipway status --json."""
    return dict(json.loads(system.on(edge, SLIPWAY, "status", app or system.app, "--json")))


def test_a_release_goes_step_by_step_and_back_everywhere_when_one_edge_refuses_it(system, tmp_path):
    """Seen from outside, and in the output while it runs: web1 goes all the way to its hold, web2 to its bake."""
    system.on("web2", "touch", "/run/refuse-release")
    with load(system, tmp_path) as logs:
        said = deploy(system, "v2", "-e", "edges_at_once=1")
    system.on("web2", "rm", "/run/refuse-release")
    assert said.rc != 0, said.text
    assert "goes no further than baking on web2: the hook" in said.text, said.text
    for edge, log in logs.items():
        there, requests = replace(system, edge=edge), requests_of(log)
        txn = there.journal()[-1]["txn"]
        steps = {f"{entry['phase']} {entry['step']}": entry for entry in there.journal() if entry["txn"] == txn}
        assert ("done hold" in steps) == (edge == "web1"), steps
        assert steps["done end"]["outcome"] == "rolled_back"
        assert (there.release(), status(system, edge)["bad"].count("v2")) == ("v1", 0)
        for number, percent in enumerate((25, 50), start=1):
            at = said.when(edge, f"CANARY: canary {number}/2 at {percent} %:", FIGURES)
            assert 0 < at < said.ended - 3, said.text
        assert 0 < said.when(edge, "BAKING") < said.ended - 2, said.text
        told = [line for line in course(system, edge) if line.get("state") in ("CANARY", "SWITCHED") and "share" in line]
        begins = {line["share"]: line["at"] for line in reversed(told)}
        for percent, following in ((25, 50), (50, 100)):
            seen = share(requests, "v2", begins[percent], begins[following])
            print(f"{edge}: {seen:.1f} % of the requests at {percent} %")
            assert percent - 12 < seen < percent + 12
        moved = [move for move in report.moves(there.journal()) if move.to == "v2"][-1]
        assert report.stale(requests, moved, steps["intent revert"]["at"]) == []
        assert [record for record in requests if report.failed(record)] == []


def test_an_edge_does_not_wait_for_its_own_verdict_when_the_other_refuses(system, tmp_path):
    """Both move at once: web2 refuses as its canary begins, so web1 goes back before its own is through."""
    system.on("web2", "touch", "/run/refuse-canary")
    with load(system, tmp_path) as logs:
        said = deploy(system, "v2")
    system.on("web2", "rm", "/run/refuse-canary")
    assert said.rc != 0, said.text
    assert "web2 refused the release" in said.text, said.text
    for edge, log in logs.items():
        there, requests = replace(system, edge=edge), requests_of(log)
        txn = there.journal()[-1]["txn"]
        steps = [entry for entry in there.journal() if entry["txn"] == txn]
        assert [entry for entry in steps if entry["step"] == "switch"] == []
        assert steps[-1]["outcome"] == "rolled_back"
        assert (there.release(), status(system, edge)["bad"].count("v2")) == ("v1", 0)
        assert [record for record in requests if report.failed(record)] == []


def test_a_killed_deployment_is_finished_by_the_next_ones_together_and_no_other_release_comes_between(system, tmp_path):
    known = len(system.journal())
    with load(system, tmp_path) as logs:
        process = subprocess.Popen(command(system, "v2"), stdout=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 120
        while not any(entry["step"] == "canary" for entry in system.journal()[known:]):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        txn = system.journal()[-1]["txn"]
        with ThreadPoolExecutor(max_workers=3) as pool:
            said, beside, other = pool.map(lambda release: deploy(system, release), ("v2", "v2", "v3"))
    assert (said.rc, beside.rc) == (0, 0), said.text + beside.text
    assert other.rc != 0, other.text
    assert f"holds the lease of shop on web1 (transaction {txn})" in other.text, other.text
    assert [status(system, edge)["lease"] for edge in EDGES] == [None, None]
    assert {replace(system, edge=edge).journal()[-1]["txn"] for edge in EDGES} == {txn}
    for edge, log in logs.items():
        there, requests = replace(system, edge=edge), requests_of(log)
        assert there.release() == "v2"
        assert report.stale(requests, report.moves(there.journal())[-1]) == []
        assert [record for record in requests if report.failed(record)] == []
        print(f"{edge}: {len(requests)} requests, none failed")


def test_good_and_bad_releases_in_turn_are_judged_rightly(tmp_path):
    judged, failed = rounds.play_all(matrix.lanes(), ROUNDS, tmp_path)
    print(rounds.summary(judged))
    # 99 of 100 bad releases are found in the first step that has enough requests: one may need the second.
    wrong = [each for each in judged if not each.right]
    assert [each for each in wrong if not each.known] == []
    assert len(wrong) <= 1, wrong
    assert failed == []


def test_every_fault_leaves_a_healthy_slot_in_charge():
    cells = matrix.play_all(matrix.CELLS if os.environ.get("SLIPWAY_MATRIX") == "all" else matrix.SHORT)
    print(matrix.table(cells))
    assert [cell for cell in cells if cell.problem] == []


def refused(system: System, rc: int, words: str, *argv: str, edge: str = "web1") -> None:
    """The host command ends with `rc` and says `words`."""
    done = attempt(["docker", "exec", Lane(replace(system, edge=edge)).container, *argv])
    assert (done.returncode, words in done.stderr) == (rc, True), done


def test_what_is_not_known_is_refused(system):
    refused(system, 2, "no application 'nosuch' on this host", SLIPWAY, "status", "nosuch")
    refused(system, 2, "Known here: left, right, shop", SLIPWAY, "rollback", "nosuch")
    refused(system, 1, "has no slot 'purple' on web1. Slots: blue, green.", SLIPWAY, "rollback", "shop", "--to", "purple")
    refused(system, 1, "nothing waits for a confirmation of shop", SLIPWAY, "confirm", "shop", "--txn", "nosuch")
    refused(system, 1, "nothing was asked for under the name nosuch", SLIPWAY, "move", "shop", "--txn", "nosuch")
    refused(system, 3, "is at work on this application", "flock", "/run/lock/slipway-shop.lock", SLIPWAY, "unlock", "shop")
    assert "has no slot 'purple'" in Lane(system).agent("begin", to="purple", release="v1", txn="t1")["refused"]


def test_leases_bind_until_they_expire(system):
    lane = Lane(replace(system, app="left", domain="left.example"))
    lane.agent("tune", **TIMES)
    target, release = lane.ready()
    lane.agent("lease", txn="another", ttl=600)
    words = "somebody holds the lease of left (transaction another)"
    answer = lane.agent("begin", to=target, release=release, txn="mine")
    assert words in answer["refused"], answer
    assert answer["kind"] == "Busy"
    lane.agent("lease", txn="another", ttl=0.01)
    assert lane.agent("begin", to=target, release=release, txn="mine")["refused"] == ""
    assert lane.agent("reached", txn="mine", state="HEALTHY")["reached"] == "HEALTHY"
    assert "lease_taken_over" in system.on("web1", SLIPWAY, "history", "left")
    system.on("web1", SLIPWAY, "rollback", "left")
    assert lane.agent("look")["transaction"] is None
    # The run that moved it sees so at its next look, and lets go.
    system.on("web1", "flock", "--timeout", "30", "/run/lock/slipway-left.lock", "true")


def test_a_newer_journal_is_not_guessed_at(system):
    path, newer = "/var/lib/slipway/left/journal.jsonl", '{"v": 99, "txn": "later", "step": "begin"}'
    before = system.on("web1", "cat", path)
    system.on("web1", "sh", "-c", f"echo '{newer}' >>{path}")
    try:
        for verb in ("status", "rollback", "recover"):
            refused(system, 1, "was written by a newer slipway (format 99", SLIPWAY, verb, "left")
        assert replace(system, app="left", domain="left.example").get()[0] == 200
    finally:
        system.on("web1", "sh", "-c", f"sed -i '$d' {path}")
    assert system.on("web1", "cat", path) == before


def test_flags_that_were_edited_by_hand_are_shown_and_led_back(system):
    left = replace(system, app="left", domain="left.example")
    lane = Lane(left)
    lane.agent("tune", **TIMES)
    target, release = lane.ready()
    assert lane.agent("begin", to=target, release=release, txn="edited")["refused"] == ""
    assert lane.agent("reached", txn="edited", state="ended")["reached"] == "ended"
    system.on("web1", SLIPWAY, "confirm", "left")
    source = "green" if target == "blue" else "blue"
    on, off = ("green", "touch") if target == "blue" else ("green", "rm")
    system.on("web1", "sh", "-c", f"{off} /var/lib/slipway/left/flags/{on}; touch /var/lib/slipway/left/flags/purple")
    seen = status(system, "web1", "left")
    assert (seen["active"], seen["unknown_flags"]) == (source, ["purple"])
    system.on("web1", SLIPWAY, "rollback", "left")
    assert left.release() == release
    system.on("web1", "rm", "/var/lib/slipway/left/flags/purple")
    assert status(system, "web1", "left")["active"] == target
