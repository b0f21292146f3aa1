# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of an app, written for each consumer's own quoting. These texts hold secrets: hide them from output."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .reader import ENV_NAME

CONSUMERS = ("docker", "systemd", "shell")


class BadValue(ValueError):
    """A variable that cannot be written; names the variable, never its value."""


def variables(app: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, str]:
    """All variables of an app on a host, sorted by name.

    `app` is its entry of slipway_apps, `host` the plan's description of it there. Secrets win over env, env over the plan.
    """
    environment = host.get("environment") or {}
    found = {name: str(value) for name, value in (environment.get("values") or {}).items()}
    for part in ("env", "secrets"):
        found.update({name: str(value) for name, value in (app.get(part) or {}).items()})
    if environment.get("database"):
        found["DATABASE_URL"] = database_url(environment["database"], str(app["database"]["password"]))
    if environment.get("redis"):
        found["REDIS_URL"] = redis_url(environment["redis"], str(app["redis"]["password"]))
    return dict(sorted(found.items()))


def runtimes(host: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How a host runs an app and its workers: one of each kind, each with its environment file."""
    found = [host.get("runtime"), *(worker.get("runtime") for worker in host.get("workers") or ())]
    return list({runtime["kind"]: runtime for runtime in reversed(found) if runtime and runtime.get("env_file")}.values())


def paths(host: Mapping[str, Any]) -> list[str]:
    """Files of root alone that an app has on a host: its environment, that of its migrations, and who is told."""
    found: list[Any] = [runtime["env_file"] for runtime in runtimes(host)]
    migrations, notify = host.get("migrations") or {}, host.get("notify") or {}
    found.append(migrations.get("env_file") if migrations.get("host") == host.get("host") else None)
    found.append(notify.get("url_file") if host.get("edge") else None)
    return [path for path in found if path]


def files(app: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, str]:
    """The text of each of them; raises BadValue for what its reader cannot carry."""
    runtime, migrations = host.get("runtime") or {}, host.get("migrations") or {}
    kinds = {one["env_file"]: one["kind"] for one in runtimes(host)}
    texts: dict[str, str] = {}
    for path in paths(host):
        if path in kinds:
            texts[path] = render(variables(app, host), kinds[path])
        elif path == migrations.get("env_file"):
            url = database_url(migrations["database"], str(app["database"]["password"]))
            texts[path] = render({"DATABASE_URL": url}, runtime["kind"])
        else:
            texts[path] = str(app["notify"]["url"]) + "\n"
    return texts


def database_url(database: Mapping[str, Any], password: str) -> str:
    """postgresql://… with every part encoded, so that no character of a password changes its meaning."""
    user, secret, name = (quote(str(part), safe="") for part in (database["user"], password, database["name"]))
    host = str(database["host"])
    return f"postgresql://{user}:{secret}@{f'[{host}]' if ':' in host else host}:{database['port']}/{name}"


def redis_url(redis: Mapping[str, Any], password: str) -> str:
    """redis://… or rediss://… with every part encoded."""
    user, secret = (quote(str(part), safe="") for part in (redis["user"], password))
    host = str(redis["host"])
    return f"{redis['scheme']}://{user}:{secret}@{f'[{host}]' if ':' in host else host}:{redis['port']}/0"


def redis_users(apps: Mapping[str, Any], host: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The users that the plan puts on a host, with the passwords of their apps."""
    return [{**login, "password": apps[login["name"]]["redis"]["password"]} for login in host.get("redis_logins") or ()]


def passwords(apps: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, str]:
    """Passwords of the apps whose databases the plan puts on a host, by database user."""
    return {entry["user"]: entry["password"] for _name, entry in _databases(apps, host)}


def logins(apps: Mapping[str, Any], host: Mapping[str, Any]) -> list[dict[str, str]]:
    """Database, user and password of every app that goes through the pooler of a host."""
    pooled = {entry["name"] for entry in host.get("pgbouncer_databases") or ()}
    return [
        {"database": entry["name"], "user": entry["user"], "password": entry["password"]}
        for _name, entry in _databases(apps, host, "pooled_apps")
        if entry["name"] in pooled
    ]


def pooler_users(apps: Mapping[str, Any], host: Mapping[str, Any]) -> list[dict[str, str]]:
    """Users of a pooler that cannot look them up, since its databases are on other hosts."""
    if not host or host.get("pgbouncer_auth_user"):
        return []
    found = {entry["user"]: entry["password"] for _name, entry in _databases(apps, host, "pooled_apps")}
    return [{"name": user, "password": password} for user, password in found.items()]


def _databases(
    apps: Mapping[str, Any], host: Mapping[str, Any], listed: str = "served_apps"
) -> list[tuple[str, Mapping[str, Any]]]:
    """Apps that the plan lists on a host, with their `database` entry."""
    served = host.get(listed) or ()
    return [(name, app["database"]) for name, app in apps.items() if name in served]


def render(values: Mapping[str, str], consumer: str) -> str:
    """One env file; raises BadValue for what the consumer cannot carry."""
    for name, value in values.items():
        if not ENV_NAME.fullmatch(name):
            raise BadValue(f"{name} is not a name for an environment variable: use letters, digits and _")
        if any(char in value for char in "\n\r\0"):
            raise BadValue(f"{name} has a line break or a zero byte, which an env file cannot carry: encode it, e.g. in base64")
    write = {"docker": _docker, "systemd": _systemd, "shell": _shell}[consumer]
    return "".join(write(name, value) + "\n" for name, value in values.items())


def _docker(name: str, value: str) -> str:
    """`docker run --env-file` takes everything behind the sign as it is; quotes would become part of the value."""
    return f"{name}={value}"


def _systemd(name: str, value: str) -> str:
    """EnvironmentFile= unescapes these four characters inside double quotes, and no others (systemd.exec(5))."""
    for char in '\\"$`':
        value = value.replace(char, "\\" + char)
    return f'{name}="{value}"'


def _shell(name: str, value: str) -> str:
    """For `. file` in a POSIX shell."""
    return f"export {name}={shlex.quote(value)}"
