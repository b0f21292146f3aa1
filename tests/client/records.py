# SPDX-License-Identifier: GPL-3.0-or-later
"""The log: one JSON object a line, requests and events in the order in which they ended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

Record = dict[str, Any]
"""A request has kind, method, path, status, ms, release, error; an event has event. All have t, seconds since 1970.

t of a request is its start, received when it reached the application, if that tells it. status is 0 when no answer came, and
then error says why; an answer from 400 on has both.
"""


class Log:
    """Writes records; each line is in the file as soon as it is written."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def request(
        self, kind: str, method: str, path: str, start: float, ms: float,
        status: int = 0, headers: dict[str, str] | None = None, error: str | None = None,
    ) -> None:  # fmt: skip
        headers = headers or {}
        if error is None and status >= 400:
            error = f"status {status}"
        record = {"t": round(start, 4), "kind": kind, "method": method, "path": path, "status": status, "ms": round(ms, 2),
                  "release": headers.get("x-release"), "slot": headers.get("x-slipway-slot"), "error": error}  # fmt: skip
        if "x-received" in headers:
            record["received"] = float(headers["x-received"])
        self._write(record)

    def event(self, name: str, **values: object) -> None:
        self._write({"t": round(time.time(), 4), "event": name, **values})

    def _write(self, record: Record) -> None:
        self._file.write(json.dumps({key: value for key, value in record.items() if value is not None}) + "\n")
        self._file.flush()


def load(path: Path) -> Iterator[Record]:
    """The records of a log; a last line that was cut off by a kill is left out."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
