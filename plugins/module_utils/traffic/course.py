# SPDX-License-Identifier: GPL-3.0-or-later
"""The course of traffic while a transaction ran, second by second, for its report."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ..health.access_log import AccessLog, Position
from ..health.samples import Sample, series
from .config import App
from .host import Host

LINES = 100_000
"""Requests that are looked at, at most: nobody waits for a report."""


def _log(host: Host, app: App) -> AccessLog:
    return AccessLog(host.layout.access_log(app.name), app.members())


def begin(host: Host, app: App) -> Mapping[str, object]:
    """Where the access log ends now."""
    with contextlib.suppress(OSError):
        return _log(host, app).position().as_dict()
    return {}


def tell(host: Host, app: App, txn: str) -> None:
    """Add the course since `begin` to what the transaction tells. What cannot be read is left out."""
    progress = host.progress(app, txn)
    with contextlib.suppress(OSError, ValueError, StopIteration):
        since = next(line["log"] for line in progress.lines()[0] if "log" in line)
        position = Position.of(since if isinstance(since, dict) else {})
        log, samples = _log(host, app), list[Sample]()
        while len(samples) < LINES:
            found, following = log.read(position, LINES - len(samples))
            if following == position:
                break
            samples += found
            position = following
        names = ("slot", "requests", "errors", "mean_ms")
        rows = [{"second": bucket.at, **{name: getattr(bucket, name) for name in names}} for bucket in series(samples)]
        progress.add({"series": rows})
