# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory says, in types: apps, hosts, facts, and what the plan answers. Secret values never enter here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Optional

from ..health.limits import Limits
from ..settings.sandbox import USUAL

MANAGED_SLOTS = ("blue", "green")
GREEN_OFFSET = 10  # green listens this many ports above blue; also the largest number of replicas
POOLER_PORT = 6432
POSTGRESQL_PORT = 5432
GROUPS = ("edge", "app", "worker", "database", "replica", "redis", "monitor", "backup")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in the inventory. `what` never contains a value that could be a secret.

    One that is `late` hinders no sizes: it is shown with the violated cross-checks, so that all is said at once.
    """

    where: str
    key: str
    what: str
    remedy: str
    late: bool = False

    def line(self) -> str:
        """The problem in one readable line."""
        return f"{self.where}: {self.key}: {self.what}. {self.remedy}"


@dataclass(frozen=True)
class Release:
    """What a release name stands for: an image by digest, an archive on the controller with its digest, or both."""

    name: str
    image: str = ""
    archive: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Health:
    """When an instance counts as healthy. Times are whole seconds; `also` are further proofs, as they were written."""

    path: str = "/health"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: tuple[int, ...] = (200,)
    json: Mapping[str, Any] = field(default_factory=dict)
    body: Optional[str] = None
    response_headers: Mapping[str, str] = field(default_factory=dict)
    max_latency_ms: Optional[int] = None
    version_path: str = ""
    version_key: str = ""
    warmup: tuple[str, ...] = ()
    also: tuple[Mapping[str, Any], ...] = ()
    successes: int = 3
    interval: int = 1
    timeout: int = 5
    min_healthy: int = 5
    start_period: int = 0
    deadline: int = 60


@dataclass(frozen=True)
class Worker:
    """Processes of an app that take no requests: queue workers, a scheduler. Times are whole seconds.

    `replicas` of it run on each host, a singleton on one host only. `unit` names a service or timer that somebody else
    installed; such a worker belongs to a backend with a `unit` of its own and may have a command (`quiet`) that lets it take
    no new jobs. `threads` counts the jobs that one process works on at a time.
    """

    name: str
    hosts: tuple[str, ...]
    command: str = ""
    backend: str = ""
    unit: str = ""
    quiet: str = ""
    replicas: int = 1
    threads: int = 5
    singleton: bool = False
    quiet_signal: str = ""
    stop_signal: str = "TERM"
    stop_timeout: int = 60
    min_healthy: int = 5
    memory_mb: int = 0


@dataclass(frozen=True)
class Box:
    """What a managed backend is denied, and what it needs all the same. `loosen`: keys of its unit; `pids`: of its container."""

    profile: str = USUAL
    write: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    loosen: tuple[tuple[str, str], ...] = ()
    pids: int = 512


@dataclass(frozen=True)
class Backend:
    """One way to run an app. `unit` names a service somebody else manages; it is then a slot of its own."""

    name: str
    runtime: str
    port: int
    hosts: tuple[str, ...]
    replicas: int = 1
    unit: str = ""
    container_port: int = 0
    user: str = ""
    command: str = ""
    packages: tuple[str, ...] = ()
    memory_mb: int = 0
    read_only: bool = True
    stop_timeout: int = 30
    box: Box = Box()
    health: Optional[Health] = None
    workers: Optional[tuple[Worker, ...]] = None

    @property
    def managed(self) -> bool:
        """True when slipway starts and stops it (slots blue and green)."""
        return not self.unit

    def slots(self) -> tuple[str, ...]:
        """The traffic slots this backend serves."""
        return MANAGED_SLOTS if self.managed else (self.name,)

    def ports(self, slot: str) -> tuple[int, ...]:
        """Listening ports of one slot, one for each replica."""
        first = self.port + (GREEN_OFFSET if slot == "green" and self.managed else 0)
        return tuple(range(first, first + self.replicas))

    def all_ports(self) -> tuple[int, ...]:
        """Listening ports of all its slots."""
        return tuple(port for slot in self.slots() for port in self.ports(slot))


@dataclass(frozen=True)
class Database:
    """The app's database; timeouts are whole seconds. The password stays outside."""

    name: str
    user: str
    host: str
    pooled: bool = True
    prepared_statements: Optional[bool] = None
    statement_timeout: int = 30
    lock_timeout: int = 10


@dataclass(frozen=True)
class Redis:
    """The app's Redis: one instance for each purpose on `host`. Its keys begin with `prefix`. The password stays outside."""

    purpose: str
    host: str
    prefix: str
    tls: bool = True


