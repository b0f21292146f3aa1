# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys

from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner


def test_commands_speak_one_language_whatever_the_host_speaks(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de:en")
    said = Runner().run([sys.executable, "-c", "import os; print(os.environ['LC_ALL'], repr(os.environ['LANGUAGE']))"])
    assert said.out.split() == ["C.UTF-8", "''"]


def test_a_command_may_be_given_more(monkeypatch):
    monkeypatch.setenv("LANGUAGE", "de")
    said = Runner().run(["sh", "-c", "echo $PGUSER $LC_ALL"], env={"PGUSER": "postgres", "LC_ALL": "C"})
    assert said.out.split() == ["postgres", "C"]
