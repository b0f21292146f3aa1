# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting the host command on a host: the sources it needs and nothing else, from wherever this library was loaded."""

from __future__ import annotations

import ast
import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.abc import InspectLoader
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Callable, Optional, cast

from ..host import files as disk
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

Source = Callable[[str], Optional[str]]


@dataclass(frozen=True)
class InstalledFile:
    """A file of the command."""

    path: str
    text: str
    mode: int


def imports(name: str, is_package: bool, source: str) -> Iterator[str]:
    """Dotted names below the library's root that `source` of module `name` may import; some may be no modules."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        parts = name.split(".") if name else []
        up = node.level - (1 if is_package else 0)
        base = [*parts[: len(parts) - up], *(node.module.split(".") if node.module else [])]
        yield ".".join(base)
        for alias in node.names:
            yield ".".join([*base, alias.name])


def closure(source: Source, entry: str = ENTRY) -> dict[str, str]:
    """Paths below the library's root, and sources, of all modules that `entry` needs.

    `source` gives the text of a module by its dotted name below the root, or None when there is no such module; that of
    a package is asked for as `name.__init__`.
    """
    found: dict[str, str] = {"__init__.py": ""}
    waiting = [entry]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        package = source(f"{name}.__init__")
        text = package if package is not None else source(name)
        if text is None:
            continue
        path = name.replace(".", "/")
        found[f"{path}/__init__.py" if package is not None else f"{path}.py"] = text
        waiting.extend(imports(name, package is not None, text))
        waiting.append(name.rpartition(".")[0])
    return dict(sorted(found.items()))


def files(sources: Mapping[str, str]) -> list[InstalledFile]:
    """All files of the command."""
    root = PurePosixPath(LIBRARY) / PACKAGE
    library = [InstalledFile(str(root / path), text, 0o644) for path, text in sources.items()]
    unit = InstalledFile(f"/etc/systemd/system/{UNIT}", SERVICE, 0o644)
    return [*library, InstalledFile(COMMAND, LAUNCHER, 0o755), unit]


def loaded(load: Callable[[str], ModuleType], root: str) -> Source:
    """A Source that asks the loader of each module below the package `root`, be it a directory or an archive."""

    def source(name: str) -> Optional[str]:
        package = name.endswith(".__init__")
        full = f"{root}.{name[: -len('.__init__')] if package else name}"
        try:
            module = load(full)
        except ImportError:
            return None
        if package != hasattr(module, "__path__"):
            return None
        return cast(InspectLoader, module.__loader__).get_source(full) or ""

    return source


@dataclass(frozen=True)
class InstallPlan:
    """Files to write and to remove, and whether the unit must be enabled or disabled."""

    write: tuple[InstalledFile, ...]
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

    def plan(self, wanted: list[InstalledFile]) -> InstallPlan:
        """What differs from `wanted`; an empty list means that nothing shall be installed."""
        write = tuple(item for item in wanted if not self._same(item))
        names = {item.path for item in wanted}
        library = self._path(f"{LIBRARY}/{PACKAGE}")
        present = {f"{LIBRARY}/{PACKAGE}/{path.relative_to(library)}" for path in library.rglob("*.py")}
        present |= {path for path in (COMMAND, f"/etc/systemd/system/{UNIT}") if self._path(path).exists()}
        enabled = self.runner.run(["systemctl", "is-enabled", "--quiet", UNIT], timeout=15).ok
        old = tuple(item.path for item in write if self._path(item.path).exists())
        return InstallPlan(write, tuple(sorted(present - names)), bool(wanted), enabled != bool(wanted), old)

    def _same(self, item: InstalledFile) -> bool:
        path = self._path(item.path)
        with contextlib.suppress(OSError):
            return disk.read_text(path) == item.text and path.stat().st_mode & 0o7777 == item.mode
        return False

    def apply(self, plan: InstallPlan) -> None:
        """Do it: the library first, then the command, then the unit. Raises OSError or CommandFailed."""
        if plan.switch_unit and not plan.enabled:
            self.runner.must(["systemctl", "disable", "--quiet", UNIT], timeout=60)
        for item in plan.write:
            path = self._path(item.path)
            disk.make_directories(path.parent)
            disk.atomic_write(path, item.text, item.mode)
        for name in plan.remove:
            disk.remove(self._path(name))
        if plan.write or plan.remove:
            # Python would go on using compiled files whose source has the same size and second.
            for cache in self._path(LIBRARY).rglob("__pycache__"):
                shutil.rmtree(cache, ignore_errors=True)
            self.runner.must(["systemctl", "daemon-reload"], timeout=60)
        if not plan.enabled:
            shutil.rmtree(self._path(LIBRARY), ignore_errors=True)
        elif plan.switch_unit:
            self.runner.must(["systemctl", "enable", "--quiet", UNIT], timeout=60)
