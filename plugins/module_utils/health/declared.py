# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes as people declare them: by the parameters of the module, and as the further proofs in an application's entry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ..host.runner import Runner
from . import probes
from .http import Expectation, HttpProbe
from .model import Probe
from .probes import BadTarget, ProbeOptions

RULES = ("successes", "interval", "min_healthy", "deadline", "start_period")
"""Fields of GateRules, in their order."""
ANSWER = ("method", "status", "json", "body", "response_headers", "max_latency_ms")
ALSO: dict[str, tuple[str, ...]] = {
    "http": ANSWER,
    "websocket": (),
    "tcp": (),
    "unix": (),
    "exec": ("exit_status", "output"),
    "unit": (),
    "container": (),
    "redis": ("ca",),
    "postgresql": (),
}
"""Kinds of further proofs of an application, and what each may be told beyond `timeout`."""
OWN_PORT = ("http", "websocket")
"""Kinds that ask the instance's own port, and so can be looked at from an edge, too. All others only from its host."""


def of_module(given: Mapping[str, Any], runner: Runner) -> tuple[Probe, list[Probe]]:
    """The probe that the module's parameters describe, and the warm-up requests; raises BadTarget."""
    for name, pattern in [*given["response_headers"].items(), ("body", given["body"]), ("output", given["output"])]:
        check_pattern(name, pattern)
    target = given["target"] or ""
    if given["type"] in ("redis", "postgresql") and _password(target):
        raise BadTarget("`target` holds a password: give it as `password`, which is never shown")
    answers = {name: str(value) for name, value in given["response_headers"].items()}
    options = ProbeOptions(
        Expectation(tuple(given["status"]), given["json"], given["body"], answers, given["max_latency_ms"]),
        {name: str(value) for name, value in given["headers"].items()},
        given["timeout"],
        given["path"],
        given["method"],
        given["connect"],
        given["validate_certs"],
        given["ca_path"],
        given["redirects"],
        given["password"] or "",
        tuple(given["command"] or ()),
        tuple(given["exit_status"]),
        given["output"],
        runner,
    )
    probe = probes.make(given["type"], target, options)
    return probe, [_warmup(probe, text, options) for text in given["warmup"]]


def _password(target: str) -> bool:
    try:
        return urlsplit(target).password is not None
    except ValueError:
        return False


def _warmup(probe: Probe, text: str, options: ProbeOptions) -> Probe:
    if not isinstance(probe, HttpProbe):
        raise BadTarget("`warmup` belongs to the types http and unix_http")
    options = replace(options, expected=ANY, method="GET")
    if not text.startswith("/"):
        return probes.make("http", text, options)
    return warm(probe, text)


ANY = Expectation(status=())
"""Whatever comes, as long as it is HTTP."""


def warm(probe: HttpProbe, path: str) -> HttpProbe:
    """A request for `path` on the site of `probe` whose answer is not judged."""
    return replace(probe, target=replace(probe.target, path=path, method="GET"), expected=ANY)


def check_pattern(name: str, pattern: object) -> None:
    """Raises BadTarget when the regular expression `pattern` is none; `name` says what it is for."""
    try:
        re.compile(str(pattern or ""))
    except re.error as error:
        raise BadTarget(f"{name}: {pattern!r} is not a regular expression ({error})") from error
