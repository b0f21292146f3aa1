# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts: what condemns, what excuses, and what says nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health.limits import Limits
from ansible_collections.slipway.server.plugins.module_utils.health.samples import Figures, Sample, tally
from ansible_collections.slipway.server.plugins.module_utils.health.verdict import Verdict, judge

LIMITS = Limits()


def slot(
    requests: int, errors: int = 0, ms: float = 20.0, endpoint: str = "GET /", synthetic: int = 0, spread: int = 10
) -> Figures:
    """Requests of which `errors` failed, evenly spread; latencies around `ms`; the last `synthetic` ones asked by slipway."""
    gap = requests // errors if errors else 0
    failed = {gap * number for number in range(errors)}
    return tally(
        Sample(
            float(number),
            "candidate",
            endpoint,
            number in failed,
            None if number in failed else ms * (1 + (number % spread) / spread),
            number >= requests - synthetic,
        )
        for number in range(requests)
    ).get("candidate", Figures("candidate"))


def outcome(candidate: Figures, control: Optional[Figures], limits: Limits = LIMITS, **looks: int) -> str:
    return judge(candidate, control, limits, **looks).outcome


def reason(candidate: Figures, control: Optional[Figures], **limits: Any) -> str:
    return "; ".join(judge(candidate, control, replace(LIMITS, **limits), 1, 10).reasons)


def test_a_good_release_passes() -> None:
    verdict = judge(slot(200, 2), slot(1000, 10), LIMITS, 2, 10)
    assert (verdict.outcome, verdict.action) == ("pass", "pass")
    assert verdict.lines() == [
        "look 2 of 10: pass: 200 requests, 1.0 % failed, and nothing is worse than it may be",
        "candidate candidate: 200 requests, 2 failed (1.00 %), mean 29.1 ms, p50/p95/p99 30.0/38.0/38.0 ms",
        "control candidate: 1000 requests, 10 failed (1.00 %), mean 29.1 ms, p50/p95/p99 30.0/38.0/38.0 ms",
    ]


def test_too_many_errors_are_told_with_both_numbers() -> None:
    assert reason(slot(200, 20), slot(200, 2)).startswith("20 of 200 requests failed, 10.0 %, limit 5 %, against 2 of 200")
    assert reason(slot(200, 20), None) == "20 of 200 requests failed, 10.0 %, limit 5 %"


def test_more_errors_than_the_control_within_the_limit() -> None:
    assert outcome(slot(2000, 80), slot(2000, 20), looks=10) == "fail"
    assert outcome(slot(2000, 30), slot(2000, 20), looks=10) == "pass"


def test_a_handful_of_errors_condemns_nobody() -> None:
    assert outcome(slot(100, 4), slot(100_000, 0), looks=10) == "pass"
    assert outcome(slot(100, 5), slot(100_000, 0), looks=10) == "fail"


def test_an_effect_too_small_to_matter() -> None:
    verdict = judge(slot(90_000, 1080), slot(90_000, 900), LIMITS)
    assert (verdict.outcome, verdict.error_p is not None and verdict.error_p < verdict.threshold) == ("pass", True)
    verdict = judge(slot(50_000, ms=24.0), slot(50_000, ms=20.0), LIMITS)
    assert (verdict.outcome, verdict.latency_p is not None and verdict.latency_p < verdict.threshold) == ("pass", True)
    assert outcome(slot(50_000, ms=2.0), slot(50_000, ms=1.0)) == "pass"


def test_errors_of_both_slots_are_not_the_release() -> None:
    verdict = judge(slot(200, 20), slot(200, 20), LIMITS, 1, 10)
    assert (verdict.outcome, verdict.action) == ("inconclusive", "hold")
    assert verdict.reasons[0].endswith("but so did 20 of 200 of the control, 10.0 %: not the release's fault alone")
    assert outcome(slot(200, 80), slot(200, 20), looks=10) == "fail"


def test_above_the_limit_by_chance() -> None:
    assert reason(slot(100, 6), slot(100, 1)) == "6 of 100 requests failed, 6.0 %, limit 5 %, but that may be chance"


def test_too_few_requests() -> None:
    assert reason(slot(99, 33), slot(1000)) == "99 requests, fewer than the 100 that a verdict needs"
    assert outcome(Figures("green"), None) == "inconclusive"


@pytest.mark.parametrize(("policy", "action"), [("hold", "hold"), ("pass", "pass"), ("fail", "fail")])
def test_policy(policy: str, action: str) -> None:
    verdict = judge(slot(10), slot(10), Limits(on_inconclusive=policy))
    assert (verdict.outcome, verdict.action) == ("inconclusive", action)


