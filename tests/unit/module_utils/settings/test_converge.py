# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import getpass
import grp
import os
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.guard.armed import Arming, Guard
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock, parse_time
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import converge as c

ME, GROUP = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name


class FakeHost(Runner):
    """systemctl of one unit, plus commands that fail when their program is in `failing`."""

    def __init__(self, active=True, enabled="enabled"):
        self.active, self.enabled = active, enabled
        self.calls: list[list[str]] = []
        self.failing: dict[str, str] = {}
        self.condition = "yes"
        self.instances: list[str] = []
        self.since = ""

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.calls.append(list(argv))
        for start, words in self.failing.items():
            if " ".join(argv).startswith(start):
                return Result(1, "", words)
        if argv[:3] == ["systemctl", "show", "--property=ActiveState,InvocationID"]:
            return Result(0, next(self.lives), "")
        if argv[:2] == ["systemctl", "show"]:
            state = "active" if self.active else "inactive"
            return Result(
                0,
                f"Id=web.service\nNames=web.service\nLoadState=loaded\nActiveState={state}\nUnitFileState={self.enabled}\n"
                f"NeedDaemonReload=no\nConditionResult={self.condition}\nConditionTimestampMonotonic=1\n"
                f"StateChangeTimestamp={self.since}\n",
                "",
            )
        if argv[:2] == ["systemctl", "list-units"]:
            return Result(0, "".join(f"{name} loaded active running x\n" for name in self.instances), "")
        if argv[:2] == ["systemctl", "is-enabled"]:
            return Result(0, "enabled\n", "")
        if argv[:2] == ["systemctl", "start"]:
            self.active = True
        if argv[:2] == ["systemctl", "enable"]:
            self.enabled = "enabled"
        return Result(0, "", "")

    def verbs(self):
        return [
            " ".join(call[1:])
            for call in self.calls
            if call[0] == "systemctl" and call[1] not in ("show", "list-units", "is-enabled")
        ]


