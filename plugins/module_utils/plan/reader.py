# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads untyped inventory data into typed values and collects every problem instead of stopping at the first."""

from __future__ import annotations

import datetime
import difflib
import ipaddress
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from re import Pattern
from typing import Any, Optional

from .model import Problem
from .placeholders import Undefined, is_placeholder, leaves

APP_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})")
DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}")
URL_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
FILE_PATH = re.compile(r"[^\0\n\r]+")
SHA256 = re.compile(r"[0-9a-f]{64}")
SIZE = re.compile(r"[1-9][0-9]*[kKmMgG]")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNIT = re.compile(r"[A-Za-z0-9:_.@-]+\.service")
WORKER_UNIT = re.compile(r"[A-Za-z0-9:_.@-]+\.(service|timer)")
USER = re.compile(r"[a-z0-9_][a-z0-9_-]{0,31}(:[a-z0-9_][a-z0-9_-]{0,31})?")
LINE = re.compile(r"[^\0\n\r]+")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+")

# Bytes of one line of an env file, name included, that Docker can read.
ENV_LINE = 65_000

_KINDS = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
    type(None): "empty",
}


def kind(value: Any) -> str:
    """What a YAML value is, in words."""
    for python, words in _KINDS.items():
        if isinstance(value, python):
            return words
    return "a date" if isinstance(value, datetime.date) else type(value).__name__


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known word that was probably meant, or an empty string."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return found[0] if found else ""


