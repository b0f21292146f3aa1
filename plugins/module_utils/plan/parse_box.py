# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backend is denied, and what of it is loosened, of one entry of slipway_apps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..settings.sandbox import APPS, CAPABILITY, FAMILY, USUAL
from .model import Box
from .reader import Reader, kind

KEYS = ("hardening", "loosen", "address_families", "capabilities", "read_write_paths", "pids")
UNIT_ONLY = ("hardening", "loosen", "address_families", "capabilities")
KEY = re.compile(r"[A-Z][A-Za-z]+")
PLACE = re.compile(r"/[^\s:,]+")


def parse_box(read: Reader, data: Mapping[str, Any], path: str, runtime: str, external: bool) -> Box:
    """The sandbox of a backend; keys that its runtime does not have are problems."""
    for name in KEYS:
        if data.get(name) is None:
            continue
        if external:
            read.fail(f"{path}.{name}", "is for backends that slipway runs", "Remove it, and change the unit where it is made")
        elif name in UNIT_ONLY and runtime == "docker":
            read.fail(
                f"{path}.{name}", "belongs to runtime systemd", "Containers have read_only, read_write_paths, pids, and any port"
            )
        elif name == "pids" and runtime != "docker":
            read.fail(f"{path}.{name}", "belongs to runtime docker", "Write loosen: {TasksMax: 512}")
    return Box(
        profile=read.choice(data, "hardening", path, tuple(APPS), USUAL),
        write=read.words(data, "read_write_paths", path, PLACE, "an absolute path without blanks"),
        capabilities=read.words(data, "capabilities", path, CAPABILITY, "a name such as CAP_NET_BIND_SERVICE"),
        families=read.words(data, "address_families", path, FAMILY, "a name such as AF_NETLINK"),
        loosen=_loosen(read, data, path + ".loosen"),
        pids=read.number(data, "pids", path, 16, 4194304, Box().pids),
    )


def _loosen(read: Reader, data: Mapping[str, Any], path: str) -> tuple[tuple[str, str], ...]:
    """Keys of the unit's section [Service] that replace those of the profile."""
    found = []
    for name, value in read.mapping(data.get("loosen") or {}, path).items():
        below = f"{path}.{name}"
        if not KEY.fullmatch(name):
            read.fail(below, "is not a key of a unit", "Write it as systemd does, such as MemoryDenyWriteExecute")
        elif not isinstance(value, (bool, int, str)) or "\n" in str(value):
            read.fail(below, f"must be one line, true, false or a number, but is {kind(value)}", "Write PrivateUsers: false")
        else:
            found.append((name, ("no", "yes")[value] if isinstance(value, bool) else str(value)))
    return tuple(found)
