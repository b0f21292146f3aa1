# SPDX-License-Identifier: GPL-3.0-or-later
"""A new cluster, made as the package does but not started: its first start is with its own settings already."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..host import files as disk
from ..host.clock import Clock
from ..host.runner import Runner

DEADLINE = 300.0  # seconds


@dataclass(frozen=True)
class Making:
    """The making of one cluster, whose configuration is in `etc`; `state` has a mark for as long as it is half made."""

    runner: Runner
    clock: Clock
    version: str
    etc: Path
    data: Path
    state: Path

    @property
    def mark(self) -> Path:
        """Says that what there is comes from here and is not whole."""
        return self.state / f"{self.version}-main.making"

    @property
    def unit(self) -> str:
        """A unit of its own: whoever kills a run leaves a whole cluster."""
        return f"slipway-createcluster-{self.version}"

    def due(self) -> bool:
        """Whether there is no cluster, or one whose making was cut off."""
        return not (self.etc / "postgresql.conf").exists() or self._half_made()

    def make(self) -> str:
        """Make it; why it failed, empty when it did not."""
        self._wait()
        if not self.due():
            return ""
        if self._half_made():
            for path in (self.etc, self.data):
                shutil.rmtree(path, ignore_errors=True)
        # Data of somebody's own, which the tool takes as they are, are never marked.
        if not self.data.is_dir() or not any(self.data.iterdir()):
            disk.make_directories(self.mark.parent, 0o700)
            disk.atomic_write(self.mark, "", 0o600)
        command = f"pg_createcluster {self.version} main && rm -f {self.mark}"
        argv = ["systemd-run", "--wait", "--quiet", "--collect", f"--unit={self.unit}", "sh", "-c", command]
        made = self.runner.run(argv, timeout=DEADLINE)
        if made.ok:
            return ""
        said = self.runner.run(["journalctl", "--unit", self.unit, "--lines=12", "--output=cat"]).out.strip()
        return f"pg_createcluster {self.version} main failed: {made.text()}\n{said}"

    def _wait(self) -> None:
        """Until the unit of a run that was killed has ended."""
        deadline = self.clock.monotonic() + DEADLINE
        while self.runner.run(["systemctl", "is-active", "--quiet", self.unit]).ok and self.clock.monotonic() < deadline:
            self.clock.sleep(0.5)

    def _half_made(self) -> bool:
        """Whether its making was cut off. No server has run on it, which would have left its options there."""
        return self.mark.exists() and not (self.data / "postmaster.opts").exists()
