# SPDX-License-Identifier: GPL-3.0-or-later
"""The jury over made-up traffic."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health.limits import Limits
from ansible_collections.slipway.server.plugins.module_utils.health.samples import Sample
from ansible_collections.slipway.server.plugins.module_utils.traffic.jury import LOOKS_A_STEP, LogJury, asking

LIMITS = Limits()


class Log:
    """Gives what was put in, once."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def position(self) -> int:
        return len(self.samples)

    def read(self, since: int) -> tuple[list[Sample], int]:
        return self.samples[since:], len(self.samples)

    def traffic(self, slot: str, count: int, errors: float = 0.0, ms: float = 20.0, seed: int = 1) -> None:
        draw = random.Random(seed)
        for _number in range(count):
            failed = draw.random() < errors
            self.samples.append(Sample(0.0, slot, "GET /", failed, None if failed else draw.lognormvariate(0, 0.3) * ms))


@pytest.fixture
def log() -> Log:
    return Log()


def jury(log: Log, limits: Limits = LIMITS, **more: Any) -> LogJury:
    made = LogJury(log, limits, ("blue", "green"), 2, **more)  # type: ignore[arg-type]
    made.open(25)
    return made


def test_a_good_release_ends_the_step_when_it_may(log: Log) -> None:
    made = jury(log)
    log.traffic("blue", 600)
    log.traffic("green", 200, seed=2)
    early = made.hear(due=False, last=False)
    assert (early.done, early.trouble, early.news) == (False, False, True)
    assert not made.hear(due=False, last=False).news
    ruling = made.hear(due=True, last=False)
    assert (ruling.done, ruling.trouble) == (True, False)
    assert "green: 200 requests" in ruling.text
    assert "blue: 600 requests" in ruling.text
    assert made.verdicts[0]["share"] == 25


@pytest.mark.parametrize("ill", [{"errors": 0.1}, {"ms": 40.0}])
def test_a_bad_release_is_found_as_soon_as_there_is_enough(log: Log, ill: dict[str, float]) -> None:
    made = jury(log)
    log.traffic("blue", 600, errors=0.01)
    log.traffic("green", 60, seed=2, **ill)
    assert not made.hear(due=False, last=False).news
    log.traffic("green", 140, seed=3, **ill)
    ruling = made.hear(due=False, last=False)
    assert (ruling.trouble, ruling.guilty) == (True, True)


def test_ten_failures_in_a_row_need_no_hundred_requests(log: Log) -> None:
    made = jury(log)
    log.traffic("blue", 50)
    log.traffic("green", 10, errors=1.0)
    assert made.hear(due=False, last=False).guilty


def test_too_little_traffic_is_waited_for_and_then_told(log: Log) -> None:
    made = jury(log)
    log.traffic("green", 12)
    first = made.hear(due=True, last=False)
    assert (first.news, first.done, first.trouble) == (True, False, False)
    assert not made.hear(due=True, last=False).news
    held = made.hear(due=True, last=True)
    assert (held.trouble, held.guilty) == (True, False)
    assert "no verdict: green: 12 requests" in held.text
    assert "on_inconclusive: pass" in held.text


@pytest.mark.parametrize("again", [0.0, 0.1])
def test_errors_that_seldom_come_by_chance_are_looked_at_for_longer(log: Log, again: float) -> None:
    made = jury(log)
    log.traffic("blue", 300)
    log.traffic("green", 96, seed=2)
    log.traffic("green", 4, errors=1.0)
    waiting = made.hear(due=True, last=False)
    assert (waiting.news, waiting.done, waiting.trouble) == (True, False, False)
    assert waiting.text.endswith("so many failed that more of them are looked at")
    assert not made.hear(due=True, last=False).news
    log.traffic("blue", 300)
    log.traffic("green", 100, errors=again, seed=4)
    ruling = made.hear(due=True, last=False)
    assert (ruling.done, ruling.guilty) == (again == 0.0, again > 0.0)


