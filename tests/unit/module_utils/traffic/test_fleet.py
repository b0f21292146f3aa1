# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions for several hosts, from reports as slot_info gives them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.traffic import fleet
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError


def slot(release=None, alive=(), managed=True) -> dict[str, Any]:
    return {"managed": managed, "release": release, "artifact": None, "instances": [{"alive": one} for one in alive]}


def edge(active="blue", previous=None, served=(), slots=None, **more) -> dict[str, Any]:
    slots = slots or {"blue": slot(), "green": slot()}
    report = {"edge": True, "active": active, "previous": previous, "served": dict(served), "slots": slots}
    return {**report, "slot_order": list(slots), "lease": None, "transaction": None, **more}


def runner(blue=None, green=None, **more) -> dict[str, Any]:
    """A host of the application that is no edge."""
    slots = {"blue": blue or slot(alive=[False]), "green": green or slot(alive=[False])}
    return {**edge(slots=slots), "edge": False, "active": None, **more}


def choice(release: str, reports, **more) -> fleet.Choice:
    return fleet.choose("shop", release, reports, **more)


LIVE = {"served": {"blue": "v1"}}
RUNS = slot("v1", [True])


def test_the_first_release_takes_the_slot_that_new_requests_go_to():
    found = choice("v1", {"web1": edge(), "web2": runner()})
    assert (found.first, found.target, found.unchanged, found.release) == (True, "blue", False, None)


def test_what_a_first_deployment_left_on_one_host_is_taken_up_again():
    reports = {"web1": edge(), "web2": runner(RUNS), "web3": runner()}
    assert fleet.never_deployed(reports)
    assert choice("v1", reports).first


def test_another_first_release_does_not_touch_what_runs_in_the_slot_of_the_edge():
    reports = {"web1": edge(slots={"blue": RUNS, "green": slot(alive=[False])})}
    assert fleet.never_deployed(reports)
    found = choice("v2", reports)
    assert (found.first, found.target) == (False, "green")


def test_a_unit_of_somebody_else_that_serves_is_no_first_release():
    slots = {"laravel": slot(None, [True], managed=False), "blue": slot(alive=[False]), "green": slot(alive=[False])}
    reports = {"web1": edge("laravel", slots=slots)}
    assert not fleet.never_deployed(reports)
    found = choice("v1", reports)
    assert (found.first, found.active, found.target) == (False, "laravel", "blue")


def test_without_an_edge_nobody_knows_whether_anything_was_deployed():
    assert not fleet.never_deployed({"web2": runner()})
    assert not fleet.never_deployed({})


def test_another_release_takes_the_idle_slot():
    found = choice("v2", {"web1": edge(**LIVE), "web2": runner(RUNS)})
    assert (found.active, found.target, found.unchanged, found.first) == ("blue", "green", False, False)
    assert found.release == "v1"


def test_what_serves_everywhere_stays():
    found = choice("v1", {"web1": edge(**LIVE), "web2": runner(RUNS)})
    assert (found.unchanged, found.target) == (True, "blue")


@pytest.mark.parametrize("elsewhere", [slot("v1", [True, False]), slot("v0", [True]), slot(alive=[False])])
def test_a_release_that_one_host_does_not_run_is_deployed_again(elsewhere):
    found = choice("v1", {"web1": edge(**LIVE), "web2": runner(RUNS), "web3": runner(elsewhere)})
    assert (found.unchanged, found.target) == (False, "green")


def test_what_serves_takes_another_slot_when_it_shall_be_started_anew():
    found = choice("v1", {"web1": edge(**LIVE), "web2": runner(RUNS)}, again=True)
    assert (found.unchanged, found.target) == (False, "green")


def test_a_warm_slot_is_preferred():
    def slots(blue, green, red):
        return {"blue": blue, "green": green, "red": red}

    here = slots(RUNS, slot("v0", [True]), slot("v2", [True]))
    reports = {"web1": edge(**LIVE, slots=slots(slot(), slot(), slot())), "web2": {**runner(), "slots": here}}
    assert choice("v2", reports).target == "red"
    assert choice("v0", reports).target == "green"
    assert choice("v3", reports).target == "green"


def test_no_idle_managed_slot():
    slots = {"blue": RUNS, "laravel": slot(None, [True], managed=False)}
    with pytest.raises(SlipwayError, match="no idle managed slot beside blue"):
        choice("v2", {"web1": edge(**LIVE, slots=slots)})


def test_no_edge():
    with pytest.raises(SlipwayError, match="no edge among web2: put a host into the group edge"):
        choice("v1", {"web2": runner()})
    with pytest.raises(SlipwayError, match="no host that answered knows shop"):
        fleet.choose_back("shop", "", {})


