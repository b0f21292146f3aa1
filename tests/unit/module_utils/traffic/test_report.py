# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports: what is made of the lines of several hosts, and that a page is whole, closed in itself and harmless."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health.limits import Limits
from ansible_collections.slipway.server.plugins.module_utils.health.samples import Figures
from ansible_collections.slipway.server.plugins.module_utils.health.verdict import judge
from ansible_collections.slipway.server.plugins.module_utils.traffic import report, report_picture
from hypothesis import given, settings
from hypothesis import strategies as st

T = 1_764_035_000.0
VOID = {"meta", "br"}
EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=1>"


class Checker(HTMLParser):
    """Every element is closed in its turn; scripts, and whatever is fetched from elsewhere, are noted."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.foreign: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        bad = [f"{name}={value}" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset") or name[:2] == "on"]
        self.foreign += bad + ([tag] if tag in ("script", "link", "img", "iframe", "object", "image", "use") else [])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def checked(run: report.Run | None) -> str:
    assert run is not None
    page = report.render(run)
    seen = Checker(page)
    assert (seen.open, seen.foreign) == ([], [])
    assert not re.search(r"url\(|@import|https?://", page)
    assert not re.search(
        r"(?<![\w-])(nan|inf)(?![\w-])", " ".join(re.findall(r'(?:[dxy]\d?|width|height|cx|cy)="([^"]*)"', page))
    )
    json.dumps(report.document(run), allow_nan=False)
    return page


def figures(slot: str, requests: int, errors: int) -> Figures:
    return Figures(slot, requests, errors, timed=requests, total_ms=20.0 * requests, squares=420.0 * requests)


def lines(host: str, late: float = 0.0, end: str = "CONFIRMED") -> list[dict[str, Any]]:
    verdict = judge(figures("green", 300, 31), figures("blue", 900, 1), Limits()).as_dict()

    def line(at: float, state: str, text: str, **more: Any) -> dict[str, Any]:
        return {"at": T + at + late, "host": host, "state": state, "text": text, **more}

    gate = {
        "healthy": True,
        "reason": "3 in a row",
        "attempts": 4,
        "seconds": 3.1,
        "last_answers": [EVIL],
        "latency_ms": {"max": 9.3},
    }
    series = [
        {"second": int(T) + second, "slot": slot, "requests": 10, "errors": int(slot == "green"), "mean_ms": 20.0, "p95_ms": 40.0}
        for second in range(30)
        for slot in ("blue", "green")
    ]
    return [
        line(0, "PLANNED", "v2 in green takes over", source="blue", target="green", release="v2", share=0),
        line(3, "HEALTHY", "passed", gate=gate),
        line(4, "CANARY", "canary 1/2 at 25 %", share=25),
        line(9, "CANARY", EVIL, share=25, verdict=verdict),
        line(10, "CANARY", "canary 2/2 at 50 %", share=50),
        line(20, "SWITCHED", "all traffic on green", share=100, switch_ms=0.09),
        line(29, end, f"v2: {end.lower()}, because", share=100 if end == "CONFIRMED" else 0),
        {"series": series},
    ]


def test_several_hosts_make_one_run() -> None:
    run = report.build("shop", "t1", {"web1": lines("web1"), "web2": lines("web2", 0.5)}, "ann")
    assert run is not None
    assert (run.outcome, run.release, run.source, run.target, run.owner) == ("confirmed", "v2", "blue", "green", "ann")
    assert (run.hosts, run.seconds, run.switch_ms) == (("web1", "web2"), 29.5, {"web1": 0.09, "web2": 0.09})
    assert [percent for _at, percent in run.share] == [0, 12.5, 25, 37.5, 50, 75, 100]
    assert run.timings["SWITCHED"] == {"web1": 20.0, "web2": 20.5}
    assert run.total("green") == (600, 60)
    assert run.mean("green") == pytest.approx(20.0)
    assert [mark.event.state for mark in report_picture.marks(run)] == ["HEALTHY", "CANARY", "CANARY", "SWITCHED", "CONFIRMED"]
    page = checked(run)
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "prefers-color-scheme:dark" in page
    for text in ("shop to v2", "Confirmed", "31", "10.33", "web1, web2", "Last answers", "canary 2/2 at 50 %"):
        assert text in page


def test_each_host_that_goes_back_is_marked() -> None:
    run = report.build("shop", "t1", {name: lines(name, late, "ROLLED_BACK") for name, late in (("web1", 9), ("web2", 0))})
    assert run is not None
    back = [mark.event.host for mark in report_picture.marks(run) if mark.event.state == "ROLLED_BACK"]
    assert back == ["web2", "web1"]


@pytest.mark.parametrize(
    ("first", "second", "outcome"), [("CONFIRMED", "ROLLED_BACK", "rolled back"), ("ROLLED_BACK", "FAILED", "failed")]
)
def test_the_worst_end_is_the_end(first: str, second: str, outcome: str) -> None:
    run = report.build("shop", "t1", {"web1": lines("web1", end=first), "web2": lines("web2", end=second)})
    assert run is not None
    assert run.outcome == outcome
    checked(run)


def test_little_or_nothing_to_tell() -> None:
    assert report.build("shop", "t1", {}) is None
    assert report.build("shop", "t1", {"web1": [{"series": []}, {"odd": 1}, "torn"]}) is None  # type: ignore[list-item]
    run = report.build("shop", "t1", {"web1": [{"at": T, "state": "PLANNED", "text": "x"}]}, release="v9")
    assert run is not None
    assert (run.outcome, run.release, run.hosts) == ("not ended", "v9", ("web1",))
    assert "No requests were recorded" in checked(run)


def test_long_runs_stay_small() -> None:
    series = [
        {"second": T + second, "slot": slot, "requests": 5, "errors": 0, "mean_ms": 9.0}
        for second in range(7200)
        for slot in "ab"
    ]
    told = [{"at": T + at, "host": "w", "state": "BAKING", "text": "x" * 80} for at in range(5000)]
    run = report.build("shop", "t1", {"w": [*told, {"series": series}]})
    assert run is not None
    assert len(run.points) <= 2 * report.POINTS
    assert sum(point.requests for point in run.points) == 2 * 5 * 7200
    assert len(checked(run)) < 500_000


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
known = st.sampled_from(["PLANNED", "CANARY", "SWITCHED", "CONFIRMED", "ROLLED_BACK", "<b>"])
cell = st.fixed_dictionaries(
    {"second": st.integers(int(T), int(T) + 90) | anything, "slot": st.sampled_from(["blue", "green", "<i>"])},
    optional=dict.fromkeys(("requests", "errors", "mean_ms", "p95_ms"), anything),
)
event = st.fixed_dictionaries(
    {"at": st.floats(T, T + 90), "state": known, "text": st.text(max_size=30)},
    optional={
        "share": anything,
        "verdict": anything
        | st.fixed_dictionaries({"outcome": anything, "candidate": anything, "error_p": anything, "reasons": anything}),
        "gate": anything | st.fixed_dictionaries({"latency_ms": anything, "last_answers": anything, "reason": anything}),
        "source": st.text(max_size=5),
        "target": st.sampled_from(["green", "<i>"]),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(event | st.fixed_dictionaries({"series": st.lists(cell, max_size=8)}) | anything, max_size=8))
def test_whatever_a_host_tells_the_page_is_whole(told: list[Any]) -> None:
    run = report.build("shop", "t", {"web1": told, "web2": told[:2]})
    if run is not None:
        page = report.render(run)
        seen = Checker(page)
        assert (seen.open, seen.foreign) == ([], [])
        page.encode("utf-8")
