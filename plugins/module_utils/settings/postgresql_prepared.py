# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be there before PostgreSQL's package, and is kept in the round trip that configures the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from ..host.clock import Clock
from ..host.runner import Runner
from . import sandboxed
from .converge import MARKERS, Converger, FileSpec, Outcome, Transaction

NAME = "postgresql-install"
UNIT = "postgresql@.service"


def keep(
    runner: Runner,
    files: Sequence[Mapping[str, str]],
    check_mode: bool,
    clock: Optional[Clock] = None,
    markers: Path = MARKERS,
) -> tuple[Outcome, list[str]]:
    """Bring `files` and the sandbox of the units to what is declared, and tell the sandbox's keys that this kernel refuses.

    A server that runs is left as it is: what it gets at its next start waits for a restart. Raises ConvergeError.
    """
    specs = tuple(FileSpec(Path(each["path"]), each["content"], effect=each["effect"]) for each in files)
    boxed, refused = sandboxed.add(
        Transaction(NAME, files=specs, originals=True), runner, {"service": "postgresql", "unit": UNIT}, check_mode
    )  # fmt: skip
    return Converger(runner, clock, markers).run(boxed, check_mode), refused


def let_go(runner: Runner, check_mode: bool, clock: Optional[Clock] = None, markers: Path = MARKERS) -> Outcome:
    """Have those files as they were before the first run; raises ConvergeError."""
    return Converger(runner, clock, markers).let_go(Transaction(NAME), check_mode)
