# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role nginx, and of maintenance.yml: each is documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.filter import maintenance, nginx


@pytest.mark.parametrize("filters", [nginx, maintenance])
def test_every_filter_is_documented(filters):
    names = filters.FilterModule().filters()
    assert names
    assert [name for name in names if not Path(filters.__file__).with_name(f"{name}.yml").is_file()] == []
