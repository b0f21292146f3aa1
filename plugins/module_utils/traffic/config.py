# SPDX-License-Identifier: GPL-3.0-or-later
"""The description of one application on one host: /etc/slipway/apps/<app>.json, schema 1.

Keys that this version does not know are left alone: a rollback must not fail because a newer role wrote the file.
Everything that is known is checked, and an error names file, key, value and what is wanted.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Optional

from ..health.limits import Limits
from ..health.probes import BadTarget, split_address
from .disk import Disk
from .errors import SlipwayError
from .flags import SHARE
from .gate import Gate, parse_gate
from .layout import Layout
from .limits import parse_limits
from .reader import Reader

SCHEMA = 1
NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
KINDS = ("docker", "systemd")
IDLE_MARGIN = 1.0
ABORTABLE = ("planned", "staged", "healthy", "gated", "canary", "switched", "baking")
HOOK_STATES = (*ABORTABLE, "confirmed", "draining", "retired", "rolling_back", "rolled_back", "failed")
FAILURES = ("abort", "warn")


@dataclass(frozen=True)
class Instance:
    """One process of a slot on this host; `number` counts from 1 within the slot."""

    name: str
    address: str
    port: int
    number: int


@dataclass(frozen=True)
class Slot:
    """One of the places traffic can go to. `members` as the edge reaches them, ADDRESS:PORT.

    `held`: it runs where an earlier inventory wanted it, and stays there until it has stopped.
    """

    name: str
    managed: bool
    members: tuple[str, ...]
    instances: tuple[Instance, ...]
    gate: Gate
    unit: Optional[str] = None
    held: bool = False


@dataclass(frozen=True)
class Runtime:
    """How this host runs managed slots; `stop_timeout` in seconds, `env_file` readable by root only."""

    kind: str
    env_file: Optional[str] = None
    user: Optional[str] = None
    container_port: int = 0
    read_only: bool = True
    memory: Optional[str] = None
    command: Optional[str] = None
    stop_timeout: int = 30
    unit: str = ""
    root: str = ""
    pids: int = 512
    tmpfs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Canary:
    """Steps in percent of the traffic; seconds that each lasts at least, and at most while there is no verdict.

    `synthetic`: paths that may be asked for when there is too little traffic to judge.
    """

    steps: tuple[int, ...] = ()
    dwell: float = 30.0
    patience: float = 120.0
    synthetic: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backup:
    """What proves a backup: a record on this host, or a command that prints one; it must be younger than `max_age` seconds."""

    file: str = ""
    command: Optional[str] = None
    max_age: float = 3600.0


@dataclass(frozen=True)
class Migrations:
    """How a release changes its database, on `host` only; commands without a shell, times in seconds.

    `env_file` comes after the environment of the runtime; it leads past the pooler to the database itself (`direct`).
    """

    host: str
    check: str
    apply: str
    timeout: float = 600.0
    lock_timeout: float = 5.0
    direct: bool = False
    env_file: Optional[str] = None
    backup: Backup = field(default_factory=Backup)


@dataclass(frozen=True)
class Hook:
    """A shell command at a state of a transaction; `timeout` in seconds, `on_failure` abort (where that can be) or warn."""

    command: str
    on_failure: str = "warn"
    timeout: float = 60.0
    user: str = "root"


@dataclass(frozen=True)
class Notify:
    """Who is told of the end of a transaction; `url_file` (root only) holds the address, `timeout` in seconds."""

    command: Optional[str] = None
    url_file: Optional[str] = None
    timeout: float = 5.0


@dataclass(frozen=True)
class DrainLimits:
    """How a slot is drained, in seconds from its beginning; `keepalive` is how long nginx keeps an idle connection."""

    http: float = 30.0
    websockets: float = 300.0
    pace: float = 60.0
    keepalive: float = 4.0

    @property
    def end(self) -> float:
        """When the last instance is told to stop, whoever is connected."""
        return max(self.http, self.websockets)

    @property
    def idle(self) -> float:
        """From when on no connection is one that nginx merely keeps."""
        return min(self.keepalive + IDLE_MARGIN, self.http)

    def due(self, index: int, count: int) -> float:
        """When instance `index` of `count` is told to stop: evenly spread over the pace, the last one at the end."""
        spread = min(self.pace, self.end - self.http)
        return self.end - (count - 1 - index) * spread / count


@dataclass(frozen=True)
class Worker:
    """Processes of one slot that take no requests. `instances` are units or containers of this host, `at` the hosts they run on.

    `unit`: somebody else's service or timer, with a command (`quiet`) that lets it take no new jobs. Times in seconds.
    """

    name: str
    slot: str
    singleton: bool = False
    at: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    unit: Optional[str] = None
    quiet: Optional[str] = None
    quiet_signal: Optional[str] = None
    stop_signal: str = "TERM"
    stop_timeout: int = 60
    min_healthy: float = 5.0
    environment: Mapping[str, str] = field(default_factory=dict)
    runtime: Optional[Runtime] = None


@dataclass(frozen=True)
class App:
    """One application on one host; times in seconds."""

    name: str
    domain: str
    edge: bool
    host: str
    default_slot: str
    slot_order: tuple[str, ...]
    slots: Mapping[str, Slot]
    runtime: Optional[Runtime]
    bake: float
    standby: float
    confirm_deadline: float
    canary: Canary = field(default_factory=Canary)
    failover: bool = True
    migrations: Optional[Migrations] = None
    hooks: Mapping[str, tuple[Hook, ...]] = field(default_factory=dict)
    notify: Optional[Notify] = None
    verdict: Limits = field(default_factory=Limits)
    drain: DrainLimits = field(default_factory=DrainLimits)
    workers: tuple[Worker, ...] = ()

    @property
    def one_step(self) -> float:
        """Seconds that one step of a drain may hold the lock: the stop of an instance is the longest."""
        return 10.0 + (self.runtime.stop_timeout if self.runtime is not None else 0)

    def members(self) -> dict[str, str]:
        """The slot of each ADDRESS:PORT that the edge sends requests to."""
        return {member: slot.name for slot in self.slots.values() for member in slot.members}

    def slot(self, name: str) -> Slot:
        """The slot of that name; raises SlipwayError that lists the slots there are."""
        if name not in self.slots:
            raise SlipwayError(f"{self.name} has no slot {name!r} on {self.host}. Slots: {', '.join(self.slot_order)}.")
        return self.slots[name]


def parse(text: str, file: str) -> App:
    """The application that `text` describes; raises SlipwayError."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SlipwayError(f"{file} is not JSON: {error}. Run site.yml: the role app writes this file.") from error
    if not isinstance(document, dict):
        raise SlipwayError(f"{file} must hold a JSON object. Run site.yml: the role app writes this file.")
    read = Reader(document, "", file)
    schema = read.count("schema", 0)
    if schema > SCHEMA:
        raise SlipwayError(
            f"{file} has schema {schema}, but this version of slipway reads up to {SCHEMA}. "
            "Install the newer command: run site.yml with --tags app."
        )
    if schema < 1:
        raise read.fail("schema", str(SCHEMA))
    name = read.text("app")
    if not NAME.fullmatch(name):
        raise read.fail("app", "a name of lower-case letters, digits, - and _")
    runtime = _runtime(read.inner("runtime", read.mapping("runtime"))) if read.has("runtime") else None
    gate = parse_gate(read.inner("gate", read.mapping("gate")), Gate(env_file=runtime.env_file if runtime else None))
    slots = {key: _slot(read.inner(f"slots.{key}", value), key, gate) for key, value in read.mapping("slots").items()}
    order = read.texts("slot_order")
    if len(order) < 2 or len(set(order)) != len(order) or set(order) != set(slots):
        raise read.fail("slot_order", f"each slot once, and two or more of them ({', '.join(slots) or 'no slots'})")
    default = read.text("default_slot", order[0])
    if default != order[0]:
        raise read.fail("default_slot", f"the first of slot_order, {order[0]}")
    app = App(
        name,
        read.text("domain"),
        read.yes("edge", False),
        read.text("host", "this host"),
        default,
        order,
        slots,
        runtime,
        read.seconds("bake", 10),
        read.seconds("standby", 900),
        read.seconds("confirm_deadline", 120, 1),
        _canary(read.inner("canary", read.mapping("canary"))),
        read.yes("failover", True),
        migrations=_migrations(read.inner("migrations", read.mapping("migrations"))) if read.has("migrations") else None,
        hooks=_hooks(read.inner("hooks", read.mapping("hooks"))),
        notify=_notify(read.inner("notify", read.mapping("notify"))) if read.has("notify") else None,
        verdict=parse_limits(read.inner("verdict", read.mapping("verdict"))),
        drain=_drain(read.inner("drain", read.mapping("drain"))),
        workers=_workers(read, slots),
    )
    if app.confirm_deadline < app.bake + 5:
        raise read.fail("confirm_deadline", f"at least 5 s more than bake, which is {app.bake:g} s")
    return app


