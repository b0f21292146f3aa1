# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host import room as r


def test_room_is_held_without_a_name_and_given_back(tmp_path):
    room = r.Room()
    room.reserve([(tmp_path / "one", 100), (tmp_path / "not" / "there" / "yet", 5000)])
    assert [os.fstat(descriptor).st_size for descriptor in room.held] == [5100 + 2 * r.SPARE]
    assert not list(tmp_path.iterdir())
    room.release()
    room.release()
    assert not room.held


def test_a_full_disk_is_said_and_nothing_is_held(tmp_path, monkeypatch):
    def full(_descriptor, _start, _size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(r.os, "posix_fallocate", full)
    room = r.Room()
    with pytest.raises(OSError, match=f"no room for {100 + r.SPARE} bytes: No space left on device"):
        room.reserve([(tmp_path / "one", 100)])
    assert not room.held
    assert not list(tmp_path.iterdir())
