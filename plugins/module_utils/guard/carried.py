# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's half of the guard, out of a module's own payload."""

from __future__ import annotations

import importlib

from ..host.payload import closure, loaded
from . import cli
from .install import ENTRY


def carried() -> dict[str, str]:
    """Sources of the program by their path below the library's root."""
    return closure(loaded(importlib.import_module, cli.__name__.rpartition(".guard.")[0]), ENTRY)