def test_a_burst_needs_no_more_samples() -> None:
    assert reason(slot(10, 10), slot(1000)) == "10 requests in a row failed, limit 10"
    assert outcome(slot(9, 9), slot(1000)) == "inconclusive"
    assert outcome(slot(10, 10), slot(10, 10)) == "inconclusive"


def test_slow_answers() -> None:
    assert reason(slot(200, ms=40.0), slot(200, ms=20.0)).startswith(
        "answers take 2.00 times as long as the control's, limit 1.25: mean 58 ms against 29 ms"
    )
    assert reason(slot(200, ms=600.0), None) == "mean 870 ms, limit 500 ms"
    assert judge(slot(200, ms=200.0), None, LIMITS).warnings[1:] == ("mean 290 ms, limit 200 ms for a warning",)


@pytest.mark.parametrize(("ms", "beside", "wanted"), [(4, True, "fail"), (4, False, "pass"), (20, False, "fail")])
def test_a_few_milliseconds_count_only_beside_the_control(ms: float, beside: bool, wanted: str) -> None:
    verdict = judge(slot(200, ms=2 * ms), slot(200, ms=ms), LIMITS, 1, 10, beside)
    assert verdict.outcome == wanted
    assert any("another time" in warning for warning in verdict.warnings) == (wanted == "pass")


def test_slow_by_nature() -> None:
    verdict = judge(slot(200, ms=600.0), slot(200, ms=600.0), LIMITS)
    assert verdict.outcome == "pass"
    assert verdict.warnings == ("mean 870 ms, limit 500 ms, but the control has 870 ms: not the release's fault",)


def test_a_control_close_to_the_limit_is_no_witness() -> None:
    def served(high: float, slow: int) -> Figures:
        return tally(Sample(1.0, "c", "GET /", False, high if number < slow else 300.0) for number in range(200))["c"]

    alone = Limits(ratio=20.0)
    assert outcome(served(2500.0, 60), served(2500.0, 17), alone) == "inconclusive"
    assert outcome(served(2500.0, 60), served(2500.0, 0), alone) == "fail"


def test_a_mean_that_chance_may_have_raised() -> None:
    few = tally([Sample(1.0, "c", "GET /", False, 20_000.0 if number < 3 else 10.0) for number in range(100)])["c"]
    assert outcome(few, None) == "inconclusive"


def test_quantiles_have_limits_when_told() -> None:
    tail = tally([Sample(1.0, "c", "GET /", False, 900.0 if number % 5 == 0 else 10.0) for number in range(200)])["c"]
    assert outcome(tail, None) == "pass"
    assert reason(tail, None, p95_ms=500.0) == "p95 900 ms, limit 500 ms"
    assert outcome(tail, tail, Limits(p95_ms=500.0)) == "pass"
    rare = tally([Sample(1.0, "c", "GET /", False, 900.0 if number < 2 else 10.0) for number in range(100)])["c"]
    assert reason(rare, None, p99_ms=500.0) == "p99 900 ms, limit 500 ms, but that may be chance"


def test_another_mix_of_endpoints_is_no_fault() -> None:
    def mixed(quick: int, slow: int) -> Figures:
        figures = slot(quick, ms=10.0)
        for number in range(slow):
            figures.add(Sample(1.0, "candidate", "GET /report", False, 400.0 + number % 10))
        return figures

    assert outcome(mixed(100, 60), mixed(1000, 60)) == "pass"


def test_synthetic_requests_are_counted_apart() -> None:
    verdict = judge(slot(120, ms=5.0, synthetic=80), slot(400, ms=5.0), LIMITS)
    assert (verdict.outcome, verdict.candidate.requests, verdict.candidate.synthetic) == ("pass", 120, 80)
    bad = slot(40)
    for number in range(80):
        bad.add(Sample(1.0, "candidate", "GET /", number % 4 == 0, None, synthetic=True))
    verdict = judge(bad, slot(400), LIMITS)
    assert (verdict.outcome, verdict.error_p) == ("fail", 1.0)


def test_a_control_that_is_too_small() -> None:
    verdict = judge(slot(200, 2), slot(5), LIMITS)
    assert (verdict.outcome, verdict.error_p) == ("pass", None)
    assert verdict.warnings == ("the control had 5 requests, too few to compare with: the limits alone decide",)


def test_plain_data() -> None:
    verdict: Verdict = judge(slot(200, 20), slot(200), LIMITS)
    plain = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert (plain["outcome"], plain["error_ratio"], plain["candidate"]["errors"]) == ("fail", None, 20)


@pytest.mark.parametrize(("look", "looks"), [(0, 1), (2, 1)])
def test_a_look_that_was_not_planned(look: int, looks: int) -> None:
    with pytest.raises(ValueError, match=f"look {look} of {looks}"):
        judge(slot(1), None, LIMITS, look, looks)
