# SPDX-License-Identifier: GPL-3.0-or-later
"""One entry of slipway_apps: untyped mapping to App, with every problem in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ..health import limits
from ..health.limits import Limits
from ..traffic.flags import SHARE
from . import parse_box, parse_change, parse_edge
from . import reader as shape
from .model import GREEN_OFFSET, MANAGED_SLOTS, App, Backend, Canary, Database, Drain, Redis, Release, Tls
from .parse_health import parse_health
from .parse_workers import Hosts, external_workers, managed_workers, placed
from .placeholders import Undefined, is_example_domain, is_placeholder, is_placeholder_secret
from .reader import Reader, closest, kind, megabytes
from .reserved import reserved
from .sizing import PURPOSES

APP_KEYS = (
    "state",
    "domain",
    "aliases",
    "release",
    "releases",
    "backends",
    "health",
    "websockets",
    "max_body",
    "read_timeout",
    "rate_limits",
    "restricted",
    "processes",
    "threads",
    "memory",
    "cutover",
    "database",
    "redis",
    "env",
    "secrets",
    "tls",
    "migrations",
    "hooks",
    "notify",
    "workers",
    "initial",
)
BACKEND_KEYS = (
    "runtime",
    "port",
    "replicas",
    "container_port",
    "hosts",
    "user",
    "command",
    "packages",
    "unit",
    "health",
    "memory",
    "read_only",
    "stop_timeout",
    "workers",
    *parse_box.KEYS,
)
CUTOVER_KEYS = ("canary", "failover", "verdict", "bake", "standby", "confirm_deadline", "drain")
CANARY_KEYS = ("steps", "dwell", "patience", "synthetic", "by", "cookie")
REDIS_KEYS = ("purpose", "host", "password", "prefix", "tls")
DATABASE_KEYS = ("name", "user", "password", "pooled", "host", "prepared_statements", "statement_timeout", "lock_timeout")
MOVED = {"image": "releases.<name>.image", "archive": "releases.<name>.archive", "ports": "port"}
DATABASE_MOVED = {"timeout": "statement_timeout", "variables": "statement_timeout"}  # of other adapters
OWN_KEYS = {"WEB_CONCURRENCY": "processes", "RAILS_MAX_THREADS": "threads"}
PER_INSTANCE = ("PORT", "BIND", "SLIPWAY_APP", "SLIPWAY_SLOT", "SLIPWAY_RELEASE")
_SECRET_LIKE = ("JWT", "SECRET")


def absent(name: str, raw: Any) -> Optional[list[Any]]:
    """The problems of an entry that asks for the removal of its app; None for one of an app that is to be there."""
    state = raw.get("state", "present") if isinstance(raw, dict) else "present"
    if state == "present":
        return None
    read = Reader(f"app {name}")
    if state != "absent":
        read.fail(f"slipway_apps.{name}.state", f"is {state!r}", "Write present or absent")
    return read.problems


def parse_app(name: str, raw: Any, hosts: Hosts) -> tuple[Optional[App], list[Any]]:
    """The app called `name`, or None when nothing usable is there, and its problems."""
    key = f"slipway_apps.{name}"
    read = Reader(f"app {name}")
    if not shape.APP_NAME.fullmatch(str(name)):
        read.fail(key, "is not a usable app name", "Use at most 31 lower-case letters, digits and dashes, a letter first")
    read.scan(raw, key)
    data = read.mapping(raw, key, APP_KEYS, MOVED)
    if not isinstance(raw, dict):
        return None, read.problems
    tls = _tls(read, data, key)
    releases = _releases(read, data, key)
    backends = _backends(read, data, key, hosts)
    env = _env(read, data, key)
    names = [name for part in ("env", "secrets") if isinstance(data.get(part), dict) for name in data[part]]
    names += [variable for part, variable in (("database", "DATABASE_URL"), ("redis", "REDIS_URL")) if data.get(part)]
    cutover = read.mapping(data.get("cutover") or {}, key + ".cutover", CUTOVER_KEYS)
    websockets = read.words(data, "websockets", key, shape.URL_PATH, "a path such as /ws")
    health = parse_health(read, data.get("health"), key + ".health", names)
    app = App(
        name=str(name),
        domain=_domain(read, data, key, tls),
        aliases=tuple(
            _domain_word(read, word, f"{key}.aliases[{index}]", tls)
            for index, word in enumerate(read.words(data, "aliases", key, shape.DOMAIN, "a domain name"))
        ),
        release=read.text(data, "release", key, shape.RELEASE, "a release name such as v1"),
        releases=releases,
        backends=backends,
        health=health,
        websockets=websockets,
        max_body=read.text(data, "max_body", key, shape.SIZE, "a size such as 50m", "10m"),
        read_timeout=read.number(data, "read_timeout", key, 1, 86400, 60),
        rate_limits=parse_edge.rate_limits(read, data.get("rate_limits"), key + ".rate_limits"),
        restricted=parse_edge.restricted(read, data.get("restricted"), key + ".restricted", health.path, websockets),
        processes=read.number(data, "processes", key, 1, 512, 0),
        threads=read.number(data, "threads", key, 1, 512, 5),
        memory_mb=megabytes(read.text(data, "memory", key, shape.SIZE, "a size such as 512M")),
        canary=_canary(read, cutover.get("canary") or {}, key + ".cutover.canary"),
        failover=read.flag(cutover, "failover", key + ".cutover", True),
        verdict=_verdict(read, cutover.get("verdict") or {}, key + ".cutover.verdict"),
        bake=read.number(cutover, "bake", key + ".cutover", 0, 3600, 10),
        standby=read.number(cutover, "standby", key + ".cutover", 0, 604800, 900),
        confirm_deadline=read.number(cutover, "confirm_deadline", key + ".cutover", 5, 86400, 120),
        drain=_drain(read, cutover.get("drain"), key + ".cutover.drain"),
        database=_database(read, data, key, hosts, env),
        redis=_redis(read, data, key, hosts, str(name)),
        tls=tls,
        env=env,
        migrations=parse_change.migrations(read, data, key, backends),
        hooks=parse_change.hooks(read, data, key),
        notify=parse_change.notify(read, data, key),
        workers=managed_workers(read, data, key, hosts, backends),
        initial=_initial(read, data, key, backends),
    )
    _relations(read, app, key)
    return app, read.problems


def _canary(read: Reader, raw: Any, key: str) -> Canary:
    data = read.mapping(raw, key, CANARY_KEYS)
    steps = data.get("steps")
    found: list[int] = []
    if steps is not None and not isinstance(steps, list):
        read.fail(key + ".steps", f"must be a list, but is {kind(steps)}", "Write it as [5, 25, 50]")
        steps = None
    for index, value in enumerate(steps or []):
        path = f"{key}.steps[{index}]"
        if isinstance(value, bool) or not isinstance(value, int):
            read.fail(path, f"must be a whole number, but is {kind(value)}", "Write percent of the traffic, such as 25")
        elif value % SHARE or not 0 < value < 100:
            read.fail(path, f"is {value}, but a step is {SHARE}, {2 * SHARE}, … to {100 - SHARE} percent", "Choose one of them")
        elif found and value <= found[-1]:
            read.fail(path, f"is {value}, not more than the step before, {found[-1]}", "Order the steps from small to large")
        else:
            found.append(value)
    dwell = read.number(data, "dwell", key, 1, 86400, 30)
    patience = read.number(data, "patience", key, 1, 86400, max(120, 2 * dwell))
    if patience < dwell:
        read.fail(key + ".patience", f"is {patience} s, less than dwell, {dwell} s", "Give it at least dwell")
    return Canary(
        tuple(found),
        dwell,
        patience,
        read.words(data, "synthetic", key, shape.URL_PATH, "a path that only reads, such as /"),
        read.choice(data, "by", key, ("cookie", "address", "request"), "cookie"),
        read.text(data, "cookie", key, shape.ENV_NAME, "a cookie's name of letters, digits and _", "slipway"),
    )


def _verdict(read: Reader, raw: Any, key: str) -> Limits:
    data = read.mapping(raw, key, limits.KEYS)
    default = Limits()
    numbers: dict[str, Any] = {
        name: read.decimal(data, name, key, low, high, getattr(default, name)) for name, (low, high) in limits.DECIMALS.items()
    }
    for name, (low, high) in limits.COUNTS.items():
        numbers[name] = read.number(data, name, key, low, high, getattr(default, name))
    policy = read.choice(data, "on_inconclusive", key, limits.POLICIES, default.on_inconclusive)
    found = Limits(**numbers, on_inconclusive=policy)
    problem = found.problem()
    if problem:
        read.fail(f"{key}.{problem[0]}", f"must be {problem[1]}", "Change one of the two")
    return found


def _drain(read: Reader, raw: Any, path: str) -> Drain:
    usual = Drain()
    if raw is None:
        return usual
    data = read.mapping(raw, path, ("http", "websockets", "pace"))
    found = Drain(
        http=read.number(data, "http", path, 0, 3600, usual.http),
        websockets=read.number(data, "websockets", path, 0, 86400, usual.websockets),
        pace=read.number(data, "pace", path, 0, 86400, usual.pace),
    )
    if found.pace > max(found.websockets - found.http, 0) and data.get("pace") is not None:
        most = max(found.websockets - found.http, 0)
        read.fail(path + ".pace", f"is {found.pace} s, more than the {most} s from http to websockets", f"Give it at most {most}")
    return found


def _domain(read: Reader, data: Mapping[str, Any], key: str, tls: Tls) -> str:
    word = read.text(data, "domain", key, shape.DOMAIN, "a domain name in lower case such as app.acme.org", required=True)
    return _domain_word(read, word, key + ".domain", tls)


def _domain_word(read: Reader, word: str, path: str, tls: Tls) -> str:
    if word and tls.source != "selfsigned" and is_example_domain(word):
        read.fail(path, "is an example domain, for which no certificate exists", "Use your own domain, or tls.source selfsigned")
    return word


def _tls(read: Reader, data: Mapping[str, Any], key: str) -> Tls:
    path = key + ".tls"
    raw = data.get("tls")
    tls = read.mapping(raw, path, ("source", "certificate", "key")) if raw is not None else {}
    source = read.choice(tls, "source", path, ("selfsigned", "files", "acme"), "selfsigned")
    wanted = source == "files"
    return Tls(
        source=source,
        certificate=read.text(tls, "certificate", path, shape.FILE_PATH, "the path of the certificate chain", required=wanted),
        key=read.text(tls, "key", path, shape.FILE_PATH, "the path of its key", required=wanted),
    )


def _releases(read: Reader, data: Mapping[str, Any], key: str) -> tuple[Release, ...]:
    path = key + ".releases"
    found = []
    for name, raw in read.mapping(data.get("releases") or {}, path).items():
        below = f"{path}.{name}"
        if not shape.RELEASE.fullmatch(name):
            read.fail(below, "is not a usable release name", "Use letters, digits, dots and dashes")
        entry = read.mapping(raw, below, ("image", "archive", "sha256"))
        image = entry.get("image")
        if isinstance(image, str) and image and not is_placeholder(image) and "@" not in image:
            read.fail(
                below + ".image",
                "names an image by tag, which can change under a release",
                "Name it by digest: repository@sha256:… (docker image inspect shows it)",
            )
        found.append(
            Release(
                name=name,
                image=read.text(entry, "image", below, shape.IMAGE, "repository@sha256: and 64 hexadecimal digits"),
                archive=read.text(entry, "archive", below, shape.FILE_PATH, "the path of an archive on the controller"),
                sha256=read.text(entry, "sha256", below, shape.SHA256, "64 hexadecimal digits"),
            )
        )
    return tuple(found)


def _backends(read: Reader, data: Mapping[str, Any], key: str, hosts: Hosts) -> tuple[Backend, ...]:
    path = key + ".backends"
    raw = data.get("backends")
    if not raw:
        read.fail(path, "is missing", "Say how the app runs: backends: {main: {runtime: docker, port: 3000}}")
        return ()
    return tuple(_backend(read, name, entry, f"{path}.{name}", hosts) for name, entry in read.mapping(raw, path).items())


def _backend(read: Reader, name: str, raw: Any, path: str, hosts: Hosts) -> Backend:
    data = read.mapping(raw, path, BACKEND_KEYS, MOVED)
    unit = read.text(data, "unit", path, shape.UNIT, "the name of an existing service such as web.service")
    runtime = read.choice(data, "runtime", path, ("docker", "systemd")) if isinstance(raw, dict) else "systemd"
    if not shape.APP_NAME.fullmatch(name) or (unit and name in MANAGED_SLOTS):
        read.fail(path, "is not a usable backend name", "Use lower-case letters, digits and dashes, but not blue or green")
    if not unit and data.get("health") is not None:
        read.fail(f"{path}.health", "belongs to the app, because its managed backends share their slots", "Move it up to the app")
    if unit and runtime == "docker":
        read.fail(path + ".unit", "belongs to runtime systemd", "Remove it, or set runtime: systemd")
    command = read.text(data, "command", path, shape.LINE, "one command line with an absolute path")
    if runtime == "systemd" and not unit and isinstance(raw, dict) and not data.get("command"):
        read.fail(
            path + ".command", "is missing", "Add what starts the app, e.g. /usr/bin/puma -C config/puma.rb, or name its unit"
        )
    if runtime == "systemd" and command and not command.startswith("/"):
        read.fail(
            path + ".command", "must start with an absolute path", "systemd does not search PATH reliably: write /usr/bin/…"
        )
    user = read.text(data, "user", path, shape.USER, "a user such as 1000:1000 or deploy")
    if user.split(":")[0] in ("0", "root"):
        read.fail(path + ".user", "is root", "Run the app as an ordinary user, e.g. 1000:1000")
    port = read.number(data, "port", path, 1, 65535, 0, required=isinstance(raw, dict))
    replicas = read.number(data, "replicas", path, 1, GREEN_OFFSET, 1)
    if unit and replicas != 1:
        read.fail(path + ".replicas", "must be 1 for an existing unit", "Remove it, or one backend for each unit")
    if not unit and port + GREEN_OFFSET + replicas > 65535:
        read.fail(path + ".port", f"leaves no room for the green slot at port + {GREEN_OFFSET}", "Choose a lower port")
    own_hosts = _hosts(read, data, path, hosts)
    return Backend(
        name=name,
        runtime=runtime,
        unit=unit,
        port=port,
        replicas=replicas,
        command=command,
        user=user,
        hosts=own_hosts,
        container_port=read.number(data, "container_port", path, 1, 65535, port),
        packages=read.words(data, "packages", path, shape.PACKAGE, "a package name"),
        memory_mb=megabytes(read.text(data, "memory", path, shape.SIZE, "a size such as 512M")),
        read_only=read.flag(data, "read_only", path, True),
        stop_timeout=read.number(data, "stop_timeout", path, 1, 3600, 30),
        box=parse_box.parse_box(read, data, path, runtime, bool(unit)),
        health=parse_health(read, data["health"], path + ".health", ()) if data.get("health") is not None else None,
        workers=external_workers(read, data, path, hosts, own_hosts, bool(unit)),
    )


def _hosts(read: Reader, data: Mapping[str, Any], path: str, hosts: Hosts) -> tuple[str, ...]:
    """The backend's hosts: those it names, else the group `app`."""
    members = hosts.group("app")
    if data.get("hosts") is None and not members:
        read.fail(path + ".hosts", "there is no host in the group `app`", hosts.missing_group("app"))
    return placed(read, data, path, hosts, ("app",), members)


