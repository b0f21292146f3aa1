# SPDX-License-Identifier: GPL-3.0-or-later
"""A pooler that keeps nobody waiting, as its own console says. Apart from the other kinds, which the host command knows, too."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..host.runner import Runner
from ..settings.pgbouncer_console import Console, ConsoleError
from .model import ProbeResult, excerpt, milliseconds
from .probes import BadTarget


def make(target: str, runner: Runner) -> PgbouncerProbe:
    """The probe of the pooler whose socket `target` is; raises BadTarget."""
    folder, _slash, name = target.rpartition("/")
    port = name.rpartition(".s.PGSQL.")[2]
    if not folder.startswith("/") or not port.isdigit():
        raise BadTarget(f"{target!r} is not the socket of a pooler such as /var/run/postgresql/.s.PGSQL.6432")
    return PgbouncerProbe(Console(runner, folder, int(port)))


@dataclass(frozen=True)
class PgbouncerProbe:
    """Nothing is paused or disabled, and no client waits for a session."""

    console: Console

    @property
    def name(self) -> str:
        """Its port."""
        return f"pgbouncer:{self.console.port}"

    def look(self) -> ProbeResult:
        """Ask the console once."""
        started = time.monotonic()
        try:
            clients, paused, databases = self.console.clients(), self.console.paused(), self.console.databases()
        except ConsoleError as error:
            gone = "No such file" in str(error) or "refused" in str(error)
            return ProbeResult(False, excerpt(str(error)), milliseconds(started), refused=gone)
        off = [f"database {entry.name} is {'paused' if entry.paused else 'disabled'}" for entry in databases]
        found = ["the pooler is paused"] if paused else []
        found += [text for text, entry in zip(off, databases) if entry.paused or entry.disabled]
        if clients.waiting:
            found.append(f"{clients.waiting} client(s) wait for a session, the first for {clients.max_wait:.1f} s")
        said = ", ".join(found) or f"{clients.connected} client(s), none waits"
        return ProbeResult(not found, said, milliseconds(started))
