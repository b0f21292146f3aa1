# SPDX-License-Identifier: GPL-3.0-or-later
"""`health` of an app or a backend: how an instance proves itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..health.declared import ALSO, ANSWER, check_pattern
from ..health.probes import BadTarget
from . import reader as shape
from .model import Health
from .reader import Reader, closest, kind

HEALTH_KEYS = (
    "path",
    *ANSWER,
    "headers",
    "version",
    "warmup",
    "also",
    "successes",
    "interval",
    "timeout",
    "min_healthy",
    "start_period",
    "deadline",
)
MOVED = {"expect_json": "json", "expect_status": "status"}
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
HEADER = re.compile(r"[A-Za-z0-9-]+")
SOCKET = re.compile(r"/[^\0\n\r]+")
REQUEST = re.compile(r"/[A-Za-z0-9._~/%-]*(\?[A-Za-z0-9._~/%&=+-]*)?")


def parse_health(read: Reader, raw: Any, path: str, variables: Sequence[str]) -> Health:
    """The health of an app; `variables` are the names in the environment of its processes, as far as slipway writes it."""
    default = Health()
    if raw is None:
        return default
    data = read.mapping(raw, path, HEALTH_KEYS, MOVED)
    version = read.mapping(data["version"], path + ".version", ("path", "key")) if data.get("version") is not None else None
    answer = _answer(read, data, path)
    return Health(
        path=read.text(data, "path", path, shape.URL_PATH, "a path such as /health", default.path),
        method=answer.get("method", default.method),
        headers=_headers(read, data, path, "headers"),
        status=tuple(answer.get("status", default.status)),
        json=answer.get("json", default.json),
        body=answer.get("body", default.body),
        response_headers=answer.get("response_headers", default.response_headers),
        max_latency_ms=answer.get("max_latency_ms", default.max_latency_ms),
        version_path=default.version_path
        if version is None
        else read.text(version, "path", path + ".version", shape.URL_PATH, "a path such as /version", required=True),
        version_key=default.version_key
        if version is None
        else read.text(version, "key", path + ".version", shape.LINE, "the key of the answer that holds the release", "release"),
        warmup=read.words(data, "warmup", path, REQUEST, "a path such as /products?page=1"),
        also=_also(read, data, path, variables),
        successes=read.number(data, "successes", path, 1, 100, default.successes),
        interval=read.number(data, "interval", path, 1, 300, default.interval),
        timeout=read.number(data, "timeout", path, 1, 300, default.timeout),
        min_healthy=read.number(data, "min_healthy", path, 0, 3600, default.min_healthy),
        start_period=read.number(data, "start_period", path, 0, 7200, default.start_period),
        deadline=read.number(data, "deadline", path, 1, 7200, default.deadline),
    )


def _answer(read: Reader, data: Mapping[str, Any], path: str) -> dict[str, Any]:
    """What an HTTP answer must be: the keys of ANSWER that were given."""
    found: dict[str, Any] = {}
    if data.get("method") is not None:
        found["method"] = read.choice(data, "method", path, METHODS)
    if data.get("status") is not None:
        found["status"] = _codes(read, data["status"], path + ".status", "HTTP status numbers", 100, 599)
    if data.get("json") is not None:
        found["json"] = read.mapping(data["json"], path + ".json")
    if data.get("body") is not None:
        found["body"] = _pattern(read, data["body"], path + ".body")
    if data.get("response_headers") is not None:
        found["response_headers"] = _headers(read, data, path, "response_headers")
        for name, pattern in found["response_headers"].items():
            _pattern(read, pattern, f"{path}.response_headers.{name}")
    if data.get("max_latency_ms") is not None:
        found["max_latency_ms"] = read.number(data, "max_latency_ms", path, 1, 300_000)
    if found.get("method") == "HEAD" and ("json" in found or "body" in found):
        read.fail(path + ".method", "is HEAD, whose answer has no body to judge", "Use GET, or remove json and body")
    return found


def _codes(read: Reader, raw: Any, path: str, what: str, low: int, high: int) -> list[int]:
    found = raw if isinstance(raw, list) else [raw]
    if not found or any(isinstance(code, bool) or not isinstance(code, int) or not low <= code <= high for code in found):
        read.fail(path, f"must be {what}", f"Write one number or a list of numbers from {low} to {high}")
        return [200]
    return [int(code) for code in found]


def _pattern(read: Reader, raw: Any, path: str) -> Optional[str]:
    text = read.word(raw, path, shape.LINE, "a regular expression")
    try:
        check_pattern("it", text)
    except BadTarget as error:
        read.fail(path, f"cannot be used: {error}", "Write \\ before characters that are meant as they are, such as ( and [")
    return text or None


def _headers(read: Reader, data: Mapping[str, Any], path: str, name: str) -> dict[str, str]:
    """Headers by name. They are written to a file that every user of the host can read: no place for secrets."""
    values = read.mapping(data[name], f"{path}.{name}") if data.get(name) is not None else {}
    found = {}
    for header, value in values.items():
        below = f"{path}.{name}.{header}"
        if not HEADER.fullmatch(header):
            read.fail(below, "is no name of a header", "Use letters, digits and -")
        found[header] = read.word(value, below, shape.LINE, "one line of text")
    return found


def _also(read: Reader, data: Mapping[str, Any], path: str, variables: Sequence[str]) -> tuple[dict[str, Any], ...]:
    raw = data.get("also")
    if raw is None:
        return ()
    if not isinstance(raw, list):
        read.fail(path + ".also", f"must be a list, but is {kind(raw)}", "Write it as [{websocket: /ws}, {tcp: 9394}]")
        return ()
    found = (_further(read, item, f"{path}.also[{index}]", variables) for index, item in enumerate(raw))
    return tuple(one for one in found if one)


def _further(read: Reader, raw: Any, path: str, variables: Sequence[str]) -> dict[str, Any]:
    """One more proof: its kind as the first key, and what that kind may be told. Empty after a problem."""
    kinds = [name for name in raw if name in ALSO] if isinstance(raw, dict) else []
    if len(kinds) > 1:
        read.fail(path, f"has {' and '.join(kinds)}, two proofs", "Make a list entry of each")
        return {}
    if not kinds:
        before = len(read.problems)
        read.mapping(raw, path, tuple(ALSO))
        if len(read.problems) == before:
            read.fail(path, "is empty", "Say what to look at: {}".format(", ".join(ALSO)))
        return {}
    chosen = kinds[0]
    data = read.mapping(raw, path, (chosen, *ALSO[chosen], "timeout"))
    found: dict[str, Any] = {chosen: _subject(read, data, chosen, path, variables)}
    if chosen == "http":
        found.update(_answer(read, data, path))
    if data.get("exit_status") is not None:
        found["exit_status"] = _codes(read, data["exit_status"], path + ".exit_status", "exit statuses", 0, 255)
    if data.get("output") is not None:
        found["output"] = _pattern(read, data["output"], path + ".output")
    if data.get("ca") is not None:
        found["ca"] = read.text(data, "ca", path, shape.FILE_PATH, "the path of a certificate on the host")
    if data.get("timeout") is not None:
        found["timeout"] = read.number(data, "timeout", path, 1, 300)
    return found


def _subject(read: Reader, data: Mapping[str, Any], chosen: str, path: str, variables: Sequence[str]) -> Any:
    """What a proof looks at."""
    if chosen == "tcp":
        return read.number(data, "tcp", path, 1, 65535, required=True)
    if chosen == "exec":
        read.words(data, "exec", path, shape.LINE, "/usr/bin/program, argument")
        words = [word for word in data["exec"] if isinstance(word, str)] if isinstance(data["exec"], list) else []
        if not words or not words[0].startswith("/"):
            read.fail(path + ".exec", "must be a command that starts with an absolute path", "Write [/usr/bin/program, argument]")
        return words
    if chosen in ("redis", "postgresql"):
        name = read.text(
            data, chosen, path, shape.ENV_NAME, "the variable that holds the address, such as REDIS_URL", required=True
        )
        if name and name not in variables:
            guess = closest(name, variables)
            remedy = f"Did you mean `{guess}`?" if guess else "Add it to env or secrets of the app"
            read.fail(f"{path}.{chosen}", f"names `{name}`, which is not in the app's environment", remedy)
        return name
    pattern, hint = {
        "http": (REQUEST, "a path such as /ready"),
        "websocket": (REQUEST, "a path such as /ws"),
        "unix": (SOCKET, "the path of a socket"),
        "unit": (shape.UNIT, "the name of a service such as helper.service"),
        "container": (shape.HOST_NAME, "the name of a container"),
    }[chosen]
    return read.text(data, chosen, path, pattern, hint, required=True)
