# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a hardened host as a playbook of stock modules that loop, as many roles do: one setting, one module run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATE = "/var/lib/slipway/"
OWNED = f"{STATE}files"
"""Where the collection keeps which files it owns; what else is there is its memory, no setting."""
SYSCTL, LIMITS, SSHD = "/etc/sysctl.d/", "/etc/security/limits.d/", "/etc/ssh/sshd_config.d/"


@dataclass(frozen=True)
class Owned:
    """Files, directories and links that the roles made, with the text of files."""

    entries: Mapping[str, Mapping[str, str]]
    texts: Mapping[str, str]


def tasks(owned: Owned, rules: Sequence[Mapping[str, Any]], packages: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Tasks that make the same; files to copy are written into `folder` first."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = [
        _task("Install packages", "ansible.builtin.apt", {"name": list(packages)}, None),
        _task("Make directories", "ansible.builtin.file", {"state": "directory", **_owner("path")}, _of(owned, "directory")),
        _task("Copy files", "ansible.builtin.copy", {"src": "{{ item.src }}", **_owner("dest")}, _copies(owned, folder)),
        _task("Make links", "ansible.builtin.file", LINK, _links(owned)),
        _task("Set kernel settings", "ansible.posix.sysctl", KEY, _keys(owned)),
        _task("Set limits", "community.general.pam_limits", LIMIT, _limits(owned)),
        _task("Configure sshd", "ansible.builtin.lineinfile", {**LINE, "validate": "sshd -t -f %s"}, _lines(owned), ["sshd"]),
        _task("Allow what is declared", "community.general.ufw", RULE, list(rules)),
        _task("Set policies", "community.general.ufw", POLICY, [["deny", "incoming"], ["allow", "outgoing"], ["deny", "routed"]]),
        _task("Switch the firewall on", "community.general.ufw", {"state": "enabled", "logging": "low"}, None),
        _task("Start services", "ansible.builtin.systemd_service", UNIT, ["ufw.service", "ssh.service", *TIMERS]),
    ]
    return [task for task in found if task.get("loop") != []]


RULE = {key: f"{{{{ item.{key} | default(omit) }}}}" for key in ("rule", "port", "proto", "from_ip")}
LINK = {"state": "link", "path": "{{ item.path }}", "src": "{{ item.target }}"}
KEY = {"name": "{{ item.name }}", "value": "{{ item.value }}", "sysctl_file": "{{ item.file }}", "sysctl_set": True}
LIMIT = {"domain": "{{ item.0 }}", "limit_type": "{{ item.1 }}", "limit_item": "{{ item.2 }}", "value": "{{ item.3 }}"}
LINE = {"path": "{{ item.path }}", "regexp": "{{ item.regexp }}", "line": "{{ item.line }}", "create": True}
POLICY = {"default": "{{ item.0 }}", "direction": "{{ item.1 }}"}
UNIT = {"name": "{{ item }}", "enabled": True, "state": "started"}
TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")
HANDLER = {"name": "sshd", "ansible.builtin.systemd_service": {"name": "ssh.service", "state": "reloaded"}}


def _owner(place: str) -> dict[str, str]:
    return {place: "{{ item.path }}", **{key: f"{{{{ item.{key} }}}}" for key in ("owner", "group", "mode")}}


def _task(name: str, module: str, options: Any, loop: list[Any] | None, notify: list[str] | None = None) -> dict[str, Any]:
    task: dict[str, Any] = {"name": name, module: options}
    if loop is not None:
        task["loop"] = loop
    return {**task, "notify": notify} if notify else task


def _of(owned: Owned, kind: str) -> list[dict[str, str]]:
    rows = [(path, entry) for path, entry in sorted(owned.entries.items()) if entry["kind"] == kind]
    return [{"path": path, **{key: entry[key] for key in ("owner", "group", "mode")}} for path, entry in rows]


def _special(path: str) -> bool:
    return path.startswith((SYSCTL, LIMITS, SSHD))


def _copies(owned: Owned, folder: Path) -> list[dict[str, str]]:
    found = []
    for number, row in enumerate(row for row in _of(owned, "file") if not _special(row["path"])):
        place = folder / str(number)
        place.write_text(owned.texts[row["path"]])
        found.append({**row, "src": str(place)})
    return found


def _links(owned: Owned) -> list[dict[str, str]]:
    rows = sorted(owned.entries.items())
    return [{"path": path, "target": entry["target"]} for path, entry in rows if entry["kind"] == "link"]


def _words(owned: Owned, prefix: str) -> list[tuple[str, str]]:
    rows = [
        (path, line.strip())
        for path, text in sorted(owned.texts.items())
        if path.startswith(prefix)
        for line in text.splitlines()
    ]
    return [(path, line) for path, line in rows if line and not line.startswith(("#", ";"))]


def _keys(owned: Owned) -> list[dict[str, str]]:
    pairs = [(path, *line.partition("=")[::2]) for path, line in _words(owned, SYSCTL)]
    return [{"file": path, "name": name.strip().lstrip("-"), "value": value.strip()} for path, name, value in pairs]


def _limits(owned: Owned) -> list[list[str]]:
    return [line.split() for _path, line in _words(owned, LIMITS) if len(line.split()) == 4]


def _lines(owned: Owned) -> list[dict[str, str]]:
    words = _words(owned, SSHD)
    keywords = [line.split(" ")[0] for _path, line in words]
    # A keyword with several lines would have each of them replace the one before.
    patterns = [f"^{key} " if keywords.count(key) == 1 else f"^{re.escape(line)}$" for key, (_path, line) in zip(keywords, words)]
    return [{"path": path, "line": line, "regexp": pattern} for (path, line), pattern in zip(words, patterns)]


def read(records: Mapping[str, str], texts: Mapping[str, str]) -> Owned:
    """From the records of the host (by name) and the text of its files."""
    entries: dict[str, Mapping[str, str]] = {}
    for name, record in sorted(records.items()):
        if name != "ufw.json":  # the firewall is made by its module
            entries.update({path: entry for path, entry in json.loads(record).items() if not path.startswith(STATE)})
    return Owned(entries, {path: text for path, text in texts.items() if path in entries})
