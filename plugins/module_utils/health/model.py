# SPDX-License-Identifier: GPL-3.0-or-later
"""What a probe is and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol

EXCERPT = 300


@dataclass(frozen=True)
class ProbeResult:
    """One look at one target. `latency_ms` in milliseconds; `refused`: nothing listened there."""

    ok: bool
    detail: str
    latency_ms: float = 0.0
    refused: bool = False
    status: Optional[int] = None


class Probe(Protocol):
    """Anything that can be looked at once; `name` says at what, for messages."""

    @property
    def name(self) -> str:
        """The target, as a person would write it."""
        ...

    def look(self) -> ProbeResult:
        """Look once. Never raises for a target that is down: that is an answer."""
        ...


def excerpt(text: str, limit: int = EXCERPT) -> str:
    """`text` on one line and at most `limit` characters long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
