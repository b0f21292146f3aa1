# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong, in words for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional


class SlipwayError(Exception):
    """What happened, where, and what to do next. `facts` go into a module's result as they are."""

    def __init__(self, message: str, facts: Optional[Mapping[str, object]] = None) -> None:
        super().__init__(message)
        self.facts: dict[str, object] = dict(facts or {})


class Busy(SlipwayError):
    """Somebody else holds the lock or the lease."""
