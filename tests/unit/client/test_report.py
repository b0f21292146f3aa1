# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of the report."""

from __future__ import annotations

import json

import pytest

from tests.client.records import load
from tests.client.report import Switch, percentile, summarise, switches_of, text


def request(t, release="v1", kind="keepalive", ms=10.0, method="GET", **more):
    return {"t": t, "kind": kind, "method": method, "path": "/", "status": 200, "ms": ms, "release": release, **more}


@pytest.mark.parametrize(("percent", "expected"), [(50, 20), (51, 30), (75, 30), (95, 40), (100, 40), (1, 10)])
def test_percentile_is_the_nearest_rank(percent, expected):
    assert percentile([40, 10, 30, 20], percent) == expected


def test_percentile_of_nothing():
    assert percentile([], 50) is None


def test_failures_are_counted_by_kind_and_left_out_of_the_latency():
    summary = summarise([
        request(0.0), request(1.0, ms=30.0), request(2.0, kind="post", ms=5000.0, status=502, error="status 502"),
        request(3.0, kind="slow", ms=3000.0), request(10.0, kind="ws", status=0, error="handshake: refused"),
    ])  # fmt: skip
    assert summary["requests"] == 4
    assert summary["failures"] == 2
    assert summary["failures_by_kind"] == {"post": 1, "ws": 1}
    assert summary["latency_ms"] == {"p50": 10.0, "p95": 30.0, "p99": 30.0, "max": 30.0}
    assert summary["per_second"] == 0.4


def test_a_request_of_the_old_release_counts_as_stale_when_it_started_after_the_switch():
    records = [
        request(99.5, "v1", kind="slow", ms=3000.0),  # was under way
        request(100.0, "v2", ms=50.0),
        request(100.2, "v1"),
        request(100.6, "v1"),
        request(100.7, "v1", kind="ws", method="ECHO"),  # an open WebSocket stays
        request(100.8, None, status=0, error="connect: refused"),
    ]
    around = summarise(records, [Switch(100.0, "v2")])["switches"][0]
    assert around["stale"] == 2
    assert around["first_answer_ms"] == 50.0
    assert around["failures"] == 1
    assert summarise(records, [Switch(100.0, "v2")], grace=0.5)["switches"][0]["stale"] == 1
    assert summarise(records, [Switch(100.0, "v2", done=100.3)])["switches"][0]["stale"] == 1


def test_a_switch_is_over_when_the_next_one_begins():
    records = [request(t / 10, "v2" if 1000 <= t < 1020 else "v1") for t in range(980, 1060)]
    there, back = summarise(records, [Switch(100.0, "v2"), Switch(102.0, "v1")], window=2)["switches"]
    assert (there["stale"], back["stale"]) == (0, 0)
    assert there["requests"] == back["requests"] == 40


def test_what_is_under_way_at_the_next_switch_may_have_been_sent_to_either():
    records = [request(104.99, "v1", kind="fresh", ms=30.0), request(104.95, "v1", ms=30.0)]
    there, _back = summarise(records, [Switch(100.0, "v2"), Switch(105.0, "v1")])["switches"]
    assert [one["t"] for one in there["stale_examples"]] == [104.95]


def test_the_longest_silence_does_not_hear_failures_and_slow_requests():
    records = [request(0.0, ms=0.0), request(1.0, ms=0.0, error="status 502", status=502), request(1.5, kind="slow", ms=0.0),
               request(2.5, ms=500.0)]  # fmt: skip
    assert summarise(records)["longest_silence_ms"] == 3000.0


def test_events_are_counted_apart_from_failures():
    events = [{"t": 1, "event": "idle_close", "kind": "keepalive"}, {"t": 2, "event": "ws_open"},
              {"t": 3, "event": "ws_cut", "code": 1001}, {"t": 4, "event": "ws_cut", "error": "EOFError"}]  # fmt: skip
    summary = summarise(events, [Switch(3.5, "v2")], window=1)
    assert summary["failures"] == 0
    assert summary["idle_closes"] == 1
    assert summary["websockets"] == {"opened": 1, "echoes": 0, "cut": 2, "cut_by_code": {"1001": 1, "none": 1}}
    assert summary["switches"][0]["websockets_cut"] == 2


def test_releases_with_first_and_last_answer():
    releases = summarise([request(5.0, "v1"), request(1.0, "v1"), request(2.0, "v2", ms=1000.0)])["releases"]
    assert releases == {"v1": {"requests": 2, "first": 1.01, "last": 5.01}, "v2": {"requests": 1, "first": 3.0, "last": 3.0}}


def test_an_empty_log_has_a_summary_and_a_text():
    assert "requests    0" in text(summarise([], [Switch(1.0, "v2")]))


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(request(1.0)) + '\n{"t": 2.0, "ki')
    assert len(list(load(log))) == 1


@pytest.mark.parametrize("form", ['[{"at": 2, "to": "v2"}, {"at": 1}]', '{"at": 2, "to": "v2"}\n\n{"at": 1}\n'])
def test_switches_as_list_or_as_lines(tmp_path, form):
    file = tmp_path / "switches"
    file.write_text(form)
    assert switches_of(file) == [Switch(1.0), Switch(2.0, "v2")]
