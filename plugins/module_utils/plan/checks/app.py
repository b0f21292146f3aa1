# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of applications: pools for their threads on app hosts, timeouts on the host of their database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..model import App, Check
from ..sizing import app_pool, worker_pool
from .subject import Subject, seconds, whole


def rules(subject: Subject) -> Iterator[Check]:
    """All of them."""
    for app in subject.apps:
        yield from _pools(subject, app)
    for app in subject.served:
        yield from _timeouts(subject, app)


def _pools(subject: Subject, app: App) -> Iterator[Check]:
    found = [("DB_POOL", app_pool(app))] if app.database else []
    found += [("REDIS_POOL_SIZE", 0)] if "REDIS_POOL_SIZE" in app.env else []
    for name, planned in found:
        pool = whole(app.env.get(name, planned))
        yield subject.check(
            "app-pool",
            f"{name} of {app.name} >= threads of its process",
            pool >= app.threads,
            str(pool),
            f"{app.threads} threads",
            f"slipway_apps.{app.name}.env.{name}",
            f"set at least {app_pool(app)}, or remove it",
        )
        for worker in app.workers if name in app.env else ():
            yield subject.check(
                "app-pool",
                f"{name} of {app.name} >= threads of its worker {worker.name}",
                pool >= worker.threads,
                str(pool),
                f"{worker.threads} threads",
                f"slipway_apps.{app.name}.env.{name}",
                f"set at least {worker_pool(worker)}, or remove it",
            )


def _timeouts(subject: Subject, app: App) -> Iterator[Check]:
    if not app.database:
        return
    roles = subject.variables.get("postgresql_roles", ())
    role: Mapping[str, Any] = next((one for one in roles if one.get("name") == app.database.user), {})
    lock, statement = (seconds(str(role.get(name, "0"))) for name in ("lock_timeout", "statement_timeout"))
    yield subject.check(
        "timeouts",
        f"lock_timeout < statement_timeout < read_timeout of {app.name}",
        0 < lock < statement < app.read_timeout,
        f"{lock:g} < {statement:g} s",
        f"{app.read_timeout} s",
        f"slipway_apps.{app.name}.database.lock_timeout, statement_timeout or read_timeout",
        "keep them in this order, and none of them 0",
    )
