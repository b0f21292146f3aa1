# SPDX-License-Identifier: GPL-3.0-or-later
"""How an application proves itself, as its description on the host says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Optional

from ..health.declared import ALSO, check_pattern
from ..health.gate import GateRules
from ..health.http import Expectation
from ..health.probes import BadTarget
from .reader import Reader


@dataclass(frozen=True)
class VersionCheck:
    """Where the application tells its release: JSON path `key` in the answer to `path`."""

    path: str
    key: str


@dataclass(frozen=True)
class Further:
    """One more thing that every instance must pass.

    `target` is a path for http and websocket, a port for tcp, a socket for unix, a name for unit and container, and for
    redis and postgresql the variable of the application's environment that holds the address. `timeout` of None is the gate's.
    """

    kind: str
    target: str = ""
    command: tuple[str, ...] = ()
    method: str = "GET"
    expected: Expectation = field(default_factory=Expectation)
    exit_status: tuple[int, ...] = (0,)
    output: Optional[str] = None
    ca: Optional[str] = None
    timeout: Optional[float] = None


@dataclass(frozen=True)
class Gate:
    """How the application proves itself; times in seconds.

    `warmup` are paths that are asked for once before the counting begins. `env_file` holds the environment of its processes.
    """

    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    expected: Expectation = field(default_factory=Expectation)
    rules: GateRules = field(default_factory=GateRules)
    timeout: float = 5.0
    version: Optional[VersionCheck] = None
    method: str = "GET"
    warmup: tuple[str, ...] = ()
    also: tuple[Further, ...] = ()
    env_file: Optional[str] = None


def parse_gate(read: Reader, base: Gate) -> Gate:
    """The gate that `read` holds, with the values of `base` for what it does not say; raises SlipwayError."""
    _path(read, "path")
    old = base.rules
    rules = GateRules(
        read.count("successes", old.successes, 1),
        read.seconds("interval", old.interval, 0.05),
        read.seconds("min_healthy", old.min_healthy),
        read.seconds("deadline", old.deadline, 1),
        read.seconds("start_period", old.start_period),
    )
    if rules.min_healthy >= rules.deadline:
        raise read.fail("deadline", f"more than min_healthy, which is {rules.min_healthy:g} s")
    version = base.version
    if read.has("version"):
        inner = read.inner("version", read.values["version"])
        version = VersionCheck(inner.text("path"), inner.text("key"))
    elif "version" in read.values:
        version = None
    return Gate(
        read.text("path", base.path),
        _texts(read, "headers") if read.has("headers") else base.headers,
        _expected(read, base.expected),
        rules,
        read.seconds("timeout", base.timeout, 0.05),
        version,
        read.text("method", base.method),
        read.texts("warmup") if read.has("warmup") else base.warmup,
        _also(read) if read.has("also") else base.also,
        base.env_file,
    )


def _path(read: Reader, key: str) -> None:
    if read.has(key) and not read.text(key).startswith("/"):
        raise read.fail(key, "a path that begins with /")


def _texts(read: Reader, key: str) -> dict[str, str]:
    values = read.mapping(key)
    if not all(isinstance(value, str) for value in values.values()):
        raise read.fail(key, "an object of strings")
    return {name: str(value) for name, value in values.items()}


def _codes(read: Reader, key: str, base: tuple[int, ...], what: str) -> tuple[int, ...]:
    codes = read.values.get(key, list(base))
    if isinstance(codes, int) and not isinstance(codes, bool):
        codes = [codes]
    if not isinstance(codes, list) or not codes or not all(type(code) is int for code in codes):
        raise read.fail(key, f"a list of {what}")
    return tuple(codes)


def _expected(read: Reader, base: Expectation) -> Expectation:
    headers = _texts(read, "response_headers") if read.has("response_headers") else base.headers
    for name, pattern in headers.items():
        _pattern(read, "response_headers", pattern, name)
    return replace(
        base,
        status=_codes(read, "status", base.status, "HTTP status codes"),
        json=read.mapping("json") if "json" in read.values else base.json,
        body=_pattern(read, "body", read.maybe_text("body")) if "body" in read.values else base.body,
        headers=headers,
        max_latency_ms=read.seconds("max_latency_ms", 0.0) if read.has("max_latency_ms") else base.max_latency_ms,
    )


def _pattern(read: Reader, key: str, pattern: Optional[str], name: str = "") -> Optional[str]:
    try:
        check_pattern(name or key, pattern)
    except BadTarget as error:
        raise read.fail(key, f"a regular expression ({error})") from error
    return pattern


def _also(read: Reader) -> tuple[Further, ...]:
    values = read.values["also"]
    if not isinstance(values, list):
        raise read.fail("also", "a list")
    return tuple(_further(read.inner(f"also[{index}]", value)) for index, value in enumerate(values))


def _further(read: Reader) -> Further:
    """One of a kind that this version does not know is kept, so that only what must pass it fails, not a rollback."""
    kind = next((name for name in ALSO if name in read.values), "")
    if not kind:
        return Further(", ".join(sorted(read.values)))
    timeout = read.seconds("timeout", 0.0, 0.05) if read.has("timeout") else None
    if kind == "exec":
        command = read.texts("exec")
        if not command:
            raise read.fail("exec", "a command, a list of words")
        status = _codes(read, "exit_status", (0,), "exit statuses")
        output = _pattern(read, "output", read.maybe_text("output"))
        return Further(kind, "", command, exit_status=status, output=output, timeout=timeout)
    if kind == "tcp":
        return Further(kind, str(read.count("tcp", 0, 1, 65535)), timeout=timeout)
    if kind in ("http", "websocket"):
        _path(read, kind)
    expected = _expected(read, Expectation())
    method = read.text("method", "GET")
    return Further(kind, read.text(kind), (), method, expected, ca=read.maybe_text("ca"), timeout=timeout)
