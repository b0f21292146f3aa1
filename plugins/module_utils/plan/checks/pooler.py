# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of the pooler: clients, descriptors, waiting."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Check
from ..sizing import pooler_descriptors
from .subject import Pooler, Subject, seconds, whole

RESTART_BUDGET = 30  # seconds a guarded restart may hold queries: PAUSE deadline, checkpoint, start


def rules(subject: Subject) -> Iterator[Check]:
    """All of them; nothing on hosts without a pooler."""
    if "pgbouncer_nofile" not in subject.variables:
        return
    own = Pooler(
        subject.host.name, subject.variables.get("pgbouncer_databases", ()), subject.variables.get("pgbouncer_settings", {})
    )
    clients = whole(subject.pooler("max_client_conn", "100"))
    yield subject.check(
        "client-sessions",
        "app sessions of both slots <= max_client_conn",
        subject.sessions <= clients,
        str(subject.sessions),
        str(clients),
        "pgbouncer_settings max_client_conn",
        f"set at least {subject.sessions}, or leave it to the plan",
    )
    need = pooler_descriptors(clients, own.pools())
    limit = whole(subject.variables.get("pgbouncer_nofile", 1024))
    yield subject.check(
        "descriptors",
        "pgbouncer descriptors <= its LimitNOFILE",
        need <= limit,
        f"{need} ({clients} clients + 10 + pools)",
        str(limit),
        "pgbouncer_nofile or pgbouncer_settings max_client_conn",
        f"set pgbouncer_nofile to at least {need}, or fewer clients",
    )
    wait = seconds(subject.pooler("query_wait_timeout", "120"), 1.0)
    yield subject.check(
        "pooler-wait",
        "query_wait_timeout > time of a guarded restart",
        wait == 0 or wait > RESTART_BUDGET,
        f"{wait:.0f} s",
        f"{RESTART_BUDGET} s",
        "pgbouncer_settings query_wait_timeout",
        f"set more than {RESTART_BUDGET}",
    )
    for app in subject.pooled:
        checkout = seconds(app.env.get("DB_CHECKOUT_TIMEOUT", ""), 1.0)
        if checkout and app.database and app.database.pooled:
            yield subject.check(
                "pooler-wait",
                f"query_wait_timeout >= DB_CHECKOUT_TIMEOUT of {app.name}",
                wait == 0 or wait >= checkout,
                f"{wait:.0f} s",
                f"{checkout:.0f} s",
                "pgbouncer_settings query_wait_timeout",
                f"set at least {checkout:.0f}, or let the app wait less",
            )
