# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.traffic.disk import Disk
from ansible_collections.slipway.server.plugins.module_utils.traffic.flags import (
    BUCKETS,
    Flags,
    Operation,
    active,
    bucket,
    plan,
    plan_canary,
    shares,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.module_utils.traffic.world import FakeClock

ORDER = ["a", "b", "c", "d", "e"]


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[str], set[str], str]:
    order = ORDER[: draw(st.integers(2, len(ORDER)))]
    present = draw(st.sets(st.sampled_from([*order, "stranger"])))
    return order, present, draw(st.sampled_from(order))


def states(present: set[str], operations: list[Operation]) -> list[set[str]]:
    found = [set(present)]
    for operation in operations:
        following = set(found[-1])
        following.add(operation.flag) if operation.create else following.discard(operation.flag)
        found.append(following)
    return found


@given(situations())
def test_every_prefix_serves_old_or_new(situation: tuple[list[str], set[str], str]) -> None:
    order, present, target = situation
    operations = plan(order, present, target)
    source = active(order, present)
    seen = [active(order, state) for state in states(present, operations)]
    assert set(seen) <= {source, target}
    assert seen[-1] == target
    assert sum(operation.decisive for operation in operations) == (source != target)
    moved = [index for index in range(1, len(seen)) if seen[index] != seen[index - 1]]
    assert [index - 1 for index in moved] == [index for index, operation in enumerate(operations) if operation.decisive]


@given(situations())
def test_ends_with_one_meaning(situation: tuple[list[str], set[str], str]) -> None:
    order, present, target = situation
    final = states(present, plan(order, present, target))[-1] & set(order[1:])
    assert final == ({target} if target != order[0] else set())
    assert plan(order, final, target) == []


@given(situations())
def test_a_request_in_between_sees_old_or_new(situation: tuple[list[str], set[str], str]) -> None:
    """nginx tests one flag after the other; operations may happen between the tests, but not a pause."""
    order, present, target = situation
    operations = plan(order, present, target)
    allowed = {active(order, present), target}
    history = states(present, operations)
    cuts = [0, *(index for index, operation in enumerate(operations) if operation.pause), len(history) - 1]
    windows = [history[begin : end + 1] for begin, end in zip(cuts, cuts[1:])]
    for window in windows:
        for moments in combinations_with_replacement(range(len(window)), len(order) - 1):
            slot = order[0]
            for name, moment in zip(order[1:], moments):
                slot = name if name in window[moment] else slot
            assert slot in allowed


@st.composite
def canaries(draw: st.DrawFn) -> tuple[list[str], set[str], str]:
    order, present, target = draw(situations())
    numbers = draw(st.sets(st.integers(1, BUCKETS)))
    slot = draw(st.sampled_from(order))
    return order, present | {bucket(slot, number) for number in numbers}, target


@given(canaries())
def test_a_switch_ends_every_canary_and_no_request_goes_astray(situation: tuple[list[str], set[str], str]) -> None:
    order, present, target = situation
    operations = plan(order, present, target, spare=order[0])
    history = [shares(order, state) for state in states(present, operations)]
    allowed = {*history[0], active(order, present), target}
    assert all(set(state) <= allowed and sum(state.values()) == 100 for state in history)
    assert history[-1] == {target: 100}
    final = states(present, operations)[-1]
    assert not [name for name in final if "." in name and name != f"spare.{order[0]}"]
    moves = active(order, present) != target or history[0] != {target: 100}
    assert sum(operation.decisive for operation in operations) == moves
    assert plan(order, final, target, spare=order[0]) == []
    reached = [state.get(target, 0) for state in history]
    assert reached == sorted(reached), "the target never loses traffic on the way"


@given(canaries(), st.integers(0, BUCKETS))
def test_a_canary_has_its_share(situation: tuple[list[str], set[str], str], twentieths: int) -> None:
    order, present, target = situation
    main = active(order, present)
    operations = plan_canary(order, present, target, twentieths * 5, main)
    final = states(present, operations)[-1]
    wanted = {target: 100} if target == main else {main: 100 - twentieths * 5, target: twentieths * 5}
    assert shares(order, final) == {slot: share for slot, share in wanted.items() if share}
    assert plan_canary(order, final, target, twentieths * 5, main) == []
    assert not any(operation.decisive for operation in operations)


def test_spare_and_shares_on_disk(tmp_path: Path) -> None:
    flags = Flags(Disk(), FakeClock(), tmp_path / "flags", ["a", "b"])
    flags.canary("b", 25, spare="a")
    assert (flags.active(), flags.share("b"), flags.spare(), flags.unknown()) == ("a", 25, "a", [])
    flags.switch("b", spare="a")
    assert flags.present() == ["b", "spare.a"]
    flags.canary("a", 10)
    flags.switch("b")
    assert (flags.present(), flags.shares()) == (["b"], {"b": 100})


def test_unknown_target_is_an_error() -> None:
    with pytest.raises(ValueError, match="x is not one of a, b"):
        plan(["a", "b"], set(), "x")


def test_switch_on_disk(tmp_path: Path) -> None:
    clock = FakeClock()
    flags = Flags(Disk(), clock, tmp_path / "flags", ["a", "b", "c"])
    assert flags.active() == "a"
    times = flags.switch("c")
    assert (flags.active(), flags.present()) == ("c", ["c"])
    assert 0 < times.switch_ms <= times.durable_ms
    before = clock.passed
    flags.switch("b")
    assert (flags.active(), flags.present()) == ("b", ["b"])
    assert clock.passed > before
    assert flags.switch("b").switch_ms == 0
    (tmp_path / "flags" / "stranger").touch()
    (tmp_path / "flags" / "c").mkdir()
    assert (flags.active(), flags.unknown()) == ("b", ["stranger"])
