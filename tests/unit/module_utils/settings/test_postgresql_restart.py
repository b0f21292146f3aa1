# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ast
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_console import ConsoleError, PauseFailed
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_cluster import ClusterError
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_restart import (
    GaveUp,
    Request,
    Restart,
    refusal,
    within,
)
from hypothesis import given
from hypothesis import strategies as st

OLD = {"pid": 7, "user": "shop", "database": "shop", "state": "active", "age": 61.2, "query_start": "2026-11-25 02:00:00"}


def at(day, clock):
    """A local time; `day` 0 is Monday."""
    hours, minutes = (int(part) for part in clock.split(":"))
    return time.struct_time((2026, 11, 23 + day, hours, minutes, 0, day, 0, -1))


@pytest.mark.parametrize(
    ("window", "day", "clock", "inside"),
    [
        ("02:00-04:00", 3, "02:00", True),
        ("02:00-04:00", 3, "04:00", False),
        ("Sun 02:00-04:00", 6, "03:59", True),
        ("Sun 02:00-04:00", 5, "03:59", False),
        ("Mon-Fri 1:30-2:30", 4, "01:30", True),
        ("Mon-Fri 1:30-2:30", 5, "01:30", False),
        ("Sat,Sun 22:00-03:00", 6, "23:00", True),
        ("Sat,Sun 22:00-03:00", 0, "02:59", True),
        ("Sat,Sun 22:00-03:00", 5, "02:59", False),
        ("fri-mon 00:00-24:00", 0, "12:00", True),
        ("fri-mon 00:00-24:00", 1, "12:00", False),
        ("Sun 00:00-00:00", 0, "00:00", False),
    ],
)
def test_windows(window, day, clock, inside):
    assert within(window, at(day, clock)) is inside


@pytest.mark.parametrize("window", ["", "at night", "25:00-26:00", "02:60-03:00", "Son 02:00-04:00", "02:00-04:00 Sun", "2-4"])
def test_what_is_no_window_is_refused(window):
    with pytest.raises(ValueError, match=r"is no window of time; write it like"):
        within(window, at(0, "12:00"))


@given(st.integers(0, 6), st.integers(0, 23), st.integers(0, 23), st.integers(0, 23))
def test_a_window_and_the_rest_of_its_day_never_overlap(day, begin, end, hour):
    one, rest = f"{begin:02}:00-{end:02}:00", f"{end:02}:00-{begin:02}:00"
    when = at(day, f"{hour}:30")
    assert within(one, when) != within(rest, when) or begin == end


def test_policies():
    now = at(6, "12:00")
    assert refusal(Request("now"), now) == ""
    assert refusal(Request("never"), now) == "the policy is `never`"
    assert "it is Sun 12:00 on this host, outside Sun 02:00-04:00" in refusal(Request("window", ("Sun 02:00-04:00",)), now)
    assert refusal(Request("window", ("Sun 02:00-04:00", "Sun 12:00-13:00")), now) == ""
    with pytest.raises(ValueError, match="there is no window"):
        refusal(Request("window"), now)
    with pytest.raises(ValueError, match="no window of time"):
        refusal(Request("now", ("whenever",)), now)


