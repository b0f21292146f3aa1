# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading once what every worker needs.

Ansible forks a worker for each task and host. A worker that meets a filter loads all filters, which takes longer than most
tasks' own work on the controller. What the controlling process has loaded is there in every worker.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable

from ansible.plugins.loader import filter_loader

FILTERS = ("ansible.builtin.combine", "slipway.server.slipway_results")
"""One of each collection is enough: the others lie beside it and are loaded along."""
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