def _initial(read: Reader, data: Mapping[str, Any], key: str, backends: Sequence[Backend]) -> str:
    """The existing unit that serves until a release is deployed."""
    name = read.text(data, "initial", key, shape.APP_NAME, "the name of a backend with a `unit`")
    units = [backend.name for backend in backends if backend.unit]
    if name and name not in units:
        guess = closest(name, units)
        read.fail(
            key + ".initial",
            f"names `{name}`, which is no backend with a `unit`",
            f"Did you mean `{guess}`?" if guess else "Remove it: the first release of a managed backend serves first",
        )
        return ""
    return name


def _database(read: Reader, data: Mapping[str, Any], key: str, hosts: Hosts, env: Mapping[str, str]) -> Optional[Database]:
    path = key + ".database"
    raw = data.get("database")
    if raw is None:
        return None
    entry = read.mapping(raw, path, DATABASE_KEYS, DATABASE_MOVED)
    servers = hosts.group("database")
    host = read.text(entry, "host", path, shape.HOST_NAME, "a host of the group database")
    if not servers:
        read.fail(path, "there is no host in the group `database`", hosts.missing_group("database"))
    elif host and host not in servers:
        read.fail(
            path + ".host", f"names `{host}`, which is not in the group `database`", "Name one of: {}".format(", ".join(servers))
        )
    elif not host and len(servers) > 1:
        read.fail(
            path + ".host", f"is needed, because the group `database` has {len(servers)} hosts", "Name the one with the data"
        )
    check_secret(read, entry.get("password"), path + ".password", "password")
    if "DATABASE_URL" in env:
        read.fail(key + ".env.DATABASE_URL", "would replace the address the plan makes from `database`", "Remove one of the two")
    prepared = entry.get("prepared_statements")
    found = Database(
        name=read.text(entry, "name", path, shape.IDENTIFIER, "letters, digits, _ and -", required=True),
        user=read.text(entry, "user", path, shape.IDENTIFIER, "letters, digits, _ and -", required=True),
        host=host if host in servers else (servers[0] if servers else ""),
        pooled=read.flag(entry, "pooled", path, True),
        prepared_statements=None if prepared is None else read.flag(entry, "prepared_statements", path, False),
        statement_timeout=read.number(entry, "statement_timeout", path, 1, 86400, 30),
        lock_timeout=read.number(entry, "lock_timeout", path, 1, 86400, 10),
    )
    return found if servers else None


