# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.slipway.server.plugins.module_utils.settings import psql


def test_the_newest_client_is_found_before_the_script_that_stands_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert psql.environment(tmp_path) == {}
    for version in ("9.6", "15", "17"):
        (tmp_path / version / "bin").mkdir(parents=True)
    (tmp_path / "9.6/bin/psql").touch()
    (tmp_path / "15/bin/psql").touch()
    assert psql.environment(tmp_path) == {"PATH": f"{tmp_path}/15/bin:/usr/bin"}
