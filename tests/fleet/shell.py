# SPDX-License-Identifier: GPL-3.0-or-later
"""Running commands, showing progress, and keeping two processes apart."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".fleet"
HEARTBEAT = 15.0
"""Seconds between two signs of life of one long step."""

_print_lock = threading.Lock()


class FleetError(Exception):
    """Something the caller can act on: the text says what, where and what to do next."""


def say(text: str) -> None:
    """Print one line for people; standard output stays free for results."""
    with _print_lock:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def step(label: str) -> Iterator[None]:
    """Announce a long step, show that it lives, and tell how many seconds it took."""
    start = time.monotonic()
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            say(f"  … {label} ({time.monotonic() - start:.0f} s)")

    say(f"  → {label}")
    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        done.set()
    say(f"  ✓ {label} ({time.monotonic() - start:.1f} s)")


def attempt(argv: Sequence[str], *, input: str | None = None, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and return whatever came of it; 124 stands for "took longer than timeout seconds"."""
    stdin = subprocess.DEVNULL if input is None else None
    try:
        return subprocess.run(argv, input=input, stdin=stdin, capture_output=True, text=True, timeout=timeout)
    except FileNotFoundError:
        return subprocess.CompletedProcess(argv, 127, "", f"{argv[0]}: not found")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no end after {timeout} s")


def run(argv: Sequence[str], *, input: str | None = None, timeout: float | None = None) -> str:
    """Run a command that has to succeed and return its standard output, stripped.

    Raises FleetError with the command and the last lines of its output.
    """
    result = attempt(argv, input=input, timeout=timeout)
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-20:])
        raise FleetError(f"command failed with {result.returncode}: {' '.join(argv)[:300]}\n{tail}")
    return result.stdout.strip()


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Let one process of this machine at a time into the section `name`, whichever checkout it runs from."""
    path = Path(tempfile.gettempdir()) / f"slipway-fleet-{os.getuid()}-{name}.lock"
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  … waiting for another process ({path})")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
