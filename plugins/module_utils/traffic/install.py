# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting the host command on a host: the sources it needs and nothing else, from wherever this library was loaded."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..host import files as disk
from ..host.payload import InstalledFile
from ..host.runner import Runner
from .layout import COMMAND

LIBRARY = "/usr/lib/slipway"
PACKAGE = "slipway"
ENTRY = "traffic.cli"
UNIT = "slipway-recover.service"

LAUNCHER = f"""#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-3.0-or-later
# Managed by Ansible: slipway.server.host_command
import gc
import sys

# Collecting garbage while modules are made costs a sixth of the start and finds none.
gc.disable()
sys.path.insert(0, "{LIBRARY}")

from {PACKAGE}.{ENTRY} import main

gc.enable()
sys.exit(main())
"""

SERVICE = f"""# Managed by Ansible: slipway.server.host_command
[Unit]
Description=Finish or take back what was under way when this host went down (slipway)
Documentation=man:systemd.service(5)
After=network-online.target docker.service nginx.service
Wants=network-online.target
ConditionPathExists=/etc/slipway/apps

[Service]
Type=oneshot
ExecStart={COMMAND} recover --all

[Install]
WantedBy=multi-user.target
"""


def files(sources: Mapping[str, str]) -> list[InstalledFile]:
    """All files of the command."""
    root = PurePosixPath(LIBRARY) / PACKAGE
    library = [InstalledFile(str(root / path), text, 0o644) for path, text in sources.items()]
    unit = InstalledFile(f"/etc/systemd/system/{UNIT}", SERVICE, 0o644)
    return [*library, InstalledFile(COMMAND, LAUNCHER, 0o755), unit]


@dataclass(frozen=True)
class Expected:
    """A file of the command as it has to be: `digest` is the SHA-256 of its text."""

    path: str
    mode: int
    digest: str


def digest(text: str) -> str:
    """SHA-256 of a text in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def expected(items: Iterable[InstalledFile]) -> list[Expected]:
    """What a host has to have, without the texts."""
    return [Expected(item.path, item.mode, digest(item.text)) for item in items]


def proof(wanted: Iterable[Expected]) -> str:
    """A shell command that succeeds where nothing differs from `wanted`: a quick look, which carries no program to the host."""
    items = list(wanted)
    sums = "".join(f"{item.digest}  {item.path}\n" for item in items)
    words = [f"printf %s {shlex.quote(sums)} | sha256sum --check --status"]
    for mode in sorted({item.mode for item in items}):
        paths = " ".join(shlex.quote(item.path) for item in items if item.mode == mode)
        words.append(f'test -z "$(find {paths} ! -perm {mode:o})"')
    library = f"{LIBRARY}/{PACKAGE}"
    count = sum(item.path.startswith(f"{library}/") for item in items)
    words += [f"test $(find {library} -name '*.py' | wc -l) -eq {count}", f"systemctl is-enabled --quiet {UNIT}"]
    return " && ".join(words)


@dataclass(frozen=True)
class InstallPlan:
    """Files to write and to remove, and whether the unit must be enabled or disabled."""

    write: tuple[Expected, ...]
    remove: tuple[str, ...]
    enabled: bool
    switch_unit: bool
    old: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """True when there is anything to do."""
        return bool(self.write or self.remove or self.switch_unit)

    @property
    def names(self) -> list[str]:
        """All files that change."""
        return sorted([item.path for item in self.write] + list(self.remove))

    @property
    def before(self) -> list[str]:
        """For the diff: files that differ and exist."""
        return sorted([*self.old, *self.remove])

    @property
    def after(self) -> list[str]:
        """For the diff: files that are written."""
        return sorted(f"{item.path} (new content)" if item.path in self.old else item.path for item in self.write)


class Installer:
    """Brings the files of the command to a host below `root`."""

    def __init__(self, runner: Runner, root: Path = Path("/")) -> None:
        self.runner = runner
        self.root = root

    def _path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    def plan(self, wanted: list[Expected]) -> InstallPlan:
        """What differs from `wanted`; an empty list means that nothing shall be installed."""
        write = tuple(item for item in wanted if not self._same(item))
        names = {item.path for item in wanted}
        library = self._path(f"{LIBRARY}/{PACKAGE}")
        present = {f"{LIBRARY}/{PACKAGE}/{path.relative_to(library)}" for path in library.rglob("*.py")}
        present |= {path for path in (COMMAND, f"/etc/systemd/system/{UNIT}") if self._path(path).exists()}
        enabled = self.runner.run(["systemctl", "is-enabled", "--quiet", UNIT], timeout=15).ok
        old = tuple(item.path for item in write if self._path(item.path).exists())
        return InstallPlan(write, tuple(sorted(present - names)), bool(wanted), enabled != bool(wanted), old)

    def _same(self, item: Expected) -> bool:
        path = self._path(item.path)
        with contextlib.suppress(OSError):
            return digest(disk.read_text(path) or "") == item.digest and path.stat().st_mode & 0o7777 == item.mode
        return False

    def apply(self, plan: InstallPlan, texts: Mapping[str, str]) -> None:
        """Do it with the `texts` by path: the library first, then the command, then the unit. Raises OSError or CommandFailed."""
        if plan.switch_unit and not plan.enabled:
            self.runner.must(["systemctl", "disable", "--quiet", UNIT], timeout=60)
        for item in plan.write:
            path = self._path(item.path)
            disk.make_directories(path.parent)
            disk.atomic_write(path, texts[item.path], item.mode)
        for name in plan.remove:
            disk.remove(self._path(name))
        if plan.write or plan.remove:
            # Python would go on using compiled files whose source has the same size and second.
            for cache in self._path(LIBRARY).rglob("__pycache__"):
                shutil.rmtree(cache, ignore_errors=True)
            if not (plan.enabled and plan.switch_unit):  # to enable a unit reloads, too
                self.runner.must(["systemctl", "daemon-reload"], timeout=60)
        if not plan.enabled:
            shutil.rmtree(self._path(LIBRARY), ignore_errors=True)
        elif plan.switch_unit:
            self.runner.must(["systemctl", "enable", "--quiet", UNIT], timeout=60)
