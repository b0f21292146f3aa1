# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re

from ansible_collections.slipway.server.plugins.module_utils.settings import base_aide as a
from ansible_collections.slipway.server.plugins.module_utils.settings.base_parts import Parts, Settings


def parts_of(root, aide=True):
    parts = Parts()
    a.aide(Settings(aide=aide), root, parts)
    return parts


def test_it_looks_every_day_at_programs_and_settings(tmp_path):
    parts = parts_of(tmp_path)
    assert [unit.name for unit in parts.units] == ["slipway-aide-check.timer", "slipway-aide.service"]
    (config,) = parts.edited
    lines = config.content.splitlines()
    assert {"/etc Watched", "/usr Watched"} <= set(lines)
    assert not [line for line in lines if line.startswith(("/ ", "/home", "/srv", "/var/lib", "/var/log"))]
    assert [line for line in lines if re.match(r"Watched = .*\bsha512$", line)]
    texts = {spec.path.name: spec.content for spec in parts.own}
    assert "ConditionPathExists=!/var/lib/aide/aide.db" in texts["slipway-aide.service"]
    assert "OnCalendar=daily" in texts["slipway-aide-check.timer"]


def test_what_changed_is_no_failure_but_an_error_is(tmp_path):
    check = {spec.path.name: spec.content for spec in parts_of(tmp_path).own}["slipway-aide-check.service"]
    (good,) = re.findall(r"^SuccessExitStatus=(.*)$", check, re.MULTILINE)
    assert {int(code) for code in good.split()} == set(
        range(1, 8)
    )  # aide(1): bits of added, removed and changed; 14 on are errors


def test_only_what_is_missing_is_installed(tmp_path):
    assert parts_of(tmp_path).packages == ["aide"]
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/aide").touch()
    assert parts_of(tmp_path).packages == []


def test_off_leaves_nothing(tmp_path):
    parts = parts_of(tmp_path, aide=False)
    assert {spec.content for spec in parts.own} == {None}
    assert (parts.edited, parts.units, parts.packages, parts.checks) == ([], [], [], [])
