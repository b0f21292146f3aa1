# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command costs, and what a run of ansible-playbook says of itself."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
RECAP = re.compile(r"^\S+\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)", re.M)
TASK = re.compile(r"^(.+?) -{2,} +(\d+\.\d+)s$", re.M)
PROFILE_HEADING = "TASKS RECAP"


@dataclass(frozen=True)
class Cost:
    """Seconds. `controller`: the command and all it waited for; `machine`: all cores, whoever used them; `load`: at the start."""

    wall: float
    controller: float
    machine: float
    load: float


@dataclass(frozen=True)
class Recap:
    """Task runs over all hosts, as ansible-playbook counts them: `ok` includes the changed ones."""

    ok: int
    changed: int
    skipped: int
    failed: int


class CommandFailed(Exception):
    """A measured command ended with another status than 0; the text names its log."""


def busy(stat: str) -> float:
    """Seconds that all cores together were busy since boot, from the text of /proc/stat (proc(5)): all but idle and iowait.

    Guests are counted within user and nice already, so the last two fields stay out.
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def timed(argv: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command with its output in `log`. Raises CommandFailed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    stat = Path("/proc/stat")
    load = os.getloadavg()[0]
    before, start = busy(stat.read_text()), time.monotonic()
    with log.open("wb") as output:
        environment = {**os.environ, **(environment or {})}
        process = subprocess.Popen(
            argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait(timeout=30)
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    if process.returncode:
        told = log.read_text(errors="replace").partition(PROFILE_HEADING)[0]
        tail = "\n".join(told.strip().splitlines()[-25:])
        raise CommandFailed(f"{' '.join(argv)[:200]} ended with {process.returncode}; see {log}:\n{tail}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, busy(stat.read_text()) - before, load)


def recap(output: str) -> Recap:
    """The sums over the hosts of a run's PLAY RECAP."""
    rows = [tuple(map(int, row)) for row in RECAP.findall(output)]
    ok, changed, unreachable, failed, skipped = (sum(column) for column in zip(*rows)) if rows else (0,) * 5
    return Recap(ok, changed, skipped, failed + unreachable)


def slowest(output: str) -> list[tuple[str, float]]:
    """Tasks and their seconds, the slowest first, as ansible.posix.profile_tasks lists them."""
    listing = output.partition(PROFILE_HEADING)[2]
    return [(name, float(seconds)) for name, seconds in TASK.findall(listing)]
