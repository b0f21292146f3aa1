# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths into JSON with wildcards: `checks.*.status`, `items.0.name`."""

from __future__ import annotations

from typing import Optional


def select(document: object, path: str) -> list[tuple[str, object]]:
    """All (full path, value) pairs that `path` names in `document`; empty when nothing is there."""
    found: list[tuple[str, object]] = [("", document)]
    for part in path.split("."):
        following: list[tuple[str, object]] = []
        for prefix, value in found:
            following.extend((f"{prefix}.{key}".lstrip("."), child) for key, child in _children(value, part))
        found = following
    return found


def _children(value: object, part: str) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        if part == "*":
            return [(str(key), child) for key, child in value.items()]
        return [(part, value[part])] if part in value else []
    if isinstance(value, list):
        if part == "*":
            return [(str(index), child) for index, child in enumerate(value)]
        if part.isdigit() and int(part) < len(value):
            return [(part, value[int(part)])]
    return []


def mismatch(document: object, expected: dict[str, object]) -> Optional[str]:
    """The first expectation that `document` does not meet, in words; None when it meets all.

    A path that selects nothing is a mismatch: a check that vanished from the answer is not a check that passed.
    """
    for path, wanted in expected.items():
        selected = select(document, path)
        if not selected:
            return f"JSON has nothing at {path}"
        for place, value in selected:
            if not same(value, wanted):
                return f"JSON {place} is {value!r}, not {wanted!r}"
    return None


def same(value: object, wanted: object) -> bool:
    """Equal as JSON: true is not 1."""
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted
