# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import proof
from ansible_collections.slipway.server.plugins.module_utils.settings.readback import Reader, Seen


class Ended(Exception):
    pass


class Module:
    def __init__(self, check_mode=False):
        self.check_mode = check_mode
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)

    def exit_json(self, **result):
        raise Ended("well", result)

    def fail_json(self, msg, **result):
        raise Ended(msg, result)


def ended(seen, check_mode=False):
    module = Module(check_mode)
    with pytest.raises(Ended) as end:
        proof.end(module, "web", seen, {"changed": True})
    return (*end.value.args, module.warnings)


def test_nothing_missing_ends_well():
    assert ended(Seen(pending=("b later",))) == (
        "well",
        {"changed": True, "mismatches": [], "pending": ["b later"]},
        ["web: b later"],
    )


def test_what_is_missing_fails_with_all_of_it_and_only_warns_in_check_mode():
    message, result, _warnings = ended(Seen(("a", "b")))
    assert message == "web: 2 setting(s) did not arrive:\n- a\n- b"
    assert result == {"changed": True, "mismatches": ["a", "b"], "pending": []}
    message, _result, warnings = ended(Seen(("a",)), check_mode=True)
    assert message == "well"
    assert warnings == ["web: not effective yet: a"]


def test_what_was_not_given_is_left_out():
    assert proof.given([{"kind": "listen", "port": 443, "address": None}]) == ({"kind": "listen", "port": 443},)


def test_every_kind_of_the_option_is_one_that_can_be_read():
    kinds = set(Reader(runner=None).kinds)
    assert set(proof.CHECK["kind"]["choices"]) == kinds == {needs[1] for needs in proof.NEEDS}
    assert {name for needs in proof.NEEDS for name in needs[2]} <= set(proof.CHECK)
