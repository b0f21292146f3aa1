# SPDX-License-Identifier: GPL-3.0-or-later
"""What a probe is and what it answers."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Optional, Protocol

from .wire import TotalTimeout

EXCERPT = 300


@dataclass(frozen=True)
class ProbeResult:
    """One look at one target. `latency_ms` in milliseconds; `refused`: nothing listened there.

    `final`: it died or was started again, so that no later look can make this one good.
    """

    ok: bool
    detail: str
    latency_ms: float = 0.0
    refused: bool = False
    status: Optional[int] = None
    final: bool = False


class Probe(Protocol):
    """Anything that can be looked at once; `name` says at what, for messages."""

    @property
    def name(self) -> str:
        """The target, as a person would write it."""
        ...

    def look(self) -> ProbeResult:
        """Look once. Never raises for a target that is down: that is an answer."""
        ...


class Unexpected(Exception):
    """The other side answered, but not as its protocol or a healthy target would; the text says how."""


def milliseconds(started: float) -> float:
    """Since the monotonic time `started`."""
    return (time.monotonic() - started) * 1000


def failure(error: Exception, started: float, timeout: float, language: str = "HTTP") -> ProbeResult:
    """The result for a look that `error` ended; `language` is what the other side should have spoken."""
    latency = milliseconds(started)
    if isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
        return ProbeResult(False, "connection refused: nothing listens there", latency, refused=True)
    if isinstance(error, (TotalTimeout, socket.timeout)):
        return ProbeResult(False, f"no complete answer within {timeout:g} s", latency)
    if isinstance(error, Unexpected):
        return ProbeResult(False, excerpt(str(error)), latency)
    return ProbeResult(False, f"no {language} answer: {excerpt(str(error)) or type(error).__name__}", latency)


def excerpt(text: str, limit: int = EXCERPT) -> str:
    """`text` on one line and at most `limit` characters long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
