# SPDX-License-Identifier: GPL-3.0-or-later
"""Armed changes: what they keep, how they end, and that a kill at any moment leaves the old or the new."""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.guard import armed, cli, install, saved
from ansible_collections.slipway.server.plugins.module_utils.guard.armed import Arming, Guard, GuardError, TakenBack
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed
from ansible_collections.slipway.server.plugins.module_utils.host import files
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.payload import closure, loaded
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner

ROOT = cli.__name__.rpartition(".guard.")[0]


class Killed(BaseException):
    """The process ends here."""


class Time(Clock):
    def __init__(self) -> None:
        self.passed = 1000.0

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds


class Host(Runner):
    """Records commands; those named in `failing` fail so many times."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: dict[str, int] = {}

    def run(
        self,
        argv: Sequence[str],
        data: Optional[str] = None,
        timeout: float = 600.0,
        env: Optional[Mapping[str, str]] = None,
    ) -> Result:
        line = " ".join(argv)
        self.calls.append(line)
        left = self.failing.get(line, self.failing.get(argv[0], 0))
        if left:
            self.failing[line] = left - 1
            return Result(1, "", "no")
        return Result(0, "", "")


class World:
    def __init__(self, root: Path) -> None:
        self.root, self.host, self.time = root, Host(), Time()
        self.old, self.new, self.link = root / "etc/old.conf", root / "etc/made/new.conf", root / "etc/link"
        self.old.parent.mkdir()
        self.old.write_bytes(b"old\xff\r\n")
        self.old.chmod(0o640)
        self.link.symlink_to("old.conf")

    def guard(self, name: str = "ssh") -> Guard:
        return Guard(name, self.host, self.time, self.root)

    def arm(self, name: str = "ssh", seconds: float = 60.0) -> armed.Record:
        back = [["systemctl", "reload", "ssh"]]
        return self.guard(name).arm("t1", [self.old, self.new, self.link], back, seconds, "ann", [["userdel", "bob"]])

    def change(self) -> None:
        files.atomic_write(self.old, "new", 0o600)
        self.new.parent.mkdir(exist_ok=True)
        self.new.write_text("new")
        files.atomic_symlink(self.link, "made/new.conf")

    def is_old(self) -> bool:
        same = self.old.read_bytes() == b"old\xff\r\n" and self.old.stat().st_mode & 0o7777 == 0o640
        return same and not self.new.parent.exists() and str(self.link.readlink()) == "old.conf"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_reverts_byte_for_byte_with_what_was_not_there(world: World) -> None:
    world.arm()
    world.change()
    last = world.guard().revert("t1", "not confirmed")
    assert world.is_old()
    assert last
    assert (last["outcome"], last["reason"], last["faults"]) == ("reverted", "not confirmed", [])
    assert "systemctl reload ssh" in world.host.calls
    assert "userdel bob" not in world.host.calls
    assert world.guard().revert("t1") is None
    assert not (world.guard().folder / "saved").exists()


def test_a_directory_that_somebody_else_uses_stays(world: World) -> None:
    world.arm()
    world.change()
    (world.new.parent / "other").write_text("")
    world.guard().revert()
    assert [path.name for path in world.new.parent.iterdir()] == ["other"]


def test_confirms_once_and_then_does_what_follows(world: World) -> None:
    world.arm()
    world.change()
    with pytest.raises(GuardError, match="no change t2 of ssh waits"):
        world.guard().confirm("t2")
    world.guard().confirm("t1")
    assert world.host.calls[-2:] == ["systemctl stop slipway-guard-ssh.timer", "userdel bob"]
    assert world.guard().revert() is None
    assert world.old.read_text() == "new"
    with pytest.raises(GuardError, match=r"The last one, t1, was confirmed"):
        world.guard().confirm("t1")


def test_says_that_it_was_taken_back(world: World) -> None:
    world.arm()
    world.guard().revert("t1", "not confirmed within 60 s")
    with pytest.raises(GuardError, match=r"The last one, t1, was reverted: not confirmed within 60 s"):
        world.guard().confirm("t1")


def test_refuses_a_second_change_of_the_same_thing_or_path(world: World) -> None:
    world.arm()
    world.time.sleep(20)
    with pytest.raises(GuardError, match=r"change t1 of ssh by ann is not confirmed yet; it takes itself back in 40 s"):
        world.arm()
    with pytest.raises(GuardError, match=r"change t1 of ssh, which holds .*old.conf"):
        world.guard("other").arm("t2", [world.old], [], 60)
    world.guard("other").arm("t2", [world.root / "etc/third"], [], 60)


@pytest.mark.parametrize("name", ["", "../etc", "a b", "A"])
def test_refuses_names_that_are_no_folders(world: World, name: str) -> None:
    with pytest.raises(GuardError, match="is no name of a guard"):
        world.guard(name)


def test_nothing_is_armed_when_the_timer_is_not(world: World) -> None:
    world.host.failing = {"systemd-run": 99}
    with pytest.raises(ArmingFailed):
        world.arm()
    assert world.guard().record() is None
    assert world.is_old()


def test_the_timer_insists_and_is_monotonic(world: World) -> None:
    world.arm(seconds=33)
    (call,) = [call for call in world.host.calls if call.startswith("systemd-run")]
    assert "--on-active=33.0s" in call
    assert "Restart=on-failure" in call
    assert f"{armed.PROGRAM} revert ssh --txn t1" in call


def test_tries_to_make_old_bytes_effective_and_says_when_it_cannot(world: World) -> None:
    world.arm()
    world.host.failing = {"systemctl reload ssh": 2}
    last = world.guard().revert()
    assert last
    assert last["faults"] == []
    world.arm()
    world.host.failing = {"systemctl reload ssh": 99}
    last = world.guard().revert()
    assert last
    assert last["faults"] == ["`systemctl reload ssh` failed"]


def test_boot_takes_back_and_reloads_nothing_that_does_not_run(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.arm()
    world.change()
    world.host.calls.clear()
    assert cli.main(["boot"], world.host, world.root) == 0
    assert world.is_old()
    assert world.host.calls == ["systemctl daemon-reload", "systemctl stop slipway-guard-ssh.timer"]
    assert "ssh: change t1 was taken back" in capsys.readouterr().out
    assert world.guard().last()["reason"] == "the host was restarted before it was confirmed"


@pytest.mark.parametrize("alone", [["boot"], ["revert", "ssh", "--txn", "t1", "--reason", "not confirmed within 60 s"]])
def test_what_nobody_saw_is_told_once(world: World, alone: list[str]) -> None:
    heard: list[str] = []
    world.arm()
    assert cli.main(alone, world.host, world.root) == 0
    armed.tell(world.guard(), heard.append, hear=False)
    for _run in range(2):
        armed.tell(world.guard(), heard.append, hear=True)
    assert len(heard) == 2
    assert heard[0].startswith("ssh: change t1 by ann took itself back ")
    assert world.guard().last()["outcome"] == "reverted"


def test_a_full_disk_is_said_before_anything_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_paths: object, folder: Path) -> list[object]:
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved, "save", full)
    with pytest.raises(GuardError, match=r"guard/ssh: No space left on device\. Nothing was changed; make room there"):
        world.arm()
    assert not (world.guard().folder / "saved").exists()
    assert world.guard().record() is None


def test_what_somebody_did_is_not_told_again(world: World) -> None:
    heard: list[str] = []
    armed.tell(world.guard(), heard.append, hear=True)
    world.arm()
    cli.main(["revert", "ssh"], world.host, world.root)
    armed.tell(world.guard(), heard.append, hear=True)
    assert heard == []


def test_a_copy_that_is_lost_keeps_the_guard_armed(world: World) -> None:
    world.arm()
    world.change()
    for copy in (world.guard().folder / "saved").iterdir():
        copy.unlink()
    with pytest.raises(GuardError, match=r"old.conf could not be put back"):
        world.guard().revert()
    assert not world.new.parent.exists()  # the rest was put back all the same
    assert world.guard().record() is not None


DISK = ["atomic_write", "atomic_symlink", "remove", "make_directories", "fsync_directory"]


def killed_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on the process dies before the disk operation number `count`."""
    done = [0]
    for name in DISK:
        real = getattr(files, name)

        def dying(*args: object, real=real, **more: object) -> object:  # type: ignore[no-untyped-def]
            done[0] += 1
            if done[0] > count:
                raise Killed
            return real(*args, **more)

        monkeypatch.setattr(files, name, dying)
    return done