class FakeClock(Clock):
    def __init__(self):
        self.time = 0.0

    def monotonic(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


def spec(path: Path, content, **more):
    return c.FileSpec(path, content, ME, GROUP, **more)


@pytest.fixture
def host():
    return FakeHost()


@pytest.fixture
def run(tmp_path, host):
    def go(check_mode=False, **parts):
        parts.setdefault("units", (c.UnitSpec("web.service"),))
        transaction = c.Transaction("web", **parts)
        return c.Converger(host, FakeClock(), tmp_path / "markers").run(transaction, check_mode)

    return go


def test_writes_reloads_and_is_quiet_the_second_time(tmp_path, host, run):
    files = (spec(tmp_path / "etc" / "web.conf", "a=1\n", mode=0o640),)
    first = run(files=files)
    assert first.changed
    assert (tmp_path / "etc" / "web.conf").read_text() == "a=1\n"
    assert (tmp_path / "etc" / "web.conf").stat().st_mode & 0o777 == 0o640
    assert host.verbs() == ["reload-or-restart -- web.service"]
    host.calls.clear()
    assert not run(files=files).changed
    assert host.verbs() == []


def test_strongest_effect_wins(tmp_path, host, run):
    run(
        files=(
            spec(tmp_path / "a", "1\n"),
            spec(tmp_path / "b", "1\n", effect="restart"),
            spec(tmp_path / "c", "1\n", effect="none"),
        )
    )
    assert host.verbs() == ["reset-failed -- web.service", "restart -- web.service"]


def test_starts_and_enables_what_is_down(tmp_path, host, run):
    host.active, host.enabled = False, "disabled"
    assert run().actions == ["enable web.service", "start web.service"]
    assert run().actions == []


def test_check_mode_touches_nothing(tmp_path, host, run):
    done = run(check_mode=True, files=(spec(tmp_path / "new" / "f", "x\n"),))
    assert done.changed
    assert not (tmp_path / "new").exists()
    assert host.verbs() == []
    assert "x\n" in done.diff()[0]["after"]


def test_secret_content_is_in_no_diff(tmp_path, run):
    path = tmp_path / "key"
    path.write_text("old-secret\n")
    done = run(files=(spec(path, "new-secret\n", secret=True),))
    shown = str(done.diff())
    assert "secret" in shown
    assert "old-secret" not in shown
    assert "new-secret" not in shown
    assert done.diff()[0]["before"] != done.diff()[0]["after"]


@pytest.mark.parametrize(
    ("failing", "parts", "words"),
    [
        ("nginx -t", {"validate": (("nginx", "-t"),)}, "bad directive"),
        ("systemctl reload-or-restart", {}, "bad directive"),
        ("probe", {"check": (("probe",),)}, "not healthy"),
        ("apply", {"apply": (("apply",),)}, "applying failed"),
    ],
)
def test_failure_brings_the_old_bytes_back(tmp_path, host, run, failing, parts, words):
    old, new, gone = tmp_path / "old", tmp_path / "new", tmp_path / "gone"
    old.write_text("before\n")
    gone.write_text("still here\n")
    host.failing[failing] = "bad directive"
    with pytest.raises(c.ConvergeError, match=words) as error:
        run(files=(spec(old, "after\n"), spec(new, "x\n"), spec(gone, None)), **parts)
    assert "old state is back" in str(error.value)
    assert old.read_text() == "before\n"
    assert not new.exists()
    assert gone.read_text() == "still here\n"
    assert not list((tmp_path / "markers").iterdir())


def test_failed_validation_does_not_disturb_the_running_unit(tmp_path, host, run):
    host.failing["nginx -t"] = "bad directive"
    with pytest.raises(c.ConvergeError):
        run(files=(spec(tmp_path / "f", "x\n"),), validate=(("nginx", "-t"),))
    assert host.verbs() == []


def test_staged_validation_fails_before_anything_is_written(tmp_path, host, run):
    host.failing["visudo"] = "syntax error"
    with pytest.raises(c.ConvergeError, match="was not written"):
        run(files=(spec(tmp_path / "first", "1\n"), spec(tmp_path / "sudoers", "junk\n", validate="visudo -cf %s")))
    assert not (tmp_path / "first").exists()


def test_a_killed_run_is_finished_by_the_next(tmp_path, host, run):
    class Killed(BaseException):
        pass

    real = host.run

    def dies_at_reload(argv, **more):
        if argv[:2] == ["systemctl", "reload-or-restart"]:
            raise Killed
        return real(argv, **more)

    files = (spec(tmp_path / "f", "x\n"),)
    host.run = dies_at_reload
    with pytest.raises(Killed):
        run(files=files)
    host.run = real
    host.calls.clear()
    done = run(files=files)
    assert done.resumed == "reload"
    assert host.verbs() == ["reload-or-restart -- web.service"]
    assert not run(files=files).changed


class Killed(BaseException):
    """The process ends here."""


class Mortal(FakeHost):
    """A host whose run is killed before its `left`-th command."""

    left = -1

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.left -= 1
        if self.left == -1:
            raise Killed
        return super().run(argv, data, timeout, env)


@pytest.fixture
def guarded(tmp_path):
    """What a guarded run does to a host that has an old file and lacks another one."""
    (tmp_path / "old").write_text("old\n")
    # As a process that is killed leaves it: nobody catches, nobody cleans up.
    files = (spec(tmp_path / "old", "new\n"), spec(tmp_path / "sub" / "more", "new\n"))
    transaction = c.Transaction("web", files=files, units=(c.UnitSpec("web.service"),), validate=(("web", "-t"),))

    def go(host, **more):
        guard = Guard("web", host, FakeClock(), tmp_path)
        converger = c.Converger(host, FakeClock(), tmp_path / "markers", arming=Arming(guard, lambda: None, 60), **more)
        return guard, converger.run(transaction)

    return go


def steps(tmp_path):
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() and "guard" not in path.parts)


def test_a_guarded_change_is_final_when_it_has_been_proven(tmp_path, guarded):
    host = FakeHost()
    guard, done = guarded(host)
    assert done.changed
    assert (guard.record(), guard.last()["outcome"]) == (None, "confirmed")
    assert "stop slipway-guard-web.timer" in host.verbs()
    host.calls.clear()
    assert not guarded(host)[1].changed
    assert not [call for call in host.calls if call[0] == "systemd-run"]


