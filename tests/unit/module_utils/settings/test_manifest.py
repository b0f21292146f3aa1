# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files are owned, and what of them was changed by hand."""

from __future__ import annotations

import json

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.host.state import State, observe
from ansible_collections.slipway.server.plugins.module_utils.settings import converge, manifest


@pytest.fixture
def owned(tmp_path):
    """A folder of records, and a file, a link and a directory that are recorded in it."""
    file, link, directory = tmp_path / "file", tmp_path / "link", tmp_path / "directory"
    file.write_text("secret words\n")
    file.chmod(0o640)
    link.symlink_to("file")
    directory.mkdir(mode=0o755)
    folder = tmp_path / "state" / "files"
    paths = (file, link, directory)
    manifest.record("base", [(path, observe(path)) for path in paths], folder)
    return folder, *paths


def test_nothing_drifts_at_first_and_no_content_is_kept(owned):
    folder, *_paths = owned
    assert manifest.drift(folder) == []
    assert "secret" not in (folder / "base.json").read_text()
    assert (folder.stat().st_mode & 0o777, (folder / "base.json").stat().st_mode & 0o777) == (0o700, 0o600)


def test_every_change_by_hand_is_told(owned):
    folder, file, link, directory = owned
    file.write_text("other\n")
    file.chmod(0o644)
    link.unlink()
    link.symlink_to("elsewhere")
    directory.rmdir()
    told = {entry.path: entry.what for entry in manifest.drift(folder)}
    assert told == {
        str(file): "has other content; has mode 0644, not 0640",
        str(link): "leads to elsewhere, not file",
        str(directory): "is gone",
    }
    file.unlink()
    file.mkdir()
    assert {entry.path: entry.what for entry in manifest.drift(folder)}[str(file)] == "is a directory, no file"


def test_what_is_to_be_gone_is_forgotten(owned):
    folder, file, link, _directory = owned
    manifest.record("base", [(file, observe(file)), (link, State())], folder)
    assert list(json.loads((folder / "base.json").read_text())) == [str(file)]
    manifest.record("base", [(file, State())], folder)
    assert list(folder.iterdir()) == []
    assert manifest.drift(folder) == []


def test_a_record_that_cannot_be_read_is_told(owned):
    folder, *_paths = owned
    (folder / "base.json").write_text("{")
    (entry,) = manifest.drift(folder)
    assert "cannot be read" in entry.what


def test_a_converge_keeps_what_it_declares(tmp_path):
    path, secret = tmp_path / "a.conf", tmp_path / "b.conf"
    own = observe(tmp_path)
    specs = tuple(
        converge.FileSpec(each, "words\n", own.owner, own.group, effect="none", secret=each == secret) for each in (path, secret)
    )
    transaction = converge.Transaction("mine", files=specs)
    folder = tmp_path / "files"
    converge.Converger(Runner(), markers=tmp_path / "markers").run(transaction, check_mode=True)
    assert not folder.exists()
    converge.Converger(Runner(), markers=tmp_path / "markers").run(transaction)
    assert manifest.drift(folder) == []
    path.write_text("by hand\n")
    assert [entry.path for entry in manifest.drift(folder)] == [str(path)]
    gone = converge.Transaction("mine", files=tuple(converge.FileSpec(spec.path, None, effect="none") for spec in specs))
    converge.Converger(Runner(), markers=tmp_path / "markers").run(gone)
    assert list(folder.iterdir()) == []
