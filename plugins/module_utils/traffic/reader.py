# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a JSON object key by key, each with its type. An error names file, key, value and what is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Optional

from .errors import SlipwayError


class Reader:
    """A JSON object that is read key by key, each with its type."""

    def __init__(self, values: Mapping[str, object], where: str, file: str) -> None:
        self.values = values
        self.where = where
        self.file = file

    def fail(self, key: str, wanted: str) -> SlipwayError:
        """The error for `key`."""
        place = f"{self.where}.{key}".lstrip(".")
        got = json.dumps(self.values[key]) if key in self.values else "missing"
        return SlipwayError(f"{self.file}: {place} must be {wanted}, but is {got}. Run site.yml: the role app writes this file.")

    def has(self, key: str) -> bool:
        """True when `key` is there and not null."""
        return self.values.get(key) is not None

    def text(self, key: str, default: Optional[str] = None) -> str:
        """A string."""
        value = self.values.get(key, default) if self.has(key) else default
        if not isinstance(value, str):
            raise self.fail(key, "a string")
        return value

    def maybe_text(self, key: str) -> Optional[str]:
        """A string or nothing."""
        return self.text(key) if self.has(key) else None

    def yes(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values[key] if self.has(key) else default
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def seconds(self, key: str, default: float, least: float = 0.0) -> float:
        """A number of seconds, at least `least`."""
        value = self.values[key] if self.has(key) else default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
            raise self.fail(key, f"a number of at least {least:g}")
        return float(value)

    def decimal(self, key: str, default: Optional[float], low: float, high: float) -> Optional[float]:
        """A number within bounds, or the default."""
        if not self.has(key):
            return default
        value = self.values[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.fail(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def count(self, key: str, default: int, least: int = 0, most: int = 2**31) -> int:
        """A whole number."""
        value = self.values[key] if self.has(key) else default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.fail(key, f"a whole number from {least}" + (f" to {most}" if most < 2**31 else ""))
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fail(key, "a list of strings")
        return tuple(value)

    def mapping(self, key: str) -> dict[str, object]:
        """An object; empty when missing."""
        value = self.values[key] if self.has(key) else {}
        if not isinstance(value, dict):
            raise self.fail(key, "an object")
        return value

    def inner(self, key: str, values: object) -> Reader:
        """The reader of an object within this one."""
        if not isinstance(values, dict):
            raise SlipwayError(f"{self.file}: {f'{self.where}.{key}'.lstrip('.')} must be an object.")
        return Reader(values, f"{self.where}.{key}".lstrip("."), self.file)
