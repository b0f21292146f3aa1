# SPDX-License-Identifier: GPL-3.0-or-later
"""What a slot needs of the thing that runs its processes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Protocol

from ..health.process import Process
from .config import Instance


@dataclass(frozen=True)
class Artifact:
    """What a release is: an image by digest, or an archive on this host (with its SHA-256, when known)."""

    release: str
    image: Optional[str] = None
    archive: Optional[str] = None
    sha256: Optional[str] = None


@dataclass(frozen=True)
class Once:
    """A command to run once as the processes of a slot run: what to run, and the properties of the unit that does it."""

    argv: Sequence[str]
    properties: Sequence[str]


class Place(Protocol):
    """Where one instance of a slot runs on this host. All may raise SlipwayError."""

    @property
    def instance(self) -> Instance:
        """Its name, address and port."""
        ...

    def fingerprint(self, artifact: Artifact, /) -> str:
        """Changes with anything that needs a new start."""
        ...

    def process(self) -> Process:
        """What runs there."""
        ...

    def start(self, artifact: Artifact, /) -> None:
        """Start it, in place of what ran there; it must not come back by itself yet when it dies."""
        ...

    def keep(self) -> None:
        """From now on it comes back after a crash and a reboot."""
        ...

    def stop(self) -> None:
        """End it gracefully and leave nothing that would bring it back; nothing happens when it does not run."""
        ...

    @property
    def port(self) -> int:
        """Where it listens, in its own network."""
        ...

    def pid(self) -> Optional[int]:
        """A process in that network; None when it does not run."""
        ...


class Driver(Protocol):
    """Runs one slot on this host. All may raise SlipwayError."""

    @property
    def places(self) -> Sequence[Place]:
        """One for each instance."""
        ...

    def check(self, artifact: Artifact, /) -> None:
        """Refuse an artifact that cannot run here, without contacting anything."""
        ...

    def prepare(self, artifact: Artifact, /) -> str:
        """Fetch or unpack; touches nothing that runs. What exactly it is: the image by digest, or the archive's digest."""
        ...

    def secrets(self) -> set[str]:
        """Strings that must not be shown."""
        ...


def fingerprint(driver: Driver, artifact: Artifact) -> str:
    """Changes with anything that needs a new start of one of its instances."""
    parts = [place.fingerprint(artifact) for place in driver.places]
    return hashlib.sha256("\0".join(parts).encode("ascii", errors="replace")).hexdigest()
