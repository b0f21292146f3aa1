# SPDX-License-Identifier: GPL-3.0-or-later
"""Description, journal, lease and records."""

from __future__ import annotations

import copy
import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health.limits import Limits
from ansible_collections.slipway.server.plugins.module_utils.traffic import config, journal
from ansible_collections.slipway.server.plugins.module_utils.traffic.disk import Disk
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import Busy, SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.lease import change
from ansible_collections.slipway.server.plugins.module_utils.traffic.records import SlotState, Traffic, check_release

from tests.unit.module_utils.traffic.world import CONFIG, World

SYSTEMD = {"kind": "systemd", "unit": "shop@{slot}-{n}.service", "root": "/opt/shop"}


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    document = copy.deepcopy(CONFIG)
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema=2), "schema 2, but this version of slipway reads up to 1"),
        (lambda c: c.pop("schema"), "schema must be 1, but is missing"),
        (lambda c: c.update(app="Shop!"), 'app must be a name .* but is "Shop!"'),
        (lambda c: c.update(edge="yes"), 'edge must be true or false, but is "yes"'),
        (lambda c: c.update(domain=None), "domain must be a string, but is null"),
        (lambda c: c.update(slot_order=["blue"]), "slot_order must be each slot once"),
        (lambda c: c.update(default_slot="green"), "default_slot must be the first of slot_order, blue"),
        (lambda c: c["slots"]["blue"].update(members=[3000]), "slots.blue.members must be a list of strings"),
        (lambda c: c["slots"]["blue"].update(members=["web1"]), "slots.blue.members: 'web1' is not ADDRESS:PORT"),
        (
            lambda c: c["slots"]["blue"].update(instances=[{"name": "x", "port": 0}]),
            r"instances\[0\].port must be a whole number",
        ),
        (lambda c: c["gate"].update(successes=0), "gate.successes must be a whole number from 1"),
        (lambda c: c["gate"].update(status="200"), "gate.status must be a list of HTTP status codes"),
        (lambda c: c["gate"].update(path="health"), "gate.path must be a path that begins with /"),
        (lambda c: c["gate"].update(body="("), "gate.body must be a regular expression"),
        (lambda c: c["gate"].update(deadline=1), "gate.deadline must be more than min_healthy, which is 1 s"),
        (lambda c: c["gate"].update(version={"path": "/v"}), "gate.version.key must be a string, but is missing"),
        (lambda c: c.update(verdict={"alpha": 1}), "verdict.alpha must be a number from 1e-05 to 0.2, but is 1"),
        (lambda c: c.update(verdict={"min_samples": 1.5}), "verdict.min_samples must be a whole number from 20"),
        (lambda c: c.update(verdict={"on_inconclusive": "wait"}), "verdict.on_inconclusive must be one of hold, pass, fail"),
        (lambda c: c.update(verdict={"usual_error_percent": 5}), "verdict.usual_error_percent must be less than error_percent"),
        (lambda c: c.update(confirm_deadline=5), "confirm_deadline must be at least 5 s more than bake, which is 3 s"),
        (lambda c: c.update(runtime={"kind": "podman"}), 'runtime.kind must be docker or systemd, but is "podman"'),
        (lambda c: c.update(runtime={"kind": "docker"}), "runtime.container_port must be the port"),
        (lambda c: c.update(runtime={**SYSTEMD, "unit": "shop.service"}), "runtime.unit must be a unit name with {slot} and {n}"),
    ],
)
def test_descriptions_that_are_wrong(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(SlipwayError, match=message) as failure:
        config.parse(changed(change), "/etc/slipway/apps/shop.json")
    assert str(failure.value).startswith("/etc/slipway/apps/shop.json")


def test_a_slot_may_have_its_own_gate() -> None:
    app = config.parse(changed(lambda c: c["slots"]["legacy"].update(unit="old.service", gate={"path": "/api/up"})), "f")
    assert (app.slot("legacy").gate.path, app.slot("blue").gate.path) == ("/api/up", "/health")
    assert app.slot("legacy").gate.rules == app.slot("blue").gate.rules
    assert app.slot("legacy").unit == "old.service"


def test_limits_and_members_of_an_app() -> None:
    given = {"error_percent": 2, "p99_ms": 900.5, "min_samples": 50, "on_inconclusive": "fail"}
    app = config.parse(changed(lambda c: c.update(verdict=given)), "f")
    assert app.verdict == Limits(error_percent=2.0, p99_ms=900.5, min_samples=50, on_inconclusive="fail")
    assert config.parse(changed(lambda c: c.update(verdict=asdict(app.verdict))), "f").verdict == app.verdict
    assert app.members()[app.slot("green").members[0]] == "green"


def test_keys_of_a_newer_role_do_no_harm() -> None:
    assert config.parse(changed(lambda c: c.update(canary={"steps": [5]})), "f").name == "shop"


def test_unknown_app_lists_the_known(world: World) -> None:
    with pytest.raises(SlipwayError, match=r"no application 'blog' on this host .*Known here: shop"):
        world.host.app("blog")
    with pytest.raises(SlipwayError, match=r"no application '../shop'"):
        world.host.app("../shop")
    world.layout.config("blog").write_text(json.dumps(CONFIG), encoding="utf-8")
    with pytest.raises(SlipwayError, match="describes 'shop', not 'blog'"):
        world.host.app("blog")
    world.layout.config("blog").write_text("{", encoding="utf-8")
    with pytest.raises(SlipwayError, match="is not JSON"):
        world.host.app("blog")


def test_journal_survives_a_torn_line(world: World) -> None:
    book = world.host.journal(world.app)
    book.write("t1", "intent", "begin", source="blue", target="green")
    with world.layout.journal("shop").open("a", encoding="utf-8") as stream:
        stream.write('{"txn": "t1", "phase": "do')
    book.write("t1", "done", "gate")
    last = book.last()
    assert last is not None
    assert last.steps == ("intent begin", "done gate")
    assert last.open


def test_journal_rotates(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ROTATE_AT", 100)
    book = world.host.journal(world.app)
    for round_ in range(6):
        book.write(f"t{round_}", "intent", "begin", source="blue", target="green", filler="x" * 100)
        book.rotate()
    names = sorted(path.name for path in world.layout.state("shop").iterdir())
    assert names == ["journal.jsonl.1", "journal.jsonl.2", "journal.jsonl.3"]
    assert "t5" in (world.layout.state("shop") / "journal.jsonl.1").read_text(encoding="utf-8")


def test_lease(world: World) -> None:
    leases = world.host.leases("shop")
    assert change(leases, "t1", "me", 60, force=False, write=False).changed
    assert leases.read() is None
    assert change(leases, "t1", "me", 60, force=False, write=True).changed
    assert not change(leases, "t1", "me", 60, force=False, write=True).changed
    with pytest.raises(Busy, match="me holds the lease of shop"):
        change(leases, "t2", "you", 60, force=False, write=True)
    forced = change(leases, "t2", "you", 60, force=True, write=True)
    assert forced.taken_over is not None
    assert forced.taken_over["txn"] == "t1"
    assert not change(leases, "t1", "me", None, force=False, write=True).changed
    assert change(leases, "t2", "you", None, force=False, write=True).changed


def test_stale_leases_give_way(world: World) -> None:
    leases = world.host.leases("shop")
    leases.acquire("t1", "me", 60)
    world.clock.passed += 61
    assert change(leases, "t2", "you", 60, force=False, write=True).taken_over is not None
    world.machine.boot = "boot-2"
    assert change(leases, "t3", "she", 60, force=False, write=True).taken_over is not None
    leases.acquire("t3", "she", 60, own_process=True)
    del world.machine.processes[100]
    assert leases.holder() is None
    world.layout.lease("shop").write_text("{torn", encoding="utf-8")
    world.machine.processes[100] = "1"
    assert leases.acquire("t4", "he", 60)[0].txn == "t4"


def test_a_lost_record_of_the_traffic_does_not_make_an_application_new(world: World) -> None:
    records = world.host.records("shop")
    assert not records.traffic().releases
    records.remember("aborted", **{"from": "blue", "to": "green"}, release="v0")
    assert not records.traffic().releases
    for slot, release in (("blue", "v1"), ("green", "v2"), ("blue", "v3")):
        records.remember("confirmed", to=slot, release=release)
    records.remember("rolled_back", **{"from": "green", "to": "blue"}, release="v4")
    assert records.traffic().releases == {"blue": "v3", "green": "v2"}
    records.remember("confirmed", **{"from": "blue", "to": "green"}, release="v5", txn="t5", rollback_allowed=False)
    after = Traffic("green", "blue", {"blue": "v3", "green": "v5"}, "t5", None, False)
    assert records.traffic() == after
    records.restore_traffic()
    assert world.layout.traffic("shop").exists()
    assert records.traffic() == after
    world.layout.traffic("shop").unlink()
    records.remember("rolled_back", kind="rollback", **{"from": "green", "to": "blue"}, release="v3", txn="t6")
    assert (records.traffic().active, records.traffic().previous) == ("blue", None)
    records.save_traffic(Traffic("blue", None, {"blue": "v1"}))
    assert records.traffic().releases == {"blue": "v1"}


def test_slots_and_bad_releases(world: World) -> None:
    records = world.host.records("shop")
    records.save_slot(SlotState("blue", "standby", "v1", "image", "f", 1.0, 2.0, 3.0))
    assert records.slots() == {"blue": SlotState("blue", "standby", "v1", "image", "f", 1.0, 2.0, 3.0)}
    records.mark_bad("v2", "t1", "it failed")
    assert (records.bad(), records.is_bad("v2"), records.is_bad("v1")) == (["v2"], "it failed", None)
    assert records.unmark_bad("v2")
    assert records.bad() == []


@pytest.mark.parametrize("release", ["", "../x", ".hidden", "a/b", "x" * 101])
def test_release_names(release: str) -> None:
    with pytest.raises(SlipwayError, match="no name for a release"):
        check_release(release)


def test_a_line_for_which_there_is_room_for_a_part_only_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, path, write = Disk(), tmp_path / "journal", os.write
    disk.append(path, "first")

    def short(descriptor: int, data: bytes) -> int:
        if len(data) < len(b"second\n"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:3])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space left"):
        disk.append(path, "second")
    assert path.read_text() == "first\n"
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:2]))
    disk.append(path, "third")
    assert path.read_text() == "first\nthird\n"