def _redis(read: Reader, data: Mapping[str, Any], key: str, hosts: Hosts, app: str) -> Optional[Redis]:
    path = key + ".redis"
    if data.get("redis") is None:
        return None
    entry = read.mapping(data["redis"], path, REDIS_KEYS)
    servers = hosts.group("redis")
    host = read.text(entry, "host", path, shape.HOST_NAME, "a host of the group redis")
    if not servers:
        read.fail(path, "there is no host in the group `redis`", hosts.missing_group("redis"))
    elif host and host not in servers:
        read.fail(path + ".host", f"names `{host}`, which is not in the group `redis`", "Name one of: " + ", ".join(servers))
    elif not host and len(servers) > 1:
        read.fail(path + ".host", f"is needed, because the group `redis` has {len(servers)} hosts", "Name the one with the data")
    check_secret(read, entry.get("password"), path + ".password", "password")
    for part in ("env", "secrets"):
        if isinstance(data.get(part), dict) and "REDIS_URL" in data[part]:
            read.fail(f"{key}.{part}.REDIS_URL", "would replace the address the plan makes from `redis`", "Remove one of the two")
    prefix = entry.get("prefix", app + ":")
    if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z0-9_:.-]*", prefix):
        read.fail(path + ".prefix", "is not the beginning of a key", "Use letters, digits and : _ . -, or leave it out")
        prefix = ""
    found = Redis(
        purpose=read.choice(entry, "purpose", path, PURPOSES),
        host=host if host in servers else (servers[0] if servers else ""),
        prefix=prefix,
        tls=read.flag(entry, "tls", path, True),
    )
    return found if servers else None


