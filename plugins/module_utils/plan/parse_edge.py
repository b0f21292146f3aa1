# SPDX-License-Identifier: GPL-3.0-or-later
"""`rate_limits` and `restricted` of an app: who may ask how often, and who may ask at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..settings.nginx import below, is_network
from . import reader as shape
from .model import RateLimit, Restriction
from .reader import Reader, kind

MOST_PER_MINUTE = 60_000


def rate_limits(read: Reader, raw: Any, path: str) -> tuple[RateLimit, ...]:
    """The limits, each path once."""
    found = []
    for key, data in _entries(read, raw, path, ("path", "per_minute"), "{path: /search, per_minute: 60}"):
        where = read.text(data, "path", key, shape.URL_PATH, "a path such as /search", required=True)
        found.append(RateLimit(where, read.number(data, "per_minute", key, 0, MOST_PER_MINUTE, required=True)))
    _once(read, [one.path for one in found], path)
    return tuple(found)


def restricted(read: Reader, raw: Any, path: str, health_path: str, websockets: Sequence[str]) -> tuple[Restriction, ...]:
    """The paths that are not for everybody. The path of the gate must not be one: validation asks for it from outside."""
    found = []
    for key, data in _entries(read, raw, path, ("path", "from"), "{path: /metrics, from: [10.0.0.0/8]}"):
        where = read.text(data, "path", key, shape.URL_PATH, "a path such as /metrics", required=True)
        if where and below(health_path, where):
            read.fail(
                f"{key}.path",
                f"covers the path of the health check, {health_path}, which is asked for from outside too",
                "Restrict a longer path, or name another one in health.path",
            )
        if where and where not in websockets and any(below(where, socket) for socket in websockets):
            read.fail(
                f"{key}.path", f"`{where}` is below a path of `websockets`", "Name it in `websockets` too, or restrict that one"
            )
        sources = read.words(data, "from", key, shape.LINE, "an address or a network such as 10.0.0.0/8")
        for index, source in enumerate(sources):
            if not is_network(source):
                read.fail(
                    f"{key}.from[{index}]", f"`{source}` is neither an address nor a network", "Write 10.0.0.0/8 or fd00::/8"
                )
        found.append(Restriction(where, tuple(source for source in sources if is_network(source))))
    _once(read, [one.path for one in found], path)
    return tuple(found)


def _entries(read: Reader, raw: Any, path: str, keys: tuple[str, ...], example: str) -> list[tuple[str, dict[str, Any]]]:
    if raw is None:
        return []
    if not isinstance(raw, list):
        read.fail(path, f"must be a list, but is {kind(raw)}", f"Write it as [{example}]")
        return []
    return [(f"{path}[{index}]", read.mapping(one, f"{path}[{index}]", keys)) for index, one in enumerate(raw)]


def _once(read: Reader, paths: list[str], key: str) -> None:
    for path in sorted({path for path in paths if path and paths.count(path) > 1}):
        read.fail(key, f"names {path} twice", "Keep one of them")
