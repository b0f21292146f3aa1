# SPDX-License-Identifier: GPL-3.0-or-later
"""The jury of a cutover: hears what clients got from both slots, and rules step by step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable, Optional, Protocol

from ..health.access_log import AccessLog
from ..health.http import HttpProbe
from ..health.limits import Limits
from ..health.samples import Figures, Sample, tally
from ..health.verdict import FAIL, LEAST_CONTROL, PASS, Verdict, judge
from ..host.clock import Clock

LOOKS_A_STEP = 4
"""A step is judged at most this often: when it has enough requests, when it may end, with as many again, and when it must end."""
ROUND = 10
"""Synthetic requests in one round, so that it ends in time to look at the health of the slot, too."""


def asking(probes: Sequence[HttpProbe], slot: str, clock: Clock) -> Callable[[int], Sequence[Sample]]:
    """Asks `probes` of `slot` in turn, at most ROUND at a time; nothing without probes."""
    turn = itertools.cycle(probes)

    def ask(wanted: int) -> Sequence[Sample]:
        found = []
        for _number in range(min(wanted, ROUND) if probes else 0):
            probe = next(turn)
            status = probe.look().status or 500
            found.append(Sample(clock.now(), slot, probe.target.path, status >= 500, None, synthetic=True))
        return found

    return ask


@dataclass(frozen=True)
class Ruling:
    """What the jury says: `trouble` takes traffic back, `done` ends the step, `news` is worth a line."""

    text: str = ""
    news: bool = False
    done: bool = False
    trouble: bool = False
    guilty: bool = False
    figures: dict[str, object] = field(default_factory=dict)


class Jury(Protocol):
    """Hears and rules."""

    verdicts: list[dict[str, object]]

    def open(self, share: int) -> None:
        """A step begins in which the candidate gets `share` percent."""
        ...

    def hear(self, due: bool, last: bool) -> Ruling:
        """The ruling now; `due` when the step may end, `last` when it must."""
        ...


class LogJury:
    """Judges the requests in the access log. `ask` makes up to so many requests to the candidate, for want of traffic.

    While all traffic is the candidate's, nothing stands beside it: then it is compared with what came before, and too few
    requests are no reason to go back, since the health checks are watched, too.
    """

    def __init__(
        self,
        log: AccessLog,
        limits: Limits,
        slots: tuple[str, str],
        steps: int,
        ask: Callable[[int], Sequence[Sample]] = lambda _wanted: (),
    ) -> None:
        self.log = log
        self.limits = limits
        self.source, self.target = slots
        self.looks = LOOKS_A_STEP * (steps + 1)
        self.ask = ask
        self.verdicts: list[dict[str, object]] = []
        self._position = log.position()
        self._before = Figures(self.source)
        self._step: dict[str, Figures] = {}
        self._share = 0
        self._judged: set[str] = set()
        self._looks = 0
        self._wanted = 0

    def open(self, share: int) -> None:
        """What was not read yet belongs to the step before."""
        self._read()
        self._share = share
        self._step = {}
        self._judged = set()
        self._wanted = 0

    def hear(self, due: bool, last: bool) -> Ruling:
        """A ruling of the traffic in this step so far."""
        self._read()
        candidate = self._step.setdefault(self.target, Figures(self.target))
        if due and candidate.requests < self.limits.min_samples:
            tally(self.ask(self.limits.min_samples - candidate.requests), self._step)
        reason = self._reason(candidate, due, last)
        if reason is None:
            return Ruling()
        self._judged |= {reason, "enough"} if candidate.requests >= self.limits.min_samples else {reason}
        self._looks += reason != "burst"  # errors in a row are no matter of chance, and take nothing of what a look may cost
        verdict = self._judge(candidate)
        figures = {"share": self._share, **verdict.as_dict()}
        text = self._text(verdict)
        if reason == "due" and verdict.suspect and verdict.outcome == PASS:
            self._wanted = 2 * candidate.requests
            return Ruling(f"{text}, but so many failed that more of them are looked at", True, figures=figures)
        if verdict.outcome == FAIL:
            self.verdicts.append(figures)
            return Ruling(text, True, False, True, True, figures)
        if due and (verdict.outcome == PASS or (last and (verdict.action == PASS or self._share == 100))):
            self.verdicts.append(figures)
            return Ruling(text, True, True, False, False, figures)
        if last:
            self.verdicts.append(figures)
            remedy = "Lower verdict.min_samples, give canary.patience more time, or say verdict.on_inconclusive: pass"
            return Ruling(f"no verdict: {text}. {remedy}", True, False, True, False, figures)
        return Ruling(text, True, figures=figures)

    def _reason(self, candidate: Figures, due: bool, last: bool) -> Optional[str]:
        """Why to look now, if there is any reason that was none before in this step."""
        enough = candidate.requests >= self.limits.min_samples
        if candidate.burst >= self.limits.burst and "burst" not in self._judged:
            return "burst"
        if last:
            return "last"
        if due and "due" not in self._judged:
            return "due"
        if self._wanted and candidate.requests >= self._wanted and "more" not in self._judged:
            return "more"
        return "enough" if enough and "enough" not in self._judged else None

    def _judge(self, candidate: Figures) -> Verdict:
        control = self._step.get(self.source, Figures(self.source))
        # Too few beside it in this step: then it is compared with what came before the step, too.
        beside = control.requests >= LEAST_CONTROL
        look = min(max(self._looks, 1), self.looks)
        return judge(candidate, control if beside else self._before, self.limits, look, self.looks, beside)

    def _text(self, verdict: Verdict) -> str:
        control = verdict.control.line() if verdict.control.requests else "nothing to compare with"
        return f"{verdict.candidate.line()}; {control}: {verdict.outcome}, {'; '.join(verdict.reasons)}"

    def _read(self) -> None:
        """Take in what nginx wrote meanwhile."""
        while True:
            samples, position = self.log.read(self._position)
            if position == self._position:
                return
            self._position = position
            tally(samples, self._step)
            tally((sample for sample in samples if sample.slot == self.source), {self.source: self._before})
