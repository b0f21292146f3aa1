# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import gate

from tests.unit.module_utils.traffic.world import World


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No durability, which thousands of fsync would pay for, and one look after the other, so that steps can be counted."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(gate, "look_at_all", lambda probes: [probe.look() for probe in probes])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
