# SPDX-License-Identifier: GPL-3.0-or-later
"""A cutover is followed to its end; edges that move together hear of the one that refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.slipway.server.plugins.action import cutover

GIVEN = {"app": "shop", "to": "green", "release": "v2", "txn": "t1", "owner": "ann", "migrations": "none", "wait": 3.0}
TOGETHER = {**GIVEN, "peers": ["edge1", "edge2"]}
GOES_ON = {"running": True, "changed": True, "offset": 4, "txn": "t1", "progress": [{"state": "CANARY", "text": "1/2 at 25 %"}]}
HOLDS = {"changed": True, "outcome": "switched", "progress": []}
REFUSES = {"failed": True, "msg": "10 % errors", "guilty": True}
TAKEN_BACK = {"changed": True, "outcome": "rolled_back", "from": "green", "to": "blue"}


@pytest.fixture(autouse=True)
def local_tmp(tmp_path, monkeypatch):
    """The directory of a run, which all its processes share."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))


def follow(
    arguments: dict[str, Any], *answers: Any, host: str = "edge1", check: bool = False
) -> tuple[Any, list[tuple[str, Any]]]:
    """The result at one edge, or the exception; and the modules it ran, with where they went on."""
    asked: list[Any] = []
    waiting = list(answers)
    it = object.__new__(cutover.ActionModule)
    it._task = SimpleNamespace(args=arguments, async_val=0, check_mode=check)
    it._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None), reset=lambda: None)

    def execute(module_name, module_args, task_vars=None):
        asked.append((module_name.rpartition(".")[2], module_args.get("offset")))
        answer = waiting.pop(0)
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    it._execute_module = execute
    try:
        return it.run(None, {"inventory_hostname": host}), asked
    except AnsibleConnectionFailure as error:
        return error, asked


def test_a_run_is_followed_to_its_end():
    result, asked = follow(GIVEN, GOES_ON, HOLDS)
    assert (result["outcome"], len(result["progress"]), asked) == ("switched", 1, [("cutover", None), ("cutover", 4)])


def test_an_edge_does_not_wait_for_its_own_verdict_when_another_refuses():
    def meanwhile() -> dict[str, Any]:
        assert follow(TOGETHER, REFUSES, host="edge2")[0]["guilty"]
        return GOES_ON

    result, asked = follow(TOGETHER, meanwhile, TAKEN_BACK)
    assert asked == [("cutover", None), ("rollback", None)]
    assert (result["failed"], result["outcome"], "guilty" in result) == (True, "rolled_back", False)
    assert "edge2 refused" in result["msg"]
    assert len(result["progress"]) == 1


def test_an_edge_that_comes_later_does_not_begin():
    follow(TOGETHER, REFUSES, host="edge2")
    assert follow(TOGETHER, {"changed": False, "outcome": "unchanged"})[1] == [("rollback", None)]


def test_an_edge_that_cannot_take_back_says_so():
    follow(TOGETHER, REFUSES, host="edge2")
    assert follow(TOGETHER, {"failed": True, "msg": "blue does not answer"})[0]["msg"] == "blue does not answer"


@pytest.mark.parametrize(
    "other", [GIVEN, {**TOGETHER, "txn": "t2"}, {**TOGETHER, "peers": ["edge1"]}], ids=["no peers", "other transaction", "alone"]
)
def test_others_are_not_concerned(other):
    follow(TOGETHER, REFUSES, host="edge2")
    assert follow(other, HOLDS)[0]["outcome"] == "switched"


def test_check_mode_leaves_no_word():
    follow(TOGETHER, REFUSES, host="edge2", check=True)
    assert follow(TOGETHER, HOLDS)[0]["outcome"] == "switched"


def test_an_edge_that_is_lost_lets_the_others_go_back(monkeypatch):
    monkeypatch.setattr(cutover, "LOST", -1.0)
    lost, _asked = follow(TOGETHER, GOES_ON, AnsibleConnectionFailure("gone"), host="edge2")
    assert isinstance(lost, AnsibleConnectionFailure)
    assert follow(TOGETHER, TAKEN_BACK)[0]["failed"]
