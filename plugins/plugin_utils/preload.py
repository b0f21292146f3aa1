# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading once what every worker needs.

Ansible forks a worker for each task and host. A worker that meets a filter loads all filters, which takes longer than most
tasks' own work on the controller. What the controlling process has loaded is there in every worker.
"""

from __future__ import annotations

import ast
import functools
import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Union

from ansible.executor import module_common
from ansible.plugins.loader import filter_loader
from ansible_collections.slipway.server.plugins.module_utils.settings import answers, proof, readback, redis_client, sysctl

FILTERS = ("ansible.builtin.combine", "slipway.server.slipway_results")
"""One of each collection is enough: the others lie beside it and are loaded along."""
OWN = "ansible_collections.slipway.server.plugins.module_utils."
SOURCES = ("ansible.module_utils.", *(f"{OWN}{folder}." for folder in ("guard", "health", "host", "settings")))
"""Beginnings of the names of what most modules import."""
LOADED = (answers, proof, readback, redis_client, sysctl)
"""With them nearly all of that is loaded; some are read on hosts only when they are needed, but go along with every module."""
IMPORTS = (ast.Import, ast.ImportFrom)
RARELY = (100_000, 50, 100)
"""Thresholds of `gc`: new objects before a search among them, such searches before one among older ones, and so on."""


def filters(names: Iterable[str] = FILTERS) -> None:
    """Load the filters of Ansible and of this collection."""
    for name in names:
        filter_loader.get(name)


def collect_rarely() -> None:
    """Spare the workers most searches for garbage: each lives for one task, and its parent's objects stay as they are.

    Parsing the sources that go to a host makes so many objects that such searches took a third of the time.
    """
    gc.freeze()
    gc.set_threshold(*RARELY)


@functools.cache
def parsed(source: Union[str, bytes]) -> ast.Module:
    """The imports of a source as a tree: those at its top first, as ever, and those below in one branch.

    Ansible looks for nothing else, and goes through every tree for each task.
    """
    tree = ast.parse(source)
    top = [node for node in tree.body if isinstance(node, IMPORTS)]
    below = [node for node in ast.walk(tree) if isinstance(node, IMPORTS) and node not in top]
    branch = ast.If(test=ast.Constant(value=True), body=below, orelse=[])
    return ast.Module(body=[*top, branch], type_ignores=[])


def _compile(source: Any, filename: Any, mode: str, flags: int = 0) -> Any:
    return parsed(source) if flags == ast.PyCF_ONLY_AST else compile(source, filename, mode, flags)


def sources(names: Iterable[str] = SOURCES) -> None:
    """Parse what modules bring along, as far as it is loaded here, and have Ansible use that: it would parse it for each task."""
    module_common.compile = _compile
    for name, module in list(sys.modules.items()):
        if name.startswith(tuple(names)) and getattr(module, "__file__", None):
            parsed(Path(str(module.__file__)).read_bytes())


@functools.cache
def once() -> None:
    """Parse what modules share and keep it; for files that the controlling process imports before it forks a worker."""
    sources()
    collect_rarely()
