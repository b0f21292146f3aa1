# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import http.server
import threading

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings.readback import (
    Reader,
    at_least,
    listening,
    parse_limit,
)

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max core file size        0                    unlimited            bytes
Max open files            1024                 524288               files
Max locked memory         unlimited            unlimited            bytes
"""
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1920 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:1920 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 2 1
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000
"""


class Commands(Runner):
    def __init__(self, answers):
        self.answers = answers

    def run(self, argv, data=None, timeout=600.0, env=None):
        return self.answers.get(argv[0], Result(127, "", "not found"))


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "sys/net/core").mkdir(parents=True)
    (tmp_path / "sys/net/core/somaxconn").write_text("4096\n")
    (tmp_path / "sys/net/ports").write_text("1024\t65000\n")
    (tmp_path / "42").mkdir()
    (tmp_path / "42/limits").write_text(LIMITS)
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(TCP)
    (tmp_path / "net/tcp6").write_text(TCP6)
    return tmp_path


def read(proc, check, **answers):
    return [str(m) for m in Reader(Commands(answers), proc).read([check])]


def test_sysctl(proc):
    assert read(proc, {"kind": "sysctl", "key": "net.core.somaxconn", "value": 4096}) == []
    assert read(proc, {"kind": "sysctl", "key": "net.ports", "value": "1024 65000"}) == []
    assert "declared 1, effective 4096" in read(proc, {"kind": "sysctl", "key": "net.core.somaxconn", "value": 1})[0]
    assert "unreadable" in read(proc, {"kind": "sysctl", "key": "net.core.absent", "value": 1})[0]


def test_limit_that_was_cut_is_reported(proc):
    running = {"systemctl": Result(0, "Id=x.service\nMainPID=42\n", "")}
    check = {"kind": "limit", "unit": "x.service", "name": "nofile", "value": "4096"}
    assert "declared 4096, effective 1024" in read(proc, check, **running)[0]
    assert read(proc, {**check, "value": "1024"}, **running) == []
    assert read(proc, {**check, "value": "512"}, **running) == []
    assert read(proc, {**check, "value": "512", "at_least": False}, **running) != []
    assert "not running" in read(proc, check, systemctl=Result(0, "MainPID=0\n", ""))[0]


def test_what_several_checks_ask_is_asked_once(proc):
    class Once(Runner):
        def __init__(self):
            self.asked = []

        def run(self, argv, data=None, timeout=600.0, env=None):
            self.asked.append(argv)
            if argv[0] == "echo":
                return Result(0, "a::b 1\na::c 2\na::c 3\n", "")
            return Result(0, "Id=a.service\nActiveState=active\nMainPID=42\n\nId=b.timer\nActiveState=failed\n", "")

    checks = [
        {"kind": "unit", "unit": "a.service", "properties": {"ActiveState": "active"}},
        {"kind": "unit", "unit": "b.timer", "properties": {"ActiveState": "active", "UnitFileState": "enabled"}},
        {"kind": "limit", "unit": "a.service", "name": "nofile", "value": "1024"},
        {"kind": "command", "argv": ["echo", "x"], "lines": "a::b ", "equals": "1"},
        {"kind": "command", "argv": ["echo", "x"], "lines": "a::c ", "equals": "2\n3"},
        {"kind": "command", "argv": ["echo", "x"], "lines": "a::d ", "equals": ""},
        {"kind": "command", "argv": ["echo", "x"], "lines": "a::c ", "equals": "2"},
    ]
    once = Once()
    reader = Reader(once, proc)
    found = [str(mismatch) for mismatch in reader.read(checks)]
    assert found[0].startswith("b.timer ActiveState: declared active, effective failed.")
    assert found[1].startswith("b.timer UnitFileState: declared enabled, effective unset.")
    assert found[2].startswith("echo x: declared 2, effective 2\n3.")
    assert len(found) == 3
    assert [argv[0] for argv in once.asked] == ["systemctl", "echo"]
    assert once.asked[0][-2:] == ["a.service", "b.timer"]
    reader.read(checks)
    assert len(once.asked) == 4  # a later look sees what is true then


def test_limit_parsing():
    assert parse_limit(LIMITS, "Max open files") == "1024"
    assert parse_limit(LIMITS, "Max nothing") == ""
    assert at_least("unlimited", "5")
    assert not at_least("5", "unlimited")


