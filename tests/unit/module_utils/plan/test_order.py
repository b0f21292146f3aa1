# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan.order import leases, order, proofs

GROUPS = {
    "edge": ["lb2", "lb1", "all"],
    "app": ["web1", "web2", "all"],
    "worker": ["work", "web1"],
    "database": ["db1", "all"],
    "replica": ["db2"],
    "redis": ["cache"],
    "monitor": ["mon"],
    "ungrouped": [],
}


def test_standbys_before_primaries_and_edges_last():
    hosts = ["lb2", "lb1", "web1", "web2", "db1", "db2", "cache", "work", "mon"]
    assert order(GROUPS, hosts) == ["mon", "db2", "db1", "cache", "work", "web1", "web2", "lb2", "lb1"]


def test_a_host_of_several_groups_goes_with_the_last_of_them_and_others_are_left_out():
    assert order(GROUPS, ["all", "web1", "db1"]) == ["db1", "web1", "all"]
    assert order({}, ["b", "a"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("groups", "docker", "sshd", "pooler", "wanted"),
    [
        (["replica"], False, True, False, ["base", "kernel", "unattended_upgrades", "ufw", "sshd", "postgresql"]),
        (["database"], False, True, True, ["base", "kernel", "unattended_upgrades", "ufw", "sshd", "postgresql", "pgbouncer"]),
        (
            ["app", "edge"],
            True,
            False,
            False,
            ["base", "kernel", "unattended_upgrades", "ufw", "docker", "systemd_units", "app", "certificates", "nginx"],
        ),
        (["monitor"], False, False, False, ["base", "kernel", "unattended_upgrades", "ufw"]),
    ],
)
def test_a_host_is_proven_by_the_roles_of_its_groups(groups, docker, sshd, pooler, wanted):
    assert proofs(groups, docker, sshd, pooler) == wanted


def test_leases_are_of_the_applications_on_the_hosts_that_count():
    plans = {"web1": {"app_apps": {"shop": {}, "blog": {}}}, "db1": {}, "web2": {"app_apps": {"shop": {}}}}
    assert leases(plans, ["web1", "db1"]) == [("web1", "shop"), ("web1", "blog")]
    assert leases(plans, []) == []
