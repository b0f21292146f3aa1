# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import importlib
import json
import zlib
from types import SimpleNamespace

import pytest
from ansible_collections.slipway.server.plugins.action import host_command, slot_info
from ansible_collections.slipway.server.plugins.module_utils.host.payload import closure, loaded
from ansible_collections.slipway.server.plugins.module_utils.traffic import cli, install


class Calls:
    """The plugin's way to hosts: results by module call, output of the host's command."""

    def __init__(self, plugin, results, command=(127, "")):
        self.results, self.command, self.made, self.asked = list(results), command, [], []
        plugin._execute_module = self.execute
        plugin._low_level_execute_command = self.low_level

    def execute(self, name, arguments, task_vars=None):
        self.made.append(arguments)
        return self.results.pop(0)

    def low_level(self, command):
        self.asked.append(command)
        return {"rc": self.command[0], "stdout": self.command[1], "stderr": ""}


def plugin(module, arguments, results, command=(127, "")):
    action = object.__new__(module.ActionModule)
    action._task = SimpleNamespace(args=arguments, async_val=0, check_mode=False)
    action._supports_check_mode = action._supports_async = True
    action._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
    return action, Calls(action, results, command)


def test_the_sources_on_the_controller_are_those_that_the_library_loads():
    root = cli.__name__.rpartition(".traffic.")[0]
    assert closure(host_command.source, install.ENTRY) == closure(loaded(importlib.import_module, root), install.ENTRY)


def test_a_host_that_has_every_file_gets_no_module():
    action, calls = plugin(host_command, {}, [], (0, ""))
    assert action.run(task_vars={})["changed"] is False
    assert not calls.made
    assert "sha256sum" in calls.asked[0]


def test_whether_the_command_is_gone_is_asked_of_the_module():
    action, calls = plugin(host_command, {"state": "absent"}, [{"changed": True}], (0, ""))
    assert action.run(task_vars={})["changed"] is True
    assert not calls.asked
    assert calls.made[0]["texts"] == ""


def test_texts_go_to_a_host_in_one_call_where_one_differs():
    action, calls = plugin(host_command, {"state": "present"}, [{"changed": True}], (1, ""))
    assert action.run(task_vars={})["changed"] is True
    (made,) = calls.made
    assert made["state"] == "present"
    expected = {each["path"]: each["digest"] for each in made["files"]}
    texts = json.loads(zlib.decompress(base64.b64decode(made["texts"])))
    assert {path: install.digest(text) for path, text in texts.items()} == expected


REPORTS = [{"app": "blog", "active": "blue"}, {"app": "shop", "active": "green"}]


@pytest.mark.parametrize(
    ("arguments", "said", "asked"),
    [
        ({}, json.dumps(REPORTS, indent=1), "/usr/local/sbin/slipway status --json"),
        ({"app": "shop"}, "[sudo] ann:\r\n" + json.dumps(REPORTS[1]) + "\r\n", "/usr/local/sbin/slipway status shop --json"),
    ],
)
def test_the_command_on_the_host_answers(arguments, said, asked):
    action, calls = plugin(slot_info, {"installed": True, **arguments}, [], (0, said))
    found = action.run(task_vars={})["apps"]
    assert found["shop"]["active"] == "green"
    assert ("blog" in found) is not bool(arguments)
    assert calls.asked == [asked]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ({"installed": True}, (127, "not found")),
        ({"installed": True, "app": "shop"}, (2, '{"failed": true, "message": "none"}')),
        ({"installed": True}, (0, "")),
        ({"installed": True, "history": 9}, (0, "[]")),
        ({"installed": False}, (0, "[]")),
        ({}, (0, "[]")),
    ],
)
def test_the_module_looks_where_the_command_does_not_answer(arguments, command):
    action, calls = plugin(slot_info, arguments, [{"changed": False, "apps": {"shop": {}}}], command)
    assert action.run(task_vars={})["apps"] == {"shop": {}}
    assert calls.made == [{key: value for key, value in arguments.items() if key != "installed"}]


def test_a_host_without_applications_has_none():
    action, _calls = plugin(slot_info, {"installed": True}, [], (0, "[]\n"))
    assert action.run(task_vars={})["apps"] == {}
