# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sources a program of this library needs, from wherever the library was loaded: a host gets these and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import InspectLoader
from types import ModuleType
from typing import Callable, Optional, cast

Source = Callable[[str], Optional[str]]
# Much faster than parsing each source; a text that only looks like an import names one file too many at worst.
IMPORT = re.compile(r"^[ \t]*from (\.+)([\w.]*) import (\([^)]*\)|[^#\n]*)", re.MULTILINE)


@dataclass(frozen=True)
class InstalledFile:
    """A file of the command."""

    path: str
    text: str
    mode: int


def imports(name: str, is_package: bool, source: str) -> Iterator[str]:
    """Dotted names below the library's root that `source` of module `name` may import; some may be no modules."""
    for dots, module, names in IMPORT.findall(source):
        parts = name.split(".") if name else []
        up = len(dots) - (1 if is_package else 0)
        base = [*parts[: len(parts) - up], *filter(None, module.split("."))]
        yield ".".join(base)
        for each in names.strip("()").split(","):
            if each.split():
                yield ".".join([*base, each.split()[0]])


def closure(source: Source, entry: str) -> dict[str, str]:
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