def _drain(read: Reader) -> DrainLimits:
    usual = DrainLimits()
    return DrainLimits(*(read.seconds(item.name, getattr(usual, item.name)) for item in fields(DrainLimits)))


def _canary(read: Reader) -> Canary:
    steps = read.values.get("steps") or []
    if not isinstance(steps, list) or any(type(step) is not int or step % SHARE or not 0 < step < 100 for step in steps):
        raise read.fail("steps", f"a list of multiples of {SHARE} below 100")
    if sorted(set(steps)) != steps:
        raise read.fail("steps", f"a rising list of multiples of {SHARE} below 100")
    dwell = read.seconds("dwell", 30)
    paths = read.texts("synthetic") if read.has("synthetic") else ()
    return Canary(tuple(steps), dwell, read.seconds("patience", max(120.0, dwell), dwell), paths)


def _slot(read: Reader, name: str, gate: Gate) -> Slot:
    if not NAME.fullmatch(name):
        raise SlipwayError(f"{read.file}: {name!r} is no name for a slot: lower-case letters, digits, - and _.")
    members = read.texts("members")
    for member in members:
        try:
            split_address(member)
        except BadTarget as error:
            raise SlipwayError(f"{read.file}: {read.where}.members: {error}.") from error
    listed = read.values.get("instances") or []
    if not isinstance(listed, list):
        raise read.fail("instances", "a list")
    instances = []
    for number, value in enumerate(listed, start=1):
        item = read.inner(f"instances[{number - 1}]", value)
        port = item.count("port", 0, 1, 65535)
        instances.append(Instance(item.text("name"), item.text("address", "127.0.0.1"), port, number))
    own = parse_gate(read.inner("gate", read.mapping("gate")), gate) if read.has("gate") else gate
    return Slot(name, read.yes("managed", True), members, tuple(instances), own, read.maybe_text("unit"), read.yes("held", False))


