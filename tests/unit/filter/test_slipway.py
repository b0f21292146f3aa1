# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look at all hosts found, in one message."""

from __future__ import annotations

from ansible_collections.slipway.server.plugins.filter.slipway import slipway_problems

SUDO = "Sorry, try again.\nSorry, try again.\nsudo: 3 incorrect password attempts\n"


def test_a_host_that_could_not_be_looked_at_is_a_problem_although_its_task_may_not_fail() -> None:
    seen = {
        "web1": {"found": {"failed": False, "problems": []}},
        "web2": {"found": {"failed": False, "failed_when_result": False, "msg": "no answer", "module_stderr": SUDO}},
        "web3": {"found": {"failed": False, "msg": "it broke"}},
        "web4": {"found": {"unreachable": True, "msg": "timed out."}},
        "web5": {"found": {"problems": ["too small", "too full"]}},
        "web6": {},
    }
    assert slipway_problems(seen, list(seen), "found") == [
        "web2: could not be looked at: no answer (sudo: 3 incorrect password attempts)",
        "web3: could not be looked at: it broke",
        "web4: cannot be reached: timed out. Check ansible_host, ansible_user and the key",
        "web5: too small",
        "web5: too full",
    ]
