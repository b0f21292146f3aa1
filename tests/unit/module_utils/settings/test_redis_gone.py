# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.slipway.server.plugins.module_utils.settings import redis_server as r
from ansible_collections.slipway.server.plugins.module_utils.settings.redis import HEADER, Instance


def test_an_instance_that_was_taken_half_away_goes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(r.redis, "FOLDER", str(tmp_path))
    monkeypatch.setattr(r.manifest, "FOLDER", tmp_path / "files")
    (tmp_path / "files").mkdir()
    (tmp_path / "redis-cache.conf").write_text(HEADER)
    (tmp_path / "redis-old.conf").write_text(HEADER)
    (tmp_path / "redis-mine.conf").write_text("port 1\n")
    (tmp_path / "files" / "redis-half.json").write_text("{}")
    (tmp_path / "files" / "redis.json").write_text("{}")
    cache = Instance("cache", "cache", 6379, 1)
    assert [one.name for one in r.Server._gone([cache])] == ["half", "old"]