def _workers(read: Reader, slots: Mapping[str, Slot]) -> tuple[Worker, ...]:
    listed = read.values.get("workers") or []
    if not isinstance(listed, list):
        raise read.fail("workers", "a list")
    return tuple(_worker(read.inner(f"workers[{number}]", value), slots) for number, value in enumerate(listed))


def _worker(read: Reader, slots: Mapping[str, Slot]) -> Worker:
    if not NAME.fullmatch(read.text("name")):
        raise read.fail("name", "a name of lower-case letters, digits, - and _")
    if read.text("slot") not in slots:
        raise read.fail("slot", f"one of the slots {', '.join(slots)}")
    environment = read.mapping("environment")
    if not all(isinstance(value, str) for value in environment.values()):
        raise read.fail("environment", "an object of strings")
    worker = Worker(
        read.text("name"),
        read.text("slot"),
        read.yes("singleton", False),
        read.texts("at"),
        read.texts("instances"),
        read.maybe_text("unit"),
        read.maybe_text("quiet"),
        read.maybe_text("quiet_signal"),
        read.text("stop_signal", "TERM"),
        read.count("stop_timeout", 60, 1),
        read.seconds("min_healthy", 5),
        {key: str(value) for key, value in environment.items()},
        _runtime(read.inner("runtime", read.mapping("runtime"))) if read.has("runtime") else None,
    )
    if worker.instances and not worker.unit and worker.runtime is None:
        raise read.fail("runtime", "how this host runs it, or `unit` a unit of somebody else")
    return worker


