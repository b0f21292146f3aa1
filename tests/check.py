# SPDX-License-Identifier: GPL-3.0-or-later
"""Lint and unit tests, side by side: `python -m tests.check`, with `--slow` all of them."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests import lint

ROOT = Path(__file__).resolve().parents[1]
PYTHON_CODE = ["plugins", "tests"]
QUICK = ["-m", "not slow"]
LIBRARY = "tests/unit/module_utils"
UNIT_TESTS = {
    "library tests": [sys.executable, "-m", "pytest", LIBRARY],
    "other unit tests": [sys.executable, "-m", "pytest", "tests/unit", f"--ignore={LIBRARY}"],
}
CHECKS = {
    "ansible-lint": [sys.executable, "-m", "tests.lint", "--offline", "--profile", "production", "-q"],
    **UNIT_TESTS,
    "mypy": ["mypy", "plugins/module_utils"],
    "ruff": ["ruff", "check", *PYTHON_CODE],
    "ruff format": ["ruff", "format", "--check", *PYTHON_CODE],
    "yamllint": ["yamllint", "--strict", "."],
    "role documentation": [sys.executable, "-m", "tests.docs", "--check"],
    "changelog": ["antsibull-changelog", "lint"],
}


MEMORY = Path("/dev/shm")
ENOUGH = 512 << 20
"""Bytes that a file system in memory has to have free; the tests' files are a tenth of it."""


def scratch(memory: Path = MEMORY) -> Path | None:
    """Where temporary files cost no disk: tests replace thousands of files as hosts do, waiting for the disk each time."""
    try:
        return memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= ENOUGH else None
    except OSError:
        return None


def run(environment: Mapping[str, str], more: Mapping[str, Sequence[str]], name: str) -> tuple[bool, str]:
    """Run one check; success and its last output line are returned, the whole output is printed on failure."""
    start = time.monotonic()
    done = subprocess.run(
        [*CHECKS[name], *more.get(name, ())],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - start
    print(f"{'ok    ' if done.returncode == 0 else 'FAILED'} {name:20} {seconds:5.1f} s", flush=True)
    if done.returncode:
        print(done.stdout, flush=True)
    last = done.stdout.strip().splitlines()[-1:] or [""]
    return done.returncode == 0, last[0]


def main() -> int:
    """Run all checks, one more at once than there are cores, since some of the tests only wait; 1 when one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.check", description="Lint and unit tests.")
    parser.add_argument("--slow", action="store_true", help="unit tests that take long, too")
    more = {} if parser.parse_args().slow else dict.fromkeys(UNIT_TESTS, QUICK)
    workers = (os.cpu_count() or 2) + 1
    with tempfile.TemporaryDirectory(dir=scratch()) as directory, ThreadPoolExecutor(max_workers=workers) as pool:
        environment = {**lint.environment(Path(directory), os.environ), "TMPDIR": directory}
        results = dict(zip(CHECKS, pool.map(partial(run, environment, more), CHECKS)))
    failed = [name for name, (ok, _last) in results.items() if not ok]
    for name in UNIT_TESTS:
        print(f"{name}: {results[name][1]}")
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed" + (f": {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
