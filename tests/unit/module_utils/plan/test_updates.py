# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan import updates
from ansible_collections.slipway.server.plugins.module_utils.plan.model import Host, Inventory


def fleet(**groups):
    return Inventory((), tuple(Host(name, tuple(groups[name].split())) for name in groups))


def test_what_a_host_runs_is_held():
    inventory = fleet(one="edge app database redis", bare="monitor")
    held = {host.name: updates.hold(host, inventory) for host in inventory.hosts}
    assert held["one"][:2] == ["postgresql", "pgbouncer"]
    assert "nginx" in held["one"]
    assert "redis" in held["one"]
    assert "docker" not in held["one"]  # no app runs in containers
    assert held["bare"] == []


def test_with_a_standby_the_pooler_is_elsewhere():
    inventory = fleet(db1="database", db2="replica")
    assert [updates.hold(host, inventory) for host in inventory.hosts] == [["postgresql"], ["postgresql"]]


def test_no_two_hosts_of_a_group_have_the_same_turn():
    inventory = fleet(db1="database", db2="replica", web1="edge app", web2="edge app", web3="app", cache="redis", mon="monitor")
    turns = updates.turns(inventory)
    assert turns["db2"] == 0
    assert turns["db1"] == 1
    assert sorted(turns[name] for name in ("web1", "web2", "web3")) == [0, 1, 2]
    assert turns["cache"] == 0
    assert turns["mon"] == 0


@pytest.mark.parametrize("number", [1, 2, 30])
def test_turns_are_as_few_as_they_can_be_and_the_same_in_every_run(number):
    inventory = fleet(**{f"web{index}": "app" for index in range(number)})
    turns = updates.turns(inventory)
    assert sorted(turns.values()) == list(range(number))
    assert updates.turns(inventory) == turns
