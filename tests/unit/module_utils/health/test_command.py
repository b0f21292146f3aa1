# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import command, probes
from ansible_collections.slipway.server.plugins.module_utils.health.command import ExecProbe
from ansible_collections.slipway.server.plugins.module_utils.health.probes import BadTarget, ProbeOptions


def shell(script: str, timeout: float = 30.0, **options: object) -> ExecProbe:
    return ExecProbe(("/bin/sh", "-c", script), timeout=timeout, **options)  # type: ignore[arg-type]


def test_status_and_output() -> None:
    assert shell("echo fine").look().detail == "exit status 0"
    result = shell("echo no database >&2; exit 3").look()
    assert (result.ok, result.status, result.detail) == (False, 3, "exit status 3, not 0: no database")
    assert shell("exit 3", status=(0, 3)).look().ok
    assert shell("echo lag 7; echo err >&2", output=r"lag \d+\nerr").look().ok
    assert shell("echo lag x", output=r"lag \d+").look().detail == r"output does not match 'lag \\d+': lag x"
    assert shell("kill -9 $$").look().detail == "killed by signal 9, not 0: no output"
    assert ExecProbe(("/no/such/program",)).look().detail == "no such command"
    assert "Permission denied" in ExecProbe(("/etc/passwd",)).look().detail


def test_environment_and_no_shell() -> None:
    assert shell('test "$PORT" = 3010 && test "$LC_ALL" = C.UTF-8', environment={"PORT": "3010"}).look().ok
    assert ExecProbe(("/bin/echo", "$PORT; exit 1"), output=r"^\$PORT; exit 1$").look().ok


def gone(pid: int) -> bool:
    for _try in range(100):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    started = time.monotonic()
    result = shell(f"sleep 60 & echo $! >{note}; echo still here; wait", timeout=1).look()
    assert result.detail == "no end after 1 s, killed: still here"
    assert time.monotonic() - started < 20.0
    assert gone(int(note.read_text()))


def test_nothing_is_left_of_one_that_ends_in_time(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    started = time.monotonic()
    assert shell(f"sleep 60 & echo $! >{note}").look().ok
    assert time.monotonic() - started < 20.0
    assert gone(int(note.read_text()))


def test_what_leaves_the_group_does_not_hold_the_look_up(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    started = time.monotonic()
    assert shell(f"setsid sh -c 'echo $$ >{note}; exec sleep 60' & while ! test -s {note}; do :; done; echo ok").look().ok
    assert time.monotonic() - started < 20.0
    os.kill(int(note.read_text()), 9)


def test_endless_output_is_bounded() -> None:
    result = shell("yes", timeout=1).look()
    assert "killed: y y y" in result.detail
    assert not shell("head -c 300000 /dev/zero; echo end", output="end").look().ok
    assert command.OUTPUT_LIMIT < 300_000


def test_needs_a_command() -> None:
    with pytest.raises(BadTarget, match="no command"):
        probes.make("exec", "", ProbeOptions())
    assert probes.make("exec", "", ProbeOptions(command=("/bin/echo", "token"))).name == "exec:/bin/echo"
