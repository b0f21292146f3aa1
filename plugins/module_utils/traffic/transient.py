# SPDX-License-Identifier: GPL-3.0-or-later
"""A command in a transient systemd unit: it and all it starts end with it, also when the process that waits is killed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..health import secrets
from ..host.runner import Runner

STOPPING = 2.0
LINES, WIDTH = 20, 500
STARTING = 15.0
RESULT = re.compile(r"^Finished with result: (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """How it ended: exit status, systemd's word for it (success, exit-code, timeout, signal, …), and what it wrote."""

    rc: int
    result: str
    out: str

    @property
    def ok(self) -> bool:
        """True when the exit status is zero."""
        return self.rc == 0

    def why(self, timeout: float) -> str:
        """What went wrong, in words."""
        if self.result == "timeout":
            return f"had not ended after {timeout:g} s and was killed"
        if self.result == "not started":
            return "could not be started"
        return f"ended with status {self.rc}" + ("" if self.result in ("exit-code", "success") else f" ({self.result})")

    def last(self, hidden: Iterable[str], lines: int = LINES) -> list[str]:
        """The last lines it wrote, without the strings `hidden`, none longer than WIDTH."""
        return [line[:WIDTH] for line in secrets.mask(self.out, hidden).splitlines()[-lines:]]


def options(name: str, env: Mapping[str, str], properties: Sequence[str]) -> list[str]:
    """The part of the command line of systemd-run that all transient units here share."""
    return [
        "systemd-run",
        f"--unit={name}",
        *(f"--setenv={key}={value}" for key, value in env.items()),
        *(f"--property={item}" for item in properties),
    ]


def literal(argv: Sequence[str]) -> list[str]:
    """`argv` as a unit takes it: systemd replaces $NAME in arguments, unless the sign is doubled (systemd.service(5))."""
    return [word.replace("$", "$$") for word in argv]


def shell(command: str) -> list[str]:
    """`command` as a shell reads it."""
    return ["/bin/sh", "-c", command]


def one_stream(argv: Sequence[str]) -> list[str]:
    """`argv` with both outputs in one, so that systemd-run's own words stay apart."""
    return ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv]


def run(
    runner: Runner,
    name: str,
    argv: Sequence[str],
    timeout: float,
    env: Mapping[str, str],
    data: str = "",
    properties: Sequence[str] = (),
) -> Ended:
    """Run `argv` as the unit `name` and wait for it; `data` goes to its standard input, `timeout` in seconds.

    Past it, systemd kills the whole control group. Never raises: what cannot be started has the result `not started`.
    """
    limits = (f"RuntimeMaxSec={timeout:g}s", f"TimeoutStopSec={STOPPING:g}s", *properties)
    command = [*options(name, env, limits), "--wait", "--pipe", "--collect", "--", *literal(one_stream(argv))]
    try:
        ended = runner.run(command, data=data, timeout=timeout + STOPPING + STARTING, env={"SYSTEMD_LOG_LEVEL": "info"})
    except OSError as error:
        return Ended(126, "not started", str(error))
    found = RESULT.search(ended.err)
    if found is None and ended.rc == 124:
        runner.run(["systemctl", "kill", "--signal=KILL", f"{name}.service"], timeout=STARTING)
        return Ended(124, "timeout", ended.out)
    if found is None and not ended.ok:
        return Ended(ended.rc, "not started", ended.text())
    return Ended(ended.rc, found.group(1) if found else "success", ended.out)
