# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster as it was before: its files go back, its server goes on, its data, roles and databases stay."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from ..host import files as disk
from .converge import ConvergeError, Transaction, plan, put
from .postgresql_cluster import Cluster, ClusterError, Outcome
from .psql import Psql, SqlError, running_port
from .taken import STATE, Taken

SLOTS = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical' ORDER BY 1;"


def version(given: str, state: Path = STATE) -> str:
    """The cluster that is meant: the given one, or the one of which something is kept; empty when there is none."""
    kept = sorted(path.name.rpartition("-")[2] for path in (state / "originals").glob("postgresql-[0-9]*"))
    if given or len(kept) < 2:
        return given or "".join(kept)
    raise ClusterError(
        f"this host has several clusters that were taken over ({', '.join(kept)}); say which one by postgresql_version"
    )


def _refuse_followed(cluster: Cluster) -> None:
    """A standby would lose its way in, and its slot would keep WAL without the limit that goes, until the disk is full."""
    try:
        slots = Psql(cluster.runner, cluster.version, running_port(cluster.data_directory()) or 5432).must(SLOTS)
    except SqlError as error:
        raise ClusterError(f"nothing was changed; {error}") from error
    if slots:
        raise ClusterError(
            f"nothing was changed; standbys follow this server: {', '.join(slots)}. Take them away first, then have"
            " their slots dropped: SELECT pg_drop_replication_slot('…')"
        )


def let_go(cluster: Cluster, check_mode: bool = False) -> Outcome:
    """Put the files back and have the running server load them; raises ClusterError with everything as it was."""
    taken = Taken(cluster.owner_name, cluster.state.parent)
    try:
        back = taken.back(Transaction(cluster.owner_name), {})
    except (OSError, ValueError) as error:
        raise ClusterError(f"nothing was changed, what was kept cannot be read: {error}") from error
    changes = plan(back.transaction)
    texts = [(c.path, disk.read_text(c.path), c.after.content if c.after.kind == "file" else None) for c in changes]
    outcome = Outcome(changes=texts, words=back.words())
    live = cluster.observe()
    if live is not None and changes:
        _refuse_followed(cluster)
    outcome.live, outcome.pending = live, cluster.waiting(live) if live else ()
    if check_mode:
        return outcome
    try:
        if live is not None and not live.pending and any(change.path == cluster.drop_in for change in changes):
            cluster.keep_proven()
        for change in changes:
            put(change.path, change.after)
        if live is not None and changes:
            live = cluster.reload(live)
            outcome.reloaded = True
    except (ClusterError, ConvergeError, OSError) as error:
        for change in changes:
            put(change.path, change.before)
        with contextlib.suppress(ClusterError):
            cluster.reload(live) if live else None
        raise ClusterError(f"{error}\nThe files are as they were.") from error
    taken.forget()
    outcome.live, outcome.pending = live, cluster.waiting(live) if live else ()
    if not outcome.pending:
        shutil.rmtree(cluster.proven.parent, ignore_errors=True)
    return outcome
