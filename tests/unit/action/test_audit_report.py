# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin that judges audits, through ansible-playbook."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import yaml

from tests.unit.action.test_plan import ansible

CONTROLLER = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
INSIDE = {"container": False, "lynis": {"version": "3.1.4", "index": 88, "findings": []}, "exposure": {}, "off": [], "drift": []}


def judged(tmp_path: Path, port: int, *arguments: str, **more: Any) -> tuple[int, dict[str, Any], str]:
    """Exit status, result and output of a task over a host that was looked at and one that did not answer."""
    seen = {"web1": {"inside": {**INSIDE, "ports": [{"port": port, "process": "python3"}]}}, "web2": None}
    options = {"seen": seen, "directory": str(tmp_path / "reports"), "addresses": {"web1": "127.0.0.1", "web2": "127.0.0.1"}}
    tasks = [
        {"slipway.server.audit_report": {**options, **more}, "register": "made"},
        {
            "ansible.builtin.copy": {"content": "{{ made | to_json }}", "dest": str(tmp_path / "result"), "mode": "0600"},
            "check_mode": False,
        },
    ]
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": CONTROLLER, "tasks": tasks}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    done = ansible(tmp_path / "play.yml", Path("localhost,"), *arguments)
    result = json.loads((tmp_path / "result").read_text()) if (tmp_path / "result").exists() else {}
    return done.returncode, result, done.stdout + done.stderr


def test_the_controller_looks_too_and_the_report_is_written(tmp_path: Path) -> None:
    everything = {"web1": {"ufw_rules": [{"from": "any"}]}}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        rc, planned, output = judged(tmp_path, port, "--check", plans=everything)
        assert rc == 0, output
        assert (planned["problems"], (tmp_path / "reports").exists()) == (["web2: could not be looked at"], False)
        _rc, made, _output = judged(tmp_path, port)
    silent, undeclared = made["problems"]
    assert (silent, undeclared.startswith("web1: ports that nobody declared: ")) == ("web2: could not be looked at", True)
    told = json.loads((tmp_path / "reports" / "audit.json").read_text())
    (finding,) = [row for row in told["verdicts"][0]["findings"] if row["id"] == str(port)]
    assert finding["text"] == f"port {port} (python3) answers the controller (127.0.0.1) at 127.0.0.1"
    judged(tmp_path, 1, accepted=[{"check": "ports", "id": "*", "reason": "a machine of its own"}])
    assert len(json.loads((tmp_path / "reports" / "audit.json").read_text())["history"]) == 2
    assert "svg" in (tmp_path / "reports" / "audit.html").read_text()


def test_what_an_inventory_must_not_say(tmp_path: Path) -> None:
    rc, _result, output = judged(tmp_path, 1, minimum={"lynx": 1})
    assert rc != 0
    assert "there is no score lynx" in output
    rc, _result, output = judged(tmp_path, 1, accepted=[{"id": "x"}])
    assert rc != 0
    assert "needs `id` and `reason`" in output
