# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests import scenarios


def test_scenarios_are_found_by_their_configuration(tmp_path: Path) -> None:
    for name in ("nginx", "ufw", "shared"):
        (tmp_path / name).mkdir()
    (tmp_path / "nginx" / "molecule.yml").touch()
    (tmp_path / "ufw" / "molecule.yml").touch()
    assert scenarios.scenarios(tmp_path) == ["nginx", "ufw"]


def test_unmeasured_and_slow_scenarios_go_first() -> None:
    assert scenarios.order(["a", "b", "c", "d"], {"a": 10.0, "b": 90.0, "d": 30.0}) == ["c", "b", "d", "a"]


def test_releases_follow_the_variables() -> None:
    assert scenarios.releases({}) == ["debian12", "debian13"]
    assert scenarios.releases({"SLIPWAY_OLDER": "ubuntu22.04", "SLIPWAY_NEWER": "ubuntu24.04"}) == [
        "ubuntu22.04",
        "ubuntu24.04",
    ]


def test_the_log_of_a_failure_ends_before_the_cleaning_up() -> None:
    log = "[x > destroy] Executing\ngone\n[x > converge] Executing\nfatal: why\n[x > destroy] Executing\ngone\n"
    assert scenarios.failure(log)[-1] == "fatal: why"
    assert scenarios.failure("[x > destroy] Executing\nfatal: no engine\n")[-1] == "fatal: no engine"
    assert scenarios.failure("") == []


def test_a_scenario_is_ended_with_all_it_started() -> None:
    process = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    child = int(process.stdout.readline())
    scenarios.end(process)
    assert process.poll() is not None
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            break
        time.sleep(0.02)
    else:
        raise AssertionError(f"process {child} is still there")
    scenarios.end(process)
