# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else has set up in a pooler that is taken over. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection

from .pgbouncer import HEADER


def lost_databases(ini: str, declared: Collection[str]) -> list[str]:
    """Databases of a pgbouncer.ini that is not ours, and that are not declared."""
    if ini.startswith(HEADER):
        return []
    found, inside = [], False
    for line in ini.splitlines():
        text = line.strip()
        if text.startswith("["):
            inside = text == "[databases]"
        elif inside and text and text[0] not in ";#%":
            name = re.split(r"\s*=", text, maxsplit=1)[0].strip().strip('"')
            found += [] if name in declared else [name]
    return found