def _runtime(read: Reader) -> Runtime:
    kind = read.text("kind")
    if kind not in KINDS:
        raise read.fail("kind", " or ".join(KINDS))
    runtime = Runtime(
        kind,
        read.maybe_text("env_file"),
        read.maybe_text("user"),
        read.count("container_port", 0, 0, 65535),
        read.yes("read_only", True),
        read.maybe_text("memory"),
        read.maybe_text("command"),
        read.count("stop_timeout", 30, 1),
        read.text("unit", ""),
        read.text("root", ""),
        read.count("pids", 512, 16),
        read.texts("tmpfs") if read.has("tmpfs") else (),
    )
    if kind == "docker" and not runtime.container_port:
        raise read.fail("container_port", "the port the container listens on")
    if kind == "systemd" and not ("{slot}" in runtime.unit and "{n}" in runtime.unit):
        raise read.fail("unit", "a unit name with {slot} and {n}")
    if kind == "systemd" and not runtime.root.startswith("/"):
        raise read.fail("root", "an absolute path")
    return runtime


def _migrations(read: Reader) -> Migrations:
    backup = read.inner("backup", read.mapping("backup"))
    found = Migrations(
        read.text("host"),
        read.text("check"),
        read.text("apply"),
        read.seconds("timeout", 600, 1),
        read.seconds("lock_timeout", 5, 0.1),
        read.yes("direct", False),
        read.maybe_text("env_file"),
        Backup(backup.text("file", ""), backup.maybe_text("command"), backup.seconds("max_age", 3600, 1)),
    )
    for key in ("check", "apply"):
        if not _words(read.text(key)):
            raise read.fail(key, "a command line with matching quotes")
    return found


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return []


def _hooks(read: Reader) -> dict[str, tuple[Hook, ...]]:
    found = {}
    for state, listed in read.values.items():
        if state not in HOOK_STATES or not isinstance(listed, list):
            raise read.fail(state, f"a list at one of {', '.join(HOOK_STATES)}")
        items = [read.inner(f"{state}[{number}]", value) for number, value in enumerate(listed)]
        found[state] = tuple(_hook(item, state) for item in items)
    return found


def _hook(read: Reader, state: str) -> Hook:
    on_failure = read.text("on_failure", "abort" if state in ABORTABLE else "warn")
    if on_failure not in FAILURES or (on_failure == "abort" and state not in ABORTABLE):
        raise read.fail("on_failure", "abort or warn" if state in ABORTABLE else "warn, since nothing can be aborted then")
    return Hook(read.text("command"), on_failure, read.seconds("timeout", 60, 1), read.text("user", "root"))


def _notify(read: Reader) -> Notify:
    found = Notify(read.maybe_text("command"), read.maybe_text("url_file"), read.seconds("timeout", 5, 0.1))
    if not found.command and not found.url_file:
        raise read.fail("command", "given, or url_file")
    return found


def known(disk: Disk, layout: Layout) -> list[str]:
    """Names of the applications described on this host."""
    return [name[: -len(".json")] for name in disk.names(layout.apps) if name.endswith(".json") and name[0] != "."]


def load(disk: Disk, layout: Layout, app: str) -> App:
    """The application `app` of this host; raises SlipwayError, for an unknown one with the names of those known."""
    path = layout.config(app)
    text = disk.read(path) if NAME.fullmatch(app) else None
    if text is None:
        names = ", ".join(known(disk, layout)) or "none"
        raise SlipwayError(f"no application {app!r} on this host ({path} is missing). Known here: {names}.")
    described = parse(text, str(path))
    if described.name != app:
        raise SlipwayError(f"{path} describes {described.name!r}, not {app!r}. Run site.yml to write it anew.")
    return described
