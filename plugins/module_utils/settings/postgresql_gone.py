# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster as it was before: its files go back, its server goes on, its data, roles and databases stay."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from ..host import files as disk
from .converge import ConvergeError, Transaction, plan, put
from .postgresql_cluster import Cluster, ClusterError, Outcome
from .taken import STATE, Taken


def version(given: str, state: Path = STATE) -> str:
    """The cluster that is meant: the given one, or the one of which something is kept; empty when there is none."""
    kept = sorted(path.name.rpartition("-")[2] for path in (state / "originals").glob("postgresql-[0-9]*"))
    if given or len(kept) < 2:
        return given or "".join(kept)
    raise ClusterError(
        f"this host has several clusters that were taken over ({', '.join(kept)}); say which one by postgresql_version"
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
