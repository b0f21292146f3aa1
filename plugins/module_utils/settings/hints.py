# SPDX-License-Identifier: GPL-3.0-or-later
"""What to do next about refusals whose own words do not say it."""

from __future__ import annotations

import re
from pathlib import Path

from ..host import files as disk

NGINX = Path("/etc/nginx")


def hint(said: str, nginx: Path = NGINX) -> str:
    """A remedy for what a validation `said`, or nothing."""
    if "duplicate default server" not in said:
        return ""
    places = [path for folder in ("conf.d", "sites-enabled") for path in sorted((nginx / folder).glob("*")) if path.is_file()]
    lines = [(path, line.split("#")[0].strip()) for path in places for line in (disk.read_text(path) or "").splitlines()]
    found = [f"- {path}: {line}" for path, line in lines if re.search(r"\blisten\s[^;]*\bdefault_server\b", line)]
    where = "\n".join(found)
    remedy = "Names that no site declares are refused by this role. Take `default_server` out of the other file:"
    return f"\n{remedy}\n{where}" if found else ""
