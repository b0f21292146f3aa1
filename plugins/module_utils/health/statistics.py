# SPDX-License-Identifier: GPL-3.0-or-later
"""The few statistical tests that a verdict needs, each one-sided: is the first sample worse than the second, or than a limit?

All take O(n log n) at most and use the standard library alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

NEGLIGIBLE = 1e-17


def binomial_tail(events: int, trials: int, probability: float) -> float:
    """P(X >= events) for X ~ Binomial(trials, probability), exact.

    Clopper, Pearson: The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika 26 (1934).
    """
    if events <= 0:
        return 1.0
    if events > trials or probability <= 0.0:
        return 0.0
    if probability >= 1.0:
        return 1.0
    odds = probability / (1.0 - probability)

    def mass(count: int) -> float:
        log = _log_choose(trials, count) + count * math.log(probability) + (trials - count) * math.log1p(-probability)
        return math.exp(log)

    if events > (trials + 1) * probability:
        return min(1.0, _sum(mass(events), ((trials - k) / (k + 1) * odds for k in range(events, trials))))
    below = _sum(mass(events - 1), (k / (trials - k + 1) / odds for k in range(events - 1, 0, -1)))
    return max(0.0, 1.0 - below)


def fisher(events: int, trials: int, control_events: int, control_trials: int) -> float:
    """P-value of Fisher's exact test that the first sample has the higher rate, exact: the hypergeometric upper tail.

    Fisher: The logic of inductive inference, Journal of the Royal Statistical Society 98 (1935).
    """
    marked, everything = events + control_events, trials + control_trials
    low, high = max(0, marked - control_trials), min(marked, trials)
    if events <= low:
        return 1.0

    def mass(count: int) -> float:
        log = _log_choose(marked, count) + _log_choose(everything - marked, trials - count) - _log_choose(everything, trials)
        return math.exp(log)

    rest = control_trials - marked
    if events > (trials + 1) * (marked + 1) / (everything + 2):
        steps = ((marked - k) * (trials - k) / ((k + 1) * (rest + k + 1)) for k in range(events, high))
        return min(1.0, _sum(mass(events), steps))
    back = (k * (rest + k) / ((marked - k + 1) * (trials - k + 1)) for k in range(events - 1, low, -1))
    return max(0.0, 1.0 - _sum(mass(events - 1), back))


@dataclass(frozen=True)
class Shift:
    """How the first sample lies against the second: one-sided p-value that it is larger, and how many times it is."""

    p_value: float
    ratio: float
    typical: float


def rank_sum(strata: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Shift:
    """Whether the first values of each pair are larger than the second ones, stratum by stratum.

    With one stratum this is the test of Mann, Whitney: On a test of whether one of two random variables is stochastically
    larger than the other, Annals of Mathematical Statistics 18 (1947), in its normal approximation with the correction for
    ties (Lehmann: Nonparametrics, 1975, §1.4) and for continuity. Several are joined with the weights 1 / (n + m + 1) of
    van Elteren: On the combination of independent two sample tests of Wilcoxon, Bulletin of the ISI 37 (1960), so that
    endpoints that are slow by nature do not hide a shift, nor feign one when the mix of requests differs.

    `ratio` is that of the geometric means, weighted by nm / (n + m); `typical` the geometric mean of the second values.
    """
    excess = variance = correction = 0.0
    logs = weights = control = 0.0
    for first, second in strata.values():
        n, m = len(first), len(second)
        if not n or not m:
            continue
        weight = 1.0 / (n + m + 1)
        above, spread = _mann_whitney(first, second)
        excess += weight * above
        variance += weight * weight * spread
        correction = max(correction, 0.5 * weight)
        mean, control_mean = _mean_log(first), _mean_log(second)
        share = n * m / (n + m)
        logs += share * (mean - control_mean)
        control += share * control_mean
        weights += share
    if not weights:
        return Shift(1.0, 1.0, 0.0)
    p_value = 1.0
    if variance > 0.0:
        p_value = upper_tail((excess - correction) / math.sqrt(variance))
    return Shift(p_value, math.exp(logs / weights), math.exp(control / weights))


def upper_tail(z: float) -> float:
    """P(Z >= z) of the standard normal distribution, also far out."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def mean_above(mean: float, deviation: float, count: int, alpha: float) -> float:
    """The value that the true mean exceeds with confidence 1 - alpha, by the central limit theorem.

    Latencies are skewed to the right, where mean and deviation of a sample rise together, so this bound is a cautious one.
    """
    return mean - NormalDist().inv_cdf(1.0 - alpha) * deviation / math.sqrt(count) if count > 1 else -math.inf


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile of values in rising order, interpolated (type 7 of Hyndman, Fan: The American Statistician 50, 1996)."""
    if not ordered:
        return math.nan
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _mann_whitney(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """U of `first` above what chance gives, and its variance without differences, ties counted."""
    n, m = len(first), len(second)
    together = sorted([(value, True) for value in first] + [(value, False) for value in second])
    total = n + m
    ranks = ties = 0.0
    begin = 0
    while begin < total:
        end = begin
        value = together[begin][0]
        own = 0
        while end < total and together[end][0] == value:
            own += together[end][1]
            end += 1
        size = end - begin
        ranks += own * (begin + end + 1) / 2.0
        ties += size**3 - size
        begin = end
    above = ranks - n * (n + 1) / 2.0 - n * m / 2.0
    spread = n * m / 12.0 * (total + 1 - ties / (total * (total - 1))) if total > 1 else 0.0
    return above, spread


def _mean_log(values: Sequence[float]) -> float:
    """Mean logarithm; values count as at least 1, the resolution of the milliseconds that are compared."""
    return math.fsum(math.log(max(value, 1.0)) for value in values) / len(values)


def _log_choose(total: int, part: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(part + 1) - math.lgamma(total - part + 1)


def _sum(first: float, factors: Iterable[float]) -> float:
    """Sum first * (1 + f1 + f1 * f2 + …), until what is added no longer counts; the factors fall and end below one."""
    term = total = first
    for factor in factors:
        term *= factor
        total += term
        if term < total * NEGLIGIBLE:
            break
    return total
