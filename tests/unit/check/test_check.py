# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from tests import check


def test_files_in_memory_only_where_there_is_room(tmp_path, monkeypatch):
    assert check.scratch(tmp_path / "absent") is None
    monkeypatch.setattr(check, "ENOUGH", 1)
    assert check.scratch(tmp_path) == tmp_path
    monkeypatch.setattr(check, "ENOUGH", 1 << 60)
    assert check.scratch(tmp_path) is None
