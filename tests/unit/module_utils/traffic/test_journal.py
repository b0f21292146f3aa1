# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lines of a journal come to."""

from __future__ import annotations

from ansible_collections.slipway.server.plugins.module_utils.traffic.journal import transaction

BEGIN = {"txn": "t1", "phase": "intent", "step": "begin", "source": "blue", "target": "green"}
END = {"txn": "t1", "phase": "done", "step": "end", "outcome": "aborted", "reason": "rolled back by hand"}
LATE = {"txn": "t1", "phase": "intent", "step": "arm"}


def test_a_run_that_has_not_seen_the_end_of_its_transaction_does_not_open_it_again() -> None:
    tx = transaction([BEGIN, END, LATE])
    assert tx is not None
    assert (tx.open, tx.outcome, tx.reason) == (False, "aborted", "rolled back by hand")


def test_the_same_transaction_may_begin_again() -> None:
    tx = transaction([BEGIN, END, LATE, dict(BEGIN), LATE])
    assert tx is not None
    assert tx.open
    assert tx.steps == ("intent begin", "intent arm")
