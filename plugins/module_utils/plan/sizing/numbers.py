# SPDX-License-Identifier: GPL-3.0-or-later
"""Arithmetic that several parts of the plan share."""

from __future__ import annotations


def version(text: str) -> tuple[int, ...]:
    """A dotted upstream version as numbers; empty when unknown."""
    parts = []
    for part in text.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def power_of_two(least: float) -> int:
    """The smallest power of two that is not below `least`."""
    size = 1
    while size < least:
        size *= 2
    return size


def system_mb(memory_mb: int) -> int:
    """Operating system: the larger of 512 MiB and 8 % of memory. Source: own."""
    return max(512, memory_mb * 8 // 100)
