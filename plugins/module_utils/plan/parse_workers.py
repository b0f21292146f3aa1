# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers of an app, those that slipway starts and those that somebody else installed, and where things are placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from . import reader as shape
from .model import GREEN_OFFSET, Backend, Worker
from .reader import Reader, closest, megabytes

WORKER_KEYS = (
    "command",
    "backend",
    "hosts",
    "replicas",
    "threads",
    "singleton",
    "quiet_signal",
    "stop_signal",
    "stop_timeout",
    "min_healthy",
    "memory",
)
EXTERNAL_KEYS = ("unit", "hosts", "quiet", "quiet_signal", "singleton", "threads", "stop_timeout", "min_healthy")
MOVED = {"processes": "replicas", "concurrency": "threads"}
SIGNALS = ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "TSTP", "WINCH")


class Hosts:
    """The hosts an app may be placed on, and how to name them."""

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        """`groups` is Ansible's: group name to host names."""
        self.groups = groups
        self.all = tuple(groups.get("all", ())) or tuple(dict.fromkeys(host for members in groups.values() for host in members))

    def group(self, name: str) -> tuple[str, ...]:
        """Members of a group."""
        return tuple(self.groups.get(name, ()))

    def missing_group(self, name: str) -> str:
        """What to do when a group is needed and empty."""
        guess = closest(name, [group for group in self.groups if group not in ("all", "ungrouped", name)])
        return "Put a host into the group `{}`{}".format(name, f"; did you mean `{guess}` by it?" if guess else "")


def placed(
    read: Reader, data: Mapping[str, Any], path: str, hosts: Hosts, groups: Sequence[str], default: tuple[str, ...]
) -> tuple[str, ...]:
    """The hosts that `hosts` names, a group's name standing for its members; each must be in one of `groups`."""
    if data.get("hosts") is None:
        return default
    members = {host for group in groups for host in hosts.group(group)}
    wanted = " or ".join(f"`{group}`" for group in groups)
    found: list[str] = []
    for index, word in enumerate(read.words(data, "hosts", path, shape.HOST_NAME, "a host of the inventory")):
        where = f"{path}.hosts[{index}]"
        if word not in hosts.all and word in hosts.groups:
            found.extend(hosts.group(word))
        elif word not in hosts.all:
            guess = closest(word, [*hosts.all, *hosts.groups])
            read.fail(
                where,
                f"names `{word}`, which the inventory does not know",
                f"Did you mean `{guess}`?" if guess else "Add the host, or name one of: {}".format(", ".join(hosts.all[:10])),
            )
        elif word not in members:
            read.fail(where, f"names `{word}`, which is not in the group {wanted}", f"Add it to the group {wanted}")
        else:
            found.append(word)
    return tuple(dict.fromkeys(found))


def managed_workers(
    read: Reader, data: Mapping[str, Any], key: str, hosts: Hosts, backends: Sequence[Backend]
) -> tuple[Worker, ...]:
    """Workers that slipway runs, each beside the web instances of its slot or on hosts of the group `worker`."""
    path = key + ".workers"
    raw = data.get("workers")
    if raw is None:
        return ()
    entries = read.mapping(raw, path)
    managed = [backend for backend in backends if backend.managed]
    if entries and backends and not managed:
        read.fail(path, "need a managed backend, whose release they run", "Move them to the backend whose `unit` they belong to")
    found = tuple(_managed(read, name, entry, f"{path}.{name}", hosts, backends) for name, entry in entries.items() if managed)
    if any(worker.singleton for worker in found):
        for backend in backends:
            if backend.unit and backend.workers is None:
                read.fail(
                    f"{key}.backends.{backend.name}.workers",
                    "is missing, but the app has a singleton, which must never run on both sides",
                    "Name its unit there: workers: {scheduler: {unit: …, singleton: true}}, or write workers: {}",
                )
    return found