class Patient(Clock):
    seconds = 0.0

    def now(self):
        return 1_764_000_000.0

    def monotonic(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds


class Database(Runner):
    """A server with sessions; `log` has what happened, in order."""

    unit, version, library = "postgresql@17-main.service", "17", Path("/usr/lib/postgresql/17")

    def __init__(self, folder):
        self.runner, self.log = self, []
        self.drop_in, self.proven = folder / "new", folder / "old"
        self.folder = folder
        self.pending, self.old, self.alive, self.dies = ("shared_buffers",), [], True, False
        self.armed = []
        self.sandbox, self.box = folder / "sandbox", ()

    def boxed_later(self):
        return bool(self.box)

    def waiting(self, live):
        return (*live.pending, *self.box)

    def unbox(self):
        self.log.append("unbox")

    def data_directory(self):
        return self.folder

    def observe(self):
        return SimpleNamespace(pending=self.pending) if self.alive else None

    def restart(self):
        self.log.append("restart")
        self.alive = not self.dies
        self.pending = self.box = ()
        return self.alive

    def settle(self):
        return self.observe()

    def start(self):
        self.log.append("start")
        self.alive = True
        return self.observe()

    def put_back(self):
        self.log.append("put back")
        return self.proven.exists()

    def forget(self):
        self.log.append("forget")

    def last_lines(self):
        return "FATAL: no"

    def run(self, argv, data=None, timeout=600.0, env=None):
        if argv[0] == "systemd-run":
            code = bytes.fromhex(argv[-1]).decode()  # packed up, see guard.deadman.sheltered
            self.armed.append(ast.literal_eval(code[code.index("[") : -1])[-1])
        elif data and "CHECKPOINT" in data:
            self.log.append("checkpoint")
        elif data and "pg_stat_activity" in data:
            return Result(0, "".join(f"{json.dumps(row)}\n" for row in self.old), "")
        return Result(0, "", "")


class FakeHold:
    """A pooler that is busy for the first `busy` attempts."""

    seconds, timer = 30.0, SimpleNamespace(unit="slipway-pooler-resume")

    def __init__(self, log, busy=0, there=True, breaks=None):
        self.log, self.busy, self.here, self.breaks = log, busy, there, breaks
        self.held = False

    def there(self):
        return self.here

    def take(self, timeout):
        if self.busy:
            self.busy -= 1
            raise PauseFailed("could not pause", ["shop as shop: PostgreSQL process 7"])
        self.log.append("hold")
        self.held = True

    def release(self):
        self.log.append("release")
        if self.breaks:
            raise self.breaks
        held, self.held = self.held, False
        return held


@pytest.fixture
def database(tmp_path):
    return Database(tmp_path)


def restart(database, *holds):
    return Restart(database, holds, Patient())


def test_the_order(database):
    done = restart(database, FakeHold(database.log)).run(Request())
    assert database.log == ["checkpoint", "hold", "restart", "forget", "release"]
    assert (done.restarted, done.pending, done.poolers) == (True, (), 1)


def test_nothing_waits(database):
    database.pending = ()
    done = restart(database, FakeHold(database.log)).run(Request())
    assert (done.due, done.reason, database.log) == (False, "nothing waits for a restart", [])
    assert restart(database, FakeHold(database.log)).run(Request(force=True)).restarted


def test_the_policy_counts_also_when_forced(database):
    done = restart(database).run(Request("never", force=True))
    assert (done.restarted, done.reason, done.pending) == (False, "the policy is `never`", ("shared_buffers",))


def test_looking_only(database):
    database.old = [OLD]
    done = restart(database, FakeHold(database.log)).run(Request(), act=False)
    assert (done.due, done.restarted, database.log) == (True, False, [])
    assert [one.pid for one in done.waits_for] == [7]


def test_a_server_without_a_pooler_restarts(database):
    done = restart(database, FakeHold(database.log, there=False)).run(Request())
    assert (done.restarted, done.poolers, done.stall) == (True, 0, 0.0)
    assert database.log == ["checkpoint", "restart", "forget"]


def test_a_long_transaction_ends_it_before_anybody_is_held(database):
    database.old = [OLD]
    with pytest.raises(GaveUp) as caught:
        restart(database, FakeHold(database.log)).run(Request(wait=10))
    assert database.log == []
    assert "pid 7, shop in shop, active, open for 61 s, last query 2026-11-25 02:00:00 UTC" in str(caught.value)
    assert caught.value.waits_for[0].user == "shop"


def test_a_pooler_that_stays_busy_ends_it(database):
    holds = [FakeHold(database.log), FakeHold(database.log, busy=1000)]
    with pytest.raises(GaveUp, match=r"no client is held(.|\n)*could not pause"):
        restart(database, *holds).run(Request(wait=10))
    assert "restart" not in database.log
    assert database.log.count("hold") == database.log.count("release") > 1
    assert database.pending == ("shared_buffers",)


def test_a_pooler_that_was_busy_once_is_asked_again(database):
    assert restart(database, FakeHold(database.log, busy=1)).run(Request()).restarted
    assert database.log.count("checkpoint") == 1


def test_a_server_that_does_not_come_up_gets_its_old_settings_and_clients_go_on(database):
    database.dies = True
    database.proven.write_text("old")
    with pytest.raises(ClusterError, match=r"did not come up. The settings from before are back; the server answers(.|\n)*FATAL"):
        restart(database, FakeHold(database.log)).run(Request())
    assert database.log[-4:] == ["restart", "put back", "start", "release"]


def test_the_old_settings_also_come_back_when_this_process_dies(database):
    database.proven.write_text("old")
    restart(database, FakeHold(database.log)).run(Request())
    (script,) = database.armed
    assert "pg_isready -q" in script
    assert f"cat {database.proven} >{database.drop_in}" in script
    assert script.endswith(f"systemctl restart {database.unit}")


def test_a_sandbox_waits_for_the_same_restart(database):
    database.pending, database.box = (), ("sandbox",)
    assert restart(database).run(Request("never")).pending == ("sandbox",)
    assert "restart" not in database.log
    done = restart(database, FakeHold(database.log)).run(Request())
    assert done.restarted
    assert done.pending == ()
    (script,) = database.armed
    assert f"rm -f {database.sandbox}; systemctl daemon-reload; [ ! -e {database.proven} ]" in script


def test_a_server_that_does_not_start_in_its_sandbox_goes_on_without(database):
    database.box, database.dies = ("sandbox",), True
    with pytest.raises(
        ClusterError,
        match=r"without its new sandbox again, so loosen that in .*/90-own.conf before the next run; the server answers",
    ):
        restart(database).run(Request())
    assert database.log[-2:] == ["unbox", "start"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_clients_go_on_whatever_breaks(database, error):
    def breaks():
        raise error

    database.restart = breaks
    with pytest.raises(error):
        restart(database, FakeHold(database.log)).run(Request())
    assert database.log[-1] == "release"


def test_a_pooler_that_does_not_resume_is_told_and_the_others_go_on(database):
    broken = FakeHold(database.log, breaks=ConsoleError("refused"))
    done = restart(database, broken, FakeHold(database.log)).run(Request())
    assert done.notes == ["refused; slipway-pooler-resume.timer goes on trying"]
    assert database.log.count("release") == 2


def test_waiting_for_the_caller_to_restart(database):
    restarting = restart(database, FakeHold(database.log))
    assert restarting.wait(Request()).due
    database.old = [OLD]
    with pytest.raises(GaveUp):
        restarting.wait(Request(wait=3))
    assert database.log == []
    database.pending = ()
    assert not restarting.wait(Request()).due


def test_a_server_that_is_down_is_not_restarted(database):
    database.alive = False
    with pytest.raises(ClusterError, match="does not answer; start it"):
        restart(database).run(Request())


def test_clients_go_on_once_a_server_whose_restart_was_cut_off_answers(database):
    hold, answers = FakeHold(database.log), [None, None, SimpleNamespace(pending=())]
    hold.held, database.settle = True, lambda: answers.pop(0)
    done = restart(database, hold).recover(10)
    assert (done.pending, answers, database.log, hold.held) == ((), [], ["release"], False)


def test_a_server_that_does_not_come_back_is_told_and_clients_go_on(database):
    database.alive = False
    broken = FakeHold(database.log, breaks=ConsoleError("refused"))
    with pytest.raises(ClusterError, match=r"does not answer 10 s after a restart that was cut off(.|\n)*FATAL"):
        restart(database, broken, FakeHold(database.log)).recover(10)
    assert database.log == ["release", "release"]
