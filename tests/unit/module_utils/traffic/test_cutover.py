# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health.model import ProbeResult
from ansible_collections.slipway.server.plugins.module_utils.traffic import recovery
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import Busy, SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.rollback import Request as Back
from ansible_collections.slipway.server.plugins.module_utils.traffic.rollback import Rollback
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request
from ansible_collections.slipway.server.plugins.module_utils.traffic.watch import Watch

from tests.unit.module_utils.traffic.world import CONFIG, FakeProbe, Fuse, World


def switch(world: World, to: str = "green", release: str = "v2", txn: str = "t1", **more: Any) -> dict[str, object]:
    return Cutover(world.host, world.app).switch(Request(to, release, txn, "tester", **more))


def confirm(world: World, txn: str = "t1") -> dict[str, object]:
    return Cutover(world.host, world.app).confirm(txn)


def back(world: World, **request: Any) -> dict[str, object]:
    return Rollback(world.host, world.app).run(Back(**request))


def deployed(world: World) -> World:
    switch(world, "blue", "v1", "t0")
    switch(world)
    confirm(world)
    return world


def test_the_whole_way(world: World) -> None:
    assert switch(world, "blue", "v1", "t0")["outcome"] == "adopted"
    assert switch(world, "blue", "v1", "t0")["changed"] is False
    held = switch(world)
    assert (held["outcome"], held["from"], held["to"], held["txn"]) == ("switched", "blue", "green", "t1")
    assert world.serving == "green"
    assert world.runner.timers["slipway-shop-deadman"][1] == ["/usr/local/sbin/slipway", "recover", "shop", "--deadline"]
    done = confirm(world)
    assert (done["outcome"], done["changed"]) == ("confirmed", True)
    assert world.runner.timers == {}
    assert world.host.leases("shop").read() is None
    assert confirm(world)["changed"] is False
    traffic = world.host.records("shop").traffic()
    assert (traffic.active, traffic.previous, dict(traffic.releases)) == ("green", "blue", {"blue": "v1", "green": "v2"})
    assert world.history() == ["adopted", "confirmed"]


def test_a_target_that_is_not_well_gets_nothing(world: World) -> None:
    world.sensors.well["green"] = False
    with pytest.raises(
        SlipwayError, match="stays on blue: green did not pass the gate from web1, not healthy within 6 s"
    ) as failure:
        switch(world)
    assert failure.value.facts["outcome"] == "aborted"
    assert "Last answers:" in str(failure.value)
    assert (world.serving, world.runner.timers, world.sensors.served) == ("blue", {}, [])
    assert world.host.leases("shop").read() is None


def test_the_wrong_release_behind_the_target_is_not_well(world: World) -> None:
    world.sensors.running["green"] = "v0"
    with pytest.raises(SlipwayError, match="JSON release is 'v0', not 'v2'"):
        switch(world)


def test_no_dead_man_no_switch(world: World) -> None:
    world.runner.can_arm = False
    with pytest.raises(SlipwayError, match=r"without a dead man no traffic moves\. .*no bus"):
        switch(world)
    assert (world.serving, world.host.journal(world.app).pending()) == ("blue", None)


def test_nginx_that_does_not_bear_it_out(world: World) -> None:
    world.sensors.nginx = False
    with pytest.raises(SlipwayError, match=r"is back on blue .* through nginx, connection refused") as failure:
        switch(world)
    assert failure.value.facts["outcome"] == "rolled_back"
    assert (world.serving, world.runner.timers) == ("blue", {})
    assert world.host.records("shop").bad() == []