@dataclass(frozen=True)
class Drain:
    """How a slot ends: seconds for requests, for WebSockets, and of these the last ones over which instances are stopped."""

    http: int = 30
    websockets: int = 300
    pace: int = 60


@dataclass(frozen=True)
class Tls:
    """Where the certificate comes from."""

    source: str = "selfsigned"
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True)
class Migrations:
    """How a release changes its database; times are whole seconds. An empty `backup_file` stands for the usual one."""

    check: str
    apply: str
    timeout: int = 600
    lock_timeout: int = 5
    backup_file: str = ""
    backup_command: str = ""
    backup_max_age: int = 3600


@dataclass(frozen=True)
class Hook:
    """A command at a state of a deployment; `timeout` in whole seconds."""

    command: str
    on_failure: str
    timeout: int = 60
    user: str = "root"


@dataclass(frozen=True)
class Notify:
    """Who is told how a deployment ended; the URL itself stays outside."""

    command: str = ""
    url: bool = False
    timeout: int = 5


@dataclass(frozen=True)
class Canary:
    """Traffic in steps: percent of each, seconds that one lasts at least and at most, which requests stay together.

    `synthetic`: paths that may be asked for when there is too little traffic to judge.
    """

    steps: tuple[int, ...] = ()
    dwell: int = 30
    patience: int = 120
    synthetic: tuple[str, ...] = ()
    by: str = "cookie"
    cookie: str = "slipway"


@dataclass(frozen=True)
class RateLimit:
    """Requests of one client below `path` in a minute on each edge; 0 means as many as it likes."""

    path: str
    per_minute: int


@dataclass(frozen=True)
class Restriction:
    """Only these addresses and networks may ask for `path` and what is below it."""

    path: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class App:
    """One entry of slipway_apps without its secrets. `processes` 0 means: sized by the plan."""

    name: str
    domain: str
    backends: tuple[Backend, ...]
    aliases: tuple[str, ...] = ()
    release: str = ""
    releases: tuple[Release, ...] = ()
    health: Health = field(default_factory=Health)
    websockets: tuple[str, ...] = ()
    max_body: str = "10m"
    read_timeout: int = 60
    rate_limits: tuple[RateLimit, ...] = ()
    restricted: tuple[Restriction, ...] = ()
    processes: int = 0
    threads: int = 5
    memory_mb: int = 0
    canary: Canary = field(default_factory=Canary)
    failover: bool = True
    verdict: Limits = field(default_factory=Limits)
    bake: int = 10
    standby: int = 900
    confirm_deadline: int = 120
    drain: Drain = field(default_factory=Drain)
    database: Optional[Database] = None
    redis: Optional[Redis] = None
    tls: Tls = field(default_factory=Tls)
    env: Mapping[str, str] = field(default_factory=dict)
    workers: tuple[Worker, ...] = ()
    initial: str = ""
    migrations: Optional[Migrations] = None
    hooks: Mapping[str, tuple[Hook, ...]] = field(default_factory=dict)
    notify: Optional[Notify] = None

    def migration_host(self) -> str:
        """The one host that runs migrations; empty when the app has none."""
        managed = (backend.hosts[0] for backend in self.backends if backend.managed and backend.hosts)
        return next(managed, "") if self.migrations else ""

    def hosts(self) -> tuple[str, ...]:
        """Hosts with an instance of this app, in the order of the backends."""
        return tuple(dict.fromkeys(host for backend in self.backends for host in backend.hosts))

    def backends_on(self, host: str) -> tuple[Backend, ...]:
        """The backends that run on one host."""
        return tuple(backend for backend in self.backends if host in backend.hosts)

    def slot_order(self) -> tuple[str, ...]:
        """All traffic slots; the first one serves when no flag is set: the `initial` backend, else blue."""
        found = dict.fromkeys(slot for backend in self.backends for slot in backend.slots())
        managed = [slot for slot in MANAGED_SLOTS if slot in found]
        first = [self.initial] if self.initial in found else []
        return tuple(dict.fromkeys(first + managed + list(found)))

    def backend_of(self, worker: Worker, host: str) -> Backend:
        """The managed backend whose runtime a worker shares on a host: the one it names, else the host's, else the first."""
        managed = [backend for backend in self.backends if backend.managed]
        named = [backend for backend in managed if backend.name == worker.backend]
        here = [backend for backend in managed if host in backend.hosts]
        return (named or here or managed)[0]

    def all_workers(self) -> tuple[Worker, ...]:
        """Its own workers and those of its existing units."""
        return self.workers + tuple(worker for backend in self.backends for worker in backend.workers or ())

    def workers_on(self, host: str) -> tuple[Worker, ...]:
        """All workers that run on one host."""
        return tuple(worker for worker in self.all_workers() if host in worker.hosts)

    def everywhere(self) -> tuple[str, ...]:
        """Hosts with an instance or a worker of this app."""
        return tuple(dict.fromkeys((*self.hosts(), *(host for worker in self.all_workers() for host in worker.hosts))))