def test_edges_that_disagree_are_named_with_a_remedy():
    reports = {"web1": edge(**LIVE), "web2": edge("green", **LIVE)}
    with pytest.raises(SlipwayError, match=r"web1 says blue, web2 says green.*rollback.yml -e app=shop -e to=SLOT"):
        choice("v2", reports)
    with pytest.raises(SlipwayError, match="do not agree about `active`"):
        fleet.choose_back("shop", "", reports)
    found = fleet.choose_back("shop", "blue", reports)
    assert (found.active, found.target, found.unchanged) == ("green", "blue", False)


def test_hosts_whose_slot_does_not_run_are_named():
    reports = {"web1": edge(**LIVE), "web2": runner(RUNS)}
    assert fleet.asleep("blue", reports) == []
    reports["web2"]["slots"]["blue"]["instances"] = [{"name": "n", "alive": False}]
    assert fleet.asleep("blue", reports) == ["web2"]


def test_an_edge_that_does_not_know_the_release_yet_is_deployed_to():
    found = choice("v1", {"web1": edge(**LIVE), "web2": edge(), "web3": runner(RUNS)})
    assert not found.unchanged


LEASE = {"txn": "t1", "owner": "ann", "expires_in": 42, "stale": None}


def test_a_lease_on_an_edge_is_refused_with_its_holder():
    reports = {"web1": edge(**LIVE, lease=LEASE), "web2": runner(RUNS)}
    with pytest.raises(SlipwayError, match=r"ann holds the lease of shop on web1 .*another 42 s.*slipway unlock shop"):
        choice("v2", reports, txn="t2")
    with pytest.raises(SlipwayError, match="ann holds"):
        choice("v1", reports)
    assert choice("v2", reports, txn="t1").target == "green"
    waits = {**WAITS, "txn": "t1", "seconds_left": 9.6}
    with pytest.raises(SlipwayError, match="another 10 s"):
        choice("v2", {"web1": edge("green", **LIVE, lease=LEASE, transaction=waits), "web2": runner(RUNS)})


@pytest.mark.parametrize(
    "reports",
    [
        {"web1": edge(**LIVE, lease={**LEASE, "stale": "it has expired"}), "web2": runner(RUNS)},
        {"web1": edge(**LIVE), "web2": runner(RUNS, lease=LEASE)},
    ],
)
def test_what_a_dead_run_left_is_in_nobodys_way(reports):
    assert choice("v2", reports, txn="t2").target == "green"


WAITS = {"txn": "t1", "owner": "ann", "kind": "cutover", "from": "blue", "to": "green", "switched": True, "seconds_left": 9.6}


def test_an_unconfirmed_move_is_not_built_upon():
    with pytest.raises(SlipwayError, match=r"t1 of ann moved shop on web1 to green.*10 s.*returns to blue.*slipway confirm shop"):
        choice("v3", {"web1": edge("green", **LIVE, transaction=WAITS)})
    assert choice("v3", {"web1": edge(**LIVE, transaction={**WAITS, "switched": False})}).target == "green"


def test_back_to_the_slot_before():
    found = fleet.choose_back("shop", "", {"web1": edge("green", "blue", {"blue": "v1", "green": "v2"}), "web2": runner(RUNS)})
    assert (found.active, found.target, found.release, found.unchanged) == ("green", "blue", "v1", False)


def test_back_to_a_named_slot_that_serves_already():
    found = fleet.choose_back("shop", "blue", {"web1": edge(**LIVE)})
    assert found.unchanged


def test_an_unconfirmed_move_goes_back_to_where_it_came_from():
    reports = {"web1": edge("green", "red", LIVE["served"], transaction=WAITS)}
    assert fleet.choose_back("shop", "", reports).target == "blue"


def test_nothing_to_go_back_to():
    with pytest.raises(SlipwayError, match="nothing to go back to"):
        fleet.choose_back("shop", "", {"web1": edge(**LIVE)})
    with pytest.raises(SlipwayError, match=r"no slot 'red'. Slots: blue, green"):
        fleet.choose_back("shop", "red", {"web1": edge(**LIVE)})


def test_hosts_that_take_no_part_are_named():
    with pytest.raises(SlipwayError, match="runs on web1, web2, but web2 did not report: left out by --limit"):
        fleet.missing_hosts("shop", {"web1": 0, "web2": 0}, {"web1": edge()})
    fleet.missing_hosts("shop", {"web1": 0}, {"web1": edge(), "web3": runner()})


RESULTS = {
    "d": {"changed": True},
    "c": None,
    "b": {"unreachable": True, "msg": "no route"},
    "a": {"failed": True, "msg": "port taken"},
    "e": {"skipped": True},
    "f": {"failed": True},
}