@pytest.mark.parametrize("count", range(40))
def test_killed_at_any_moment_it_is_old_in_the_end(world: World, count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        done = killed_after(count, patch)
        try:
            world.arm()
            world.change()
            world.guard().revert("t1")
        except Killed:
            pass
        finished = done[0] <= count
    record = world.guard().record()
    # What the timer or the boot does then; without a record nothing was changed, or everything was put back.
    world.guard().revert("t1")
    assert world.is_old()
    assert not finished or record is None
    assert count < 39 or finished


@pytest.mark.parametrize("count", range(20))
def test_killed_while_it_is_confirmed_it_is_old_or_confirmed(world: World, count: int) -> None:
    world.arm()
    world.change()
    with pytest.MonkeyPatch.context() as patch:
        killed_after(count, patch)
        with contextlib.suppress(Killed):
            world.guard().confirm("t1")
    world.guard().revert("t1")
    assert world.is_old() or (world.old.read_text() == "new" and world.new.exists())


def test_command_shows_confirms_reverts(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str]:
        code = cli.main(words, world.host, world.root)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    assert run("guard", "status") == (0, "Nothing is guarded on this host.\n")
    world.arm()
    code, text = run("guard", "status", "--json")
    assert (code, json.loads(text)[0]["armed"]["owner"]) == (0, "ann")
    assert "change t1 waits, takes itself back in" in run("status", "ssh")[1]
    assert run("status", "ssh", "--txn", "t1")[0] == 0
    assert run("status", "ssh", "--txn", "no")[0] == 1
    assert run("confirm", "ssh", "--txn", "no")[0] == 1
    assert run("confirm", "ssh") == (0, "ssh: change t1 is confirmed.\n")
    assert run("revert", "ssh") == (0, "ssh: nothing was armed.\n")
    assert "the last change, t1, was confirmed" in run("status")[1]
    assert run("status", "ssh", "--txn", "t1")[0] == 1
    assert run("status", "../x")[0] == 1


def test_a_change_that_is_not_well_is_over_at_once_and_one_that_is_waits(world: World) -> None:
    brought: list[int] = []

    def ill() -> None:
        world.change()
        raise OSError("it does not start")

    arming = Arming(world.guard(), lambda: brought.append(1), 60, "ann")
    paths, back = [world.old, world.new, world.link], [["systemctl", "reload", "ssh"]]
    with pytest.raises(TakenBack, match=r"it does not start\nThe old state is back\."):
        arming.carry(ill, paths, back)
    assert world.is_old()
    assert arming.waiting() == {}
    arming.carry(world.change, paths, back)
    assert arming.waiting() == {"name": "ssh", "txn": arming.txn, "seconds": 60}
    assert Arming(world.guard(), lambda: None, 60).waiting() == {}
    assert brought == [1, 1]
    with pytest.raises(GuardError, match="is not confirmed yet"):
        arming.carry(ill, paths, back)
    assert world.old.read_text() == "new"


def test_a_disk_that_is_full_leaves_what_was_not_changed_and_says_where(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write, arming = files.atomic_write, Arming(world.guard(), lambda: None, 60)

    def full(path: Path, *rest: Any) -> None:
        if path.parent == world.old.parent:
            raise OSError(28, "No space left on device", str(path))
        write(path, *rest)

    monkeypatch.setattr(files, "atomic_write", full)
    with pytest.raises(TakenBack, match=r"No space left on device: '(.*)old\.conf'\nThe old state is back\."):
        arming.carry(world.change, [world.old, world.new, world.link], [])
    assert world.is_old()
    assert arming.waiting() == {}

    def half() -> None:
        world.old.write_text("half")
        raise OSError("it does not start")

    with pytest.raises(TakenBack, match=r"it does not start\nnot all of the old state is back: (.*)old\.conf(.*)again in 60 s"):
        arming.carry(half, [world.old], [])
    assert arming.waiting()["txn"] == arming.txn


def test_a_host_without_applications_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.command(["status", "shop", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["failed"] is True
    assert cli.command([]) == 2
    with pytest.raises(SystemExit):
        cli.command(["guard", "confirm"])


def test_the_program_is_small_and_runs_alone(world: World) -> None:
    sources = closure(loaded(importlib.import_module, ROOT), install.ENTRY)
    assert {path.split("/")[0] for path in sources} == {"__init__.py", "guard", "host"}
    assert install.ensure(sources, world.host, world.root)
    assert not install.ensure(sources, world.host, world.root)
    library = world.root / install.LIBRARY[1:]
    code = f"import sys; sys.path.insert(0, {str(library)!r}); from slipway.guard.cli import main; sys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "revert" in done.stdout, done.stderr) == (0, True, "")
    assert (world.root / "etc/systemd/system/sysinit.target.wants" / install.UNIT).is_symlink()
    assert (world.root / install.COMMAND[1:]).stat().st_mode & 0o777 == 0o755
    assert "import command as run" in (world.root / install.COMMAND[1:]).read_text()


def test_the_whole_command_is_left_alone(world: World) -> None:
    command = world.root / install.COMMAND[1:]
    command.parent.mkdir(parents=True)
    command.write_text("whole")
    install.ensure({}, world.host, world.root)
    assert command.read_text() == "whole"


def test_parents_that_are_missing_go_again_with_what_is_in_them(tmp_path: Path) -> None:
    assert saved.with_missing_parents([tmp_path / "a/b/c"]) == [tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c"]
