# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a rollback over a fleet, with answers of the hosts' commands as they are."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.action import take_back

GIVEN = {"app": "shop", "hosts": None, "to": "", "reason": "", "force": False, "owner": "ann", "started": False}


def report(alive: bool = True, edge: bool = True, active: str = "green") -> dict[str, Any]:
    """What `slipway status` says of a host with two slots."""
    slot = {"release": "v1", "instances": [{"name": "n", "alive": alive}]}
    other = {"release": "v2", "instances": [{"name": "n", "alive": True}]}
    served = {"blue": "v1", "green": "v2"}
    return {"edge": edge, "active": active, "previous": "blue", "served": served, "slot_order": ["blue", "green"],
            "slots": {"blue": slot, "green": other}, "transaction": None}  # fmt: skip


class Plugin(take_back.ActionModule):
    """The plugin on one host, whose command gives `answers` one after the other."""

    def __init__(self, *answers: tuple[int, str, str], check: bool = False) -> None:
        self._task = SimpleNamespace(check_mode=check)  # type: ignore[assignment]
        self.answers, self.asked = list(answers), []

    def _low_level_execute_command(self, cmd: str, *_args: Any, **_more: Any) -> dict[str, Any]:
        self.asked.append(cmd)
        rc, out, err = self.answers.pop(0)
        return {"rc": rc, "stdout": out, "stderr": err}


def variables(reports: dict[str, Any], moved: dict[str, Any] | None = None, here: str = "one") -> dict[str, Any]:
    hostvars = {
        host: {"__app_seen": {"apps": {"shop": found}} if found else None, "__app_step": (moved or {}).get(host)}
        for host, found in reports.items()
    }
    return {"inventory_hostname": here, "ansible_play_hosts_all": list(reports), "hostvars": hostvars}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((0, "a word of sudo\n" + json.dumps({"app": "shop"}), ""), {"apps": {"shop": {"app": "shop"}}}),
        ((127, "", "not found"), {"apps": {}}),
        ((2, json.dumps({"failed": True, "message": "none"}) + "\r\nslipway: none\r\n", "Connection closed"), {"apps": {}}),
    ],
)
def test_look(answer: tuple[int, str, str], found: dict[str, Any]) -> None:
    plugin = Plugin(answer)
    assert plugin._look(GIVEN, {}) == found
    assert plugin.asked == ["/usr/local/sbin/slipway status shop --json"]


def test_the_application_is_not_guessed() -> None:
    with pytest.raises(take_back.SlipwayError, match="-e app=APP"):
        Plugin()._look({**GIVEN, "app": ""}, {})


def test_a_host_that_cannot_tell_is_no_host_without_the_application() -> None:
    with pytest.raises(take_back.SlipwayError, match="a newer slipway"):
        Plugin((1, json.dumps({"failed": True, "message": "a newer slipway"}), ""))._look(GIVEN, {})


def test_move_goes_where_all_hosts_go_and_quotes_what_people_write() -> None:
    plugin = Plugin((0, json.dumps({"changed": True, "outcome": "rolled_back", "from": "green", "to": "blue"}), ""))
    done = plugin._move({**GIVEN, "reason": "it's; rm"}, variables({"one": report(), "two": None}))
    assert plugin.asked == ["""/usr/local/sbin/slipway rollback shop --to blue --owner ann --reason 'it'"'"'s; rm' --json"""]
    assert (done["changed"], done["choice"]["target"], done["diff"]["after"]) == (True, "blue", "active: blue\n")


def test_move_in_check_mode_only_looks() -> None:
    plugin = Plugin((0, json.dumps({"changed": True, "outcome": "planned"}), ""), check=True)
    plugin._move(GIVEN, variables({"one": report()}))
    assert "--dry-run" in plugin.asked[0]


def test_nothing_moves_while_the_slot_sleeps_on_any_host() -> None:
    hosts = variables({"one": report(), "two": report(alive=False, edge=False)})
    plugin = Plugin()
    assert plugin._move(GIVEN, hosts)["asleep"] == ["two"]
    assert plugin.asked == []
    started = Plugin((0, json.dumps({"changed": True}), ""))
    assert started._move({**GIVEN, "started": True}, hosts)["changed"]


def test_a_host_without_nginx_moves_nothing() -> None:
    plugin = Plugin()
    done = plugin._move(GIVEN, variables({"one": report(edge=False), "two": report()}))
    assert (plugin.asked, done["choice"]["target"]) == ([], "blue")


def test_edges_that_differ_are_refused() -> None:
    with pytest.raises(take_back.SlipwayError, match="one says green, two says blue"):
        Plugin()._move(GIVEN, variables({"one": report(), "two": report(active="blue")}))


def test_an_old_command_is_told_apart() -> None:
    plugin = Plugin((2, "", "slipway: error: unrecognized arguments: --owner ann"))
    with pytest.raises(take_back.SlipwayError, match="too old for this"):
        plugin._move(GIVEN, variables({"one": report()}))


CHOICE = {"active": "green", "target": "blue", "unchanged": False}


def test_settle_marks_both_slots() -> None:
    plugin = Plugin((0, json.dumps({"changed": True}), ""))
    plugin._settle(GIVEN, variables({"one": report(), "two": None}, {"one": {"choice": CHOICE}}))
    assert plugin.asked == ["/usr/local/sbin/slipway settle shop --active blue --standby green --owner ann --json"]


def test_settle_stops_everywhere_when_one_edge_stayed() -> None:
    moved = {"one": {"choice": CHOICE}, "two": {"failed": True, "msg": "blue does not answer"}}
    with pytest.raises(take_back.SlipwayError, match="two: blue does not answer"):
        Plugin()._settle(GIVEN, variables({"one": report(), "two": report()}, moved))


@pytest.mark.parametrize(("unchanged", "check"), [(True, False), (False, True)])
def test_settle_has_nothing_to_do(unchanged: bool, check: bool) -> None:
    plugin = Plugin(check=check)
    moved = {"one": {"choice": {**CHOICE, "unchanged": unchanged}}}
    assert plugin._settle(GIVEN, variables({"one": report()}, moved)) == {"skipped": True}
    assert plugin.asked == []
