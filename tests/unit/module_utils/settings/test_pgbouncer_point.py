# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_console import Console, ConsoleError
from ansible_collections.slipway.server.plugins.module_utils.settings.pgbouncer_point import PointError, point, pointed

TEXT = """; managed
[databases]
shop = host=10.0.0.1 port=5432 pool_size=4
"a b" = port=5432 host='10.0.0.1'
near = host=10.0.0.11 port=5432
local = host=/var/run/postgresql port=5432

[pgbouncer]
listen_addr = 10.0.0.1
server_host = x host=10.0.0.1
"""


def test_only_databases_on_that_server_move():
    moved = pointed(TEXT, "10.0.0.1", "10.0.0.2")
    assert moved.count("10.0.0.2") == 2
    assert "shop = host=10.0.0.2 port=5432 pool_size=4" in moved
    assert "near = host=10.0.0.11 " in moved
    assert "listen_addr = 10.0.0.1\nserver_host = x host=10.0.0.1" in moved
    assert pointed(moved, "10.0.0.1", "10.0.0.2") == moved
    assert pointed("[databases]\nx = host=fd00::1 port=1\n", "fd00::1", "fd00::2") == "[databases]\nx = host=fd00::2 port=1\n"


class Pooler(Runner):
    """A console whose databases are those of the file at the last RELOAD."""

    def __init__(self, path):
        self.path, self.deaf, self.down, self.reloads = path, False, False, 0
        self.loaded = path.read_text()

    def run(self, argv, data=None, timeout=600.0, env=None):
        sql = argv[argv.index("-c") + 1]
        if self.down:
            return Result(2, "", "could not connect: No such file or directory")
        if sql == "RELOAD":
            self.reloads += 1
            self.loaded = self.loaded if self.deaf else self.path.read_text()
            return Result(0, "", "")
        host = "10.0.0.1" if "host=10.0.0.1 " in self.loaded else "10.0.0.2"
        return Result(0, f"name,host,port\nshop,{host},5432\n", "")


@pytest.fixture
def pooler(tmp_path):
    path = tmp_path / "pgbouncer.ini"
    path.write_text(TEXT)
    path.chmod(0o640)
    return Pooler(path)


def led(pooler, check_mode=False):
    console = Console(pooler, socket_dir=str(pooler.path.parent))
    return point(console, pooler.path, "10.0.0.1", "10.0.0.2", check_mode)


def test_the_running_pooler_follows_and_a_second_call_changes_nothing(pooler):
    assert led(pooler, check_mode=True)
    assert pooler.path.read_text() == TEXT
    assert led(pooler)
    assert "host=10.0.0.2 port=5432 pool_size" in pooler.loaded
    assert pooler.path.stat().st_mode & 0o777 == 0o640
    assert not led(pooler)
    assert pooler.reloads == 1


def test_a_run_that_died_before_the_reload_is_finished(pooler):
    pooler.path.write_text(pointed(TEXT, "10.0.0.1", "10.0.0.2"))
    assert led(pooler)
    assert pooler.reloads == 1


def test_a_pooler_that_keeps_the_old_server_is_an_error(pooler):
    pooler.deaf = True
    with pytest.raises(PointError, match=r"still leads shop to 10\.0\.0\.1"):
        led(pooler)


def test_one_that_does_not_run_gets_its_file(pooler):
    pooler.down = True
    assert led(pooler)
    assert "10.0.0.2" in pooler.path.read_text()
    assert not led(pooler)


def test_one_that_does_not_answer_is_an_error(pooler, monkeypatch):
    pooler.down = True
    monkeypatch.chdir(pooler.path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(".s.PGSQL.6432")
        with pytest.raises(ConsoleError):
            led(pooler)


def test_without_a_pooler_there_is_nothing_to_do(pooler):
    console = Console(pooler)
    assert not point(console, Path("/nowhere/pgbouncer.ini"), "a", "b")
