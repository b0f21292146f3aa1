# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.action.packages import installed, recall

EARLIER = {"versions": {"nginx": "1.22.1", "docker.io": "26.1.5"}, "asked": ["nginx", "docker.io", "docker-cli"], "changed": True}


def test_an_earlier_result_answers_without_a_change():
    found = recall(EARLIER, {"names": ["docker.io"], "optional": ["docker-cli"]})
    assert found["versions"] == {"docker.io": "26.1.5"}
    assert (found["changed"], found["packages_changed"], found["asked"]) == (False, [], ["docker.io", "docker-cli"])


def test_a_package_that_an_earlier_task_has_installed_is_still_new():
    found = recall({**EARLIER, "packages_changed": ["nginx", "nginx-common"]}, {"names": ["nginx", "docker.io"]})
    assert (found["changed"], found["packages_changed"]) == (False, ["nginx"])


@pytest.mark.parametrize(
    ("earlier", "arguments"),
    [
        (None, {"names": ["nginx"]}),
        ({"failed": True, "msg": "no archive"}, {"names": ["nginx"]}),
        (EARLIER, {"names": ["nginx", "openssl"]}),
        (EARLIER, {"names": ["nginx"], "optional": ["nginx-extras"]}),
        (EARLIER, {"names": ["nginx"], "state": "absent"}),
        (EARLIER, {"names": "nginx"}),
        (EARLIER, {}),
    ],
)
def test_the_host_is_asked(earlier, arguments):
    assert recall(earlier, arguments) == {}


def test_what_preflight_saw_answers_for_what_is_there():
    seen = {"versions": {"nginx": "1.22.1", "ufw": "0.36.2"}, "missing": ["ufw"], "memory_mb": 2048}
    assert recall(installed(seen), {"names": ["nginx"]})["versions"] == {"nginx": "1.22.1"}
    assert recall(installed(seen), {"names": ["nginx", "ufw"]}) == {}
    assert recall(installed(None), {"names": ["nginx"]}) == {}
    assert recall(installed({"versions": {}, "missing": []}), {"names": ["nginx"]}) == {}
