# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path

from tests.bench import harden, stock
from tests.bench.measure import Cost, Recap

FILE = {"kind": "file", "owner": "root", "group": "root", "mode": "0644", "sha256": ""}
FOLDER, LINK = {**FILE, "kind": "directory"}, {"kind": "link", "target": "y"}
RECORDS = {
    "base.json": json.dumps({"/etc/issue": FILE, "/etc/slipway": FOLDER, "/etc/x": LINK}),
    "etc.json": json.dumps({"/etc/sysctl.d/60-slipway.conf": FILE, "/etc/security/limits.d/60-slipway.conf": FILE}),
    "sshd.json": json.dumps({"/etc/ssh/sshd_config.d/00-slipway.conf": FILE}),
    "ufw.json": json.dumps({"/etc/ufw/user.rules": FILE}),
}
TEXTS = {
    "/etc/issue": "words\n",
    "/etc/sysctl.d/60-slipway.conf": "# why\nnet.core.somaxconn = 4096\n-kernel.sysrq=0\n",
    "/etc/security/limits.d/60-slipway.conf": "* soft nofile 8192\n* hard nofile 8192\n",
    "/etc/ssh/sshd_config.d/00-slipway.conf": "# why\nMaxAuthTries 3\nPort 22\n",
}


def test_stock_tasks_make_what_the_roles_made(tmp_path: Path) -> None:
    found = stock.tasks(stock.read(RECORDS, TEXTS), [{"rule": "allow", "port": "22"}], ["ufw"], tmp_path)
    loops = {task["name"]: task.get("loop") for task in found}
    assert loops["Set kernel settings"] == [
        {"file": "/etc/sysctl.d/60-slipway.conf", "name": "net.core.somaxconn", "value": "4096"},
        {"file": "/etc/sysctl.d/60-slipway.conf", "name": "kernel.sysrq", "value": "0"},
    ]
    assert loops["Set limits"] == [["*", "soft", "nofile", "8192"], ["*", "hard", "nofile", "8192"]]
    assert [row["line"] for row in loops["Configure sshd"] or []] == ["MaxAuthTries 3", "Port 22"]
    assert [row["path"] for row in loops["Copy files"] or []] == ["/etc/issue"]
    assert (tmp_path / "0").read_text() == "words\n"
    assert [row["path"] for row in loops["Make directories"] or []] == ["/etc/slipway"]
    assert loops["Make links"] == [{"path": "/etc/x", "target": "y"}]
    assert "/etc/ufw/user.rules" not in json.dumps(found)
    firewall = next(task for task in found if task["name"] == "Allow what is declared")
    assert firewall["community.general.ufw"]["from_ip"] == "{{ item.from_ip | default(omit) }}"


def test_a_loop_without_items_is_left_out(tmp_path: Path) -> None:
    names = [task["name"] for task in stock.tasks(stock.Owned({}, {}), [], ["ufw"], tmp_path)]
    assert "Copy files" not in names
    assert "Install packages" in names


def test_each_item_of_a_loop_is_a_run_of_its_module() -> None:
    text = "TASK [x] ***\nok: [a] => (item=1)\nchanged: [a] => (item=2)\nskipping: [a]\nok: [a]\n\nPLAY RECAP\na : ok=2"
    assert harden.module_runs(text) == 3


def row(what: str, wall: float, runs: int, changed: int = 0) -> harden.Row:
    return harden.Row(what, Cost(wall, wall / 2, wall, 0.1), Recap(runs, changed, 0, 0), runs)


def test_goals_and_table() -> None:
    rows = [row("ours first", 9, 20, 9), row("stock first", 40, 80, 70), row("ours", 3, 20), row("stock", 30, 80, 1)]
    assert [held for _text, held in harden.goals(rows)] == [True, True]
    assert "| stock / ours | 10.0 x | 4.0 x | 4.0 x | - | 10.0 x | 10.0 x |" in harden.table(rows)
    assert [held for _text, held in harden.goals([*rows[:2], row("ours", 3, 21, 1), rows[3]])] == [False, False]