@dataclass(frozen=True)
class Host:
    """A host of the inventory. `address` is empty until it is known; `overrides` are role variables the inventory sets."""

    name: str
    groups: tuple[str, ...] = ()
    address: str = ""
    ssh_ports: tuple[int, ...] = (22,)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def has(self, group: str) -> bool:
        """True when the host is a member of `group`."""
        return group in self.groups

    def serves_postgresql(self) -> bool:
        """True when PostgreSQL runs here, as primary or as standby."""
        return self.has("database") or self.has("replica")


@dataclass(frozen=True)
class Cluster:
    """PostgreSQL's cluster on a host: whose copy it is (`system`), how often it was promoted (`timeline`), whether it follows."""

    system: str
    timeline: int
    standby: bool


@dataclass(frozen=True)
class Facts:
    """What was seen on a host. Memory and disk in MiB; versions are upstream ones, empty when not known.

    `pooler`: whether a pgbouncer listens. `cluster`: the PostgreSQL that is there. `apps`: the applications that are described,
    `ran`: those of which it has started a release.
    `standing`: by app and slot, what runs: `members`, `instances`, `kind`, `database` (name and user).
    """

    memory_mb: int
    cores: int
    address: str = ""
    networks: tuple[str, ...] = ()
    rotational: bool = False
    container: bool = False
    nofile_hard: int = 0
    disk_total_mb: int = 0
    disk_free_mb: int = 0
    postgresql: str = ""
    pgbouncer: str = ""
    pooler: bool = False
    cluster: Optional[Cluster] = None
    apps: tuple[str, ...] = ()
    ran: tuple[str, ...] = ()
    standing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Inventory:
    """All that was declared, checked. `absent`: names of the apps that are to be removed."""

    apps: tuple[App, ...]
    hosts: tuple[Host, ...]
    absent: tuple[str, ...] = ()

    def host(self, name: str) -> Host:
        """The host called `name`; KeyError when there is none."""
        return self._by_name[name]

    def group(self, name: str) -> tuple[Host, ...]:
        """Hosts of a group in inventory order."""
        return self._by_group[name]

    def primary(self, replica: Host) -> Optional[Host]:
        """The database host that a replica follows: `slipway_primary`, else the only one; None when that is not known."""
        servers = [host for host in self.group("database") if host.name != replica.name]
        named = [host for host in servers if host.name == replica.overrides.get("slipway_primary")]
        return named[0] if named else servers[0] if len(servers) == 1 else None

    def replicas(self, primary: Host) -> tuple[Host, ...]:
        """The replicas of a database host."""
        return self._followers.get(primary.name, ())

    @cached_property
    def _followers(self) -> dict[str, tuple[Host, ...]]:
        found: dict[str, tuple[Host, ...]] = {}
        for host in self.group("replica"):
            primary = self.primary(host)
            if primary and not host.has("database"):
                found[primary.name] = (*found.get(primary.name, ()), host)
        return found

    @cached_property
    def _by_name(self) -> dict[str, Host]:
        return {host.name: host for host in self.hosts}

    @cached_property
    def _by_group(self) -> dict[str, tuple[Host, ...]]:
        return {group: tuple(host for host in self.hosts if host.has(group)) for group in GROUPS}


@dataclass(frozen=True)
class Check:
    """One cross-check on one host: `have` must stand in the relation named by `rule` to `limit`; `id` and `number` are stable."""

    number: int
    id: str
    rule: str
    host: str
    ok: bool
    have: str
    limit: str
    variable: str
    remedy: str

    def line(self) -> str:
        """The check in one readable line."""
        verdict = "holds" if self.ok else "violated"
        text = f"{self.host}: check {self.number} {self.id} ({self.rule}) {verdict}: {self.have} against {self.limit}"
        return text if self.ok else f"{text}; change {self.variable}: {self.remedy}"


@dataclass(frozen=True)
class Row:
    """One line of the printed plan."""

    host: str
    variable: str
    value: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The answer: role variables for each host, every check, and the readable rows."""

    hosts: dict[str, dict[str, Any]]
    checks: tuple[Check, ...]
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...] = ()

    def violations(self) -> list[Check]:
        """The checks that do not hold."""
        return [check for check in self.checks if not check.ok]