def test_listen(proc):
    assert listening(proc, 6432) == {"127.0.0.1"}
    assert listening(proc, 443) == {"::"}
    assert read(proc, {"kind": "listen", "port": 6432, "address": "127.0.0.1", "only": True}) == []
    assert read(proc, {"kind": "listen", "port": 443, "address": "10.0.0.1"}) == []
    assert read(proc, {"kind": "listen", "port": 6432, "address": "10.0.0.1"}) != []
    assert read(proc, {"kind": "listen", "port": 5432, "closed": True}) == []
    assert "closed" in read(proc, {"kind": "listen", "port": 443, "closed": True})[0]
    assert "nothing listens" in read(proc, {"kind": "listen", "port": 81})[0]


def test_unit_and_command(proc):
    show = {"systemctl": Result(0, "ActiveState=failed\nLimitNOFILE=1024\n", "")}
    check = {"kind": "unit", "unit": "x.service", "properties": {"ActiveState": "active", "LimitNOFILE": "1024"}}
    assert len(read(proc, check, **show)) == 1
    echo = {"echo": Result(0, "hello world\n", "")}
    assert read(proc, {"kind": "command", "argv": ["echo"], "equals": "hello world"}, **echo) == []
    assert read(proc, {"kind": "command", "argv": ["echo"], "matches": "^hello"}, **echo) == []
    assert read(proc, {"kind": "command", "argv": ["echo"], "matches": "^world"}, **echo) != []
    assert "127" in read(proc, {"kind": "command", "argv": ["absent"]})[0]


def test_file(proc):
    path = proc / "f"
    path.write_text("x")
    path.chmod(0o644)
    assert read(proc, {"kind": "file", "path": str(path), "mode": "0644"}) == []
    assert "declared 0600, effective 0644" in read(proc, {"kind": "file", "path": str(path), "mode": "0600"})[0]
    assert "present" in read(proc, {"kind": "file", "path": str(proc / "absent")})[0]


def test_http(proc):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.headers["Host"] == "app.test" else 404)
            self.send_header("X-Here", "yes")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    assert read(proc, {"kind": "http", "url": url, "host": "app.test", "headers": {"X-Here": "yes"}}) == []
    assert "declared status 200, effective status 404" in read(proc, {"kind": "http", "url": url})[0]
    assert "header X-Here" in read(proc, {"kind": "http", "url": url, "host": "app.test", "headers": {"X-Here": "no"}})[0]
    assert read(proc, {"kind": "http", "url": url, "host": "app.test", "connections": 3}) == []
    assert "declared no answer, effective status 404" in read(proc, {"kind": "http", "url": url, "refused": True})[0]
    there = {"kind": "reach", "address": "127.0.0.1", "port": server.server_port, "timeout": 1}
    assert read(proc, there) == []
    assert "declared closed, effective open" in read(proc, {**there, "closed": True})[0]
    server.shutdown()
    server.server_close()
    assert "no answer" in read(proc, {"kind": "http", "url": url})[0]
    assert read(proc, {"kind": "http", "url": url, "refused": True}) == []
    assert read(proc, {**there, "closed": True}) == []
    assert "declared open, effective closed" in read(proc, there)[0]


def test_limit_of_children(proc):
    answers = {"systemctl": Result(0, "MainPID=7\n", ""), "pgrep": Result(0, "42\n99\n", "")}
    check = {"kind": "limit", "unit": "x.service", "name": "nofile", "value": "1024", "children": "worker process$"}
    assert read(proc, check, **answers) == []
    assert "process 42" in read(proc, {**check, "value": "2048"}, **answers)[0]
    assert "none runs" in read(proc, check, systemctl=Result(0, "MainPID=7\n", ""), pgrep=Result(1, "", ""))[0]


class Echo(Runner):
    def run(self, argv, data=None, timeout=600.0, env=None):
        return Result(0, data or "", "")


def test_a_table_is_compared_cell_by_cell(proc):
    declared = {"pool_mode": "transaction", "max_client_conn": "100", "empty": "", "gone": "1"}
    check = {
        "kind": "command",
        "argv": ["console"],
        "input": "key|value|default\npool_mode|session|session\nmax_client_conn|100.0|100\nempty||\n",
        "table": {name: {"value": value} for name, value in declared.items()},
    }
    found = [str(mismatch) for mismatch in Reader(Echo(), proc).read([check])]
    assert len(found) == 2
    assert found[0].startswith("console: pool_mode value: declared transaction, effective session.")
    assert found[1].startswith("console: gone value: declared 1, effective no such row.")
