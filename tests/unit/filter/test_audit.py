# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.slipway.server.plugins.filter import audit


def test_addresses_are_the_first_that_a_host_has() -> None:
    variables = {"a": {"slipway_address": "10.0.0.1", "ansible_host": "192.0.2.1"}, "b": {"ansible_host": "192.0.2.2"}, "c": {}}
    names = ["slipway_address", "ansible_host"]
    found = audit.slipway_audit_addresses(list(variables), variables, names)
    assert found == {"a": "10.0.0.1", "b": "192.0.2.2", "c": "c"}


def test_hosts_that_were_not_looked_at_have_no_peers() -> None:
    inside = {"ssh_audit": "", "ports": [{"port": 22, "process": "sshd"}], "ipv6": []}
    results = {"a": {"inside": inside}, "b": {"inside": inside}, "c": None, "d": {"failed": True}}
    (peer,) = audit.slipway_audit_peers(results, "a", {}, {"a": "10.0.0.1", "b": "10.0.0.2"})
    assert peer["name"] == "b"
    assert audit.FilterModule().filters()["slipway_audit_peers"] is audit.slipway_audit_peers