def check_secret(read: Reader, value: Any, path: str, name: str) -> None:
    """A secret must be text, must not be a placeholder, and must be long enough for its kind. Its value is never shown."""
    least = 32 if any(part in name.upper() for part in _SECRET_LIKE) else 16
    if value is None:
        read.fail(path, "is missing", "Add it, from a vault: ansible-vault create group_vars/all/vault.yml")
    elif isinstance(value, Undefined):
        return
    elif not isinstance(value, str):
        read.fail(path, f"must be text, but YAML read {kind(value)}", "Put it in quotes")
    elif is_placeholder_secret(value):
        read.fail(path, "is still a placeholder or empty", "Make a real one: openssl rand -hex 32")
    elif any(char in value for char in "\n\r\0"):
        read.fail(path, "has a line break or a zero byte, which an env file cannot carry", "Encode it, e.g. in base64")
    elif len(value) < least:
        read.fail(path, f"has {len(value)} characters, fewer than {least}", "Make a longer one: openssl rand -hex 32")


def _env(read: Reader, data: Mapping[str, Any], key: str) -> dict[str, str]:
    """Plain environment; secrets are checked here and left behind."""
    env: dict[str, str] = {}
    both: dict[str, str] = {}
    for part in ("env", "secrets"):
        path = f"{key}.{part}"
        for name, value in read.mapping(data.get(part) or {}, path).items():
            below = f"{path}.{name}"
            if not shape.ENV_NAME.fullmatch(name):
                read.fail(below, "is not a name a shell can carry", "Use letters, digits and _")
            if name in OWN_KEYS:
                read.fail(below, "belongs to the key of its own", f"Set {key}.{OWN_KEYS[name]} instead")
            if name in PER_INSTANCE:
                read.fail(below, "is set by slipway for every instance", "Remove it")
            if name in both:
                read.fail(below, f"is also set in {both[name]}", "Keep one of the two")
            both[name] = path
            if isinstance(value, str) and shape.too_long(name, value):
                read.fail(below, f"has more than {shape.ENV_LINE} bytes, which an env file cannot carry", "Ship it as a file")
            if part == "secrets":
                check_secret(read, value, below, name)
            elif isinstance(value, str):
                env[name] = value
                if any(char in value for char in "\n\r\0"):
                    read.fail(
                        below, "has a line break or a zero byte, which an env file cannot carry", "Encode it, e.g. in base64"
                    )
            elif isinstance(value, int) and not isinstance(value, bool):
                env[name] = str(value)
            else:
                read.fail(below, f"must be text, but YAML read {kind(value)}", "Put it in quotes")
    return env


