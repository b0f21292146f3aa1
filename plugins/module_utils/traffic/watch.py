# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching a slot that has traffic: when do bad answers mean that it must give the traffic back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

from ..health.model import Probe, ProbeResult

FAILURES = 3
REFUSALS = 2
SOON = 0.25


@dataclass(frozen=True)
class Watch:
    """What was seen so far, by probe: failures in a row, and connections that were refused, in a row or not.

    A refused connection means that no process listens, which a healthy slot never does; looking again soon tells a crash
    that a service manager repairs within a second from one slow answer.
    """

    failed: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    again_soon: bool = False

    def after(self, probes: Sequence[Probe], results: Sequence[ProbeResult]) -> tuple[Watch, Optional[str]]:
        """The watch after one more round, and why traffic must go back, if it must."""
        failed, refused = dict(self.failed), dict(self.refused)
        verdict = None
        for probe, result in zip(probes, results):
            failed[probe.name] = 0 if result.ok else failed.get(probe.name, 0) + 1
            refused[probe.name] = refused.get(probe.name, 0) + (1 if result.refused else 0)
            if refused[probe.name] >= REFUSALS:
                verdict = verdict or f"{probe.name} refused {refused[probe.name]} connections: {result.detail}"
            elif failed[probe.name] >= FAILURES:
                verdict = verdict or f"{probe.name} failed {FAILURES} times in a row: {result.detail}"
        return Watch(failed, refused, any(result.refused for result in results)), verdict
