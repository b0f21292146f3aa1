# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings.declared import FileSpec
from ansible_collections.slipway.server.plugins.module_utils.settings.ufw_remove import CONF, _starts


@pytest.mark.parametrize(
    ("kept", "there", "on"),
    [
        ("ENABLED=no\n", "ENABLED=yes\n", False),
        ("ENABLED=yes\n", "ENABLED=yes\n", True),
        (None, "ENABLED=yes\n", True),  # it was on before, so this file never had to be changed
        (None, "ENABLED=no\n", False),
        (None, "", False),
    ],
)
def test_a_firewall_that_was_on_before_stays_on(kept, there, on):
    specs = [FileSpec(Path("/", CONF), kept)] if kept else []
    assert _starts(specs, {CONF: there}) is on
