# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import manifest, postgresql_prepared, sandboxed


class Host(Runner):
    def __init__(self):
        self.calls = []

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.calls.append(list(argv))
        return Result(0, "", "")


def declared(folder):
    return [
        {"path": str(folder / "cluster.conf"), "content": "new\n", "effect": "none"},
        {"path": str(folder / "unit.conf"), "content": "[Service]\n", "effect": "daemon-reload"},
    ]


def test_files_changed_by_hand_come_back_with_the_sandbox_and_without_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(sandboxed.path, "__defaults__", (tmp_path / "units",))
    (tmp_path / "units").mkdir()
    for _again in range(2):
        (tmp_path / "unit.conf").write_text("by hand\n")
        host = Host()
        done, refused = postgresql_prepared.keep(host, declared(tmp_path), False, markers=tmp_path / "state" / "markers")
        assert (tmp_path / "unit.conf").read_text() == "[Service]\n"
        assert (tmp_path / "cluster.conf").read_text() == "new\n"
        assert "NoNewPrivileges=yes" in (tmp_path / "units/postgresql@.service.d" / sandboxed.NAME).read_text()
        assert not refused
        assert not [call for call in host.calls if "restart" in call]
    assert [change.path.name for change in done.changes] == ["unit.conf"]
    kept = manifest.place(postgresql_prepared.NAME, tmp_path / "state" / manifest.FOLDER.name).read_text()
    assert str(tmp_path / "cluster.conf") in kept
    done, _refused = postgresql_prepared.keep(Host(), declared(tmp_path), False, markers=tmp_path / "state" / "markers")
    assert not done.changed


def test_check_mode_tells_and_writes_nothing(tmp_path):
    (tmp_path / "cluster.conf").write_text("new\n")
    done, _refused = postgresql_prepared.keep(Host(), declared(tmp_path), True, markers=tmp_path / "state")
    assert done.changed
    assert tmp_path / "unit.conf" in [change.path for change in done.changes]
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.conf"]
    assert Path(tmp_path / "cluster.conf") not in [change.path for change in done.changes]
