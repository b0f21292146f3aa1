# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.slipway.server.plugins.module_utils.settings import ufw_others as o

RULES = ["IPv4 in: default DROP", "IPv4 in: -p tcp --dport 22 -j ACCEPT", "IPv4 in: -p tcp --dport 9999 -j ACCEPT"]
BEFORE = "\n".join([*RULES, "IPv4 containers: -j RETURN", "/etc/x: other content", ""])
AFTER = "IPv4 in: -p tcp --dport 22 -j ACCEPT  # SSH\n"
ADDED = "-A ufw-before-input -p tcp --dport 7777 -j ACCEPT"
FILES = {"etc/ufw/before.rules": f"*filter\n-A ufw-before-input -j ACCEPT\n{ADDED}\nCOMMIT\n"}
PACKAGED = {"before.rules": "*filter\n-A ufw-before-input -j ACCEPT\nCOMMIT\n"}


def test_a_takeover_names_what_goes_and_what_stays():
    first, second = o.words(True, BEFORE, AFTER, FILES, PACKAGED)
    assert first.endswith("go: IPv4 in: -p tcp --dport 9999 -j ACCEPT")
    assert second.endswith("rules: before.rules: -A ufw-before-input -p tcp --dport 7777 -j ACCEPT")
    assert o.words(True, AFTER, AFTER, {}, PACKAGED) == []
    assert o.words(False, BEFORE, AFTER, FILES, PACKAGED) == []


def test_without_the_packages_own_file_nothing_is_called_added():
    assert o.staying(FILES, {}) == []
