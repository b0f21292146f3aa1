# SPDX-License-Identifier: GPL-3.0-or-later
"""A change is confirmed by a login that shares nothing with the run, or taken back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.slipway.server.plugins.action import guard, sshd
from ansible_collections.slipway.server.plugins.module_utils.guard.armed import PROGRAM

ARMED = {"name": "sshd", "txn": "t1", "seconds": 60, "log": ["sshd"], "ports": [22], "session_port": 22}


class Connection:
    """ssh with the options of an inventory; notes which were in force for each call."""

    transport = "ssh"

    def __init__(self, **options):
        plain = {"ssh_args": "-o ControlPersist=60s", "port": None, "host": "10.0.0.5", "reconnection_retries": 3, "timeout": 30}
        self.options = {**plain, **options}
        self.resets = 0
        self._shell = SimpleNamespace(tmpdir=None)

    def get_option(self, name):
        return self.options[name]

    def set_option(self, name, value):
        self.options[name] = value

    def reset(self):
        self.resets += 1


def action(module, connection, answers, **task):
    """The plugin, and its calls: module, state, and the connection's options meanwhile."""
    made = []
    it = object.__new__(module.ActionModule)
    it._task = SimpleNamespace(args={}, async_val=0, check_mode=False, **task)
    it._supports_check_mode = it._supports_async = True
    it._connection = connection
    it._play_context = SimpleNamespace(remote_addr="10.0.0.5")

    def execute(name, arguments, task_vars=None):
        made.append((name.rpartition(".")[2], arguments.get("state"), dict(connection.options)))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def low_level(command, sudoable):
        program, *words = command.split()
        if program != PROGRAM:
            return {"rc": 0, "stdout": "Access denied for user root\n", "stderr": ""}
        assert words[1:] == [ARMED["name"], "--txn", ARMED["txn"]]
        made.append(("program", words[0], dict(connection.options)))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"rc": 0, "stdout": "", "stderr": "", **answer}

    it._execute_module = execute
    it._low_level_execute_command = low_level
    return it, made


def changed(**more):
    return {"changed": True, "guard": {**ARMED, **more}}


def test_confirms_over_a_connection_of_its_own_and_puts_the_options_back():
    connection = Connection()
    it, made = action(sshd, connection, [changed(), {}])
    done = it.run(task_vars={})
    assert [call[:2] for call in made] == [("sshd", None), ("program", "confirm")]
    options = made[1][2]
    assert options["ssh_args"] == "-o ControlMaster=no -o ControlPath=none -o ControlPersist=60s"
    assert (options["timeout"], options["reconnection_retries"]) == (20, 0)
    assert connection.options == Connection().options
    assert done["guard"]["outcome"] == "confirmed"


@pytest.mark.parametrize(
    "result", [{"changed": False, "guard": {}}, {"failed": True, "msg": "refused"}, {"failed": True, **changed()}]
)
def test_what_is_not_armed_needs_no_confirmation(result):
    it, made = action(sshd, Connection(), [result])
    assert it.run(task_vars={}) == result
    assert len(made) == 1


def test_every_declared_port_has_to_let_somebody_in_under_the_name_of_the_old_one():
    it, made = action(sshd, Connection(), [changed(ports=[22, 2222]), {}, {}])
    it.run(task_vars={})
    (_name, state, options), last = made[1], made[2]
    assert (state, options["port"]) == ("status", 2222)
    assert options["ssh_args"].startswith("-o HostKeyAlias=10.0.0.5 -o ControlMaster=no")
    assert (last[1], last[2]["port"]) == ("confirm", None)


def test_the_name_of_an_old_port_that_is_not_the_usual_one():
    it, made = action(sshd, Connection(port=2200), [changed(ports=[22], session_port=2200), {}, {}])
    it.run(task_vars={})
    assert made[1][2]["ssh_args"].startswith("-o HostKeyAlias=[10.0.0.5]:2200 ")


def test_ports_behind_a_forwarded_one_are_not_tried():
    it, made = action(sshd, Connection(port=10022), [changed(ports=[22, 2222], session_port=22), {}])
    it.run(task_vars={})
    assert [call[1] for call in made] == [None, "confirm"]


@pytest.mark.parametrize("broken", [AnsibleConnectionFailure("Permission denied"), {"rc": 1, "stderr": "sudo: no"}])
def test_nobody_gets_in_so_it_is_taken_back_over_the_old_connection(broken):
    connection = Connection()
    it, made = action(sshd, connection, [changed(), broken, {"changed": True}])
    done = it.run(task_vars={})
    assert made[2][:2] == ("guard", "reverted")
    assert made[2][2] == Connection().options
    assert (done["failed"], done["changed"], done["guard"]["outcome"]) == (True, False, "reverted")
    assert "no new connection could confirm it" in done["msg"]
    assert "It was taken back, the old state is effective" in done["msg"]
    assert "Access denied for user root" in done["msg"]


def test_when_nothing_gets_through_the_host_does_it_itself():
    gone = AnsibleConnectionFailure("gone")
    it, _made = action(sshd, Connection(), [changed(), gone, gone])
    done = it.run(task_vars={})
    assert done["guard"]["outcome"] == "waiting"
    assert "The host takes it back itself within 60 s" in done["msg"]


def test_a_connection_that_is_not_ssh_is_opened_anew():
    connection = Connection()
    connection.transport = "docker"
    it, _made = action(sshd, connection, [changed(), {}])
    assert it.run(task_vars={})["guard"]["outcome"] == "confirmed"
    assert connection.resets == 1


def test_a_task_of_its_own_confirms_what_others_armed():
    it, made = action(guard, Connection(), [{"changed": True, "outcome": "confirmed"}])
    it._task.args = {"name": "network", "state": "confirmed"}
    assert it.run(task_vars={})["outcome"] == "confirmed"
    assert "ControlPath=none" in made[0][2]["ssh_args"]
    it, made = action(guard, Connection(), [{"changed": True}])
    it._task.args = {"name": "network", "state": "armed", "paths": ["/etc/x"]}
    it.run(task_vars={})
    assert "ControlPath=none" not in made[0][2]["ssh_args"]
