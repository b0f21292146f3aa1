# SPDX-License-Identifier: GPL-3.0-or-later
"""The forking ansible-playbook says what ansible-playbook says, and a copied task is a task of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.lint import environment
from tests.lint.__main__ import copied

GOOD = "- hosts: localhost\n  tasks: [{ansible.builtin.ping: }]\n"
BAD = "- hosts: localhost\n  tasks: [{ansible.builtin.no_such_module: }]\n"


@pytest.fixture(scope="module")
def forking():
    with tempfile.TemporaryDirectory() as directory:
        yield environment(Path(directory), os.environ)


def ask(playbook, directory, variables):
    argv = ["ansible-playbook", "--syntax-check", playbook]
    done = subprocess.run(argv, cwd=directory, env=variables, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), (BAD, 4), (None, 1)])
def test_same_status_and_output(text, status, tmp_path, forking):
    if text:
        (tmp_path / "play.yml").write_text(text)
    direct = ask("play.yml", tmp_path, dict(os.environ))
    assert ask("play.yml", tmp_path, forking) == direct
    assert direct[0] == status


def test_a_copy_of_a_task_is_changed_without_the_task():
    class Kept(dict):
        pass

    task = Kept(name="a", block=[Kept(args=[1, 2])])
    copy = copied(task)
    assert copy == task
    assert type(copy) is type(copy["block"][0]) is Kept
    copy["block"][0]["args"].append(3)
    del copy["name"]
    assert task == {"name": "a", "block": [{"args": [1, 2]}]}
