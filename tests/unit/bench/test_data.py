# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import data, pgbench

STDERR = """\
progress: 3.0 s, 588.1 tps, lat 67.709 ms stddev 15.075, 0 failed
pgbench: error: client 7 script 0 aborted in command 4 query 0: FATAL:  terminating connection due to administrator command
pgbench: error: client 39 aborted in command 5 (SQL) of script 0; perhaps the backend died while processing
pgbench: error: Run was aborted; the above results are incomplete.
"""


def test_aborted_clients_are_counted_once() -> None:
    assert pgbench.aborted(STDERR.splitlines()) == 2


def test_the_ends_of_transactions_are_read_from_all_threads(tmp_path: Path) -> None:
    ends = [100.0, 100.25, 101.5, 101.75, 110.0]
    (tmp_path / "log.1").write_text("".join(f"0 1 900 0 {int(end)} {int(end % 1 * 1e6)}\n" for end in ends[::2]))
    (tmp_path / "log.1.1").write_text("".join(f"1 1 900 0 {int(end)} {int(end % 1 * 1e6)}\nbroken\n" for end in ends[1::2]))
    script = pgbench.ENDS.replace(pgbench.LOG, str(tmp_path / "log"))
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert list(map(float, told.split())) == ends


@pytest.mark.parametrize(
    ("start", "stop", "stall"),
    [
        (99.5, 101.6, 1.25),
        (101.0, 103.0, 8.25),  # work goes on only after the span: the stall is all of it, not what lies inside
        (109.0, 112.0, 8.25),
        (112.0, 300.0, None),  # nobody came back
        (10.0, 20.0, None),
    ],
)
def test_the_longest_time_without_a_transaction(start: float, stop: float, stall: float | None) -> None:
    assert pgbench.longest([100.0, 100.25, 101.5, 101.75, 110.0], start, stop) == stall
    assert pgbench.longest([], start, stop) is None


def test_every_round_has_other_values_for_twenty_settings() -> None:
    rounds = [data.values(number) for number in range(40)]
    assert {len(each) for each in rounds} == {20}
    for one, other in zip(rounds, rounds[1:], strict=False):
        assert all(one[name] != other[name] for name in one)


def test_arguments() -> None:
    options = data._arguments(["--only", "restart", "--clients", "40", "--restarts", "2"])
    assert (options.only, options.clients, options.restarts) == (["restart"], [40], 2)
    with pytest.raises(SystemExit):
        data._arguments(["--only", "nonsense"])
