# SPDX-License-Identifier: GPL-3.0-or-later
"""Running commands of the host."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Result:
    """What a command did: exit status and both outputs as text."""

    rc: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """True when the exit status is zero."""
        return self.rc == 0

    def text(self) -> str:
        """Both outputs, trimmed, for a message to a person."""
        return "\n".join(part.strip() for part in (self.err, self.out) if part.strip())


class CommandFailed(Exception):
    """A command that had to succeed did not."""

    def __init__(self, argv: Sequence[str], result: Result) -> None:
        self.argv = list(argv)
        self.result = result
        super().__init__(f"`{' '.join(argv)}` failed with status {result.rc}: {result.text() or 'no output'}")


class Runner:
    """Runs commands without a shell, in the C locale, so that their output can be read."""

    def run(
        self,
        argv: Sequence[str],
        data: Optional[str] = None,
        timeout: float = 600.0,
        env: Optional[Mapping[str, str]] = None,
    ) -> Result:
        """Run `argv`; `data` goes to its standard input; `timeout` in seconds.

        A missing program gives status 127 and an expired time 124, as a shell and `timeout` would say.
        """
        # Not above: the command slipway rolls back without running anything, and faster without this import.
        import subprocess

        # LANGUAGE is asked before LC_ALL, by Python's programs always.
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "", **(env or {})}
        try:
            done = subprocess.run(
                list(argv),
                input=data or "",
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                timeout=timeout,
                check=False,
                encoding="utf-8",
                errors="replace",
            )
        except FileNotFoundError:
            return Result(127, "", f"{argv[0]}: command not found")
        except subprocess.TimeoutExpired:
            return Result(124, "", f"{argv[0]}: no end after {timeout:g} s")
        return Result(done.returncode, done.stdout, done.stderr)

    def must(
        self,
        argv: Sequence[str],
        data: Optional[str] = None,
        timeout: float = 600.0,
        env: Optional[Mapping[str, str]] = None,
    ) -> Result:
        """Like `run`, but raises CommandFailed on a status other than zero."""
        result = self.run(argv, data=data, timeout=timeout, env=env)
        if not result.ok:
            raise CommandFailed(argv, result)
        return result
