# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are on a managed host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

COMMAND = "/usr/local/sbin/slipway"


@dataclass(frozen=True)
class Layout:
    """All paths, below `root` (which is / except in tests)."""

    root: Path = Path("/")

    @property
    def apps(self) -> Path:
        """Directory of the applications' descriptions."""
        return self.root / "etc/slipway/apps"

    def config(self, app: str) -> Path:
        """Description of one application."""
        return self.apps / f"{app}.json"

    def state(self, app: str) -> Path:
        """All that is remembered about one application."""
        return self.root / "var/lib/slipway" / app

    def flags(self, app: str) -> Path:
        """The truth of traffic."""
        return self.state(app) / "flags"

    def journal(self, app: str) -> Path:
        """Write-ahead journal."""
        return self.state(app) / "journal.jsonl"

    def history(self, app: str) -> Path:
        """What happened, for people."""
        return self.state(app) / "history.jsonl"

    def runs(self, app: str) -> Path:
        """What transactions told while they ran."""
        return self.state(app) / "runs"

    def lease(self, app: str) -> Path:
        """Who may change traffic now."""
        return self.state(app) / "lease.json"

    def traffic(self, app: str) -> Path:
        """Releases and previous slot, as an edge knows them."""
        return self.state(app) / "traffic.json"

    def slot(self, app: str, slot: str) -> Path:
        """What runs in a slot of this host."""
        return self.state(app) / "slots" / f"{slot}.json"

    def migration(self, app: str) -> Path:
        """The last migration, and the last one that cannot be undone."""
        return self.state(app) / "migration.json"

    def workers(self, app: str) -> Path:
        """Which slot the workers of this host belong to."""
        return self.state(app) / "workers.json"

    def bad(self, app: str, release: str) -> Path:
        """Marker of a release that was taken back."""
        return self.state(app) / "bad" / release

    def lock(self, app: str) -> Path:
        """Lock of the running operation."""
        return self.root / "run/lock" / f"slipway-{app}.lock"

    def access_log(self, app: str) -> Path:
        """What nginx writes of each request of the application, in JSON."""
        return self.root / f"var/log/nginx/slipway-{app}.json.log"

    def site(self, app: str) -> Path:
        """What the role nginx wrote for the application."""
        return self.root / f"etc/nginx/slipway.d/site-{app}.conf"

    def path(self, absolute: str) -> Path:
        """An absolute path of the host."""
        return self.root / absolute.lstrip("/")