def test_a_release_that_fails_in_the_bake_is_bad(world: World) -> None:
    switch(world, "blue", "v1", "t0")
    judge = world.sensors._judge

    def members(slot: Any, release: Any, limit: Any = None) -> list[FakeProbe]:
        sick = world.serving == "green"
        return [FakeProbe("m", world.fuse, lambda: ProbeResult(False, "status 500") if sick else judge(slot.name, release))]

    world.sensors.members = members  # type: ignore[method-assign, assignment]
    with pytest.raises(SlipwayError, match="while it was watched for 3 s, m failed 3 times in a row: status 500"):
        switch(world)
    assert (world.serving, world.history()[-1]) == ("blue", "rolled_back")
    assert world.host.records("shop").bad() == ["v2"]
    with pytest.raises(SlipwayError, match="release v2 of shop was taken back before"):
        switch(world, txn="t2")
    del world.sensors.members
    assert switch(world, txn="t3", force=True)["outcome"] == "switched"


def test_full_disk_after_the_switch(world: World) -> None:
    create = world.disk.create_flag

    def fill(path: Any, aside: Any = None) -> None:
        create(path, aside)
        world.disk.full = path.name == "green"

    world.disk.create_flag = fill  # type: ignore[method-assign]
    with pytest.raises(SlipwayError, match=r"the disk failed: .*No space left"):
        switch(world)
    assert world.serving == "blue"
    world.disk.full = False
    del world.disk.create_flag
    recovery.recover(world.host, world.app)
    assert world.host.journal(world.app).pending() is None
    assert switch(world, txn="t2")["outcome"] == "switched"


def test_full_disk_before_traffic_moves(world: World) -> None:
    looked = world.sensors.members

    def fill(*arguments: Any) -> Any:
        world.disk.full = True
        return looked(*arguments)

    world.sensors.members = fill  # type: ignore[method-assign, assignment]
    with pytest.raises(SlipwayError, match=r"stays on blue: the disk failed: .*No space left"):
        switch(world)
    assert world.serving == "blue"
    world.disk.full = False
    del world.sensors.members
    assert recovery.recover(world.host, world.app).action == "ended"
    assert world.history()[-1] == "aborted"


def test_full_disk_does_not_keep_traffic_unconfirmed(world: World) -> None:
    switch(world)
    world.disk.full = True
    with pytest.raises(SlipwayError, match=r"is not confirmed: the disk of web1 failed, .*the dead man stays armed"):
        Cutover(world.host, world.app).confirm("t1")
    world.clock.advance(61)
    recovery.recover(world.host, world.app, fired=True)
    assert world.serving == "blue"
    world.disk.full = False
    assert "once traffic was back" in recovery.recover(world.host, world.app).message
    assert world.history()[-1] == "rolled_back"


def test_the_dead_man_wakes_in_time_for_the_earliest_deadline(tmp_path: Path) -> None:
    world = World(tmp_path, {**CONFIG, "canary": {"steps": [50], "dwell": 1, "patience": 100}})
    switch(world)
    deadline, _command = world.runner.timers["slipway-shop-deadman"]
    assert deadline - world.clock.passed <= 60


def test_full_disk_does_not_keep_traffic_from_going_back_to_a_slot_that_needs_its_flag(world: World) -> None:
    deployed(world)
    world.sensors.running["blue"] = "v3"
    looked = world.sensors._through

    def fill(slot: str, release: Any) -> ProbeResult:
        world.disk.full = world.serving == "blue"
        return ProbeResult(False, "502") if world.disk.full else looked(slot, release)

    world.sensors._through = fill  # type: ignore[method-assign]
    with pytest.raises(SlipwayError, match="is back on green"):
        switch(world, "blue", "v3", "t2")
    assert world.serving == "green"


def test_second_transaction_is_refused_with_the_holder(world: World) -> None:
    switch(world)
    with pytest.raises(Busy, match=r"transaction t1 of tester moved shop to green.*slipway confirm shop"):
        switch(world, txn="t2")
    with world.host.lock("shop").held("someone moving shop"), pytest.raises(Busy, match="someone moving shop"):
        switch(world, txn="t1")
    confirm(world)
    world.host.leases("shop").acquire("t9", "a play on ctl", 600)
    with pytest.raises(Busy, match=r"a play on ctl holds the lease of shop .transaction t9. for another 600 s"):
        switch(world, "blue", "v1", "t3")


