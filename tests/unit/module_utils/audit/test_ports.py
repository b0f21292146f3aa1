# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports, rules, and who looks at whom."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.audit import peers, ports

RECORDED = Path(__file__).resolve().parents[2] / "fixtures" / "audit"
SEEN = ports.Seen("10.0.0.1", 3000, "10.0.0.9")


@pytest.mark.parametrize(
    ("release", "wanted"),
    [
        ("12", {22: "sshd", 80: "nginx", 443: "nginx", 3000: "puma", 5432: "postgres", 6432: "pgbouncer"}),
        ("13", {22: "sshd", 80: "nginx", 443: "nginx", 3000: "puma"}),
    ],
)
def test_what_listens_on_more_than_the_loopback(release, wanted):
    assert ports.listening((RECORDED / f"ss-{release}.txt").read_text()) == wanted


def test_what_containers_publish():
    table = (
        "web\t0.0.0.0:8081->80/tcp, [::]:8081->80/tcp\nmany\t0.0.0.0:3000-3002->3000-3002/tcp\nown\t127.0.0.1:9000->9000/tcp\n"
    )
    table += "dns\t0.0.0.0:53->53/udp\nplain\t80/tcp\n"
    expected = {8081: "container web", **dict.fromkeys((3000, 3001, 3002), "container many")}
    assert ports.published(table) == expected


@pytest.mark.parametrize(
    ("rule", "opened"),
    [
        ({"port": 3000}, True),
        ({"port": "2999:3001", "from": ["10.0.0.0/24"]}, True),
        ({"port": 3000, "from": "10.0.0.9"}, True),
        ({"port": 3000, "from": ["10.0.0.8", "fd00::/8"]}, False),
        ({"port": 3001}, False),
        ({"port": 3000, "proto": "udp"}, False),
        ({"port": 3000, "action": "deny"}, False),
        ({"port": 3000, "direction": "out"}, False),
        ({"port": 3000, "to": "10.0.0.2"}, False),
        ({"from": "10.0.0.9"}, True),
    ],
)
def test_a_rule_opens_a_port(rule, opened):
    assert ports.opens([rule], SEEN) is opened


def test_ssh_is_declared_unless_a_rule_says_for_whom():
    assert ports.opens(ports.declared({}), ports.Seen("10.0.0.1", 22, "10.0.0.9"))
    narrow = {"ufw_rules": [{"port": 22, "from": ["10.0.0.8"]}], "ufw_ssh_ports": [22, 2222]}
    assert not ports.opens(ports.declared(narrow), ports.Seen("10.0.0.1", 22, "10.0.0.9"))
    assert ports.opens(ports.declared(narrow), ports.Seen("10.0.0.1", 2222, "10.0.0.9"))


def test_a_scan_tells_what_answers():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port, dead = server.getsockname()[1], closed.getsockname()[1]
        assert ports.scan(["127.0.0.1", "no address"], [port, dead], 0.5) == [ports.Seen("127.0.0.1", port, "127.0.0.1")]


def host(version="", *listening):
    return {"ssh_audit": version, "ports": [{"port": port, "process": ""} for port in listening], "ipv6": ["2001:db8::1"]}


ADDRESSES = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}


def test_every_host_is_seen_from_another_one():
    seen = {"a": host("", 80), "b": host("", 443), "c": host("", 22)}
    plans = {"b": {"ufw_rules": [{"port": "3000:3009"}, {"from": "10.0.0.9"}]}}
    looked = {name: peers.of(name, seen, plans, ADDRESSES) for name in seen}
    assert {name: [peer["name"] for peer in found] for name, found in looked.items()} == {"a": ["b"], "b": ["c"], "c": ["a"]}
    assert looked["a"][0] == {
        "name": "b",
        "addresses": ["10.0.0.2", "2001:db8::1"],
        "ports": [443, 3000],
        "ssh_ports": [],
        "ssh_audit": "",
    }


def test_ssh_is_asked_by_another_host_with_the_newest_version():
    seen = {"a": host("3.1.0", 80), "b": host("3.3.0", 443), "c": host("2.5.0", 22)}
    asked = {(name, peer["name"]) for name in seen for peer in peers.of(name, seen, {}, ADDRESSES) if peer["ssh_ports"]}
    assert asked == {("b", "a"), ("a", "b"), ("b", "c")}


def test_a_version_that_knows_nothing_new_is_the_last_choice():
    seen = {"a": host("3.3.0", 80), "b": host("2.5.0", 443)}
    asked = {(name, peer["name"]) for name in seen for peer in peers.of(name, seen, {}, ADDRESSES) if peer["ssh_ports"]}
    assert asked == {("a", "a"), ("a", "b")}


def test_a_host_alone_asks_its_own_sshd_but_cannot_see_its_ports():
    assert peers.of("a", {"a": host("", 80)}, {}, ADDRESSES) == []
    (peer,) = peers.of("a", {"a": host("2.5.0", 80)}, {"a": {"ufw_ssh_ports": [2222]}}, ADDRESSES)
    assert (peer["addresses"], peer["ports"], peer["ssh_ports"]) == (["10.0.0.1"], [], [2222])
