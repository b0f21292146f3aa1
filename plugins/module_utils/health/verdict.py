# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether live traffic proves a release guilty: against fixed limits, and against the other slot in the same window.

A good release may be condemned with a chance of `alpha`, over all looks at it and all tests of a look: each test has
alpha / (looks * tests), by Bonferroni's inequality, and needs an effect that matters besides. What hits the control just as
much is no fault of the release: errors in both say nothing of it (inconclusive), and an endpoint as slow as ever passes
with a warning.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Optional

from .limits import Limits
from .samples import Figures, Summary
from .statistics import Shift, binomial_tail, fisher, mean_above, quantile, rank_sum

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
# Fewer than these tell nothing: a control to compare with, latencies of one endpoint in a slot, errors.
LEAST_CONTROL = 30
LEAST_STRATUM = 10
LEAST_ERRORS = 5
# Milliseconds that a typical answer must have become slower; the log knows whole ones.
LEAST_SHIFT_MS = 2.0
# The same where the control is of another time: a host that got busy since, or cold caches, look like a slow release.
LEAST_SHIFT_SINCE_MS = 10.0
# A chance of errors below this is no proof, but a reason to see more before the release passes.
SUSPECT = 0.1
STRATA = 64
OTHERS = "others"


@dataclass(frozen=True)
class Verdict:
    """What a look says. `outcome`: pass, fail or inconclusive; `action`: pass, fail or hold, by the policy.

    P-values are one-sided and None for what was not compared; `threshold` is what they are held against. `error_ratio` and
    `latency_ratio` tell how many times the candidate has more errors and takes longer; None for no comparison. `suspect`: so
    many errors come seldom by chance, at the usual rate or at the control's. That condemns nobody, but as many requests again
    should be seen where there is time.
    """

    outcome: str
    action: str
    look: int
    looks: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    candidate: Summary
    control: Summary
    threshold: float
    error_p: Optional[float] = None
    error_ratio: Optional[float] = None
    latency_p: Optional[float] = None
    latency_ratio: Optional[float] = None
    suspect: bool = False

    def lines(self) -> list[str]:
        """The verdict for people: what and why, then the figures of both slots, then what else was seen."""
        action = f", {self.action}" if self.action != self.outcome else ""
        text = [f"look {self.look} of {self.looks}: {self.outcome}{action}: {'; '.join(self.reasons)}"]
        text += [f"candidate {self.candidate.line()}", f"control {self.control.line()}"]
        return text + [f"warning: {warning}" for warning in self.warnings]

    def as_dict(self) -> dict[str, object]:
        """All of it as plain data; what is no finite number is None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass
class _Findings:
    """What the tests of one look found; a fault outweighs a doubt, and a doubt a pass."""

    faults: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def judge(
    candidate: Figures, control: Optional[Figures], limits: Limits, look: int = 1, looks: int = 1, beside: bool = True
) -> Verdict:
    """The verdict of look number `look` of at most `looks` at a release; raises ValueError when that is not one of them.

    Without `beside` the control's requests came before those of the candidate: small differences are put down to the time.
    """
    if not 1 <= look <= looks:
        raise ValueError(f"look {look} of {looks}")
    other = control or Figures()
    tests = 4 + (limits.p95_ms is not None) + (limits.p99_ms is not None)
    alpha = limits.alpha / (looks * tests)
    seen = _Findings()
    comparable = other.requests >= LEAST_CONTROL
    error_p = error_ratio = None
    shift: Optional[Shift] = None
    if candidate.burst >= limits.burst:
        _burst(candidate, other, limits, seen)
    elif candidate.requests < limits.min_samples:
        seen.doubts.append(f"{candidate.requests} requests, fewer than the {limits.min_samples} that a verdict needs")
    else:
        if not comparable:
            seen.warnings.append(f"the control had {other.requests} requests, too few to compare with: the limits alone decide")
        else:
            error_p = fisher(_real(candidate)[0], _real(candidate)[1], *_real(other))
            error_ratio = _ratio(_real(candidate), _real(other))
        _errors(candidate, other, limits, alpha, looks, error_p, error_ratio, seen)
        shift = _shift(candidate, other)
        _latency(candidate, other, limits, alpha, shift, LEAST_SHIFT_MS if beside else LEAST_SHIFT_SINCE_MS, seen)
    outcome = FAIL if seen.faults else INCONCLUSIVE if seen.doubts else PASS
    fine = [f"{candidate.requests} requests, {_percent(candidate)} failed, and nothing is worse than it may be"]
    policy = {"hold": "hold", "pass": PASS, "fail": FAIL}[limits.on_inconclusive]
    return Verdict(
        outcome,
        policy if outcome == INCONCLUSIVE else outcome,
        look,
        looks,
        tuple(seen.faults or seen.doubts or fine),
        tuple(seen.warnings),
        candidate.summary(),
        other.summary(),
        alpha,
        error_p,
        error_ratio,
        shift.p_value if shift else None,
        shift.ratio if shift else None,
        _suspect(candidate, limits, error_p),
    )


def _suspect(candidate: Figures, limits: Limits, error_p: Optional[float]) -> bool:
    chance = binomial_tail(candidate.errors, candidate.requests, limits.usual_error_percent / 100.0)
    return candidate.errors > 0 and min(chance, 1.0 if error_p is None else error_p) <= SUSPECT


def _burst(candidate: Figures, other: Figures, limits: Limits, seen: _Findings) -> None:
    """Requests that failed in a row condemn at once, unless those of the control did so, too."""
    text = f"{candidate.burst} requests in a row failed, limit {limits.burst}"
    if other.burst >= limits.burst:
        seen.doubts.append(f"{text}, but so did {other.burst} of the control: not the release's fault alone")
    else:
        seen.faults.append(text)


def _errors(
    candidate: Figures,
    other: Figures,
    limits: Limits,
    alpha: float,
    looks: int,
    p_value: Optional[float],
    ratio: Optional[float],
    seen: _Findings,
) -> None:
    """The limit of errors, which needs more of them than chance gives at the usual rate, and the comparison."""
    usual = limits.usual_error_percent / 100.0
    over = 100.0 * candidate.errors > limits.error_percent * candidate.requests
    text = f"{candidate.errors} of {candidate.requests} requests failed, {_percent(candidate)}, limit {limits.error_percent:g} %"
    against = f"{other.errors} of {other.requests} of the control, {_percent(other)}"
    worse = (
        p_value is not None
        and ratio is not None
        and p_value <= alpha
        and ratio >= limits.ratio
        and candidate.errors - candidate.synthetic_errors >= LEAST_ERRORS
    )
    ill = p_value is not None and binomial_tail(other.errors, other.requests, usual) <= limits.alpha / looks
    if worse:
        seen.faults.append(f"{text}, against {against} (p {p_value:.2g}, threshold {alpha:.2g})")
    elif over and ill:
        seen.doubts.append(f"{text}, but so did {against}: not the release's fault alone")
    elif over and binomial_tail(candidate.errors, candidate.requests, usual) <= alpha:
        seen.faults.append(text)
    elif over:
        seen.doubts.append(f"{text}, but that may be chance")


def _latency(
    candidate: Figures, other: Figures, limits: Limits, alpha: float, shift: Optional[Shift], least: float, seen: _Findings
) -> None:
    """The limits of latency and the comparison, in which a typical answer has to take `least` ms longer to count."""
    if not candidate.timed:
        return
    if shift and shift.p_value <= alpha and shift.ratio >= limits.ratio:
        longer = shift.typical * (shift.ratio - 1)
        text = (
            f"answers take {shift.ratio:.2f} times as long as the control's, limit {limits.ratio:g}: mean "
            f"{candidate.mean_ms:.0f} ms against {other.mean_ms:.0f} ms (p {shift.p_value:.2g}, threshold {alpha:.2g})"
        )
        if longer >= least:
            seen.faults.append(text)
        elif longer >= LEAST_SHIFT_MS:
            seen.warnings.append(f"{text}, but the control is of another time and {longer:.0f} ms are less than {least:g} ms")
    mean = candidate.mean_ms
    if mean > limits.mean_ms:
        proven = mean_above(mean, candidate.deviation_ms, candidate.timed, alpha) > limits.mean_ms
        if shift:
            # A control whose true mean may well be above the limit, too, is no witness against the release.
            proven = proven and -mean_above(-other.mean_ms, other.deviation_ms, other.timed, limits.alpha) < limits.mean_ms
        _slow(
            f"mean {mean:.0f} ms", f"limit {limits.mean_ms:g} ms", proven, other.mean_ms if shift else None, limits.mean_ms, seen
        )
    elif mean > limits.mean_warning_ms:
        seen.warnings.append(f"mean {mean:.0f} ms, limit {limits.mean_warning_ms:g} ms for a warning")
    for share, limit in ((0.95, limits.p95_ms), (0.99, limits.p99_ms)):
        if limit is None:
            continue
        found = _quantile(candidate, share)
        if found > limit:
            above = sum(ms > limit for _endpoint, ms in candidate.kept)
            proven = binomial_tail(above, len(candidate.kept), 1.0 - share) <= alpha
            theirs = _quantile(other, share) if shift else None
            _slow(f"p{share * 100:.0f} {found:.0f} ms", f"limit {limit:g} ms", proven, theirs, limit, seen)


def _slow(what: str, than: str, proven: bool, theirs: Optional[float], limit: float, seen: _Findings) -> None:
    """One limit of latency is exceeded: by the control, too, so that it is the application's nature, or by chance, or not."""
    if theirs and theirs > limit:
        seen.warnings.append(f"{what}, {than}, but the control has {theirs:.0f} ms: not the release's fault")
    elif proven:
        seen.faults.append(f"{what}, {than}" + (f" (control {theirs:.0f} ms)" if theirs else ""))
    else:
        seen.doubts.append(f"{what}, {than}, but that may be chance")