@pytest.mark.parametrize("left", range(8))
def test_a_guarded_run_that_is_killed_is_taken_back_by_its_host(tmp_path, guarded, left):
    host = Mortal()
    host.left = left
    guard = Guard("web", host, FakeClock(), tmp_path)
    with contextlib.suppress(Killed):
        guarded(host)
    host.left = -1
    armed = guard.record() is not None
    assert armed == (left in (3, 4, 5))  # before it is armed nothing changes, and then it is final
    if left < 3:
        assert steps(tmp_path) == ["old"]
    guard.revert(reason="not confirmed")
    if armed:
        assert (tmp_path / "old").read_text() == "old\n"
        assert steps(tmp_path) == ["old"]
        assert host.verbs()[-2:] == ["try-reload-or-restart web.service", "stop slipway-guard-web.timer"]
    # Whatever was left, a new run brings it about.
    host.calls.clear()
    guarded(host)
    assert (tmp_path / "sub" / "more").read_text() == "new\n"
    assert guard.record() is None


def test_a_new_run_need_not_wait_for_one_that_was_killed(tmp_path, guarded):
    host = Mortal()
    host.left = 4
    with pytest.raises(Killed):
        guarded(host)
    guard = Guard("web", host, FakeClock(), tmp_path)
    assert guard.record() is not None
    assert guarded(host)[1].changed
    assert guard.last()["outcome"] == "confirmed"


def test_a_guarded_change_that_is_not_well_is_taken_back_once(tmp_path, guarded):
    host = FakeHost()
    host.failing["web -t"] = "bad"
    with pytest.raises(c.ConvergeError, match="old state is back"):
        guarded(host)
    guard = Guard("web", host, FakeClock(), tmp_path)
    assert (guard.record(), guard.last()["outcome"]) == (None, "reverted")
    assert steps(tmp_path) == ["old"]


def test_nothing_is_changed_when_the_way_back_cannot_be_armed(tmp_path, guarded):
    host = FakeHost()
    host.failing["systemd-run"] = "no"
    with pytest.raises(c.ConvergeError, match="nothing was changed"):
        guarded(host)
    assert steps(tmp_path) == ["old"]


def test_undeclared_files_of_an_exclusive_folder_go(tmp_path, run):
    folder = tmp_path / "sites"
    folder.mkdir()
    for name in ("a.conf", "b.conf", "README"):
        (folder / name).write_text("x\n")
    run(
        files=(spec(folder / "a.conf", "x\n", mode=(folder / "a.conf").stat().st_mode & 0o777),),
        exclusive=(c.Exclusive(folder, "*.conf"),),
    )
    assert sorted(p.name for p in folder.iterdir()) == ["README", "a.conf"]


def test_links_and_directories(tmp_path, run):
    parts = {
        "directories": (c.DirectorySpec(tmp_path / "d", ME, GROUP, 0o750),),
        "links": (c.LinkSpec(tmp_path / "l", "d"),),
    }
    assert run(**parts).changed
    assert (tmp_path / "l").readlink() == Path("d")
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o750
    assert not run(**parts).changed
    assert run(links=(c.LinkSpec(tmp_path / "l", None),)).changed
    assert not (tmp_path / "l").exists()


def test_an_occupied_directory_is_not_removed_and_not_reported(tmp_path, run):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "data").write_text("x")
    assert not run(directories=(c.DirectorySpec(tmp_path / "d", present=False),)).changed


def test_unknown_owner_is_named(tmp_path, run):
    with pytest.raises(c.ConvergeError, match="no user `nobody-here`"):
        run(files=(c.FileSpec(tmp_path / "f", "x\n", "nobody-here"),))
    assert not (tmp_path / "f").exists()


def test_only_files_with_the_marker_go(tmp_path, run):
    for name, first in (("ours.service", "# made by us"), ("theirs.service", "[Unit]")):
        (tmp_path / name).write_text(f"{first}\n")
    (tmp_path / "link.service").symlink_to("ours.service")
    run(exclusive=(c.Exclusive(tmp_path, "*.service", "made by us"),))
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix) == ["link.service", "theirs.service"]


