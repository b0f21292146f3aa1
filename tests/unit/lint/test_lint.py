# SPDX-License-Identifier: GPL-3.0-or-later
"""The forking ansible-playbook says what ansible-playbook says."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.lint import environment

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
