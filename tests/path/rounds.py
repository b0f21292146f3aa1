# SPDX-License-Identifier: GPL-3.0-or-later
"""Good and bad releases in turn under the same traffic, without a playbook: how many are judged rightly, and how early."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.client import records, report
from tests.fleet.shell import ROOT, run
from tests.path.lane import Lane

RESULTS = ROOT / ".cache" / "rounds.json"
WORDS = {"bad-errors": "requests failed, ", "bad-slow": "times as long as the control's"}
BAD = tuple(WORDS)
TIMES: dict[str, Any] = {
    "canary": {"steps": [25, 50], "dwell": 3, "patience": 20},
    "verdict": {"min_samples": 100, "on_inconclusive": "hold"},
    "bake": 3,
    "confirm_deadline": 40,
    "hooks": {},
}
LOAD = ("--keepalive", "7", "--fresh", "3", "--post", "0", "--slow", "0", "--websockets", "0")
"""Each edge judges the requests that it saw itself, so each needs as many as a verdict wants within a step."""


@dataclass(frozen=True)
class Judged:
    """One release of a round: how its move ended, why, and the requests that it had in the step that decided.

    `marked`: it is known as bad on the host. `begun` and `ended`: when its move did, in seconds since 1970.
    """

    host: str
    release: str
    outcome: str
    reason: str
    requests: int
    marked: bool
    begun: float
    ended: float

    @property
    def right(self) -> bool:
        """A good one was taken, a bad one taken back in the first step of its canary."""
        return self.known and (self.release not in BAD or self.reason.startswith("in canary 1/2"))

    @property
    def known(self) -> bool:
        """The same, in whatever step: the bad one is marked, for the reason that it has."""
        if self.release in BAD:
            return self.outcome == "rolled_back" and self.marked and WORDS[self.release] in self.reason
        return self.outcome == "confirmed" and not self.marked


def play(lane: Lane, rounds: int, log: Path) -> tuple[list[Judged], list[records.Record]]:
    """Rounds on one host; what was judged, and requests that failed although no bad release had the traffic then."""
    archives = json.loads((lane.system.files / "releases.json").read_text())
    lane.agent("tune", **TIMES)
    found = []
    with lane.system.client(log, *LOAD):
        for number in range(rounds):
            for wanted in ("good", *BAD):
                serving = lane.system.release()
                release = wanted if wanted in BAD else "v2" if serving == "v1" else "v1"
                found.append(_judge(lane, release, archives[release]["archive"], f"r{number}-{release}-{log.stem}"))
    seen = [each for each in records.load(log) if "kind" in each]
    failed = [each for each in seen if report.failed(each) and each.get("release") not in BAD]
    # What began after a bad one was taken back never comes from it.
    failed += [each for each in seen if each.get("release") in BAD and not _during(each["t"], found)]
    return found, failed


def _during(at: float, judged: Sequence[Judged]) -> bool:
    """A bad release was on trial then."""
    return any(one.begun <= at <= one.ended for one in judged if one.release in BAD)


def _judge(lane: Lane, release: str, archive: str, txn: str) -> Judged:
    lane.shell("rm -f {state}/bad/*")
    target = lane.idle()
    run(["docker", "cp", archive, f"{lane.container}:{lane.state}/release.tar.gz"])
    lane.agent("start", to=target, release=release, archive=f"{lane.state}/release.tar.gz")
    begun = time.time()
    lane.agent("begin", to=target, release=release, txn=txn)
    lane.agent("reached", txn=txn, state="ended", seconds=90)
    ended = time.time()
    if lane.agent("look")["held"]:
        lane.agent("confirm", txn=txn)
    journal = lane.agent("look")["journal"]
    marked = lane.shell("ls {state}/bad 2>/dev/null || true").split() != []
    told = [json.loads(line) for line in lane.shell(f"cat {{state}}/runs/{txn}.jsonl").splitlines()]
    verdicts = [line["verdict"]["candidate"]["requests"] for line in told if line.get("verdict")]
    asked = verdicts[-1] if verdicts else 0
    return Judged(lane.host, release, str(journal["outcome"]), str(journal["reason"]), asked, marked, begun, ended)


def play_all(lanes: Sequence[Lane], rounds: int, directory: Path) -> tuple[list[Judged], list[records.Record]]:
    """The same on all hosts at once, `rounds` on each."""
    with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
        played = list(pool.map(lambda lane: play(lane, rounds, directory / f"{lane.host}.jsonl"), lanes))
    judged = [each for found, _failed in played for each in found]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(each) for each in judged], indent=1))
    RESULTS.with_suffix(".txt").write_text(summary(judged) + "\n")
    return judged, [each for _found, failed in played for each in failed]


def summary(judged: Sequence[Judged]) -> str:
    """A line for each kind of release."""
    kind = {each: each.release if each.release in BAD else "good" for each in judged}
    count, right = Counter(kind.values()), Counter(kind[each] for each in judged if each.right)
    asked = {name: sorted(each.requests for each in judged if kind[each] == name) for name in count}
    return "\n".join(
        f"{name:10}  {right[name]} of {count[name]} judged rightly, the last time on {asked[name][0]}-{asked[name][-1]} requests"
        for name in count
    )