def test_a_unit_follows_its_own_paths_only(tmp_path, host, run):
    mine, other = tmp_path / "mine", tmp_path / "other"
    units = (c.UnitSpec("web.service", follows=(mine,)),)
    run(units=units, files=(spec(mine, "1\n"), spec(other, "1\n")))
    host.calls.clear()
    run(units=units, files=(spec(mine, "1\n"), spec(other, "2\n", effect="restart")))
    assert host.verbs() == []
    run(units=units, files=(spec(mine, "2\n", effect="restart"), spec(other, "2\n")))
    assert host.verbs() == ["reset-failed -- web.service", "restart -- web.service"]


def test_an_unreadable_marker_restarts_every_unit(tmp_path, host, run):
    (tmp_path / "markers").mkdir()
    (tmp_path / "markers" / "web").write_text("{")
    assert run(units=(c.UnitSpec("web.service", follows=(tmp_path / "x",)),)).resumed == "restart"
    assert host.verbs() == ["reset-failed -- web.service", "restart -- web.service"]


def test_a_unit_kept_off_by_its_own_condition_is_tried_once(host, run):
    host.active = False
    assert run().actions == ["start web.service"]
    host.active, host.condition = False, "no"
    done = run()
    assert done.actions == []
    assert done.unmet == ["web.service"]


def test_a_unit_whose_file_goes_is_stopped_and_disabled_and_comes_back_on_failure(tmp_path, host, run, monkeypatch):
    monkeypatch.setattr(c, "UNIT_FOLDER", tmp_path)
    path = tmp_path / "app@.service"
    path.write_text("[Service]\n")
    host.instances, host.failing["probe"] = ["app@blue-1.service"], "dead"
    with pytest.raises(c.ConvergeError):
        run(files=(spec(path, None),), check=(("probe",),))
    assert path.exists()
    assert [verb for verb in host.verbs() if "reset" not in verb][:2] == ["stop -- app@blue-1.service", "disable -- app@.service"]
    assert {"start -- app@blue-1.service", "enable -- app@.service"} <= set(host.verbs())
    host.failing.clear()
    assert run(files=(spec(path, None),)).actions[:2] == ["stop app@blue-1.service", "disable app@.service"]
    assert not path.exists()


def test_times_of_systemd():
    assert parse_time("Thu 1970-01-01 00:00:01.250000 UTC") == 1.25
    assert parse_time("") == 0
    assert parse_time("n/a") == 0


def test_a_watched_file_that_is_news_to_a_running_unit_reloads_it(tmp_path, host, run):
    watched = tmp_path / "fullchain.pem"
    watched.write_text("x\n")
    host.since = "Thu 1970-01-01 00:00:01.250000 UTC"
    done = run(check_mode=True, watches=(watched, tmp_path / "absent"))
    assert (done.changed, done.stale) == (True, [str(watched)])
    assert host.verbs() == []
    run(watches=(watched,))
    assert host.verbs() == ["reload-or-restart -- web.service"]
    host.calls.clear()
    host.since = "Fri 2100-01-01 00:00:00.000000 UTC"
    assert not run(watches=(watched,)).changed
    host.since, host.active = "Thu 1970-01-01 00:00:01.250000 UTC", False
    assert run(watches=(watched,)).actions == ["start web.service"]


def test_a_setting_that_is_not_read_back_brings_the_old_bytes_back(tmp_path, run):
    path = tmp_path / "f"
    path.write_text("old\n")
    checks = ({"kind": "file", "path": str(tmp_path / "absent")},)
    with pytest.raises(c.ConvergeError, match="absent: declared present"):
        run(files=(spec(path, "new\n"),), readback=checks)
    assert path.read_text() == "old\n"
    assert run(files=(spec(path, "new\n"),), readback=({"kind": "file", "path": str(path)},)).changed


