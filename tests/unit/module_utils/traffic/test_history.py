# SPDX-License-Identifier: GPL-3.0-or-later
"""The history: what an entry holds, how it is bounded, filtered and shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.traffic import history, records
from ansible_collections.slipway.server.plugins.module_utils.traffic.cli import main
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.machine import Machine
from ansible_collections.slipway.server.plugins.module_utils.traffic.records import SlotState
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request

from tests.unit.module_utils.traffic.world import World

ENTRIES: list[dict[str, Any]] = [
    {"at": "2026-05-30T10:00:00.000Z", "event": "started", "slot": "green", "release": "v2", "owner": "ann"},
    {"at": "2026-05-30T10:01:00.000Z", "event": "confirmed", "from": "blue", "to": "green", "release": "v2", "txn": "t1",
     "owner": "ann", "controller": "10.0.0.9", "seconds": 42.5, "switch_ms": 0.1,
     "verdict": {"candidate": {"requests": 312, "errors": 1, "mean_ms": 21.4}}},
    {"at": "2026-05-31T12:00:00.000Z", "event": "rolled_back", "from": "green", "to": "blue", "release": "v1", "txn": "t2",
     "reason": "orders\nfail"},
]  # fmt: skip


def test_an_entry_tells_who_from_where_what_exactly_and_how_it_went(world: World) -> None:
    world.host.records("shop").save_slot(SlotState("green", "staged", "v2", "reg.example/shop@sha256:" + "a" * 64))
    Cutover(world.host, world.app).switch(Request("green", "v2", "t1", "ann"))
    Cutover(world.host, world.app).confirm("t1", "ann")
    entry = world.host.records("shop").history()[-1]
    assert (entry["event"], entry["txn"], entry["owner"], entry["controller"]) == ("confirmed", "t1", "ann", "10.0.0.9")
    assert (entry["from"], entry["to"], entry["release"]) == ("blue", "green", "v2")
    assert entry["artifact"] == "reg.example/shop@sha256:" + "a" * 64
    timings = entry["timings"]
    assert isinstance(timings, dict)
    assert list(timings)[:1] == ["BAKING"] or {"HEALTHY", "SWITCHED", "BAKING"} <= set(timings)


def test_a_broken_record_keeps_nobody_from_remembering(world: World) -> None:
    path = world.layout.slot("shop", "green")
    path.parent.mkdir(parents=True)
    path.write_text("{", encoding="utf-8")
    world.host.records("shop").remember("stopped", slot="green", release="v2")
    assert world.history() == ["stopped"]


def test_the_history_is_bounded_and_read_across_its_files(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROTATE_AT", 2000)
    found = world.host.records("shop")
    for number in range(200):
        found.remember("started", slot="green", number=number)
    names = sorted(path.name for path in world.layout.history("shop").parent.glob("history*"))
    assert names == ["history.jsonl", "history.jsonl.1", "history.jsonl.2", "history.jsonl.3"]
    assert sum((world.layout.history("shop").parent / name).stat().st_size for name in names) < 4 * 2200
    assert [entry["number"] for entry in found.history(30)] == list(range(170, 200))
    assert len(found.history(1000)) < 200
    world.layout.history("shop").unlink()
    assert found.history(3)


def test_selection() -> None:
    def chosen(**wanted: Any) -> list[str]:
        return [str(entry["event"]) for entry in history.select(ENTRIES, history.Wanted(**wanted))]

    assert chosen() == ["started", "confirmed", "rolled_back"]
    assert chosen(limit=1) == ["rolled_back"]
    assert chosen(limit=0) == []
    assert chosen(event="moves") == ["confirmed", "rolled_back"]
    assert chosen(event="started", release="v1") == []
    assert chosen(txn="t1") == ["confirmed"]
    now = history.moment("2026-05-31T13:00:00.000Z")
    assert chosen(since=history.since("2h", now)) == ["rolled_back"]
    assert chosen(since=history.since("2026-05-30T10:01", now)) == ["confirmed", "rolled_back"]
    assert chosen(since=history.since("2026-05-31", now)) == ["rolled_back"]
    for wrong in ("yesterday", "2026-13-45", "-2d", "", "9999999d"):
        with pytest.raises(SlipwayError, match="is no time"):
            history.since(wrong, now)


def test_table_of_a_fleet() -> None:
    lines = history.table(history.merge({"web2": ENTRIES[1:2], "web1": ENTRIES}, 10))
    assert len(lines) == 5
    assert lines[0].split() == ["when", "(UTC)", "host", "event", "where", "release", "who", "took", "why"]
    assert lines[2].startswith("2026-05-30 10:01:00  web1")
    assert lines[3].startswith("2026-05-30 10:01:00  web2")
    assert "ann from 10.0.0.9  42.5 s  312 requests, 1 failed, mean 21 ms; switch_ms 0.1" in lines[3]
    assert "orders fail" in lines[4]
    assert history.table([]) == []
    assert len(history.table([{"event": "x", "reason": "y" * 500}])[1]) < 110


def test_command(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "shop"], world.host) == 0
    assert "nothing of the kind happened" in capsys.readouterr().out
    world.host.records("shop").remember("started", slot="green", release="v2", owner="ann")
    world.host.records("shop").remember("stopped", slot="green", release="v2", owner="bob", peak=3)
    assert main(["history", "shop", "--event", "stopped", "--since", "1h"], world.host) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2
    assert "bob from 10.0.0.9" in out[1]
    assert "peak 3" in out[1]
    assert main(["history", "shop", "--json", "--release", "v2", "--limit", "1"], world.host) == 0
    assert '"event": "stopped"' in capsys.readouterr().out
    assert main(["history", "shop", "--since", "soon"], world.host) == 1


def test_the_controller_is_found_through_sudo_and_shells() -> None:
    code = f"from {Machine.__module__} import Machine; print(Machine().controller())"
    inner = [sys.executable, "-c", code]
    clean = {key: value for key, value in os.environ.items() if key not in ("SSH_CONNECTION", "SLIPWAY_CONTROLLER")}
    outer = ["env", "-i", f"PYTHONPATH={os.pathsep.join(sys.path)}", *inner]
    shell = ["sh", "-c", '"$@"; true', "sh", *outer]
    for name, value in (("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.1 22"), ("SLIPWAY_CONTROLLER", "192.0.2.7")):
        done = subprocess.run(shell, env={**clean, name: value}, capture_output=True, text=True, check=True, cwd=Path.cwd())
        assert done.stdout.strip() == "192.0.2.7"
