# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of pgbench on a host, and what they notice while something happens to their database."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.fleet.shell import FleetError, run

PROGRESS = re.compile(r"^progress: ([\d.]+) s, ([\d.]+) tps")
ABORTED = re.compile(r"client (\d+) (?:script \d+ )?aborted")
CONNECT_DEADLINE = 120.0
LOG = "/tmp/pgbench"
ENDS = f"""
import glob
for end in sorted(float(f[4]) + float(f[5]) / 1e6 for p in glob.glob("{LOG}.*") for f in map(str.split, open(p)) if len(f) > 5):
    print(f"{{end:.6f}}")
"""
"""Run on the host: when transactions ended, in seconds since the epoch."""


@dataclass(frozen=True)
class Seen:
    """One restart: how many of `clients` were aborted; `stall` in seconds, None when no transaction followed."""

    clients: int
    aborted: int
    stall: float | None


class Clients:
    """`count` clients for `seconds` at most, who are at work when the block begins."""

    def __init__(self, container: str, count: int, port: int, password: str, seconds: int = 900) -> None:
        self.container, self.count = container, count
        self.lines: list[str] = []
        self.last_tps = ""
        run(["docker", "exec", container, "sh", "-c", f"rm -f {LOG}.*"])
        command = ["docker", "exec", "-e", f"PGPASSWORD={password}", container, "sh", "-c"]
        work = f"pgbench -n -P 1 -l --log-prefix={LOG} -h 127.0.0.1 -p {port} -U bench -c {count} -j 2 -T {seconds} bench"
        self.process = subprocess.Popen(
            [*command, f"ulimit -n 8192; exec {work}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line.strip())
            found = PROGRESS.match(line)
            self.last_tps = found.group(2) if found else self.last_tps

    def __enter__(self) -> Clients:
        self.reader.start()
        deadline = time.monotonic() + CONNECT_DEADLINE
        while not (self.last_tps and float(self.last_tps)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise FleetError(f"{self.count} clients did not come to work: {' / '.join(self.lines[-3:]) or 'no word'}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["docker", "exec", self.container, "pkill", "-INT", "-x", "pgbench"], check=False)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.reader.join(timeout=5)

    def aborted(self) -> int:
        """Clients that were ended by an error so far."""
        return aborted(self.lines)

    def working(self) -> bool:
        """Whether pgbench still runs."""
        return self.process.poll() is None


def aborted(lines: Sequence[str]) -> int:
    """Clients that pgbench gave up, by what it printed."""
    return len({found.group(1) for line in lines if (found := ABORTED.search(line))})


def longest(ends: Sequence[float], start: float, stop: float) -> float | None:
    """The longest time without the end of a transaction that begins before `stop` and ends after `start`.

    It may last beyond `stop`. None when no transaction followed: how long clients would have waited is then not known.
    """
    gaps = [(after - before, before) for before, after in zip(ends, ends[1:], strict=False) if before < stop and after > start]
    most = max(gaps, default=(0.0, 0.0))[0]
    last = ends[-1] if ends else start
    return most if gaps and stop - last <= most else None


def stalls(container: str, spans: Sequence[tuple[float, float]]) -> list[float | None]:
    """The stall in each span (seconds since the epoch), from pgbench's own log."""
    ends = list(map(float, run(["docker", "exec", container, "python3", "-c", ENDS], timeout=120).split()))
    return [longest(ends, start, stop) for start, stop in spans]
