# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of the host, ended with everything it started."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from .model import ProbeResult, excerpt, failure, milliseconds

OUTPUT_LIMIT = 64 * 1024
"""Bytes of output that are kept and judged; what follows is read and dropped."""


@dataclass(frozen=True)
class ExecProbe:
    """A command without a shell. Its exit status must be one of `status`, its output (both streams) must match `output`.

    After `timeout` seconds it is killed, and in any case all that is left of its process group.
    """

    argv: tuple[str, ...]
    status: tuple[int, ...] = (0,)
    output: Optional[str] = None
    timeout: float = 5.0
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The program alone: its arguments may say too much."""
        return f"exec:{self.argv[0]}"

    def look(self) -> ProbeResult:
        """Run it once."""
        started = time.monotonic()
        try:
            code, said = _run(self.argv, self.environment, started + self.timeout)
        except FileNotFoundError:
            return ProbeResult(False, "no such command", milliseconds(started))
        except (OSError, ValueError) as error:
            return failure(error, started, self.timeout, "command's")
        latency = milliseconds(started)
        if code is None:
            return ProbeResult(False, f"no end after {self.timeout:g} s, killed: {excerpt(said) or 'no output'}", latency)
        if code not in self.status:
            allowed = " or ".join(str(one) for one in self.status)
            how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
            return ProbeResult(False, f"{how}, not {allowed}: {excerpt(said) or 'no output'}", latency, status=code)
        if self.output is not None and not re.search(self.output, said):
            return ProbeResult(False, f"output does not match {self.output!r}: {excerpt(said) or 'none'}", latency, status=code)
        return ProbeResult(True, f"exit status {code}", latency, status=code)


def _run(argv: tuple[str, ...], environment: Mapping[str, str], until: float) -> tuple[Optional[int], str]:
    """Exit status (None when there was no end in time) and output."""
    kept = bytearray()
    source, sink = os.pipe()
    reader = threading.Thread(target=_drain, args=(source, kept), daemon=True)
    reader.start()
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "", **environment},
            start_new_session=True,
        )
    finally:
        os.close(sink)
    ended = _ends(process.pid, until)
    # It is not reaped yet, so that the number of its group cannot be another's.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    # What left the group may hold the output open: it is not waited for.
    reader.join(0.5)
    return (code if ended else None), bytes(kept).decode("utf-8", "replace")


def _ends(pid: int, until: float) -> bool:
    """Wait for process `pid` without reaping it; False when it does not end before the monotonic time `until`."""
    pause = 0.001
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= until:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def _drain(source: int, kept: bytearray) -> None:
    """Read all there is, keep the beginning, close."""
    with open(source, "rb", buffering=0) as stream:
        while chunk := stream.read(65536):
            kept += chunk[: max(OUTPUT_LIMIT - len(kept), 0)]