def test_confirmation_needs_something_to_confirm(world: World) -> None:
    with pytest.raises(SlipwayError, match="nothing waits for a confirmation of shop as t1"):
        confirm(world)
    switch(world)
    world.sensors.nginx = False
    with pytest.raises(SlipwayError, match="is not confirmed: through nginx, connection refused"):
        confirm(world)
    assert "slipway-shop-deadman" in world.runner.timers
    world.clock.advance(61)
    recovery.recover(world.host, world.app, fired=True)
    with pytest.raises(SlipwayError, match="cannot be confirmed: rolled_back, not confirmed within 60 s"):
        confirm(world)


def test_the_dead_man_does_not_move_traffic_to_a_dead_slot(world: World) -> None:
    switch(world)
    world.sensors.well["blue"] = False
    world.clock.advance(61)
    found = recovery.recover(world.host, world.app, fired=True)
    assert (found.action, world.serving) == ("kept", "green")
    assert world.history()[-1] == "kept"


def test_a_clock_that_jumps_changes_no_deadline(world: World) -> None:
    switch(world)
    world.clock.wall += 86400
    assert recovery.recover(world.host, world.app).action == "waiting"
    world.clock.wall -= 2 * 86400
    world.clock.passed += 61
    assert recovery.recover(world.host, world.app).action == "reverted"


def test_flags_moved_by_hand_are_the_truth(world: World) -> None:
    switch(world)
    (world.layout.flags("shop") / "legacy").touch()
    assert recovery.recover(world.host, world.app).action == "ended"
    assert (world.serving, world.history()[-1]) == ("legacy", "overridden")


def test_newer_journal_is_not_guessed_at(world: World) -> None:
    world.layout.journal("shop").parent.mkdir(parents=True, exist_ok=True)
    world.layout.journal("shop").write_text('{"v": 2, "step": "begin"}\n', encoding="utf-8")
    with pytest.raises(SlipwayError, match=r"written by a newer slipway \(format 2, this one reads 1\)"):
        switch(world)
    assert world.serving == "blue"


def test_rollback_to_the_slot_before(world: World) -> None:
    deployed(world)
    plan = Rollback(world.host, world.app).preview(Back())
    assert (plan["to"], plan["healthy"], plan["plan"]) == ("blue", True, ["remove flag spare.blue", "remove flag green"])
    done = back(world, reason="orders fail")
    assert (done["outcome"], done["to"], done["release"], world.serving) == ("rolled_back", "blue", "v1", "blue")
    assert world.host.records("shop").is_bad("v2") == "orders fail"
    with pytest.raises(SlipwayError, match="no slot before it is known"):
        back(world)
    with pytest.raises(SlipwayError, match="green of shop runs v2, which was taken back before"):
        back(world, to="green")
    assert back(world, to="green", force=True)["outcome"] == "rolled_back"


def test_rollback_needs_no_room_on_the_disk_and_twice_does_no_harm(world: World) -> None:
    deployed(world)
    world.disk.full = True
    done = back(world)
    assert (done["outcome"], done["recorded"], world.serving) == ("rolled_back", False, "blue")
    with pytest.raises(OSError, match="No space left"):
        back(world)
    assert world.serving == "blue"
    world.disk.full = False
    assert recovery.recover(world.host, world.app).action == "nothing"
    assert back(world, to="blue")["outcome"] == "unchanged"


@pytest.mark.parametrize("room", [1, 2, 3])
def test_rollback_on_a_disk_that_fills_up_meanwhile_is_finished_later(world: World, room: int) -> None:
    deployed(world)
    append, left = world.disk.append, [room]

    def fill(path: Path, line: str) -> None:
        world.disk.full = left[0] == 0
        left[0] -= 1
        append(path, line)

    world.disk.append = fill  # type: ignore[method-assign]
    assert back(world)["outcome"] == "rolled_back"
    del world.disk.append
    assert (world.serving, back(world)["outcome"], world.serving) == ("blue", "unchanged", "blue")
    world.disk.full = False
    assert recovery.recover(world.host, world.app).action == "finished"
    assert (world.serving, world.host.records("shop").traffic().active, world.history()[-1]) == ("blue", "blue", "rolled_back")