def first_step(errors: float, seed: int) -> str:
    """How the first step of a canary ends that gets 25 % of the traffic: 100 requests when it may end, 400 until it must."""
    log = Log()
    made = jury(log)
    for number in range(4):
        log.traffic("blue", 300, errors=0.01, seed=1000 * seed + number)
        log.traffic("green", 100, errors=errors, seed=1000 * seed + 500 + number)
        ruling = made.hear(due=True, last=number == 3)
        if ruling.done or ruling.trouble:
            break
    return "taken back" if ruling.trouble else "passed"


@pytest.mark.parametrize(("errors", "end", "least"), [(0.10, "taken back", 0.985), (0.01, "passed", 0.985)])
def test_a_release_is_judged_rightly_in_its_first_step(errors: float, end: str, least: float) -> None:
    releases = 200
    assert sum(first_step(errors, seed) == end for seed in range(releases)) >= least * releases


def test_a_suspicion_condemns_nobody_when_the_time_is_over(log: Log) -> None:
    made = jury(log)
    log.traffic("green", 96, seed=2)
    log.traffic("green", 4, errors=1.0)
    assert not made.hear(due=True, last=False).done
    assert made.hear(due=True, last=True).done


def test_the_policy_may_let_it_pass(log: Log) -> None:
    made = jury(log, replace(LIMITS, on_inconclusive="pass"))
    assert made.hear(due=True, last=True).done


def test_with_all_traffic_too_few_requests_hold_nothing_up(log: Log) -> None:
    made = jury(log)
    made.open(100)
    assert made.hear(due=True, last=True).done
    made.open(100)
    log.traffic("green", 200, errors=0.3)
    assert made.hear(due=True, last=True).guilty


def test_with_all_traffic_it_is_compared_with_what_was_before(log: Log) -> None:
    made = jury(log)
    log.traffic("blue", 300)
    made.hear(due=False, last=False)
    made.open(100)
    log.traffic("green", 300, ms=50.0, seed=2)
    ruling = made.hear(due=True, last=True)
    assert ruling.guilty
    assert "the control's" in ruling.text


def test_synthetic_requests_make_up_for_missing_ones(log: Log) -> None:
    asked: list[int] = []

    def ask(wanted: int) -> Sequence[Sample]:
        asked.append(wanted)
        return [Sample(0.0, "green", "/", False, None, True)] * 50

    made = jury(log, ask=ask)
    log.traffic("green", 20)
    assert not made.hear(due=False, last=False).news
    made.hear(due=True, last=False)
    assert made.hear(due=True, last=False).news
    assert asked == [80, 30]
    assert made.hear(due=True, last=True).done


def test_asking_goes_round() -> None:
    class Probed:
        def __init__(self, path: str, status: int | None) -> None:
            self.target = type("Target", (), {"path": path})
            self.status = status

        def look(self) -> Any:
            return type("Result", (), {"status": self.status})

    class Clock:
        def now(self) -> float:
            return 1.0

    ask = asking([Probed("/a", 200), Probed("/b", 503), Probed("/c", None)], "green", Clock())  # type: ignore[list-item, arg-type]
    assert [(sample.endpoint, sample.error) for sample in ask(4)] == [("/a", False), ("/b", True), ("/c", True), ("/a", False)]
    assert asking([], "green", Clock())(5) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("burst", [0, 10])
def test_every_look_is_counted_and_all_of_them_were_planned(log: Log, burst: int) -> None:
    made, looks = jury(log), []
    for number in range(3):
        made.open(25)
        log.traffic("blue", burst, errors=1.0)
        log.traffic("green", burst, errors=1.0)
        for due, last in ((False, False), (True, False), (True, True)):
            log.traffic("blue", 120, errors=0.1, seed=number)
            log.traffic("green", 120, errors=0.1, seed=number)  # above the limit, but so is the control
            ruling = made.hear(due, last)
            while not last and made.hear(due, last).news:
                pass
            assert ruling.figures["outcome"] == "inconclusive", ruling
            looks.append(ruling.figures["look"])
    assert max(looks) <= made.looks == LOOKS_A_STEP * 3
    assert looks == sorted(looks)
    assert burst or looks == list(range(1, 10))  # one of four in a step is for a suspicion only