def _shift(candidate: Figures, other: Figures) -> Optional[Shift]:
    """The comparison of latencies, None when there are too few; endpoints with few of them are one stratum together."""
    if min(len(candidate.kept), len(other.kept)) < LEAST_CONTROL:
        return None
    counts = [Counter(endpoint for endpoint, _ms in figures.kept) for figures in (candidate, other)]
    common = [name for name, _count in (counts[0] + counts[1]).most_common() if min(c[name] for c in counts) >= LEAST_STRATUM]
    names = set(common[:STRATA])
    strata: dict[str, tuple[list[float], list[float]]] = {}
    for side, figures in enumerate((candidate, other)):
        for endpoint, ms in figures.kept:
            strata.setdefault(endpoint if endpoint in names else OTHERS, ([], []))[side].append(ms)
    return rank_sum(strata)


def _quantile(figures: Figures, share: float) -> float:
    return quantile(sorted(ms for _endpoint, ms in figures.kept), share)


def _real(figures: Figures) -> tuple[int, int]:
    """Errors and requests without synthetic ones, which no control has."""
    return figures.errors - figures.synthetic_errors, figures.requests - figures.synthetic


def _ratio(own: tuple[int, int], other: tuple[int, int]) -> float:
    """How many times as often the first fails."""
    if not own[0] or not own[1]:
        return 0.0
    return math.inf if not other[0] else (own[0] / own[1]) / (other[0] / other[1])


def _percent(figures: Figures) -> str:
    return f"{100.0 * figures.errors / max(1, figures.requests):.1f} %"


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
