# SPDX-License-Identifier: GPL-3.0-or-later
"""Run Molecule scenarios, a few at a time, each on hosts of its own: python -m tests.scenarios [NAME …].

One line per scenario, the end of the log of each that failed, and `N passed, N failed` at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.fleet import engine, images
from tests.fleet.shell import ROOT, FleetError, say

LOGS = ROOT / ".cache" / "scenarios"
TIMES = LOGS / "times.json"
LIMIT = 2400.0
"""Seconds a scenario may take before it counts as hung; the slowest needs a third of it on a busy machine."""
JOBS = 2
"""Scenarios at a time: two keep two cores busy; a third takes as much from them as it brings."""
HEARTBEAT = 60.0
TAIL = 40
WIDTH = 1200
"""Lines and characters of a line shown of the log of a failed scenario."""


@dataclass(frozen=True)
class Outcome:
    """How one scenario ended: `seconds` is wall time."""

    name: str
    passed: bool
    seconds: float
    log: Path


class Running:
    """The scenarios under way, so that they can be shown, and ended when the run is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: dict[str, tuple[float, subprocess.Popen[bytes]]] = {}
        self.stopped = False

    def start(self, name: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self.stopped:
                raise KeyboardInterrupt
            process = _molecule("test", name, log)
            self._started[name] = (time.monotonic(), process)
        return process

    def finish(self, name: str) -> None:
        with self._lock:
            self._started.pop(name, None)

    def status(self) -> str:
        with self._lock:
            now = time.monotonic()
            return ", ".join(f"{name} ({now - since:.0f} s)" for name, (since, _) in self._started.items())

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            processes = [process for _, process in self._started.values()]
        for process in processes:
            end(process)


def main() -> int:
    options = _arguments()
    names = options.names or order(scenarios(ROOT / "molecule"), _times())
    unknown = sorted(set(names) - set(scenarios(ROOT / "molecule")))
    if unknown:
        say(f"no such scenario: {', '.join(unknown)} (there are {', '.join(scenarios(ROOT / 'molecule'))})")
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    try:
        engine.ensure()
        images.ensure(releases(os.environ))
    except FleetError as error:
        say(f"fleet: {error}")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    outcomes = run_all(names, options.jobs)
    for outcome in outcomes:
        if not outcome.passed:
            tail = failure(outcome.log.read_text(errors="replace"))
            print(f"\n--- from {outcome.log.relative_to(ROOT)} ---", *tail, sep="\n")
    failed = sum(not outcome.passed for outcome in outcomes)
    if failed:
        print("\nfailed: " + ", ".join(outcome.name for outcome in outcomes if not outcome.passed))
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


def scenarios(directory: Path) -> list[str]:
    """Names of all scenarios below molecule/."""
    return sorted(path.parent.name for path in directory.glob("*/molecule.yml"))


def order(names: Sequence[str], times: Mapping[str, float]) -> list[str]:
    """Slowest first, so that no long one is left alone at the end; those never measured come before all."""
    return sorted(names, key=lambda name: (-times.get(name, float("inf")), name))


def failure(log: str) -> list[str]:
    """The task that failed and what it said, up to the recap; the last lines where no task failed."""
    lines = [line[:WIDTH] for line in log.splitlines()]
    begins = [number for number, line in enumerate(lines) if re.search(r"destroy\] Executing$", line)]
    # The first clean-up comes before the work; only a second one follows a failure.
    lines = lines[: begins[-1] if len(begins) > 1 else None]
    errors = [number for number, line in enumerate(lines) if line.startswith(("[ERROR]: Task failed", "fatal: ["))]
    if not errors:
        return lines[-TAIL:]
    task = max((number for number, line in enumerate(lines[: errors[-1]]) if line.startswith("TASK [")), default=errors[0])
    return [line for line in lines[task : task + TAIL] if not line.startswith("changed: [")]


def releases(environment: Mapping[str, str]) -> list[str]:
    """The images the scenarios will ask for."""
    return [environment.get("SLIPWAY_OLDER", "debian12"), environment.get("SLIPWAY_NEWER", "debian13")]


def run_all(names: Sequence[str], jobs: int) -> list[Outcome]:
    """Run the scenarios, `jobs` at a time, and report each as it ends."""
    running = Running()
    outcomes = []
    done = threading.Event()
    threading.Thread(target=_heartbeat, args=(running, done), daemon=True).start()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(_run, name, running) for name in names]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                outcome = future.result()
                outcomes.append(outcome)
                mark = "passed" if outcome.passed else "FAILED"
                print(f"[{number}/{len(names)}] {mark} {outcome.name} ({outcome.seconds:.0f} s)", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()
            raise
        finally:
            done.set()
    _remember(outcomes)
    return outcomes


def end(process: subprocess.Popen[bytes]) -> None:
    """End a scenario and everything it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=20)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        return


def _run(name: str, running: Running) -> Outcome:
    log = LOGS / f"{name}.log"
    start = time.monotonic()
    with log.open("wb") as handle:
        process = running.start(name, handle)
        try:
            code = process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            end(process)
            code = 124
            handle.write(f"\nNo end after {LIMIT:.0f} s.\n".encode())
            handle.flush()
        finally:
            running.finish(name)
    if process.returncode < 0:  # ended from outside: Molecule had no chance to clean up itself
        with log.with_suffix(".destroy.log").open("wb") as handle:
            _molecule("destroy", name, handle).wait(timeout=LIMIT)
    return Outcome(name, code == 0, time.monotonic() - start, log)


def _molecule(action: str, name: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "160", "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1", "PY_COLORS": "0"}
    argv = [sys.executable, "-m", "molecule", action, "--scenario-name", name]
    return subprocess.Popen(
        argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def _heartbeat(running: Running, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT):
        say(f"  … running: {running.status()}")


def _times() -> dict[str, float]:
    try:
        return dict(json.loads(TIMES.read_text()))
    except (OSError, ValueError):
        return {}


def _remember(outcomes: Sequence[Outcome]) -> None:
    measured = {outcome.name: round(outcome.seconds, 1) for outcome in outcomes if outcome.passed}
    TIMES.write_text(json.dumps({**_times(), **measured}, indent=1, sort_keys=True))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description="Run Molecule scenarios.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios to run; all when none is named")
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help=f"how many at a time (default {JOBS})")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
