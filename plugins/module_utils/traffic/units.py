# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots as instances of a systemd template unit, and slots that are a unit somebody else described.

Below `root` of the application: `releases/<release>` owned by root, `slots/<slot>` a link to the release that runs there,
and `slots/<slot>-<n>` a link to that, so that the template unit can say `WorkingDirectory=<root>/slots/%i`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..health import secrets
from ..health.process import UnitProcess
from ..host import files
from . import archive
from .config import App, Instance, Runtime, Slot
from .docker import environment_of
from .drivers import Artifact, Once
from .errors import SlipwayError
from .host import Host

KEPT = 5
# What a command that is run once shares with the instances: user, directory, environment, sandbox and limits, and nothing
# about how a service is started, watched and stopped. RuntimeDirectory would be removed at its end.
SHARED = re.compile(
    r"(User|Group|SupplementaryGroups|UMask|WorkingDirectory|Environment|EnvironmentFile|KeyringMode|RemoveIPC|ProcSubset"
    r"|(State|Cache|Logs)Directory|MemoryMax|MemoryHigh|MemoryDenyWriteExecute|NoNewPrivileges|LockPersonality"
    r"|(Protect|Private|Restrict|SystemCall|Capability|Ambient|Device|ReadWrite|ReadOnly|Inaccessible|Bind|Limit)[A-Za-z]*)="
)


@dataclass(frozen=True)
class UnitPlace:
    """One instance of the template unit."""

    host: Host
    app: App
    runtime: Runtime
    slot: str
    instance: Instance

    @property
    def unit(self) -> str:
        """Its name."""
        return self.runtime.unit.replace("{slot}", self.slot).replace("{n}", str(self.instance.number))

    @property
    def env_file(self) -> Path:
        """What this one instance gets beside the environment of all."""
        return self.host.layout.root / "etc/slipway/env" / f"{self.app.name}@{self.slot}-{self.instance.number}.env"

    def environment(self, artifact: Artifact) -> str:
        """Its content; names and numbers only, so nothing needs quoting."""
        values = {
            "PORT": str(self.instance.port),
            "BIND": self.instance.address,
            "SLIPWAY_APP": self.app.name,
            "SLIPWAY_SLOT": self.slot,
            "SLIPWAY_RELEASE": artifact.release,
        }
        return "".join(f"{key}={value}\n" for key, value in values.items())

    def fingerprint(self, artifact: Artifact, /) -> str:
        """Over release, environment and unit."""
        unit = self.host.runner.run(["systemctl", "cat", self.unit], timeout=15).out
        parts = [artifact.release, environment_of(self.host, self.runtime), self.environment(artifact), unit]
        return hashlib.sha256("\0".join(parts).encode("utf-8", errors="surrogateescape")).hexdigest()

    def kept_secrets(self) -> set[str]:
        """Values in the copy of the environment that it was started with."""
        lines = (self.host.disk.read(self.env_file) or "").splitlines()
        return secrets.values("\n".join(line for line in lines if not line.startswith("SLIPWAY_")))

    def process(self) -> UnitProcess:
        """The main process of the unit; its words from the last start on, not those of the releases that had the slot before."""
        try:
            since = self.env_file.stat().st_mtime
        except FileNotFoundError:
            since = 0.0
        return UnitProcess(self.host.runner, self.unit, since)

    def start(self, artifact: Artifact, /) -> None:
        """Point the slot to the release and start the unit."""
        self.stop()
        slots = self.host.layout.path(self.runtime.root) / "slots"
        files.make_directories(slots)
        _link(slots / self.slot, f"../releases/{artifact.release}")
        _link(slots / f"{self.slot}-{self.instance.number}", self.slot)
        # With a copy of what all get as it is now: a restart by the system takes nothing that came later and was never proven.
        shared = environment_of(self.host, self.runtime)
        self.host.disk.write(self.env_file, f"{shared.rstrip()}\n{self.environment(artifact)}".lstrip(), 0o600)
        started = self.host.runner.run(["systemctl", "start", self.unit], timeout=120)
        if not started.ok:
            hidden = secrets.values(environment_of(self.host, self.runtime))
            log = "\n  ".join(secrets.mask(line, hidden) for line in self.process().logs())
            raise SlipwayError(f"{self.app.host} could not start {self.unit}: {started.text()}. Its last log lines:\n  {log}")

    def once(
        self, _artifact: Artifact, _name: str, command: Sequence[str], env_file: Optional[str], env: Mapping[str, str]
    ) -> Once:
        """`command` as the instance runs: same user, directory, environment and sandbox; `env_file` and `env` come after."""
        text = self.host.runner.must(["systemctl", "cat", self.unit], timeout=15).out
        instance = self.unit.partition("@")[2].rpartition(".")[0]
        found = [line.replace("%i", instance).replace("%%", "%") for line in _lines(text) if SHARED.match(line)]
        return Once(
            command,
            [
                *found,
                *([f"EnvironmentFile={self.host.layout.path(env_file)}"] if env_file else []),
                *(f'Environment="{key}={value}"' for key, value in env.items()),
            ],
        )

    def keep(self) -> None:
        """Enable the unit: it comes back after a reboot."""
        self.host.runner.must(["systemctl", "enable", "--quiet", self.unit], timeout=60)

    def stop(self) -> None:
        """Stop and disable the unit; systemd waits as long as its TimeoutStopSec says."""
        # To disable means to reload systemd, which takes much longer than to ask.
        if self.host.runner.run(["systemctl", "is-enabled", "--quiet", self.unit], timeout=15).ok:
            self.host.runner.run(["systemctl", "disable", "--quiet", self.unit], timeout=60)
        self.host.runner.run(["systemctl", "stop", self.unit], timeout=self.runtime.stop_timeout + 60)
        self.host.runner.run(["systemctl", "reset-failed", self.unit], timeout=15)

    @property
    def port(self) -> int:
        """The instance's."""
        return self.instance.port

    def pid(self) -> Optional[int]:
        """The unit's main process."""
        return self.process().pid()


