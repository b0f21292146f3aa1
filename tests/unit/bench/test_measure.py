# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench import measure

OUTPUT = """
PLAY RECAP *********************************************************************
db1                        : ok=29   changed=9    unreachable=0    failed=0    skipped=1    rescued=0    ignored=0
web1                       : ok=36   changed=8    unreachable=1    failed=1    skipped=3    rescued=0    ignored=0

TASKS RECAP ********************************************************************
Sunday 22 November 2026  16:28:34 +0000 (0:00:01.027)       0:05:24.233 *******
===============================================================================
slipway.server.docker : Install the engine of the archive -------------- 68.17s
slipway.server.nginx : Install nginx and what reads its certificates and rotates its logs --- 9.89s
Gather the facts that roles and plan use -------------------------------- 6.83s
"""


def test_recap_sums_over_hosts() -> None:
    assert measure.recap(OUTPUT) == measure.Recap(ok=65, changed=17, skipped=4, failed=2)


def test_recap_of_no_run_is_empty() -> None:
    assert measure.recap("ERROR! no such inventory") == measure.Recap(0, 0, 0, 0)


def test_slowest_tasks_keep_long_names() -> None:
    assert measure.slowest(OUTPUT) == [
        ("slipway.server.docker : Install the engine of the archive", 68.17),
        ("slipway.server.nginx : Install nginx and what reads its certificates and rotates its logs", 9.89),
        ("Gather the facts that roles and plan use", 6.83),
    ]


def test_busy_leaves_idle_iowait_and_guests_out() -> None:
    stat = "cpu  100 20 30 9999 8888 4 5 6 100 20\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    assert measure.busy(stat) == 165 / measure.TICKS


def test_children_of_a_command_count_and_its_output_is_kept(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint('done')"
    log = tmp_path / "logs" / "run.log"
    cost = measure.timed(["sh", "-c", '"$0" -c "$1"; true', sys.executable, burn], log, tmp_path, {"LANG": "C"})
    assert log.read_text() == "done\n"
    assert cost.controller >= 0.2


def test_a_failed_command_shows_its_end(tmp_path: Path) -> None:
    with pytest.raises(measure.CommandFailed, match=r"(?s)ended with 3.*why"):
        measure.timed(["sh", "-c", "echo why; exit 3"], tmp_path / "run.log", tmp_path)
