# SPDX-License-Identifier: GPL-3.0-or-later
"""What others had written is there again, byte for byte, when a service is let go."""

from __future__ import annotations

import getpass
import grp
import hashlib
import os

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import converge as c
from ansible_collections.slipway.server.plugins.module_utils.settings import taken as t

ME, GROUP = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name


class Host(Runner):
    def __init__(self):
        self.bad = False
        self.calls: list[list[str]] = []

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.calls.append(list(argv))
        if argv[:2] == ["systemctl", "show"]:
            return Result(
                0, "Id=web.service\nNames=web.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n", ""
            )
        return Result(1, "", "bad") if self.bad and argv[0] == "web" else Result(0, "", "")


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def world(tmp_path, host):
    """A host with a file and a link of its package, and what a service makes of it."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "web.conf").write_bytes(b"theirs \xff\n")
    (etc / "web.conf").chmod(0o640)
    (etc / "page").symlink_to("web.conf")
    files = (c.FileSpec(etc / "web.conf", "ours\n", ME, GROUP), c.FileSpec(etc / "web.d" / "site.conf", "ours\n", ME, GROUP))
    units = (c.UnitSpec("web.service", None),)
    links = (c.LinkSpec(etc / "page", None),)
    transaction = c.Transaction("web", files=files, links=links, units=units, validate=(("web", "-t"),), originals=True)
    return c.Converger(host, markers=tmp_path / "state" / "converge"), transaction, etc


def look(etc):
    found = {}
    for path in sorted(etc.rglob("*")):
        found[path.name] = (
            path.lstat().st_mode,
            os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes(),
        )
    return found


def test_everything_is_as_it_was_and_nothing_of_it_is_kept(tmp_path, world, host):
    converger, transaction, etc = world
    before = look(etc)
    assert converger.run(transaction).foreign == [str(etc / "web.conf"), str(etc / "page")]
    assert converger.run(transaction).foreign == []
    ours = look(etc)
    assert converger.let_go(transaction, check_mode=True).changed
    assert look(etc) == ours
    host.calls.clear()
    assert converger.let_go(transaction).changed
    assert look(etc) == before
    assert ["systemctl", "reload-or-restart", "--", "web.service"] in host.calls
    assert not list((tmp_path / "state" / "originals").iterdir())
    assert not list((tmp_path / "state" / "files").iterdir())
    assert not converger.let_go(transaction).changed
    converger.run(transaction)
    assert look(etc) == ours


def test_a_change_that_is_taken_back_keeps_nothing(tmp_path, world, host):
    converger, transaction, etc = world
    host.bad = True
    before = look(etc)
    with pytest.raises(c.ConvergeError):
        converger.run(transaction)
    assert look(etc) == before
    assert not list((tmp_path / "state" / "originals").glob("*"))
    # What somebody writes afterwards is the original.
    (etc / "web.conf").write_text("newer\n")
    host.bad = False
    converger.run(transaction)
    converger.let_go(transaction)
    assert (etc / "web.conf").read_text() == "newer\n"


def test_a_killed_first_run_does_not_make_our_own_bytes_the_original(world, monkeypatch):
    converger, transaction, etc = world
    before = look(etc)

    def killed(_transaction, _folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(c, "remember", killed)
        patch.setattr(c.disk, "remove", lambda _path: True)
        with pytest.raises(KeyboardInterrupt):
            converger.run(transaction)
    converger.run(transaction)
    converger.let_go(transaction)
    assert look(etc) == before


def test_letting_go_fails_whole(world, host):
    converger, transaction, etc = world
    converger.run(transaction)
    ours = look(etc)
    host.bad = True
    with pytest.raises(c.ConvergeError, match="old state is back"):
        converger.let_go(transaction)
    assert look(etc) == ours
    host.bad = False
    converger.let_go(transaction)
    assert (etc / "web.conf").read_bytes() == b"theirs \xff\n"


def test_what_was_edited_meanwhile_is_named_or_merged(world):
    converger, transaction, etc = world
    converger.run(transaction)
    (etc / "web.conf").write_text("edited\n")
    assert "changed by hand" in converger.let_go(transaction, check_mode=True).words[0]
    undo = {etc / "web.conf": lambda now, before: f"{now}+{before}"}
    assert converger.let_go(transaction, undo=undo).words == []
    assert (etc / "web.conf").read_bytes() == b"edited\n+theirs \xff\n"


def test_what_was_declared_before_originals_were_kept_stays_and_is_named(tmp_path, world):
    converger, transaction, etc = world
    c.remember(transaction, tmp_path / "state" / "files")
    converger.run(transaction)
    done = converger.let_go(transaction)
    assert "nothing is kept" in done.words[0]
    assert (etc / "web.conf").read_text() == "ours\n"


def test_files_as_their_package_made_them_are_nobodys(tmp_path):
    path = tmp_path / "web.conf"
    path.write_text("packaged\n")
    (tmp_path / "link").symlink_to(path)
    digest = hashlib.md5(b"packaged\n", usedforsecurity=False).hexdigest()
    sums = t.conffiles(f"Package: web\nConffiles:\n {path} {digest}\n /etc/other 00 obsolete\nDescription: x\n /etc/no 11\n")
    assert set(sums) == {str(path), "/etc/other"}
    assert t.foreign([path, tmp_path / "link", tmp_path], sums) == []
    path.write_text("edited\n")
    assert t.foreign([path, tmp_path / "link"], sums) == [str(path), str(tmp_path / "link")]