def _managed(read: Reader, name: str, raw: Any, path: str, hosts: Hosts, backends: Sequence[Backend]) -> Worker:
    entry = read.mapping(raw, path, WORKER_KEYS, MOVED)
    _named(read, name, path)
    managed = [backend for backend in backends if backend.managed]
    backend = read.text(entry, "backend", path, shape.APP_NAME, "the name of a managed backend")
    own = [one for one in managed if one.name == backend]
    if backend and not own:
        guess = closest(backend, [one.name for one in managed])
        read.fail(
            path + ".backend",
            f"names `{backend}`, which is no managed backend",
            f"Did you mean `{guess}`?" if guess else "Name one of: {}".format(", ".join(one.name for one in managed)),
        )
    beside = tuple(dict.fromkeys(host for one in own or managed for host in one.hosts))
    default = beside if backend else hosts.group("worker") or beside
    at = placed(read, entry, path, hosts, ("worker", "app"), default)
    command = read.text(entry, "command", path, shape.LINE, "one command line, e.g. bundle exec sidekiq", required=True)
    units = [one.name for one in own or managed if one.runtime == "systemd"]
    if command and units and not command.startswith("/"):
        read.fail(
            path + ".command", "must start with an absolute path", "systemd does not search PATH reliably: write /usr/bin/…"
        )
    return Worker(
        name=name,
        hosts=_elected(read, entry, path, at),
        command=command,
        backend=backend if own else "",
        replicas=_replicas(read, entry, path),
        threads=read.number(entry, "threads", path, 1, 512, 5),
        singleton=read.flag(entry, "singleton", path, False),
        quiet_signal=_signal(read, entry, "quiet_signal", path),
        stop_signal=_signal(read, entry, "stop_signal", path) or "TERM",
        stop_timeout=read.number(entry, "stop_timeout", path, 1, 3600, 60),
        min_healthy=read.number(entry, "min_healthy", path, 0, 3600, 5),
        memory_mb=megabytes(read.text(entry, "memory", path, shape.SIZE, "a size such as 512M")),
    )


def _named(read: Reader, name: str, path: str) -> None:
    if not shape.APP_NAME.fullmatch(name):
        read.fail(path, "is not a usable worker name", "Use at most 31 lower-case letters, digits and dashes, a letter first")


def _elected(read: Reader, entry: Mapping[str, Any], path: str, at: tuple[str, ...]) -> tuple[str, ...]:
    """A singleton lives on the first of its hosts."""
    return at[:1] if read.flag(entry, "singleton", path, False) else at


def _replicas(read: Reader, entry: Mapping[str, Any], path: str) -> int:
    replicas = read.number(entry, "replicas", path, 1, GREEN_OFFSET, 1)
    if replicas > 1 and read.flag(entry, "singleton", path, False):
        read.fail(path + ".replicas", "must be 1 for a singleton", "Remove it, or singleton: true")
    return replicas


def _signal(read: Reader, entry: Mapping[str, Any], name: str, path: str) -> str:
    return read.choice(entry, name, path, SIGNALS) if entry.get(name) is not None else ""


def external_workers(
    read: Reader, data: Mapping[str, Any], path: str, hosts: Hosts, at: tuple[str, ...], external: bool
) -> Optional[tuple[Worker, ...]]:
    """Workers that somebody else installed beside an existing unit; None when nothing is said about them."""
    raw = data.get("workers")
    if raw is None:
        return None
    below = path + ".workers"
    if not external:
        read.fail(below, "belongs to the app, because its managed backends share their slots", "Move it up to the app")
        return ()
    return tuple(_external(read, name, entry, f"{below}.{name}", hosts, at) for name, entry in read.mapping(raw, below).items())


def _external(read: Reader, name: str, raw: Any, path: str, hosts: Hosts, at: tuple[str, ...]) -> Worker:
    entry = read.mapping(raw, path, EXTERNAL_KEYS)
    _named(read, name, path)
    unit = read.text(
        entry, "unit", path, shape.WORKER_UNIT, "the name of an existing service or timer such as queue.service", required=True
    )
    quiet = read.text(entry, "quiet", path, shape.LINE, "one command line with an absolute path")
    if quiet and not quiet.startswith("/"):
        read.fail(path + ".quiet", "must start with an absolute path", "It is run without a shell: write /usr/bin/…")
    if quiet and entry.get("quiet_signal") is not None:
        read.fail(path + ".quiet_signal", "does the same as quiet", "Keep one of the two")
    return Worker(
        name=name,
        hosts=_elected(read, entry, path, placed(read, entry, path, hosts, ("app", "worker"), at)),
        unit=unit,
        quiet=quiet,
        quiet_signal=_signal(read, entry, "quiet_signal", path),
        threads=read.number(entry, "threads", path, 1, 512, 1),
        singleton=read.flag(entry, "singleton", path, False),
        stop_timeout=read.number(entry, "stop_timeout", path, 1, 3600, 60),
        min_healthy=read.number(entry, "min_healthy", path, 0, 3600, 2),
    )