class UnitDriver:
    """Instances of the template unit of one slot."""

    def __init__(self, host: Host, app: App, runtime: Runtime, slot: Slot) -> None:
        self.host = host
        self.app = app
        self.runtime = runtime
        self.root = host.layout.path(runtime.root)
        self.places: Sequence[UnitPlace] = [UnitPlace(host, app, runtime, slot.name, item) for item in slot.instances]

    def check(self, artifact: Artifact, /) -> None:
        """An archive is wanted, or the release must be unpacked here already."""
        if not artifact.archive and not (self.root / "releases" / artifact.release / archive.MARKER).is_file():
            raise SlipwayError(
                f"release {artifact.release} of {self.app.name} names no archive, but {self.app.host} runs systemd units. "
                "Add `archive` to the release."
            )

    def prepare(self, artifact: Artifact, /) -> str:
        """Unpack the archive unless that was done."""
        self._prune(artifact.release)
        if not artifact.archive:
            return artifact.release
        path = self.host.layout.path(artifact.archive)
        _directory, digest, _new = archive.unpack(path, self.root / "releases", artifact.release, artifact.sha256)
        return f"sha256:{digest}"

    def _prune(self, wanted: str) -> None:
        """Remove what a crash left half unpacked, and the oldest releases that no slot points to."""
        releases, slots = self.root / "releases", self.root / "slots"
        if not releases.is_dir():
            return
        used = {path.resolve() for path in slots.iterdir()} if slots.is_dir() else set()
        used.add((releases / wanted).resolve())
        present = sorted(releases.iterdir(), key=lambda path: path.stat().st_ctime)
        unused = [path for path in present if path.resolve() not in used and path.name[0] != "."]
        for path in [*unused[:-KEPT], *(path for path in present if path.name[0] == ".")]:
            shutil.rmtree(path, ignore_errors=True)

    def secrets(self) -> set[str]:
        """Values of the environment file of now, and of when the instances were started."""
        return secrets.values(environment_of(self.host, self.runtime)).union(*(place.kept_secrets() for place in self.places))


@dataclass(frozen=True)
class ExternalPlace:
    """A unit that somebody else installed and updates: it is only started, stopped and watched."""

    host: Host
    unit: str
    instance: Instance

    def fingerprint(self, _artifact: Artifact, /) -> str:
        """Never asks for a new start."""
        return self.unit

    def process(self) -> UnitProcess:
        """The main process of the unit."""
        return UnitProcess(self.host.runner, self.unit)

    def start(self, _artifact: Artifact, /) -> None:
        """Start the unit; when it runs already it is left alone."""
        self.host.runner.run(["systemctl", "reset-failed", self.unit], timeout=15)
        self.host.runner.must(["systemctl", "start", self.unit], timeout=120)

    def keep(self) -> None:
        """Enable the unit."""
        self.host.runner.must(["systemctl", "enable", "--quiet", self.unit], timeout=60)

    def stop(self) -> None:
        """Stop and disable the unit."""
        self.host.runner.run(["systemctl", "disable", "--quiet", self.unit], timeout=60)
        self.host.runner.must(["systemctl", "stop", self.unit], timeout=180)

    @property
    def port(self) -> int:
        """The instance's."""
        return self.instance.port

    def pid(self) -> Optional[int]:
        """The unit's main process."""
        return self.process().pid()


class ExternalDriver:
    """The one place of an external slot."""

    def __init__(self, host: Host, app: App, slot: Slot, unit: str) -> None:
        self.app = app
        self.slot = slot.name
        self.place = ExternalPlace(host, unit, slot.instances[0])
        self.places: Sequence[ExternalPlace] = [self.place]

    def check(self, _artifact: Artifact, /) -> None:
        """Whatever is installed is the release."""

    def prepare(self, _artifact: Artifact, /) -> str:
        """Nothing to fetch; the unit must exist."""
        if self.place.process().identity().state == "no such unit":
            raise SlipwayError(f"{self.app.host} has no unit {self.place.unit}, which is slot {self.slot} of {self.app.name}.")
        return self.place.unit

    def secrets(self) -> set[str]:
        """None known."""
        return set()


def _lines(text: str) -> list[str]:
    """Lines of a unit with its drop-ins, those that go on behind a backslash joined."""
    return [line.strip() for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines()]


def _link(path: Path, target: str) -> None:
    if not path.is_symlink() or os.readlink(path) != target:
        files.atomic_symlink(path, target)