def test_failures_of_every_host():
    assert fleet.failures(RESULTS) == [
        "a: port taken",
        "b: did not answer, or failed before, as told above",
        "c: did not answer, or failed before, as told above",
        "f: failed",
    ]
    assert fleet.failures(RESULTS, silent_too=False) == ["a: port taken", "f: failed"]
    assert fleet.failures({"d": {}, "e": {"skipped": True}}) == []


def test_last_words_of_what_was_stopped():
    results = {"b": {"logs": {"shop-1": ["one", "two"], "shop-2": []}}, "a": None, "c": {"skipped": True}}
    assert fleet.last_words(results) == "\nLast log lines of b, shop-1:\n  one\n  two\nLast log lines of b, shop-2:\n  (none)"
    assert fleet.last_words({"a": {}}) == ""


def held(txn="t1", release="v2", **more):
    lease = {"txn": txn, "owner": "ann", "release": release, "expires_in": 300, "stale": None}
    return edge(**LIVE, lease=lease, **more)


def test_a_second_run_for_the_same_release_goes_on_with_the_first():
    found = choice("v2", {"web1": held(), "web2": held()}, txn="t2")
    assert (found.txn, found.active, found.target) == ("t1", "blue", "green")
    with pytest.raises(SlipwayError, match="ann holds the lease"):
        choice("v3", {"web1": held(), "web2": held()}, txn="t2")
    with pytest.raises(SlipwayError, match="ann holds the lease"):
        choice("v2", {"web1": held("t1"), "web2": held("t0")}, txn="t2")


def test_it_goes_on_where_one_edge_has_switched_and_the_other_has_not():
    waiting = {
        "txn": "t1",
        "owner": "ann",
        "kind": "cutover",
        "from": "blue",
        "to": "green",
        "switched": True,
        "seconds_left": 50,
    }
    reports = {"web1": held(active="green", transaction=waiting), "web2": held()}
    found = choice("v2", reports, txn="t2")
    assert (found.txn, found.active, found.target, found.unchanged) == ("t1", "blue", "green", False)


def test_a_new_edge_goes_where_all_others_are() -> None:
    old = edge("green", served={"green": "v2"})
    new = {**edge(), "served": {}}
    assert fleet.joining("web2", {"web1": old, "web2": new}) == ("green", "v2")
    assert fleet.joining("web1", {"web1": old, "web2": new}) is None
    assert fleet.joining("web3", {"web1": old, "web2": new}) is None
    assert fleet.joining("web2", {"web1": old, "web2": old}) is None
    assert fleet.joining("web2", {"web1": old, "web2": new, "web3": edge("blue", served={"blue": "v1"})}) is None
    assert fleet.joining("web2", {"web1": {**old, "transaction": {"txn": "t"}}, "web2": new}) is None
    assert fleet.joining("web2", {"web1": new, "web2": new}) is None


def test_a_release_waits_for_a_slot_that_a_new_host_has_no_part_in():
    held = {"held": True, "members": ["10.0.0.1:3000"]}
    old = {"blue": {**slot("v1", [True]), **held}, "green": {**slot("v0", [True]), **held}}
    without = {"blue": {**slot(), **held}, "green": {**slot(), **held}}
    reports = {"web1": edge(slots=old, served={"blue": "v1"}, runs=True), "web2": runner(**without, runs=True)}
    with pytest.raises(
        SlipwayError, match=r"slot green .* without web2\..* on web1: slipway retire shop green --now\..*site\.yml"
    ):
        choice("v2", reports)
    stopped = {**old, "green": {**slot("v0", [False]), **held}}
    with pytest.raises(SlipwayError, match=r"all hosts, run site\.yml"):
        choice("v2", {**reports, "web1": edge(slots=stopped, served={"blue": "v1"}, runs=True)})
    assert choice("v2", {**reports, "web2": runner(**without, runs=False)}).target == "green"
    assert choice("v2", {**reports, "web2": runner(blue=without["blue"], runs=True)}).target == "green"
    third = slot(alive=[False])
    spare = {"web1": edge(slots={**old, "red": third}, served={"blue": "v1"}), "web2": runner(**without, runs=True)}
    spare["web2"]["slots"]["red"] = third
    assert choice("v2", spare).target == "red"


def test_a_release_waits_for_a_slot_that_a_new_edge_cannot_reach():
    here = {"held": True, "members": ["127.0.0.1:3000"]}
    old = {"blue": {**slot("v1", [True]), **here}, "green": {**slot("v0", [True]), **here}}
    far = {"blue": {**slot(), **here}, "green": {**slot(), **here}}
    served = {"blue": "v1"}
    with pytest.raises(SlipwayError, match="without web3"):
        choice("v2", {"web1": edge(slots=old, served=served, runs=True), "web3": edge(slots=far, served=served, runs=False)})
