# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines as nginx writes them, and files as logrotate moves them."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health.access_log import AccessLog, Position
from ansible_collections.slipway.server.plugins.module_utils.health.samples import Bucket, Sample, series, tally
from ansible_collections.slipway.server.plugins.module_utils.health.watch import watch
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

BLUE, GREEN = "127.0.0.1:3000", "127.0.0.1:3010"
MEMBERS = {BLUE: "blue", GREEN: "green", "[::1]:3010": "green"}
LINE = {
    "time": "2026-11-25T02:03:31+00:00",
    "msec": 1000.25,
    "app": "shop",
    "slot": "green",
    "method": "GET",
    "path": "/",
    "protocol": "HTTP/2.0",
    "status": 200,
    "bytes": 512,
    "request_time": 0.031,
    "upstream_addr": GREEN,
    "upstream_status": "200",
    "upstream_response_time": "0.030",
    "upstream_connect_time": "0.000",
    "request_id": "7f0c",
    "client": "203.0.113.9",
    "host": "shop.example",
    "agent": "curl/8",
    "probe": 0,
}


def line(**changes: Any) -> str:
    return json.dumps({**LINE, **changes}) + "\n"


class Log:
    """A log in a directory, read with what was read before in mind."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "slipway-shop.json.log"
        self.reader = AccessLog(self.path, MEMBERS)
        self.at = Position()
        self.written = 0
        self.changes = 0

    def changed(self, path: Path) -> None:
        """Each change is a second later than the one before: the times of a file system are coarser than a test is quick."""
        self.changes += 1
        os.utime(path, (1_000_000_000 + self.changes,) * 2)

    def write(self, count: int = 1, to: Optional[Path] = None) -> None:
        path = to or self.path
        with path.open("a") as stream:
            for _ in range(count):
                self.written += 1
                stream.write(line(msec=float(self.written), request_id=f"{self.written:032x}"))
        self.changed(path)

    def read(self, lines: int = 1000) -> list[int]:
        found: list[int] = []
        while True:
            samples, at = self.reader.read(self.at, lines)
            found += [int(sample.at) for sample in samples]
            if at == self.at:
                return found
            self.at = at

    def rotate(self) -> None:
        for number in range(8, 0, -1):
            old = Path(f"{self.path}.{number}")
            if old.exists():
                old.rename(f"{self.path}.{number + 1}")
        self.path.rename(f"{self.path}.1")
        self.path.touch()
        self.changed(self.path)

    def copy_and_truncate(self) -> None:
        copy = Path(f"{self.path}-copy")
        shutil.copy(self.path, copy)
        self.changed(copy)
        os.truncate(self.path, 0)
        self.changed(self.path)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def samples(tmp_path: Path, text: str) -> list[Sample]:
    path = tmp_path / "log"
    path.write_text(text)
    return AccessLog(path, MEMBERS).read(Position())[0]


def only(tmp_path: Path, **changes: Any) -> list[tuple[str, bool, Optional[float]]]:
    return [(sample.slot, sample.error, sample.ms) for sample in samples(tmp_path, line(**changes))]


def test_a_request(tmp_path: Path) -> None:
    assert samples(tmp_path, line()) == [Sample(1000.25, "green", "GET /", False, 30.0)]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"status": 404, "upstream_status": "404"}, [("green", False, 30.0)]),
        ({"status": 500, "upstream_status": "500"}, [("green", True, None)]),
        ({"probe": 1}, []),
        # Answered by nginx itself: nobody's fault.
        ({"status": 429, "upstream_addr": "", "upstream_status": "", "upstream_response_time": ""}, []),
        # A WebSocket that ended after a minute.
        ({"status": 101, "upstream_status": "101", "upstream_response_time": "60.001"}, [("green", False, None)]),
        ({"status": 502, "upstream_status": "502", "upstream_response_time": "0.000"}, [("green", True, None)]),
        # The candidate refused, the other slot stood in.
        (
            {"upstream_addr": f"{GREEN}, {BLUE}", "upstream_status": "502, 200", "upstream_response_time": "0.001, 0.020"},
            [("green", True, None), ("blue", False, 20.0)],
        ),
        # Two members of the same slot: one request, one error.
        (
            {
                "upstream_addr": f"{GREEN}, [::1]:3010",
                "upstream_status": "504, 200",
                "upstream_response_time": "1.000, 0.020",
            },
            [("green", True, None)],
        ),
        (
            {"upstream_addr": f"{GREEN}, {BLUE}", "upstream_status": "-, 200", "upstream_response_time": "-, 0.020"},
            [("green", True, None), ("blue", False, 20.0)],
        ),
        # An internal redirect.
        (
            {"upstream_addr": f"{GREEN} : {BLUE}", "upstream_status": "200 : 200", "upstream_response_time": "0.010 : 0.020"},
            [("green", False, 10.0), ("blue", False, 20.0)],
        ),
        # The client went away while it waited.
        ({"status": 499, "upstream_status": "-", "upstream_response_time": "5.000"}, [("green", False, 5000.0)]),
        ({"status": 502, "upstream_status": "-", "upstream_response_time": "-"}, [("green", True, None)]),
        # No server could be chosen: nginx names the group.
        ({"status": 502, "upstream_addr": "shop_blue_blue", "upstream_status": "502", "slot": "blue"}, [("blue", True, None)]),
    ],
)
def test_what_a_line_says(tmp_path: Path, changes: dict[str, Any], wanted: list[tuple[str, bool, Optional[float]]]) -> None:
    assert only(tmp_path, **changes) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "\n",
        "null\n",
        "[]\n",
        '"x"\n',
        "[" * 100_000 + "\n",
        '203.0.113.9 - - [25/Nov/2026] "GET / HTTP/1.1" 200 1\n',
        line()[:100] + line(),
        line(msec=float("nan")),
        line(msec=-1),
        line(status="?"),
        line(upstream_status=200),
        line(upstream_addr=f"{GREEN}, {BLUE}"),
        line(path=7),
        line(method=None, path=None),
        json.dumps({"probe": 0}) + "\n",
    ],
)
def test_foreign_lines_are_counted_and_passed_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log"
    path.write_text(line() + text + line())
    reader = AccessLog(path, MEMBERS)
    assert len(reader.read(Position())[0]) == 2
    assert reader.foreign == 1


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(agent="XX").encode().replace(b"XX", b"\xff\xfe"))
    assert len(AccessLog(path, MEMBERS).read(Position())[0]) == 1


@settings(max_examples=50)
@given(st.binary(max_size=400))
def test_nothing_that_a_file_holds_raises(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "log"
    path.write_bytes(junk + b"\n" + line().encode())
    reader = AccessLog(path, MEMBERS)
    assert len(reader.read(Position())[0]) == 1
    series(reader.read(Position())[0])


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/users/17/orders", "GET /users/*/orders"),
        ("/users/9b2f0c4e-77aa-4e0e-9b2f-0c4e77aa4e0e", "GET /users/*"),
        ("/search", "GET /search"),
        ("/a/b/c/d/e/f/g", "GET /a/b/c/d/e/…"),
        ("/" + "x" * 9000, "GET /*"),
        ("", "GET "),
    ],
)
def test_endpoints(tmp_path: Path, path: str, endpoint: str) -> None:
    assert samples(tmp_path, line(path=path))[0].endpoint == endpoint


def test_a_torn_line_waits_for_its_end(log: Log) -> None:
    log.write()
    assert log.read() == [1]
    with log.path.open("a") as stream:
        stream.write(line(msec=2.0)[:50])
        stream.flush()
        assert log.read() == []
        stream.write(line(msec=2.0)[50:])
    assert log.read() == [2]
    assert log.reader.foreign == 0


def test_an_endless_line_is_given_up(log: Log) -> None:
    with log.path.open("w") as stream:
        stream.write("x" * 3_500_000 + "\n")
    log.write()
    assert log.read() == [1]
    assert 1 <= log.reader.foreign <= 5


def test_position_is_the_end_of_the_last_whole_line(log: Log) -> None:
    assert log.reader.position() == Position()
    log.write(5)
    with log.path.open("a") as stream:
        stream.write(line(msec=6.0)[:50])
        stream.flush()
        log.at = log.reader.position()
        stream.write(line(msec=6.0)[50:])
    log.write()
    assert log.read() == [6, 6]


def test_a_log_that_is_not_there_yet(log: Log) -> None:
    log.at = log.reader.position()
    assert log.read() == []
    log.write(2)
    assert log.read() == [1, 2]


@pytest.mark.parametrize("lines", [1, 7, 1000])
def test_rotation_by_renaming(log: Log, lines: int) -> None:
    log.write(10)
    log.at = log.reader.position()
    log.write(10)
    log.rotate()
    former = Path(f"{log.path}.1")
    # Workers of nginx go on with the old file until they are told.
    log.write(3, former)
    assert log.read(lines) == list(range(11, 24))
    log.write(2, former)
    log.write(2)
    log.write(1, former)
    assert sorted(log.read(lines)) == [24, 25, 26, 27, 28]
    assert log.read(lines) == []
    assert (log.reader.lost, log.reader.foreign) == (0, 0)


def test_several_rotations_between_two_reads(log: Log) -> None:
    log.write(3)
    assert log.read() == [1, 2, 3]
    for _ in range(3):
        log.write(2)
        log.rotate()
    log.write(1)
    assert log.read() == [4, 5, 6, 7, 8, 9, 10]
    assert log.reader.lost == 0


def test_a_position_while_the_rotation_is_under_way(log: Log) -> None:
    log.write(3)
    log.rotate()
    log.at = log.reader.position()
    log.write(2, Path(f"{log.path}.1"))
    log.write(2)
    assert log.read() == [4, 5, 6, 7]


def test_a_moment_without_a_file(log: Log) -> None:
    log.write(3)
    assert log.read() == [1, 2, 3]
    log.path.rename(f"{log.path}.1")
    log.write(2, Path(f"{log.path}.1"))
    assert log.read() == [4, 5]
    log.write(2)
    assert log.read() == [6, 7]
    assert log.reader.lost == 0


def test_rotation_by_copy_and_truncation(log: Log) -> None:
    log.write(3)
    assert log.read() == [1, 2, 3]
    log.write(2)
    log.copy_and_truncate()
    log.write(1)
    assert log.read() == [4, 5, 6]
    log.write(20)
    assert log.read() == list(range(7, 27))
    assert log.reader.lost == 0


def test_a_file_that_was_emptied_and_grew_again_is_noticed(log: Log) -> None:
    log.write(3)
    assert log.read() == [1, 2, 3]
    os.truncate(log.path, 0)
    log.write(9)
    assert log.read() == list(range(4, 13))
    assert log.reader.lost == 1


def test_a_file_that_was_packed_before_it_was_read_is_counted(log: Log) -> None:
    log.write(3)
    assert log.read() == [1, 2, 3]
    log.write(1)
    log.rotate()
    Path(f"{log.path}.1").rename(f"{log.path}.1.gz")
    log.write(1)
    assert log.read() == [5]
    assert log.reader.lost == 1
    log.write(1)
    assert log.read() == [6]
    assert log.reader.lost == 1


def test_an_inode_number_that_came_back_is_another_file(log: Log) -> None:
    log.write(3)
    assert log.read() == [1, 2, 3]
    inode = log.path.stat().st_ino
    text = log.path.read_text()
    log.path.write_text("".join(line(msec=float(100 + n)) for n in range(len(text) // 100)))
    assert log.path.stat().st_ino == inode
    assert log.read()[0] == 100


def test_a_file_moved_away_is_looked_after_while_the_current_one_is_copied_and_emptied(log: Log) -> None:
    log.write(1)
    assert log.read() == [1]
    log.rotate()
    log.write(3)
    assert log.read() == [2, 3, 4]
    log.copy_and_truncate()
    log.write(3)
    assert log.read() == [5, 6, 7]
    log.write(1, Path(f"{log.path}.1"))
    log.rotate()
    assert log.read() == [8]
    assert log.reader.lost == 0


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["write", "late", "rotate", "copytruncate", "read", "read few"]), max_size=30))
def test_no_line_is_lost_or_read_twice_whatever_happens(tmp_path_factory: pytest.TempPathFactory, actions: list[str]) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    log.write()
    found: list[int] = log.read()
    fresh = True
    for action in actions:
        if action == "write":
            log.write(3)
            fresh = True
        elif action == "late" and Path(f"{log.path}.1").exists() and fresh:
            log.write(1, Path(f"{log.path}.1"))
        elif action == "rotate":
            log.rotate()
            found += log.read()
        elif action == "copytruncate" and log.path.exists() and log.path.stat().st_size:
            found += log.read()
            log.copy_and_truncate()
            fresh = False
        elif action == "read":
            found += log.read()
        elif action == "read few":
            found += log.read(2)
    found += log.read()
    assert len(found) == len(set(found))
    if "copytruncate" not in actions:
        assert sorted(found) == list(range(1, log.written + 1))
        assert log.reader.lost == 0


def test_positions_survive_a_journal(log: Log) -> None:
    log.write(3)
    log.rotate()
    log.write(1)
    for position in (Position(), log.reader.position()):
        assert Position.of(json.loads(json.dumps(position.as_dict()))) == position
    for wrong in ({}, {"current": 1, "former": None}, {"current": {"inode": "x"}, "former": None}):
        with pytest.raises(ValueError, match="is no position of a log"):
            Position.of(wrong)


def test_watch_ends_in_time_or_when_there_is_enough(log: Log) -> None:
    class Busy(Clock):
        """Each second of waiting brings two requests."""

        seconds = 0.0

        def monotonic(self) -> float:
            return self.seconds

        def sleep(self, seconds: float) -> None:
            self.seconds += seconds
            log.write(2)

    log.write(5)
    start = log.reader.position()
    figures, position = watch(log.reader, start, 3.5, Busy(), lambda now: False)
    assert (figures["green"].requests, position) == (8, log.reader.position())
    figures, _position = watch(log.reader, position, 60, Busy(), lambda now: "green" in now and now["green"].requests >= 6)
    assert figures["green"].requests == 6


def test_figures_and_series() -> None:
    found = [
        Sample(10.1, "blue", "GET /", False, 20.0),
        Sample(10.9, "green", "GET /", True, None),
        Sample(10.95, "green", "GET /", True, None),
        Sample(11.0, "green", "GET /", False, 40.0),
        Sample(11.5, "green", "GET /ws", False, None),
        Sample(11.6, "green", "GET /", False, 5.0, synthetic=True),
    ]
    assert series(found) == [
        Bucket(10.0, "blue", 1, 0, 20.0),
        Bucket(10.0, "green", 2, 2, None),
        Bucket(11.0, "green", 2, 0, 40.0),
    ]
    figures = tally(found)
    green = figures["green"].summary()
    assert (green.requests, green.synthetic, green.errors, green.mean_ms, green.p99_ms) == (5, 1, 2, 40.0, 40.0)
    assert figures["green"].burst == 2
    assert "5 requests (1 of them synthetic), 2 failed (40.00 %), mean 40.0 ms" in green.line()
    assert tally(found[:1], figures)["blue"].requests == 2


def test_memory_is_bounded_and_the_draw_is_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.slipway.server.plugins.module_utils.health.samples.KEPT", 1000)
    draw = random.Random(2)
    values = [draw.uniform(0, 100) for _ in range(50_000)]
    figures = tally(Sample(1.0, "blue", "GET /", False, value) for value in sorted(values))["blue"]
    assert len(figures.kept) == 1000
    assert figures.mean_ms == pytest.approx(sum(values) / 50_000)
    assert figures.summary().p50_ms == pytest.approx(50, abs=6)