def _relations(read: Reader, app: App, key: str) -> None:
    """What must fit together inside one app."""
    if reserved(app.name) and any(backend.managed and backend.runtime == "systemd" for backend in app.backends):
        what = "is a name of the system, and the app would share its user, unit or directory"
        read.fail(key, what, f"Rename the app, e.g. {app.name[:26]}-app")
    managed: dict[str, str] = {}
    for backend in app.backends:
        path = f"{key}.backends.{backend.name}"
        for host in backend.hosts if backend.managed else ():
            if host in managed:
                read.fail(
                    path + ".hosts",
                    f"puts a second managed backend on {host} beside {managed[host]}",
                    "Give each of them its own hosts",
                )
            managed[host] = backend.name
    if app.release:
        found = [release for release in app.releases if release.name == app.release]
        if not found:
            guess = closest(app.release, [release.name for release in app.releases])
            read.fail(
                key + ".release",
                f"names `{app.release}`, which is not in releases",
                f"Did you mean `{guess}`?" if guess else "Add it to releases with its image or archive",
            )
    for release in app.releases:
        path = f"{key}.releases.{release.name}"
        for backend in app.backends:
            wanted = "image" if backend.runtime == "docker" else "archive"
            if backend.managed and not getattr(release, wanted):
                read.fail(
                    f"{path}.{wanted}",
                    f"is missing, and backend {backend.name} needs it",
                    "Add the %s of this release" % ("image by digest" if wanted == "image" else "archive's path"),
                )
    if app.backends and len(app.slot_order()) < 2:
        read.fail(
            f"{key}.backends",
            "has one existing unit only, so there is nothing to switch to",
            "Add a managed backend or a second unit",
        )
    if app.confirm_deadline < app.bake + 30:
        read.fail(
            key + ".cutover.confirm_deadline",
            f"is {app.confirm_deadline} s, less than bake {app.bake} s + 30",
            "Give it at least bake + 30",
        )
    for path, health in [(key, app.health)] + [
        (f"{key}.backends.{backend.name}", backend.health) for backend in app.backends if backend.health
    ]:
        needed = max(health.min_healthy, (health.successes - 1) * health.interval)
        if health.deadline <= needed:
            read.fail(path + ".health.deadline", f"is {health.deadline} s, but a healthy start needs {needed} s", "Raise it")
