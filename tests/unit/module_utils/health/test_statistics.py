# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests against exact sums, worked examples from the literature, and each other."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import statistics
from hypothesis import given
from hypothesis import strategies as st


def exact_binomial(events: int, trials: int, probability: Fraction) -> float:
    terms = (math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(max(0, events), trials + 1))
    return float(sum(terms))


def exact_fisher(a: int, n: int, b: int, m: int) -> float:
    terms = (math.comb(a + b, k) * math.comb(n + m - a - b, n - k) for k in range(a, min(a + b, n) + 1))
    return float(Fraction(sum(terms), math.comb(n + m, n)))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 99))
def test_binomial_tail_is_exact(events: int, trials: int, percent: int) -> None:
    wanted = exact_binomial(events, trials, Fraction(percent, 100))
    assert statistics.binomial_tail(events, trials, percent / 100) == pytest.approx(wanted, rel=1e-9, abs=1e-13)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_fisher_is_exact(a: int, rest: int, b: int, other: int) -> None:
    wanted = exact_fisher(a, a + rest, b, b + other)
    assert statistics.fisher(a, a + rest, b, b + other) == pytest.approx(wanted, rel=1e-9, abs=1e-13)


def test_fishers_own_example() -> None:
    # Fisher 1935: of 13 identical twins of convicts 10 were convicted, of 17 others 2; he gives 619/1330665.
    assert statistics.fisher(10, 13, 2, 17) == pytest.approx(619 / 1330665)


def test_large_counts_are_exact() -> None:
    # The first one by whole numbers of 60,000 digits: 0.014923950053294218.
    assert statistics.fisher(1100, 100_000, 1000, 100_000) == pytest.approx(0.014923950053294218, rel=1e-8)
    assert statistics.fisher(900, 100_000, 1000, 100_000) == pytest.approx(0.99006, abs=1e-5)
    assert statistics.fisher(50_000, 100_000, 50_000, 100_000) == pytest.approx(0.50178, abs=1e-5)
    assert statistics.fisher(90_000, 100_000, 10, 100_000) == 0.0
    assert statistics.fisher(0, 100_000, 90_000, 100_000) == 1.0
    assert statistics.binomial_tail(1100, 100_000, 0.01) == pytest.approx(0.00092, abs=0.0001)


def test_edges() -> None:
    assert statistics.binomial_tail(0, 10, 0.1) == 1.0
    assert statistics.binomial_tail(11, 10, 0.1) == 0.0
    assert statistics.binomial_tail(1, 10, 0.0) == 0.0
    assert statistics.binomial_tail(10, 10, 1.0) == 1.0
    assert statistics.fisher(5, 5, 7, 7) == 1.0
    assert statistics.fisher(0, 0, 0, 0) == 1.0
    assert statistics.rank_sum({}) == statistics.Shift(1.0, 1.0, 0.0)
    assert statistics.rank_sum({"/": ([5.0] * 9, [5.0] * 9)}).p_value == 1.0
    assert math.isnan(statistics.quantile([], 0.5))
    assert statistics.mean_above(5.0, 0.0, 1, 0.01) == -math.inf


def test_mann_whitney_with_ties_and_continuity() -> None:
    # By hand: U is 19.5 of 25, chance gives 12.5; ties of two 3 and three 5.
    first, second = [3.0, 5.0, 5.0, 8.0, 9.0], [1.0, 2.0, 3.0, 5.0, 7.0]
    above = sum((a > b) + (a == b) / 2 for a in first for b in second)
    assert above == 19.5
    ties = 2**3 - 2 + 3**3 - 3
    sigma = math.sqrt(25 / 12 * (11 - ties / 90))
    assert statistics.rank_sum({"/": (first, second)}).p_value == pytest.approx(statistics.upper_tail((7.0 - 0.5) / sigma))


def test_p_values_are_uniform_when_nothing_differs() -> None:
    draw = random.Random(5)
    hits = 0
    for _ in range(2000):
        sides = ([float(draw.randrange(60)) for _ in range(40)], [float(draw.randrange(60)) for _ in range(60)])
        hits += statistics.rank_sum({"/": sides}).p_value <= 0.05
    assert statistics.binomial_tail(hits, 2000, 0.05) > 0.001
    assert 1 - statistics.binomial_tail(hits + 1, 2000, 0.05) > 0.001


def test_strata_find_what_a_mixture_hides() -> None:
    draw = random.Random(6)
    fast = [[draw.lognormvariate(2, 0.3) * slow for _ in range(50)] for slow in (1.3, 1.0)]
    slow = [[draw.lognormvariate(7, 0.3) * slow for _ in range(50)] for slow in (1.3, 1.0)]
    apart = statistics.rank_sum({"a": (fast[0], fast[1]), "b": (slow[0], slow[1])})
    mixed = statistics.rank_sum({"": (fast[0] + slow[0], fast[1] + slow[1])})
    assert apart.p_value < 1e-6
    assert mixed.p_value > 1000 * apart.p_value
    assert apart.ratio == pytest.approx(1.3, abs=0.1)


def test_strata_do_not_feign_a_shift_when_the_mix_differs() -> None:
    draw = random.Random(7)

    def times(level: float, count: int) -> list[float]:
        return [draw.lognormvariate(level, 0.3) for _ in range(count)]

    strata = {"fast": (times(2, 20), times(2, 180)), "slow": (times(7, 180), times(7, 20))}
    pooled = ([*strata["fast"][0], *strata["slow"][0]], [*strata["fast"][1], *strata["slow"][1]])
    assert statistics.rank_sum({"": pooled}).p_value < 1e-9
    assert statistics.rank_sum(strata).p_value > 0.01
    assert statistics.rank_sum(strata).ratio == pytest.approx(1.0, abs=0.15)


def test_quantiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert statistics.quantile(values, 0.5) == 50.5
    assert statistics.quantile(values, 0.95) == pytest.approx(95.05)
    assert statistics.quantile([7.0], 0.99) == 7.0


def test_mean_above_covers_as_often_as_it_says() -> None:
    draw = random.Random(8)
    exceeded = 0
    for _ in range(2000):
        values = [draw.lognormvariate(0, 1) for _ in range(100)]
        mean = sum(values) / 100
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 99)
        exceeded += statistics.mean_above(mean, deviation, 100, 0.01) > math.exp(0.5)
    assert statistics.binomial_tail(exceeded, 2000, 0.01) > 0.001
