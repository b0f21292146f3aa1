# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

from ansible_collections.slipway.server.plugins.module_utils.health import gate
from ansible_collections.slipway.server.plugins.module_utils.health.gate import GateRules, GateState, Verdict
from ansible_collections.slipway.server.plugins.module_utils.health.model import ProbeResult
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from hypothesis import given
from hypothesis import strategies as st

RULES = GateRules(successes=3, interval=1.0, min_healthy=4.0, deadline=10.0)


class Ticking(Clock):
    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += max(seconds, 0)


@dataclass
class Script:
    """Answers one after the other, the last for ever."""

    answers: Sequence[bool]
    name: str = "script"
    looks: list[int] = field(default_factory=list)
    dies_at: int = 0

    def look(self) -> ProbeResult:
        self.looks.append(1)
        well = self.answers[min(len(self.looks), len(self.answers)) - 1]
        return ProbeResult(well, "status 200" if well else "status 503", 7.0, final=len(self.looks) == self.dies_at)


def run(*answers: bool, rules: GateRules = RULES) -> gate.GateReport:
    return gate.run([Script(answers)], rules, Ticking())


def test_needs_successes_and_time() -> None:
    report = run(True)
    assert (report.healthy, report.rounds, report.seconds) == (True, 5, 4.0)
    assert run(True, rules=GateRules(3, 1.0, 0.0, 10.0)).rounds == 3


def test_a_failure_starts_again() -> None:
    report = run(True, True, True, False, True)
    assert (report.healthy, report.seconds, report.first_healthy) == (True, 8.0, 0.0)


def test_the_last_look_comes_when_time_enough_has_passed() -> None:
    report = run(True, rules=GateRules(3, 1.0, 2.5, 10.0))
    assert (report.healthy, report.seconds, report.rounds) == (True, 2.5, 4)
    late = run(False, True, rules=GateRules(3, 1.0, 2.5, 10.0))
    assert (late.seconds, late.first_healthy) == (3.5, 1.0)


class Booting(Script):
    """Nothing listens for some looks; `when` are their times."""

    def __init__(self, refused: int, clock: Clock) -> None:
        super().__init__([True])
        self.refused, self.clock, self.when = refused, clock, []

    def look(self) -> ProbeResult:
        self.when.append(round(self.clock.monotonic(), 3))
        if len(self.when) <= self.refused:
            return ProbeResult(False, "connection refused", 0.0, refused=True)
        return super().look()


def test_who_boots_is_looked_at_often_in_the_first_interval_only() -> None:
    clock = Ticking()
    quick = Booting(3, clock)
    report = gate.run([quick], GateRules(3, 1.0, 2.0, 10.0), clock)
    assert quick.when == [0.0, 0.2, 0.4, 0.6, 1.6, 2.6]
    assert (report.healthy, report.seconds) == (True, 2.6)
    slow = Booting(99, clock := Ticking())
    gate.run([slow], GateRules(3, 1.0, 2.0, 4.0), clock)
    assert slow.when == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 3.0, 4.0]


def test_deadline() -> None:
    report = run(False)
    assert not report.healthy
    assert report.seconds == 10.0
    assert report.reason == "not healthy within 10 s; script: status 503"
    assert len(report.last) == gate.KEPT
    assert "FAILED: status 503" in report.lines()[-1]
    late = run(*[False] * 8, True)
    assert not late.healthy


def test_every_target_must_be_well_in_the_same_round() -> None:
    first, second = Script([True]), Script([False, False, True], name="other")
    report = gate.run([first, second], RULES, Ticking())
    assert (report.healthy, report.seconds) == (True, 6.0)
    assert report.latency == {"p50": 7.0, "p95": 7.0, "max": 7.0}


def test_death_ends_it_at_once() -> None:
    clock = Ticking()

    def died() -> Optional[str]:
        return "the unit died: exit status 3" if clock.passed >= 2 else None

    report = gate.run([Script([True])], RULES, clock, died)
    assert (report.healthy, report.reason, report.seconds) == (False, "the unit died: exit status 3", 2.0)


def test_a_final_answer_ends_it_at_once() -> None:
    report = gate.run([Script([True, False], dies_at=2)], RULES, Ticking())
    assert (report.healthy, report.reason, report.seconds) == (False, "script status 503", 1.0)


def test_a_death_between_two_looks_is_not_waited_for() -> None:
    clock = Ticking()
    rules = GateRules(successes=3, interval=30.0, min_healthy=60.0, deadline=300.0)
    report = gate.run([Script([True])], rules, clock, lambda: "died" if clock.passed >= 3.5 else None)
    assert (report.healthy, report.reason, report.seconds) == (False, "died", 4.0)


def test_a_slow_start_has_its_own_time() -> None:
    slow = GateRules(successes=3, interval=1.0, min_healthy=4.0, deadline=10.0, start_period=20.0)
    assert run(*[False] * 15, True, rules=slow).healthy
    assert run(False, rules=slow).seconds == 30.0
    flaps = run(*[False] * 5, True, False, rules=slow)
    assert (flaps.healthy, flaps.seconds) == (False, 15.0)


def test_warm_up_comes_after_the_first_good_round_and_before_the_counting() -> None:
    first, warmup = Script([False, True]), [Script([True], name="/a"), Script([False], name="/b")]
    report = gate.run([first], RULES, Ticking(), warmup=warmup)
    assert (report.healthy, report.seconds, report.consecutive) == (True, 6.0, 5)
    assert [len(one.looks) for one in warmup] == [1, 1]
    assert [str(look) for look in report.warmup] == ["   1.0 s  /a  ok: status 200", "   1.0 s  /b  FAILED: status 503"]
    assert report.lines()[0] == "warm-up    1.0 s  /b  FAILED: status 503"
    never = gate.run([Script([False])], RULES, Ticking(), warmup=warmup)
    assert (never.warmup, len(warmup[0].looks)) == ((), 1)


def test_a_death_in_the_warm_up_ends_it() -> None:
    warmup = Script([False], name="/a")
    report = gate.run([Script([True])], RULES, Ticking(), lambda: "died" if warmup.looks else None, [warmup])
    assert (report.healthy, report.reason, report.seconds) == (False, "died", 0.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 3.0)), max_size=40))
def test_verdict_follows_the_definition(rounds: list[tuple[bool, float]]) -> None:
    """Healthy exactly when a streak of well rounds is long enough in number and time, before the deadline ended it."""
    state, now, streak = GateState(0.0), 0.0, []
    for well, gap in rounds:
        now += gap
        streak = [*streak, now] if well else []
        state, verdict = gate.step(RULES, state, well, now)
        proven = len(streak) >= RULES.successes and streak[-1] - streak[0] >= RULES.min_healthy
        assert (verdict is Verdict.HEALTHY) == proven
        assert (verdict is Verdict.FAILED) == (not proven and now >= RULES.deadline)
        assert state.consecutive == len(streak)
        if verdict is not Verdict.WAITING:
            break


def test_spread() -> None:
    assert gate.spread([]) == {}
    assert gate.spread([float(value) for value in range(1, 101)]) == {"p50": 51.0, "p95": 96.0, "max": 100.0}


def test_well_but_too_late() -> None:
    late = run(True, rules=GateRules(successes=3, interval=1.0, min_healthy=4.0, deadline=3.0))
    assert late.reason == "healthy, but not 3 times in a row over 4 s within the deadline of 3 s"
