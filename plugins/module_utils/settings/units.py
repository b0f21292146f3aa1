# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd units from plain declarations: sandboxed by default, with their users, as parts of one transaction."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from . import sandbox
from .sandbox import Value

MARKER = "Managed by slipway.server.systemd_units"
HEADER = f"# {MARKER}; changes by hand are taken back.\n"
FOLDER = "/etc/systemd/system"
USERS = "/etc/sysusers.d"
KINDS = ("service", "timer", "socket", "path", "target")
NAME = re.compile(rf"[A-Za-z0-9:_.\\-]+@?\.({'|'.join(KINDS)})")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
LIMITS = ("nofile", "nproc", "core", "memlock")

SETTLE = 2.0
"""Seconds that a service has to stay up: a program that cannot work mostly ends within one."""

Sections = dict[str, dict[str, Value]]


class UnitError(Exception):
    """Declared units that cannot be units; the message names all of them."""


def instances_of(name: str) -> str:
    """The pattern for the instances of a template unit."""
    return name.replace("@.", "@*.")


def is_template(name: str) -> bool:
    """Whether `name` is a template, which is never started itself."""
    return "@." in name


def render(unit: Mapping[str, Any]) -> str:
    """The text of one unit file. Raises UnitError naming every wrong value."""
    problems = check(unit)
    if problems:
        raise UnitError("\n".join(problems))
    sections: Sections = {"Unit": _unit(unit)}
    kind = _kind(unit)
    if kind == "service":
        sections["Service"] = _service(unit)
    elif kind != "target":
        sections[kind.capitalize()] = {}
    sections["Install"] = {"WantedBy": _listed(unit.get("wanted_by"), _default_target(kind))}
    for title, extra in (unit.get("extra") or {}).items():
        sections.setdefault(title, {}).update(extra or {})
    return HEADER + "\n".join(filter(None, (_section(title, values) for title, values in sections.items())))


