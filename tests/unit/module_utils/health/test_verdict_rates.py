# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a verdict is wrong: exact where it can be computed, else by simulation that bounds on the rate judge."""

from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health.limits import Limits
from ansible_collections.slipway.server.plugins.module_utils.health.samples import Figures
from ansible_collections.slipway.server.plugins.module_utils.health.statistics import binomial_tail
from ansible_collections.slipway.server.plugins.module_utils.health.verdict import judge

from tests.bench.verdict import LOOKS, SCENARIOS, Crowd, Scenario, Traffic, bounds, simulate

pytestmark = pytest.mark.slow

DOUBT = 0.001


def at_most(count: int, total: int, rate: float) -> bool:
    """False when `count` of `total` would be a wonder at a true rate of `rate`."""
    return binomial_tail(count, total, rate) > DOUBT


def least_to_fail(requests: int, looks: int = LOOKS) -> int:
    """The smallest count of errors that condemns without a control, each apart from the next."""
    return next(
        errors
        for errors in range(requests)
        if judge(Figures("green", requests, errors), None, Limits(), 1, looks).outcome == "fail"
    )


@pytest.mark.parametrize("requests", [100, 120, 150, 200, 500, 1000, 10_000])
def test_the_limit_of_errors_is_exact(requests: int) -> None:
    errors = least_to_fail(requests)
    assert errors > 0.05 * requests
    assert LOOKS * binomial_tail(errors, requests, 0.01) <= 0.01 / 4


def test_a_fault_of_ten_percent_is_seen_in_200_requests() -> None:
    assert least_to_fail(200) == 11
    assert binomial_tail(11, 200, 0.10) > 0.99
    assert binomial_tail(least_to_fail(100), 100, 0.10) > 0.85


@pytest.mark.parametrize(("name", "releases"), [("good: 1 %", 400), ("good: no errors", 200), ("good: slow by nature", 100)])
def test_good_releases_are_not_taken_back(name: str, releases: int) -> None:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name.startswith(name))
    found = simulate(scenario, releases, seed=11)
    assert at_most(found["fail"], releases, 0.01)
    assert found["pass"] >= 0.97 * releases


def test_the_simulation_would_notice_a_test_that_is_too_eager() -> None:
    eager = Scenario("eager", looks=LOOKS, planned=LOOKS, limits=Limits(alpha=0.2, usual_error_percent=0.01, error_percent=2))
    found = simulate(eager, 100, seed=12)
    assert not at_most(found["fail"], 100, 0.01)


def test_ten_percent_of_errors_are_detected() -> None:
    found = simulate(Scenario("fault", Traffic(200, 0.1), Traffic(200)), 400, seed=13)
    assert at_most(400 - found["fail"], 400, 0.01)


@pytest.mark.parametrize("requests", [100, 150, 200])
def test_doubled_latency_is_detected_and_equal_latency_is_not_in_20_of_20(requests: int) -> None:
    slow = simulate(Scenario("slow", Traffic(requests, slower=2.0), Traffic(requests)), 20, seed=14)
    equal = simulate(Scenario("equal", Traffic(requests), Traffic(requests)), 20, seed=15)
    assert (slow["fail"], equal["pass"]) == (20, 20)


def test_what_both_slots_have_is_not_the_release() -> None:
    found = simulate(Scenario("both", Traffic(200, 0.1), Traffic(200, 0.1)), 200, seed=16)
    assert at_most(found["fail"], 200, 0.01)
    assert found["inconclusive"] >= 190


def test_bounds_of_a_rate() -> None:
    # Clopper, Pearson 1934 as tabulated: 0 of 10 gives 0 to 30.85 %, 5 of 10 gives 18.71 to 81.29 %.
    assert bounds(0, 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert bounds(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert bounds(10, 10) == pytest.approx((0.6915, 1.0), abs=1e-4)


def test_the_crowd_is_as_told() -> None:
    crowd, figures = Crowd(17), Figures("green")
    crowd.visit(figures, Traffic(20_000, 0.1))
    assert figures.errors / 20_000 == pytest.approx(0.1, abs=0.01)
    assert 90 < figures.mean_ms < 150
