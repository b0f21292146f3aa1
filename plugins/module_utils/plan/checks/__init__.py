# SPDX-License-Identifier: GPL-3.0-or-later
"""The cross-checks. Each rule compares two numbers of the final values, what the inventory sets itself included."""

from __future__ import annotations

from ..model import Check
from . import app, backup, host, pooler, postgresql, redis_server, versions
from .postgresql import STANDBY_NEEDS
from .rules import BY_ID, RULES, Rule
from .subject import Pooler, Subject, seconds, size_mb, whole

__all__ = ["BY_ID", "RULES", "STANDBY_NEEDS", "Pooler", "Rule", "Subject", "run", "seconds", "size_mb", "whole"]


def run(subject: Subject) -> list[Check]:
    """All rules that apply to the host."""
    parts = (host, redis_server, postgresql, pooler, app, backup, versions)
    return [check for part in parts for check in part.rules(subject)]