def user_file(units: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Path and text of the sysusers.d file of each user that the units ask for."""
    found: dict[str, str] = {}
    for unit in units:
        user = str(unit.get("user") or "")
        if unit.get("create_user") and user:
            text = f'{HEADER}u {user} - "{_text(unit.get("description") or user, instance="")}" {home(user)} /usr/sbin/nologin\n'
            group = str(unit.get("group") or user)
            if group != user:
                text += f"g {group} -\nm {user} {group}\n"
            found.setdefault(f"{USERS}/slipway-{user}.conf", text)
    return found


def home(user: str) -> str:
    """Home and state directory of a user made for a unit."""
    return f"/var/lib/{user}"


def transaction(units: Sequence[Mapping[str, Any]], kept: Sequence[str] = ()) -> dict[str, list[Any]]:
    """The parameters of the converge module for all units, and the checks that read them back.

    `kept`: units that are not declared any more and stay as they are.
    Raises UnitError with every problem of every unit, two units of one name included.
    """
    names = [str(unit.get("name", "")) for unit in units]
    problems = [f"{name}: declared {names.count(name)} times" for name in sorted(set(names)) if names.count(name) > 1]
    problems += [line for unit in units for line in check(unit)]
    if problems:
        raise UnitError("\n".join(problems))
    users = user_file(units)
    files = [{"path": path, "content": text, "effect": "none"} for path, text in users.items()]
    files += [{"path": f"{FOLDER}/{unit['name']}", "content": render(unit), "effect": "restart"} for unit in units]
    running = [unit for unit in units if not is_template(str(unit["name"]))]
    return {
        "files": files,
        "exclusive": [{"path": FOLDER, "pattern": f"*.{kind}", "marker": MARKER, "keep": list(kept)} for kind in KINDS]
        + [{"path": USERS, "pattern": "slipway-*.conf", "marker": MARKER}],
        "validate": [["systemd-analyze", "verify", "--recursive-errors=no", f"{FOLDER}/{name}"] for name in names],
        "apply": [["systemd-sysusers", *users]] if users else [],
        "units": [
            {
                "name": unit["name"],
                "enabled": bool(unit.get("enabled", True)),
                "state": unit.get("state") or "started",
                "follows": [f"{FOLDER}/{unit['name']}"],
                "settle": SETTLE if _stays(unit) else 0.0,
            }
            for unit in running
        ],
        "trials": [{"unit": unit["name"], "keys": keys} for unit in units if (keys := _denied(unit))],
        "checks": [entry for unit in units for entry in _checks(unit)],
    }


def _stays(unit: Mapping[str, Any]) -> bool:
    return (unit.get("state") or "started") == "started" and unit.get("type") != "oneshot"


def _checks(unit: Mapping[str, Any]) -> list[dict[str, Any]]:
    name = str(unit["name"])
    found: list[dict[str, Any]] = []
    started = _stays(unit)
    if not is_template(name):
        properties = {"LoadState": "loaded", "NeedDaemonReload": "no"}
        properties["UnitFileState"] = "enabled" if unit.get("enabled", True) else "disabled"
        if started:
            properties["ActiveState"] = "active"
        found.append({"kind": "unit", "unit": name, "properties": properties})
    else:
        argv = ["systemctl", "list-unit-files", "--plain", "--no-legend", name]
        found.append({"kind": "command", "argv": argv, "what": f"unit {name}", "matches": f"^{re.escape(name)} "})
    if _kind(unit) == "service" and (is_template(name) or started):
        found += [{"kind": "sandbox", "unit": name}] if _profile(unit) != "none" else []
        for limit, value in sorted((unit.get("limits") or {}).items()):
            soft = str(value).split(":", 1)[0].replace("infinity", "unlimited")
            found.append({"kind": "limit", "unit": name, "name": limit, "value": soft, "at_least": False})
    return found


def check(unit: Mapping[str, Any]) -> list[str]:
    """What is wrong with one declaration, a sentence each."""
    name = str(unit.get("name", ""))
    found = []
    if not NAME.fullmatch(name):
        found.append(f"{name or 'a unit without name'}: not a unit name that ends in one of .{', .'.join(KINDS)}")
        return found
    user = str(unit.get("user") or "")
    if _kind(unit) == "service" and not unit.get("command"):
        found.append(f"{name}: command is missing")
    profile = _profile(unit)
    if profile not in sandbox.APPS:
        found.append(f"{name}: hardening: {profile!r} is none of {', '.join(sandbox.APPS)}")
    if _kind(unit) == "service" and not user and profile != "none":
        found.append(f"{name}: user is missing; a sandboxed unit does not run as root (hardening: none does)")
    found += sandbox.problems(name, unit.get("capabilities") or (), unit.get("address_families") or ())
    if user and not USER.fullmatch(user):
        found.append(f"{name}: {user!r} is not a user name")
    if unit.get("create_user") and (not user or user == "root"):
        found.append(f"{name}: create_user needs a user other than root")
    for limit, value in (unit.get("limits") or {}).items():
        if limit not in LIMITS or not re.fullmatch(r"(\d+|infinity)(:(\d+|infinity))?", str(value)):
            found.append(f"{name}: limits.{limit}: {value!r} is not a number or soft:hard of {', '.join(LIMITS)}")
    for variable, value in (unit.get("environment") or {}).items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(variable)) or "\n" in str(value):
            found.append(f"{name}: environment.{variable}: not a name and a value on one line")
    lines = {key: unit.get(key) for key in ("description", "command", "working_directory", "memory_max", "kill_signal")}
    found += [f"{name}: {key}: a line break" for key, value in lines.items() if "\n" in str(value or "").strip()]
    if is_template(name) and unit.get("state") in ("started", "stopped"):
        found.append(f"{name}: state: a template has no state of its own, its instances have")
    return found


def _kind(unit: Mapping[str, Any]) -> str:
    return str(unit["name"]).rpartition(".")[2]


def _profile(unit: Mapping[str, Any]) -> str:
    return str(unit.get("hardening") or sandbox.USUAL)


def _denied(unit: Mapping[str, Any]) -> dict[str, Value]:
    """The keys of its sandbox, with what `extra` makes of them."""
    found = sandbox.app(_profile(unit), unit.get("capabilities") or (), unit.get("address_families") or ())
    loosened = (unit.get("extra") or {}).get("Service") or {}
    found = {key: loosened.get(key, value) for key, value in found.items()}
    return found if _kind(unit) == "service" else {}


def _default_target(kind: str) -> list[str]:
    return {"timer": ["timers.target"], "socket": ["sockets.target"]}.get(kind, ["multi-user.target"])


def _text(value: object, instance: Optional[str] = None) -> str:
    text = " ".join(str(value).split())
    return text if instance is None else " ".join(re.sub(r",? ?(instance )?%[iI]", instance, text).replace('"', "'").split())


def _listed(value: Optional[Sequence[Any]], default: Sequence[Any] = ()) -> list[Any]:
    return list(value) if value else list(default)


def _unit(unit: Mapping[str, Any]) -> dict[str, Value]:
    after = _listed(unit.get("after"), ["network-online.target"] if _kind(unit) == "service" else [])
    wants = _listed(unit.get("wants"), ["network-online.target"] if _kind(unit) == "service" else [])
    return {
        "Description": _text(unit.get("description") or unit["name"]),
        "After": " ".join(after) or None,
        "Wants": " ".join(wants) or None,
    }


def _service(unit: Mapping[str, Any]) -> dict[str, Value]:
    user = str(unit.get("user") or "")
    kind = str(unit.get("type") or "exec")
    oneshot = kind == "oneshot"
    values: dict[str, Value] = {
        "Type": kind,
        "ExecStart": _command(str(unit["command"])),
        "User": user or None,
        "Group": unit.get("group") or user or None,
        "WorkingDirectory": unit.get("working_directory") or None,
        "Environment": [_assignment(name, value) for name, value in sorted((unit.get("environment") or {}).items())],
        "EnvironmentFile": _listed(unit.get("environment_files")),
        "Restart": unit.get("restart") or ("no" if oneshot else "on-failure"),
        "RestartSec": None if oneshot else unit.get("restart_seconds", 1),
        "TimeoutStopSec": unit.get("stop_timeout", 30),
        "KillSignal": unit.get("kill_signal") or None,
        "KillMode": unit.get("kill_mode") or "mixed",
        # What a language run-time reports that was ended by SIGTERM.
        "SuccessExitStatus": 143,
        "MemoryMax": unit.get("memory_max") or None,
        "SyslogIdentifier": "%p-%i" if is_template(str(unit["name"])) else None,
    }
    values.update({f"Limit{name.upper()}": value for name, value in sorted((unit.get("limits") or {}).items())})
    if user and user != "root":
        values.update({"StateDirectory": user, "StateDirectoryMode": "0750"} if unit.get("create_user") else {})
    values.update({key: value for key, value in _denied(unit).items() if key not in values})
    values["ReadWritePaths"] = _listed(unit.get("read_write_paths"))
    return values


def _command(command: str) -> str:
    """The line with an absolute program; env(1) finds others through PATH, or below the working directory."""
    command = command.strip()
    return command if command.lstrip("@-:+!").startswith("/") else f"/usr/bin/env {command}"


def _assignment(name: str, value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{name}={text}"'


def _section(title: str, values: Mapping[str, Value]) -> str:
    lines = [f"{line}\n" for line in sandbox.lines(values)]
    return f"[{title}]\n" + "".join(lines) if lines else ""