def test_rollback_of_what_is_not_confirmed_needs_the_journal_only(world: World) -> None:
    deployed(world)
    switch(world, "blue", "v1", "t2")
    world.layout.traffic("shop").write_text("{", encoding="utf-8")
    assert back(world)["to"] == "green"


def test_after_a_restart_with_a_clock_far_back_no_more_time_is_left_than_was_meant(world: World) -> None:
    switch(world)
    world.reboot()
    world.clock.wall -= 10 * 365 * 86400
    found = recovery.recover(world.host, world.app)
    assert (found.action, 0 < found.left <= 60) == ("waiting", True)


def test_rollback_refuses_a_target_that_does_not_answer(world: World) -> None:
    deployed(world)
    world.sensors.well["blue"] = False
    with pytest.raises(SlipwayError, match=r"stays on green: blue cannot take the traffic.*Start it \(deploy v1\)"):
        back(world)
    world.sensors.well["blue"] = True
    world.sensors.running["blue"] = "v3"
    with pytest.raises(SlipwayError, match="JSON release is 'v3', not 'v1'"):
        back(world)
    assert world.serving == "green"


def test_rollback_of_one_transaction(world: World) -> None:
    deployed(world)
    assert back(world, txn="other")["outcome"] == "unchanged"
    assert back(world, txn="t1")["outcome"] == "rolled_back"
    switch(world, txn="t5")
    assert back(world, txn="t4")["outcome"] == "unchanged"
    assert back(world, txn="t5", reason="another host failed")["txn"] == "t5"
    assert (world.serving, world.host.records("shop").bad()) == ("blue", ["v2"])


@pytest.mark.parametrize("looks", [1, 6])
def test_rollback_does_not_wait_for_a_running_cutover(world: World, looks: int) -> None:
    """An operator takes traffic back while the module verifies or bakes; the module notices and tells so."""
    switch(world, "blue", "v1", "t0")
    world.sensors.served.clear()
    look = world.sensors._through
    done: list[dict[str, object]] = []

    def through(slot: str, release: Any) -> ProbeResult:
        if len(world.sensors.served) == looks and not done:
            done.append({})
            done[0].update(back(world))
        return look(slot, release)

    world.sensors._through = through  # type: ignore[method-assign]
    with pytest.raises(SlipwayError, match="was taken over while moving to green: rolled_back rolled back by hand"):
        switch(world)
    assert (world.serving, done[0]["outcome"]) == ("blue", "rolled_back")
    assert world.history() == ["adopted", "rolled_back"]


def test_rollback_tells_when_nginx_is_down(world: World) -> None:
    deployed(world)
    world.sensors.nginx = False
    with pytest.raises(SlipwayError, match="flags of shop now say blue, which answers itself, but not through nginx"):
        back(world)
    assert world.serving == "blue"


def test_flags_by_hand_then_rollback_returns_to_where_traffic_was_left(world: World) -> None:
    deployed(world)
    (world.layout.flags("shop") / "green").unlink()
    assert back(world)["to"] == "green"


def test_preview_changes_nothing(world: World) -> None:
    before = sorted(world.root.rglob("*"))
    world.sensors.well["green"] = False
    plan = Cutover(world.host, world.app).preview(Request("green", "v2"))
    assert (plan["changed"], plan["healthy"], plan["from"]) == (True, False, "blue")
    assert "create flag green" in plan["plan"]  # type: ignore[operator]
    assert sorted(world.root.rglob("*")) == before


