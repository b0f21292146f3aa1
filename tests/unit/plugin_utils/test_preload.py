# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controlling process does once for all of its workers."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from ansible_collections.slipway.server.plugins.plugin_utils import preload


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_is_loaded_is_not_searched_for_garbage_again() -> None:
    preload.collect_rarely()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == preload.RARELY


def test_garbage_is_still_collected() -> None:
    preload.collect_rarely()
    assert gc.isenabled()
