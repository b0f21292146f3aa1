# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients held by a pooler for a short while, and let go whatever happens to the process that holds them.

A timer of systemd on the pooler's host is armed before the pause and lets clients go by itself when its time is over.
"""

from __future__ import annotations

from pathlib import Path

from ..guard.deadman import Timer
from ..host.clock import Clock
from .pgbouncer_console import Console, ConsoleError, PauseFailed

RESUME_TRIES = 5
"""A pooler that ends, or that starts again, refuses for a moment."""


class Hold:
    """A pause of all databases of one pooler for at most `seconds`."""

    def __init__(self, console: Console, clock: Clock, seconds: float = 60.0) -> None:
        self.console = console
        self.clock = clock
        self.seconds = seconds
        self.timer = Timer(console.runner, clock, f"slipway-pooler-resume-{console.port}")

    def there(self) -> bool:
        """Whether a pooler runs; raises ConsoleError when it does and cannot be talked to."""
        if not Path(self.console.socket_dir, f".s.PGSQL.{self.console.port}").is_socket():
            return False
        try:
            self.console.version()
        except ConsoleError as error:
            if "refused" in str(error):  # the socket of one that was killed
                return False
            raise
        return True

    def take(self, timeout: float) -> None:
        """Hold all clients once their transactions have ended.

        Raises PauseFailed when that takes longer than `timeout` seconds or another run holds them, ConsoleError when somebody
        else does, ArmingFailed without the timer; the pooler goes on in all these cases as it did before.
        """
        if self.timer.armed():
            raise PauseFailed(
                f"pgbouncer on port {self.console.port}: its clients are held by another run, or by one that died, until"
                f" {self.timer.unit}.timer lets them go; try again then",
                (),
            )
        self.timer.arm(self.seconds, self.console.resume_command(), "let the pooler's clients go", insist=True)
        try:
            held = self.console.pause(timeout=timeout)
        except ConsoleError as error:
            if "RESUME" not in str(error):  # else clients may be held still
                self.timer.disarm()
            raise
        if not held:
            self.timer.disarm()
            raise ConsoleError(
                f"pgbouncer on port {self.console.port} is paused already, not by us; RESUME it in its console and try again"
            )

    def release(self) -> bool:
        """Let all clients go; False when they had been let go before. Raises ConsoleError; the timer then goes on trying."""
        for attempt in range(1, RESUME_TRIES + 1):
            try:
                resumed = self.console.resume()
                break
            except ConsoleError:
                if attempt == RESUME_TRIES:
                    raise
                self.clock.sleep(0.5)
        self.timer.disarm()
        return resumed
