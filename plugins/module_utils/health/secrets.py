# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping the values of environment files out of messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional
from urllib.parse import unquote, urlsplit

MASK = "********"
SECRET_KEY = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|AUTH|PRIVATE|DSN|SALT", re.IGNORECASE)


def values(text: str) -> set[str]:
    """Strings of an environment file that must not be shown: docker's `K=v` and systemd's `K="v"` with escapes.

    A value counts when its key sounds secret and it has at least 4 characters, or when it has at least 16 characters
    whatever its key; of a URL with a password that password counts too, as written and unquoted.
    """
    found: set[str] = set()
    for line in text.splitlines():
        key, equals, raw = line.strip().partition("=")
        if not equals or key.startswith("#"):
            continue
        forms = {raw}
        if len(raw) >= 2 and raw[0] == raw[-1] and raw[0] in "\"'":
            forms = {raw[1:-1], re.sub(r"\\(.)", r"\1", raw[1:-1])}
        for form in forms:
            if len(form) >= (4 if SECRET_KEY.search(key) else 16):
                found.add(form)
            found |= password(form)
    return found


def variable(text: str, name: str) -> Optional[str]:
    """Value of `name` in an environment file, docker's or systemd's; the last one counts, None when there is none."""
    found = None
    for line in text.splitlines():
        key, equals, raw = line.strip().partition("=")
        if equals and key == name:
            quoted = len(raw) >= 2 and raw[0] == raw[-1] == '"'
            found = re.sub(r"\\(.)", r"\1", raw[1:-1]) if quoted else raw
    return found


def password(value: str) -> set[str]:
    """The password of a URL, as written and unquoted; empty when there is none."""
    if "://" not in value:
        return set()
    try:
        secret = urlsplit(value).password
    except ValueError:
        return set()
    return {form for form in (secret, unquote(secret)) if len(form) >= 3} if secret else set()


def mask(text: str, hidden: Iterable[str]) -> str:
    """`text` with every string of `hidden` replaced, the longest first."""
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text
