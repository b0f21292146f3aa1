# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin as users meet it: through ansible-playbook, on inventories whose hosts do not exist."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from tests import lint
from tests.unit.module_utils.plan.inventories import PASSWORD, fleet, planned

ROOT = Path(__file__).resolve().parents[3]


@functools.cache
def forking() -> tuple[tempfile.TemporaryDirectory[str], dict[str, str]]:
    """An environment whose ansible-playbook has Ansible loaded, while the directory with it lives."""
    directory = tempfile.TemporaryDirectory()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    given = {**os.environ, "PATH": path, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    return directory, lint.environment(Path(directory.name), given)


def ansible(playbook: str | Path, inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook from the root of the collection."""
    command = ["ansible-playbook", str(playbook), "-i", str(inventory), *arguments]
    _directory, environment = forking()
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """The demo's fleet with a vault variable that nobody defines, and a play that plans without any host."""
    raw = fleet()
    app = raw.apps["spotik"]
    app["database"]["password"] = "{{ vault_password }}"
    app["threads"] = "{{ 2 + 3 }}"
    groups = {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in raw.groups.items() if name != "all"}
    hosts = {"hosts": {name: dict(variables) for name, variables in raw.hostvars.items()}, "children": groups}
    hosts["vars"] = {"slipway_apps": {"spotik": app}, "slipway_adress": "10.0.0.1"}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": hosts}))
    tasks = [
        {"slipway.server.plan": {"stage": "{{ stage | default('inventory') }}"}, "run_once": True, "register": "planned"},
        {"ansible.builtin.debug": {"msg": "{{ planned.hosts | to_json }}"}, "run_once": True},
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    return tmp_path


def test_the_shipped_starting_point_is_refused_before_any_host_is_contacted() -> None:
    done = ansible("site.yml", ROOT / "inventories/prod")
    assert done.returncode == 2
    assert "The inventory has 13 problems; nothing was changed." in done.stdout + done.stderr
    assert "slipway_apps.app1.secrets.SECRET_KEY_BASE" in done.stdout
    assert "changeme" not in done.stdout
    assert "UNREACHABLE" not in done.stdout


def test_undefined_and_misspelt_variables_are_named_together(inventory: Path) -> None:
    done = ansible(inventory / "play.yml", inventory / "hosts.yml")
    assert done.returncode == 2
    assert "slipway_apps.spotik.database.password: cannot be resolved: 'vault_password' is undefined" in done.stdout
    assert "slipway_adress: is not a variable of this collection. Did you mean `slipway_address`?" in done.stdout
    assert "has 2 problems" in done.stdout


def test_a_plan_without_facts_has_addresses_and_no_secrets(inventory: Path) -> None:
    text = (inventory / "hosts.yml").read_text().replace("slipway_adress: 10.0.0.1\n", "unrelated: 1\n")
    (inventory / "hosts.yml").write_text(text)
    done = ansible(
        inventory / "play.yml",
        inventory / "hosts.yml",
        "-e",
        json.dumps({"vault_password": PASSWORD, "stage": "full"}),
        "-vvv",
        "--check",
    )
    assert done.returncode == 0, done.stdout
    assert "10.87.0.12:3000" in done.stdout
    secrets = done.stdout.replace(f'"vault_password": "{PASSWORD}"', "")
    assert PASSWORD not in secrets


def test_a_key_of_another_adapter_is_said_together_with_the_checks(inventory: Path) -> None:
    """It hinders no sizes, so the plan goes on, and everything that is wrong is in one message."""
    declared = yaml.safe_load((inventory / "hosts.yml").read_text())
    declared["all"]["vars"].pop("slipway_adress")
    declared["all"]["vars"]["slipway_apps"]["spotik"]["database"]["timeout"] = 5000
    declared["all"]["hosts"]["db1"]["postgresql_settings"] = {"shared_buffers": "900GB"}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(declared))
    play = yaml.safe_load((inventory / "play.yml").read_text())
    seen = {"slipway_host": {"memory_mb": 8192, "cores": 4}, "cacheable": True}
    play[0]["tasks"].insert(0, {"ansible.builtin.set_fact": seen})
    (inventory / "play.yml").write_text(yaml.safe_dump(play))
    password = json.dumps({"vault_password": PASSWORD})
    assert ansible(inventory / "play.yml", inventory / "hosts.yml", "-e", password).returncode == 0
    done = ansible(inventory / "play.yml", inventory / "hosts.yml", "-e", password, "-e", "stage=full")
    assert done.returncode == 2
    assert "slipway_apps.spotik.database.timeout: is not a known key. Did you mean `statement_timeout`?" in done.stdout
    assert "check 2 postgresql-cache" in done.stdout
    declared["all"]["vars"]["slipway_apps"]["spotik"]["domain"] = ""
    (inventory / "hosts.yml").write_text(yaml.safe_dump(declared))
    both = ansible(inventory / "play.yml", inventory / "hosts.yml", "-e", password)
    assert both.returncode == 2
    assert "database.timeout" in both.stdout


def test_what_every_worker_needs_is_loaded_before_the_first_one() -> None:
    script = "import sys; from ansible.plugins.loader import action_loader, init_plugin_loader; init_plugin_loader();"
    script += "action_loader.get('slipway.server.plan', class_only=True); print(*sys.modules)"
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    loaded = {name.partition("_")[0] if name.startswith("ansible.plugins") else name for name in done.stdout.split()}
    assert {"ansible.plugins.filter.core", "ansible_collections.slipway.server.plugins.filter.fleet"} <= loaded


def test_the_plan_is_printed_and_written_as_json(tmp_path: Path) -> None:
    """The playbook's last play alone, on a plan that is given: nobody is contacted."""
    plan = planned(fleet(db1={"postgresql_settings": {"shared_buffers": "900GB"}}))
    shown = {"hosts": plan.hosts, "checks": [asdict(check) for check in plan.checks], "table": [asdict(row) for row in plan.rows]}
    (tmp_path / "plan.json").write_text(json.dumps({"slipway_plan": {**shown, "changed": False}}))
    groups = {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in fleet().groups.items() if name != "all"}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    arguments = ["--skip-tags", "always", "-e", f"@{tmp_path / 'plan.json'}"]
    table = ansible("playbooks/plan.yml", tmp_path / "hosts.yml", *arguments, "-e", f"slipway_plan_file={tmp_path / 'out.json'}")
    assert table.returncode == 0, table.stdout
    assert "  VIOLATED 2 postgresql-cache on db1: shared_buffers <= 40 % of PostgreSQL's memory\n" in table.stdout
    written = json.loads((tmp_path / "out.json").read_text())
    assert set(written) == {"hosts", "checks", "table"}
    assert {check["id"] for check in written["checks"] if not check["ok"]} >= {"postgresql-cache"}
