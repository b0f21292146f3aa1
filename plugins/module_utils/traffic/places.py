# SPDX-License-Identifier: GPL-3.0-or-later
"""How and where the instances of a slot were started. A newer description says how they are started next, not what runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Optional
from urllib.parse import unquote, urlsplit

from .config import Instance, Runtime, Slot
from .records import SlotState

ADDRESS = re.compile(r"""^DATABASE_URL=["']?(.+?)["']?$""", re.MULTILINE)


def saved(runtime: Runtime, slot: Slot, environment: str) -> dict[str, object]:
    """For the record of a slot that was just started, with `environment` as the text of a file."""
    found = {"runtime": asdict(runtime), "instances": [asdict(instance) for instance in slot.instances]}
    return {**found, "database": database(environment)}


def database(environment: str) -> Optional[dict[str, str]]:
    """Name and user of the database that an environment leads to."""
    found = ADDRESS.search(environment)
    try:
        url = urlsplit(found.group(1) if found else "")
    except ValueError:
        return None
    name, user = unquote(url.path.lstrip("/")), unquote(url.username or "")
    return {"name": name, "user": user} if name and user else None


def started(known: Optional[SlotState]) -> Optional[tuple[Runtime, tuple[Instance, ...]]]:
    """What a slot that was not stopped since was started as; None when no record tells."""
    if known is None or known.state == "stopped" or not isinstance(known.place, Mapping):
        return None
    runtime, instances = known.place.get("runtime"), known.place.get("instances")
    if not isinstance(runtime, Mapping) or not isinstance(instances, list) or not instances:
        return None
    try:
        found = tuple(Instance(**_known(Instance, one)) for one in instances)
        values = _known(Runtime, runtime)
        return Runtime(**{**values, "tmpfs": tuple(values.get("tmpfs") or ())}), found
    except (TypeError, ValueError):
        return None


def _known(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that this version knows, since a newer one may have written more."""
    names = {item.name for item in fields(kind)}
    return {key: value for key, value in dict(values).items() if key in names}