def megabytes(text: str) -> int:
    """A size such as 512M in MiB; 0 for an empty text."""
    if not text:
        return 0
    number, unit = int(text[:-1]), text[-1].lower()
    return {"k": max(1, number // 1024), "m": number, "g": number * 1024}[unit]


def too_long(name: str, value: str) -> bool:
    """Whether a line of an env file would have more bytes than its reader takes."""
    return len(f"{name}={value}".encode("utf-8", "surrogateescape")) > ENV_LINE


class Reader:
    """Typed access to one part of the inventory. After a problem the default is returned, so that reading goes on."""

    def __init__(self, where: str) -> None:
        """Problems are reported for `where`: an app, a host, or the inventory."""
        self.where = where
        self.problems: list[Problem] = []
        self._known_bad: set[str] = set()

    def fail(self, key: str, what: str, remedy: str, late: bool = False) -> None:
        """Record one problem; a key that was reported already is not reported twice."""
        if key not in self._known_bad:
            self._known_bad.add(key)
            self.problems.append(Problem(self.where, key, what, remedy, late))

    def scan(self, value: Any, key: str) -> None:
        """Report every placeholder below `value`, by key only."""
        for path, leaf in leaves(value, key):
            if isinstance(leaf, Undefined):
                self.fail(path, f"cannot be resolved: {leaf}", leaf.remedy)
            elif isinstance(leaf, str) and is_placeholder(leaf):
                self.fail(path, "is still a placeholder", "Put the real value there")

    def mapping(
        self, value: Any, key: str, known: Sequence[str] = (), moved: Optional[Mapping[str, str]] = None
    ) -> dict[str, Any]:
        """A mapping whose keys must all be `known` (any text when empty)."""
        if not isinstance(value, dict):
            self.fail(key, f"must be a mapping, but is {kind(value)}", "Write it as `key: value` lines")
            return {}
        for name in value:
            path = f"{key}.{name}"
            if not isinstance(name, str):
                self.fail(path, f"a key must be text, but is {kind(name)}", "Quote it")
            elif known and name not in known:
                guess = (moved or {}).get(name) or closest(name, known)
                remedy = f"Did you mean `{guess}`?" if guess else "Known here: {}".format(", ".join(known))
                self.fail(path, "is not a known key", remedy, late=name in (moved or {}))
        return {name: below for name, below in value.items() if isinstance(name, str) and (not known or name in known)}

    def text(
        self,
        data: Mapping[str, Any],
        name: str,
        key: str,
        pattern: Pattern[str],
        hint: str,
        default: str = "",
        required: bool = False,
    ) -> str:
        """Text of the given shape; `hint` says in words what is expected."""
        path = f"{key}.{name}"
        value = data.get(name)
        if value is None:
            if required:
                self.fail(path, "is missing", f"Add it: {hint}")
            return default
        return self.word(value, path, pattern, hint) or default

    def word(self, value: Any, path: str, pattern: Pattern[str], hint: str) -> str:
        """One text of the given shape, or an empty string after a problem."""
        if path in self._known_bad:
            return ""
        if not isinstance(value, str):
            self.fail(path, f"must be text, but YAML read {kind(value)}", f"Put it in quotes: {hint}")
            return ""
        if not value:
            self.fail(path, "is empty", f"Give {hint}")
            return ""
        if not pattern.fullmatch(value):
            self.fail(path, "does not look right", f"Expected {hint}")
            return ""
        return str(value)

    def command(self, line: str, path: str) -> str:
        """`line`, which is split like a shell does."""
        try:
            shlex.split(line)
        except ValueError as error:
            self.fail(path, f"cannot be split into words: {str(error).lower()}", "Close the quote")
        return line

    def number(
        self, data: Mapping[str, Any], name: str, key: str, low: int, high: int, default: int = 0, required: bool = False
    ) -> int:
        """A whole number within bounds; text that looks like one is refused, because YAML quoting changed its type."""
        path = f"{key}.{name}"
        value = data.get(name)
        if value is None:
            if required:
                self.fail(path, "is missing", f"Add a whole number from {low} to {high}")
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            remedy = "Write the number without quotes" if isinstance(value, str) else "Write a whole number"
            self.fail(path, f"must be a whole number, but is {kind(value)}", remedy)
            return default
        if not low <= value <= high:
            self.fail(path, f"is {value}, outside {low} to {high}", "Choose a number within")
            return default
        return int(value)

    def decimal(
        self, data: Mapping[str, Any], name: str, key: str, low: float, high: float, default: Optional[float]
    ) -> Optional[float]:
        """A number within bounds, with or without decimals."""
        path = f"{key}.{name}"
        value = data.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(path, f"must be a number, but is {kind(value)}", "Write a number without quotes")
            return default
        if not low <= value <= high:
            self.fail(path, f"is {value:g}, outside {low:g} to {high:g}", "Choose a number within")
            return default
        return float(value)

    def flag(self, data: Mapping[str, Any], name: str, key: str, default: bool) -> bool:
        """True or false."""
        value = data.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(f"{key}.{name}", f"must be true or false, but is {kind(value)}", "Write true or false without quotes")
            return default
        return value

    def words(self, data: Mapping[str, Any], name: str, key: str, pattern: Pattern[str], hint: str) -> tuple[str, ...]:
        """A list of texts of one shape."""
        value = data.get(name)
        path = f"{key}.{name}"
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fail(path, f"must be a list, but is {kind(value)}", f"Write it as [{hint}]")
            return ()
        found = [self.word(item, f"{path}[{index}]", pattern, hint) for index, item in enumerate(value)]
        return tuple(dict.fromkeys(word for word in found if word))

    def choice(self, data: Mapping[str, Any], name: str, key: str, known: Sequence[str], default: str = "") -> str:
        """One of the known words; required when there is no default."""
        path = f"{key}.{name}"
        value = data.get(name)
        if value is None and default:
            return default
        if value is None:
            self.fail(path, "is missing", "Choose one of: {}".format(", ".join(known)))
            return known[0]
        if value not in known:
            guess = closest(str(value), known)
            self.fail(
                path, "is none of {}".format(", ".join(known)), f"Did you mean `{guess}`?" if guess else "Choose one of them"
            )
            return known[0]
        return str(value)


def ip_address(text: Any) -> str:
    """The address in canonical form, or an empty string when `text` is not one."""
    try:
        return str(ipaddress.ip_address(str(text)))
    except ValueError:
        return ""