def test_watch_counts() -> None:
    probe = FakeProbe("m", Fuse(), lambda: ProbeResult(True, ""))
    well, bad, gone = ProbeResult(True, ""), ProbeResult(False, "500"), ProbeResult(False, "refused", refused=True)

    def verdict(*results: ProbeResult) -> object:
        watch, why = Watch(), None
        for result in results:
            watch, why = watch.after([probe], [result])
        return why

    assert verdict(bad, bad, well, bad, bad) is None
    assert "3 times in a row" in str(verdict(bad, bad, bad))
    assert "refused 2 connections" in str(verdict(gone, well, well, gone))


def test_only_edges_switch(world: World) -> None:
    world.layout.config("shop").write_text(json.dumps({**world.config, "edge": False}), encoding="utf-8")
    with pytest.raises(SlipwayError, match="web1 is no edge of shop"):
        switch(world)
    with pytest.raises(SlipwayError, match="web1 is no edge of shop"):
        back(world)


def test_unknown_slot_is_named(world: World) -> None:
    with pytest.raises(SlipwayError, match=r"shop has no slot 'purple' on web1. Slots: blue, green, legacy"):
        switch(world, "purple")


def test_no_candidate_starts_where_nginx_does_not_lead(tmp_path: Path) -> None:
    world = World(tmp_path)
    site = world.host.layout.site("shop")
    site.parent.mkdir(parents=True)
    site.write_text("server 10.0.0.1:3010 max_fails=0;\nserver 10.0.0.2:3020 max_fails=0;\n", encoding="utf-8")
    with pytest.raises(SlipwayError, match=r"nginx on web1 does not know 10\.0\.0\.2:3010, where slot green .* Run site\.yml"):
        Cutover(world.host, world.app).prepare(Request("green", "v2"))
    site.write_text("server 10.0.0.1:3010 max_fails=0;\nserver 10.0.0.2:3010 max_fails=0;\n", encoding="utf-8")
    assert Cutover(world.host, world.app).prepare(Request("green", "v2"))["outcome"] == "prepared"


def test_a_second_run_of_the_same_transaction_finds_its_slot_prepared_whatever_the_first_has_come_to(world: World) -> None:
    cutover, request = Cutover(world.host, world.app), Request("green", "v2", "t1", "tester")
    assert cutover.prepare(request)["outcome"] == "prepared"
    cutover.switch(request)
    assert cutover.prepare(request) == {"changed": False, "outcome": "prepared", "from": "green", "to": "green", "txn": "t1"}
    cutover.confirm("t1")
    assert cutover.prepare(request)["outcome"] == "prepared"
    assert (cutover.switch(request)["outcome"], cutover.confirm("t1")["changed"]) == ("unchanged", False)
    with pytest.raises(SlipwayError, match="slot green of shop has the traffic on web1: no candidate starts there"):
        cutover.prepare(Request("green", "v2", "t2", "tester"))


def join(world: World, write: bool = True) -> dict[str, object]:
    return Cutover(world.host, world.app).join(Request("green", "v2", owner="tester"), write)


def test_an_edge_that_never_served_joins_the_others(world: World) -> None:
    assert join(world, write=False)["outcome"] == "planned"
    assert world.serving == "blue"
    done = join(world)
    assert (done["changed"], done["from"], done["to"], world.serving) == (True, "blue", "green", "green")
    assert dict(world.host.records("shop").traffic().releases) == {"green": "v2"}
    with pytest.raises(SlipwayError, match="web1 has served shop before"):
        join(world)


def test_an_edge_that_cannot_reach_the_release_stays_where_it_is(world: World) -> None:
    world.sensors.well["green"] = False
    with pytest.raises(SlipwayError, match=r"web1 cannot serve shop yet: .*status 503\. It can after the next deployment"):
        join(world)
    assert world.serving == "blue"


def test_an_edge_whose_nginx_does_not_lead_there_goes_back(world: World) -> None:
    world.sensors.nginx = False
    with pytest.raises(SlipwayError, match="does not serve v2 from green"):
        join(world)
    assert world.serving == "blue"
