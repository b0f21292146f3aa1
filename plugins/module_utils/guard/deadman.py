# SPDX-License-Identifier: GPL-3.0-or-later
"""A transient systemd timer that runs a command unless it is stopped before.

systemd keeps it: it survives the end of the process that armed it, of its SSH session and of the control node. It does
not survive a reboot; what must happen after one is the business of a unit that runs at boot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..host.clock import Clock
from ..host.runner import Result, Runner

ARM_TRIES = 8
AGAIN = 5.0
"""Seconds after which a timer that insists starts its command once more: one that is due while systemd reloads is lost."""
PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./\" -]*")
"""Words that systemd 252 can write into a transient unit and read back at the next daemon-reload; `;` and `$` it cannot."""
OPEN = 'exec(bytes.fromhex(__import__("sys").argv[1]))'


class ArmingFailed(Exception):
    """The timer could not be set; nothing that depends on it may happen."""


def sheltered(command: Sequence[str]) -> list[str]:
    """`command` so that no daemon-reload changes it: as it is, or packed up when it has signs that a shell knows."""
    if all(PLAIN.fullmatch(word) for word in command):
        return list(command)
    code = f"import os; os.execvp({command[0]!r}, {list(command)!r})"
    return ["/usr/bin/python3", "-c", OPEN, code.encode().hex()]


@dataclass(frozen=True)
class Timer:
    """The transient timer `unit` (a name without suffix)."""

    runner: Runner
    clock: Clock
    unit: str

    def arm(self, seconds: float, command: Sequence[str], description: str, insist: bool = False) -> None:
        """Run `command` in `seconds`, replacing a timer of the same name; raises ArmingFailed.

        The service of an earlier timer may still be ending, so the attempt is repeated for a few seconds. With `insist`
        the command is started again until it succeeds.
        """
        self.cancel()
        argv = [
            "systemd-run",
            f"--unit={self.unit}",
            f"--description={description}",
            *self._due(max(seconds, 0.1), insist),
            "--timer-property=AccuracySec=100ms",
            *(["--property=Restart=on-failure", "--property=RestartSec=5"] if insist else []),
            "--collect",
            "--quiet",
            *sheltered(command),
        ]
        result = Result(0, "", "")
        for _attempt in range(ARM_TRIES):
            result = self.runner.run(argv, timeout=15)
            if result.ok:
                return
            self.clock.sleep(0.5)
        raise ArmingFailed(f"systemd-run could not set the timer {self.unit}.timer: {result.text()}")

    def _due(self, seconds: float, insist: bool) -> list[str]:
        """When, counted from the start of systemd: a daemon-reload of anybody has `--on-active` begin anew (252 to 257)."""
        shown = self.runner.run(
            ["systemctl", "show", "--property=UserspaceTimestampMonotonic", "--value"], timeout=15
        ).out.strip()
        if not shown.isdigit():
            return [f"--on-active={seconds:.1f}s"]
        due = self.clock.monotonic() - int(shown) / 1e6 + seconds
        return [f"--on-startup={due + later:.1f}s" for later in ((0.0, AGAIN) if insist else (0.0,))]

    def disarm(self) -> None:
        """Stop the timer; nothing happens when there is none. Never stops the command once it runs."""
        self.runner.run(["systemctl", "stop", f"{self.unit}.timer"], timeout=15)

    def cancel(self) -> None:
        """Stop the timer, and the command too when it runs already. Not to be called by that command."""
        self.runner.run(["systemctl", "stop", f"{self.unit}.timer", f"{self.unit}.service"], timeout=30)

    def armed(self) -> bool:
        """True while the timer waits or its command runs."""
        return self.runner.run(["systemctl", "is-active", "--quiet", f"{self.unit}.timer", f"{self.unit}.service"], timeout=15).ok
