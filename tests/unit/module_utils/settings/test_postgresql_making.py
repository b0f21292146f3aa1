# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.postgresql_making import Making


class Patient(Clock):
    def monotonic(self):
        return 0.0

    def sleep(self, seconds):
        pass


class Tool(Runner):
    """pg_createcluster, which takes data that it finds as they are, and is killed when `killed`."""

    def __init__(self, folder):
        self.etc, self.data, self.killed, self.busy = folder / "etc", folder / "data", False, 0
        self.made = 0

    def run(self, argv, data=None, timeout=600.0, env=None):
        if argv[0] == "systemctl":
            self.busy -= 1
            if self.busy == 0:
                self.run(["systemd-run", "pg_createcluster 15 main"])
            return Result(0 if self.busy >= 0 else 3, "", "")
        if argv[0] == "journalctl":
            return Result(0, "initdb: what it said", "")
        self.made += 1
        for folder in (self.etc, self.data):
            folder.mkdir(exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            (self.data / "PG_VERSION").write_text("half" if self.killed else "whole")
        if self.killed:
            return Result(137, "", "killed")
        (self.etc / "postgresql.conf").touch()
        if "rm -f" in argv[-1]:
            Path(argv[-1].split()[-1]).unlink(missing_ok=True)
        return Result(0, "", "")


@pytest.fixture
def tool(tmp_path):
    return Tool(tmp_path)


@pytest.fixture
def making(tool, tmp_path):
    return Making(tool, Patient(), "15", tool.etc, tool.data, tmp_path / "state")


def test_one_that_was_cut_off_is_made_again(making, tool):
    tool.killed = True
    assert making.make() == "pg_createcluster 15 main failed: killed\ninitdb: what it said"
    assert making.due()
    tool.killed = False
    assert making.make() == ""
    assert (tool.data / "PG_VERSION").read_text() == "whole"
    assert not making.due()
    assert not making.mark.exists()


def test_data_of_somebody_else_are_kept(making, tool):
    tool.data.mkdir()
    (tool.data / "PG_VERSION").write_text("theirs")
    tool.killed = True
    assert making.make()
    tool.killed = False
    assert making.make() == ""
    assert (tool.data / "PG_VERSION").read_text() == "theirs"


def test_a_cluster_on_which_a_server_has_run_is_no_half_one(making, tool):
    assert making.make() == ""
    making.mark.touch()
    assert making.due()
    (tool.data / "postmaster.opts").touch()
    assert not making.due()


def test_the_unit_of_a_run_that_was_killed_is_waited_for(making, tool):
    tool.busy = 3
    assert making.make() == ""
    assert tool.made == 1
