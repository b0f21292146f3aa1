# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.slipway.server.plugins.module_utils.settings.converge import DirectorySpec, FileSpec, LinkSpec
from ansible_collections.slipway.server.plugins.module_utils.settings.originals import Originals


def test_what_was_kept_comes_back(tmp_path):
    folder, file, link, new = (tmp_path / name for name in ("folder", "file", "link", "new"))
    folder.mkdir(mode=0o755)
    file.write_text("old\n")
    file.chmod(0o640)
    link.symlink_to("there")
    kept = Originals(tmp_path / "state/originals").load()
    kept.keep([folder, file, link, new])
    file.write_text("new\n")
    kept.keep([file])
    found = {spec.path: spec for spec in Originals(tmp_path / "state/originals").load().back([], {})}
    assert isinstance(found[folder], DirectorySpec)
    assert found[folder].mode == 0o755
    assert isinstance(found[file], FileSpec)
    assert (found[file].content, found[file].mode) == ("old\n", 0o640)
    assert isinstance(found[link], LinkSpec)
    assert found[link].target == "there"
    assert found[new].content is None


def test_only_what_is_let_go_comes_back_and_parts_of_it(tmp_path):
    one, two, home = tmp_path / "one", tmp_path / "two", tmp_path / "home"
    one.write_text("a\n")
    two.write_text("b\n")
    home.mkdir()
    kept = Originals(tmp_path / "originals").load()
    kept.keep([one, two, home])
    two.write_text("b\nby hand\n")
    home.rmdir()
    found = kept.back([one], {two: lambda now, old: now + old})
    assert [(spec.path, spec.content) for spec in found] == [(two, "b\nby hand\nb\n")]


def test_nothing_is_left_when_nothing_is_kept(tmp_path):
    one = tmp_path / "one"
    one.write_text("a\n")
    kept = Originals(tmp_path / "originals").load()
    kept.keep([one])
    kept.units = {"cups.service": ["disable", "stop"]}
    kept.store()
    again = Originals(tmp_path / "originals").load()
    assert again.units == {"cups.service": ["disable", "stop"]}
    again.forget([one])
    again.units = {}
    again.store()
    assert not (tmp_path / "originals").exists()
