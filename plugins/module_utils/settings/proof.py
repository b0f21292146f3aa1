# SPDX-License-Identifier: GPL-3.0-or-later
"""The option of modules that read effective values back, and how they end with what they saw."""

from __future__ import annotations

from typing import Any

from .readback import Seen

KINDS = ["sysctl", "limit", "unit", "listen", "command", "file", "http", "reach", "redis", "sandbox"]
TEXTS: tuple[str, ...] = (
    "key",
    "value",
    "unit",
    "process",
    "address",
    "what",
    "equals",
    "matches",
    "remedy",
    "mode",
    "owner",
    "group",
)
TEXTS += ("url", "host", "connect", "children", "user")
CHECK: dict[str, Any] = {
    "kind": {"type": "str", "required": True, "choices": KINDS},
    "name": {"type": "str", "choices": ["nofile", "nproc", "core", "memlock"]},
    "live": {"type": "str", "choices": ["auto", "true", "false"], "default": "true"},
    "optional": {"type": "bool", "default": False},
    "at_least": {"type": "bool", "default": True},
    "properties": {"type": "dict"},
    "headers": {"type": "dict"},
    "table": {"type": "dict"},
    "input": {"type": "str", "no_log": True},
    "port": {"type": "int"},
    "rc": {"type": "int", "default": 0},
    "status": {"type": "int", "default": 200},
    "timeout": {"type": "float", "default": 10},
    "argv": {"type": "list", "elements": "str"},
    "only": {"type": "bool", "default": False},
    "closed": {"type": "bool", "default": False},
    "insecure": {"type": "bool", "default": False},
    "path": {"type": "path"},
    "ca": {"type": "path"},
    "socket": {"type": "path"},
    "password_file": {"type": "path", "no_log": False},
    "tls": {"type": "bool", "default": False},
    "config": {"type": "dict"},
    "acl": {"type": "dict"},
    "certificate": {"type": "path"},
    "connections": {"type": "int", "default": 1},
    "refused": {"type": "bool", "default": False},
    **dict.fromkeys(TEXTS, {"type": "str"}),
}
NEEDS = [
    ("kind", "sysctl", ["key", "value"]),
    ("kind", "limit", ["name", "value"]),
    ("kind", "unit", ["unit", "properties"]),
    ("kind", "listen", ["port"]),
    ("kind", "command", ["argv"]),
    ("kind", "file", ["path"]),
    ("kind", "http", ["url"]),
    ("kind", "reach", ["address", "port"]),
    ("kind", "redis", ["what"]),
    ("kind", "sandbox", ["unit"]),
]
OPTION: dict[str, Any] = {"type": "list", "elements": "dict", "default": [], "options": CHECK, "required_if": NEEDS}
"""Argument specification of a list of checks."""


def given(checks: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The checks of a parameter as the library takes them: without what was not given."""
    return tuple({key: value for key, value in check.items() if value is not None} for check in checks)


def end(module: Any, name: str, seen: Seen, result: dict[str, Any]) -> None:
    """End the module with `result`; as failed when something is not effective, in check mode with warnings."""
    for line in seen.pending:
        module.warn(f"{name}: {line}")
    result = {**result, "mismatches": list(seen.mismatches), "pending": list(seen.pending)}
    if seen.mismatches and not module.check_mode:
        module.fail_json(msg=f"{name}: {seen}", **result)
    for line in seen.mismatches:
        module.warn(f"{name}: not effective yet: {line}")
    module.exit_json(**result)