def test_what_is_not_effective_is_told_when_nothing_changed(tmp_path, run):
    path = tmp_path / "f"
    path.write_text("same\n")
    path.chmod(0o644)
    done = run(files=(spec(path, "same\n"),), readback=({"kind": "file", "path": str(tmp_path / "absent")},))
    assert not done.changed
    assert "absent: declared present" in done.seen.mismatches[0]
    assert "1 setting(s) did not arrive:\n- " in str(done.seen)
    assert path.read_text() == "same\n"
    assert not run(files=(spec(path, "same\n"),), readback=({"kind": "file", "path": str(path)},)).seen.mismatches


def test_the_directory_above_the_markers_stays_open(tmp_path, host):
    markers = tmp_path / "slipway" / "markers"
    c.Converger(host, FakeClock(), markers).run(c.Transaction("web", files=(spec(tmp_path / "f", "x\n"),)))
    assert markers.parent.stat().st_mode & 0o777 == 0o755
    assert markers.stat().st_mode & 0o777 == 0o700


def test_a_unit_that_does_not_stay_up_takes_its_change_back(tmp_path, host, run):
    path = tmp_path / "f"
    path.write_text("old\n")
    units = (c.UnitSpec("web.service", settle=2),)
    host.lives = iter(["ActiveState=active\nInvocationID=a", "ActiveState=active\nInvocationID=b"])
    with pytest.raises(c.ConvergeError, match="did not stay up for 2 s"):
        run(units=units, files=(spec(path, "new\n", effect="restart"),))
    assert path.read_text() == "old\n"
    host.lives = iter(["ActiveState=active\nInvocationID=c"] * 2)
    assert run(units=units, files=(spec(path, "new\n", effect="restart"),)).restarted == ["web.service"]


def test_a_new_unit_that_fails_is_stopped_before_its_file_goes(tmp_path, host, run, monkeypatch):
    monkeypatch.setattr(c, "UNIT_FOLDER", tmp_path)
    host.failing["probe"] = "dead"
    with pytest.raises(c.ConvergeError):
        run(files=(spec(tmp_path / "web.service", "[Service]\n"),), check=(("probe",),))
    assert "disable --now -- web.service" in host.verbs()
    assert not (tmp_path / "web.service").exists()


def test_nothing_is_stopped_when_the_rest_is_not_accepted(tmp_path, host, run, monkeypatch):
    monkeypatch.setattr(c, "UNIT_FOLDER", tmp_path)
    (tmp_path / "app@.service").write_text("[Service]\n")
    host.instances, host.failing["nginx -t"] = ["app@blue-1.service"], "bad"
    with pytest.raises(c.ConvergeError):
        run(files=(spec(tmp_path / "app@.service", None),), validate=(("nginx", "-t"),), units=())
    assert host.verbs() == []
    assert (tmp_path / "app@.service").exists()


def test_a_disk_without_room_for_the_way_back_refuses_the_change(tmp_path, run, monkeypatch):
    def full(_room, _needs):
        raise OSError(28, "no room")

    monkeypatch.setattr(c.Room, "reserve", full)
    with pytest.raises(c.ConvergeError, match=r"nothing was changed.*no room"):
        run(files=(spec(tmp_path / "new", "x\n"),))
    assert not (tmp_path / "new").exists()


def test_one_file_that_cannot_be_put_back_does_not_keep_the_others_from_it(tmp_path, host, run, monkeypatch):
    first, second, new = tmp_path / "first", tmp_path / "second", tmp_path / "new"
    first.write_text("before\n")
    second.write_text("before\n")
    host.failing["nginx -t"] = "bad directive"
    place = c.put

    def full(path, state):
        if path == second and state.content == "before\n":
            raise OSError(28, "No space left on device")
        place(path, state)

    monkeypatch.setattr(c, "put", full)
    files = (spec(first, "after\n"), spec(second, "after\n"), spec(new, "x\n"))
    with pytest.raises(c.ConvergeError, match="second could not be put back") as error:
        run(files=files, validate=(("nginx", "-t"),))
    assert "make room" in str(error.value)
    assert (first.read_text(), second.read_text(), new.exists()) == ("before\n", "after\n", False)
    # The next run knows that units have not been told.
    assert list((tmp_path / "markers").iterdir())
