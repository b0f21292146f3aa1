# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin that writes reports, through ansible-playbook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.unit.action.test_plan import ansible

CONTROLLER = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
LINES = [
    {"at": 1764035000.0, "state": "PLANNED", "text": "begins", "source": "blue", "target": "green", "release": "v2"},
    {"at": 1764035009.0, "state": "CONFIRMED", "text": "v2: confirmed", "share": 100},
]


def write(tmp_path: Path, directory: Path, *arguments: str, **more: Any) -> dict[str, object]:
    """What the task `report` returned for a play over a host that tells and one that did not answer."""
    told = {"web1": {"lines": LINES}, "web2": None}
    tasks = [
        {
            "slipway.server.report": {"app": "shop", "txn": "v2/x", "directory": str(directory), "owner": "ann", "told": told}
            | more,
            "register": "written",
        },
        {
            "ansible.builtin.copy": {"content": "{{ written | to_json }}", "dest": str(tmp_path / "result"), "mode": "0600"},
            "check_mode": False,
        },
    ]
    play = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": CONTROLLER, "tasks": tasks}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    done = ansible(tmp_path / "play.yml", Path("localhost,"), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads((tmp_path / "result").read_text())
    return found


def test_report_is_written_once(tmp_path: Path) -> None:
    reports = tmp_path / "made" / "reports"
    planned = write(tmp_path, reports, "--check")
    assert planned["changed"] is True
    assert not reports.exists()
    done = write(tmp_path, reports)
    assert (done["changed"], done["outcome"]) == (True, "confirmed")
    assert sorted(path.name for path in reports.iterdir()) == ["shop-v2_x.html", "shop-v2_x.json"]
    assert json.loads((reports / "shop-v2_x.json").read_text())["seconds"] == 9.0
    assert write(tmp_path, reports)["changed"] is False


def test_a_release_that_failed_where_it_was_started_has_a_page(tmp_path: Path) -> None:
    gate = {"healthy": False, "reason": "not healthy within 6 s", "attempts": 3, "last_answers": ["status 503"]}
    msg = "release v2 of shop did not become healthy in slot green of web1: not healthy within 6 s.\nLast answers:\n  status 503"
    well = {"at": 1764035001.0, "release": "v2", "slot": "green", "gate": {"healthy": True}}
    bad = {"at": 1764035007.0, "failed": True, "msg": msg, "gate": gate}
    nothing = {"skipped": True}
    done = write(
        tmp_path, tmp_path / "reports", told={"web1": {"lines": []}}, proved={"web1": bad, "web2": well, "web3": nothing}
    )
    assert done["outcome"] == "failed"
    page = Path(str(done["page"])).read_text()
    assert all(
        text in page for text in ("release v2 of shop did not become healthy", "status 503", "not passed", "is well there")
    )
    assert write(tmp_path, tmp_path / "reports", told={}, proved={"web2": well})["page"] == ""


def test_a_directory_that_cannot_be_written_to_is_only_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = write(tmp_path, tmp_path / "file" / "reports")
    assert (done["changed"], done["page"]) == (False, "")
    assert "Set app_reports to another directory" in str(done["warnings"])
