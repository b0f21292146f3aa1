# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket

import pytest
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_console import Console, ConsoleError, PauseFailed
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_hold import RESUME_TRIES, Hold


class Still(Clock):
    def __init__(self):
        self.at = 0.0

    def monotonic(self):
        return self.at

    def sleep(self, seconds):
        self.at += seconds


class Pooler(Runner):
    """systemd's timers and a console; `log` has what was done, in order."""

    def __init__(self):
        self.log = []
        self.paused = self.armed = self.arms_not = False
        self.busy = self.refuses = 0

    def run(self, argv, data=None, timeout=600.0, env=None):
        if argv[0] == "systemd-run":
            self.log.append("arm")
            self.armed = not self.arms_not
            return Result(int(self.arms_not), "", "no bus")
        if argv[0] == "systemctl":
            if argv[1] == "stop":
                self.log += ["disarm"] if self.armed else []
                self.armed = False
            return Result(0 if self.armed else 3, "", "")
        return self.console(argv[argv.index("-c") + 1])

    def console(self, sql):
        if sql == "PAUSE":
            self.log.append("pause")
            if self.paused:
                return Result(1, "", "ERROR:  already suspended/paused")
            self.paused = True
            if self.busy:
                self.busy -= 1
                return Result(124, "", "")
        if sql == "RESUME":
            self.log.append("resume")
            if self.refuses:
                self.refuses -= 1
                return Result(1, "", "ERROR:  pooler is shutting down")
            if not self.paused:
                return Result(1, "", "ERROR:  pooler is not paused/suspended")
            self.paused = False
        return Result(0, "", "")


@pytest.fixture
def pooler():
    return Pooler()


@pytest.fixture
def hold(pooler):
    return Hold(Console(pooler, port=6432), Still(), 30)


def test_the_timer_is_there_before_clients_are_held_and_goes_after_them(hold, pooler):
    hold.take(5)
    assert (pooler.paused, pooler.armed) == (True, True)
    assert hold.release()
    assert (pooler.paused, pooler.armed) == (False, False)
    assert pooler.log == ["arm", "pause", "resume", "disarm"]
    assert not hold.release()


def test_without_a_timer_nobody_is_held(hold, pooler):
    pooler.arms_not = True
    with pytest.raises(ArmingFailed):
        hold.take(5)
    assert "pause" not in pooler.log


def test_busy_transactions_leave_the_pooler_as_it_was(hold, pooler):
    pooler.busy = 1
    with pytest.raises(PauseFailed):
        hold.take(5)
    assert (pooler.paused, pooler.armed) == (False, False)
    hold.take(5)
    assert pooler.paused


def test_the_timer_stays_when_a_pause_could_not_be_taken_back(hold, pooler):
    pooler.busy = pooler.refuses = 1
    with pytest.raises(ConsoleError, match="shutting down"):
        hold.take(5)
    assert (pooler.paused, pooler.armed) == (True, True)


def test_a_pause_of_somebody_else_stays(hold, pooler):
    pooler.paused = True
    with pytest.raises(ConsoleError, match="paused already, not by us"):
        hold.take(5)
    assert pooler.paused
    assert not pooler.armed


def test_clients_that_another_run_holds_are_left_to_it(hold, pooler):
    pooler.paused = pooler.armed = True
    with pytest.raises(PauseFailed, match=r"held by another run(.*)slipway-pooler-resume-6432.timer"):
        hold.take(5)
    assert (pooler.paused, pooler.armed, pooler.log) == (True, True, [])


def test_a_pooler_that_refuses_for_a_moment_is_asked_again(hold, pooler):
    hold.take(5)
    pooler.refuses = RESUME_TRIES - 1
    assert hold.release()


def test_the_timer_stays_when_the_pooler_does_not_resume(hold, pooler):
    hold.take(5)
    pooler.refuses = RESUME_TRIES
    with pytest.raises(ConsoleError, match="shutting down"):
        hold.release()
    assert pooler.armed


def test_a_pooler_is_there_when_its_socket_answers(tmp_path, pooler):
    hold = Hold(Console(pooler, str(tmp_path), 6432), Still())
    assert not hold.there()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / ".s.PGSQL.6432"))
        assert hold.there()
        pooler.console = lambda sql: Result(2, "", "connection to server failed: Connection refused")
        assert not hold.there()
        pooler.console = lambda sql: Result(2, "", "no such user")
        with pytest.raises(ConsoleError, match="no such user"):
            hold.there()
