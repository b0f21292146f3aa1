# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.guard.deadman import ArmingFailed, Timer, sheltered
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner


class Bus(Runner):
    def __init__(self, *results: int) -> None:
        self.results = list(results)
        self.calls: list[list[str]] = []

    def run(
        self,
        argv: Sequence[str],
        data: Optional[str] = None,
        timeout: float = 600.0,
        env: Optional[Mapping[str, str]] = None,
    ) -> Result:
        self.calls.append(list(argv))
        if argv[0] != "systemd-run":
            return Result(0, "", "")
        rc = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        return Result(rc, "", "Unit x.service was already loaded" if rc else "")


class Still(Clock):
    def sleep(self, seconds: float) -> None:
        return


def test_arms_a_transient_timer() -> None:
    bus = Bus(0)
    Timer(bus, Still(), "slipway-shop-deadman").arm(120, ["/usr/local/sbin/slipway", "recover", "shop", "--deadline"], "why")
    assert bus.calls[0] == ["systemctl", "stop", "slipway-shop-deadman.timer", "slipway-shop-deadman.service"]
    command = bus.calls[2]
    assert command[:2] == ["systemd-run", "--unit=slipway-shop-deadman"]
    assert {"--on-active=120.0s", "--timer-property=AccuracySec=100ms", "--collect"} <= set(command)
    assert command[-4:] == ["/usr/local/sbin/slipway", "recover", "shop", "--deadline"]


@pytest.mark.parametrize(("insist", "due"), [(False, ["970.5"]), (True, ["970.5", "975.5"])])
def test_is_due_by_the_start_of_systemd_so_that_no_daemon_reload_puts_it_off(insist: bool, due: list[str]) -> None:
    class Started(Bus):
        def run(self, argv: Sequence[str], *rest: object, **more: object) -> Result:
            found = super().run(argv)
            return Result(0, "150500000\n", "") if "--property=UserspaceTimestampMonotonic" in argv else found

    class Later(Still):
        def monotonic(self) -> float:
            return 1001.0

    bus = Started(0)
    Timer(bus, Later(), "t").arm(120, ["true"], "why", insist)
    assert [word for word in bus.calls[-1] if word.startswith("--on-")] == [f"--on-startup={moment}s" for moment in due]


def test_waits_for_an_earlier_one_to_end() -> None:
    bus = Bus(1, 1, 0)
    Timer(bus, Still(), "t").arm(1, ["true"], "why")
    assert sum(call[0] == "systemd-run" for call in bus.calls) == 3


def test_says_when_it_cannot() -> None:
    with pytest.raises(ArmingFailed, match=r"could not set the timer t\.timer: Unit x\.service was already loaded"):
        Timer(Bus(1), Still(), "t").arm(1, ["true"], "why")


def test_disarm_leaves_the_running_command_alone() -> None:
    bus = Bus(0)
    timer = Timer(bus, Still(), "t")
    timer.disarm()
    assert bus.calls == [["systemctl", "stop", "t.timer"]]
    timer.cancel()
    assert bus.calls[-1] == ["systemctl", "stop", "t.timer", "t.service"]
    assert timer.armed()


def test_a_command_that_a_daemon_reload_would_break_is_packed_up() -> None:
    plain = ["/usr/local/sbin/slipway", "recover", "shop", 'RESUME "shop"']
    assert sheltered(plain) == plain
    script = ["/bin/sh", "-c", "x='a b'; [ \"$x\" = 'a b' ] && echo \"it's $x\"; exit 3"]
    packed = sheltered(script)
    assert not set("$;'`&|\\") & set("".join(packed))
    done = subprocess.run([sys.executable, *packed[1:]], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "it's a b\n")
