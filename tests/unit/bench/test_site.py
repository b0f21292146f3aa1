# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import argparse

import pytest

from tests.bench import site
from tests.bench.measure import Cost, Recap


def row(what: str, wall: float, hosts: int = 1, ok: int = 50, changed: int = 0) -> site.Row:
    return site.Row(what, hosts, Cost(wall, 4.0, 9.0, 0.5), Recap(ok, changed, 1, 0))


MADE = site.Limit(site.Row("shell script", 1, Cost(30.0, 0.0, 28.0, 0.4), None), 90, 70, ())
ROWS = [row("first converge", 55), row("no-op", 20), row("no-op", 14), row("no-op", 15), row("no-op", 40, hosts=8)]


def test_the_median_counts_and_other_sizes_do_not() -> None:
    middle = site.median(ROWS, "no-op", 1)
    assert middle is not None
    assert middle.cost.wall == 15
    assert site.median(ROWS, "no-op", 4) is None


def test_goals_that_hold() -> None:
    assert [met for _, met in site.goals(ROWS, MADE)] == [True] * 5


@pytest.mark.parametrize(
    ("rows", "missed"),
    [
        ([row("first converge", 61), row("no-op", 15)], "first converge"),
        ([row("first converge", 60), row("no-op", 16)], "no-op: 0.53 x"),
        ([row("no-op", 15, ok=61)], "61 task runs"),
        ([row("no-op", 15, changed=2)], "2 changes"),
    ],
)
def test_a_goal_that_is_missed_is_named(rows: list[site.Row], missed: str) -> None:
    failed = [text for text, met in site.goals(rows, MADE) if not met]
    assert len(failed) == 1
    assert missed in failed[0]


def test_the_table_has_ratios_for_one_host_only() -> None:
    lines = site.table(ROWS, MADE).splitlines()
    assert len(lines) == 2 + len(ROWS) + 1
    assert lines[2].startswith("| first converge | 1 | 55.0 | 1.83 |")
    assert lines[6].startswith("| no-op | 8 | 40.0 | - |")
    assert lines[7] == "| shell script | 1 | 30.0 | 1.00 | 0 | 28 | - | - | - | 0.40 |"
    assert "-" in site.table(ROWS, None).splitlines()[2]


@pytest.mark.parametrize("text", ["", "0", "1,x", "101", "-1"])
def test_sizes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        site._counts(text)
