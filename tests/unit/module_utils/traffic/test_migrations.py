# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of migrations: what is refused, what is applied, and that nothing is applied twice."""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic import journal, migrations
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import Busy, SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.migrations import CONTRACT, EXPAND, NONE, Migrator, Request
from ansible_collections.slipway.server.plugins.module_utils.traffic.records import SlotState

from tests.unit.module_utils.traffic.world import CONFIG, FakeRunner, Killed, World

DIGEST = "reg.example:5000/shop@sha256:" + "a" * 64
STATUS = {NONE: 0, EXPAND: 10, CONTRACT: 20}
BACKUP = "/var/lib/slipway/backups/shop.json"
UNIT = """# /etc/systemd/system/shop@.service
[Unit]
Description=shop, instance %i
[Service]
Type=exec
User=shop
WorkingDirectory=/opt/shop/slots/%i
EnvironmentFile=/etc/slipway/env/shop@%i.env
ExecStart=/usr/bin/puma -C config/puma.rb
Restart=always
RuntimeDirectory=shop
ProtectSystem=strict
SystemCallFilter=@system-service
SystemCallFilter=~@privileged \\
  @resources
LimitNOFILE=1024
"""


@dataclass
class Unit:
    ends: float
    result: str


class Database(FakeRunner):
    """What the candidate finds pending, and units that apply it within `seconds`."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock, world.fuse)
        self.pending = EXPAND
        self.seconds = 3.0
        self.result = "success"
        self.check: Optional[int] = None
        self.backup = Result(0, "", "")
        self.units: dict[str, Unit] = {}
        self.runs = 0

    def _settle(self) -> None:
        for unit in self.units.values():
            if unit.ends <= self.clock.passed and unit.result == "success":
                self.pending = NONE

    def _run(self, argv: list[str]) -> Result:
        self._settle()
        name = next((item.split("=", 1)[1] for item in argv if item.startswith("--unit=")), "")
        if argv[0] == "systemd-run" and "--wait" in argv:
            self.calls.append(argv)
            if "-backup-" in name:
                return self.backup
            status = STATUS[self.pending] if self.check is None else self.check
            return Result(status, "asked\n", f"Finished with result: {'success' if status == 0 else 'exit-code'}\n")
        if argv[0] == "systemd-run" and "--no-block" in argv:
            self.calls.append(argv)
            assert name not in self.units
            self.runs += 1
            self.units[name] = Unit(self.clock.passed + self.seconds, self.result)
            return Result(0, "", "")
        if argv[:2] == ["systemctl", "show"]:
            return Result(0, self._shown(argv[-1]), "")
        if argv[:2] == ["systemctl", "stop"]:
            self.units.pop(argv[2], None)
        if argv[:2] == ["systemctl", "cat"]:
            return Result(0, UNIT, "")
        if argv[0] == "journalctl":
            return Result(0, "altering table with s3cretPassw0rd\nlast words\n", "")
        return super()._run(argv)

    def _shown(self, name: str) -> str:
        unit = self.units.get(name)
        if unit is None:
            return "LoadState=not-found\nActiveState=inactive\nSubState=dead\n"
        if unit.ends > self.clock.passed:
            return "LoadState=loaded\nActiveState=activating\nSubState=start\nResult=success\nExecMainStatus=0\n"
        if unit.result == "success":
            return "LoadState=loaded\nActiveState=active\nSubState=exited\nResult=success\nExecMainStatus=0\n"
        return f"LoadState=loaded\nActiveState=failed\nSubState=failed\nResult={unit.result}\nExecMainStatus=1\n"


class Town(World):
    """A host with the candidate v2 in green beside v1 in blue."""

    def __init__(self, root: Path, kind: str = "docker", **more: Any) -> None:
        config = copy.deepcopy(CONFIG)
        for slot, port in (("blue", 3000), ("green", 3010)):
            name = f"slipway-shop-{slot}-1" if kind == "docker" else f"shop@{slot}-1.service"
            config["slots"][slot]["instances"] = [{"name": name, "address": "127.0.0.1", "port": port}]
        runtime = {"kind": kind, "env_file": "/etc/slipway/env/shop.env", "user": "1000:1000"}
        runtime |= {"container_port": 3000} if kind == "docker" else {"unit": "shop@{slot}-{n}.service", "root": "/opt/shop"}
        rules = {"host": "web1", "check": "rake pending", "apply": "rake 'db:migrate now'", "timeout": 30, "direct": True}
        rules |= {"env_file": "/etc/slipway/env/shop.migrations.env", "backup": {"file": BACKUP, "max_age": 600}, **more}
        super().__init__(root, {**config, "runtime": runtime, "migrations": rules})
        self.database = Database(self)
        self.runner = self.host.runner = self.database
        secret = self.layout.path("/etc/slipway/env/shop.migrations.env")
        secret.parent.mkdir(parents=True)
        secret.write_text("DATABASE_URL=postgresql://shop:s3cretPassw0rd@10.0.0.3:5432/shop\n")
        records = self.host.records("shop")
        records.save_slot(SlotState("blue", "active", "v1", DIGEST, "f", self.clock.now() - 1000))
        records.save_slot(SlotState("green", "staged", "v2", DIGEST, "f", self.clock.now()))

    def save_backup(self, age: float, **more: Any) -> None:
        path = self.layout.path(BACKUP)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"id": "base-7", "at": self.clock.now() - age, **more}))

    def apply(self, txn: str = "t1", release: str = "v2", backup: Optional[str] = None) -> dict[str, object]:
        return Migrator(self.host, self.app).apply(Request("green", release, txn, backup=backup))

    def look(self) -> dict[str, object]:
        return Migrator(self.host, self.app).look(Request("green", "v2", "t1"))

    def started(self, word: str) -> list[str]:
        return next(call for call in self.database.calls if call[0] == "systemd-run" and word in call)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def test_nothing_pending_changes_nothing(town: Town) -> None:
    town.database.pending = NONE
    found = town.apply()
    assert (found["changed"], found["pending"], found["migrations"], found["rollback_allowed"]) == (False, NONE, NONE, True)
    assert (town.database.runs, town.history()) == (0, [])


def test_an_expansion_is_applied_and_leaves_the_way_back_open(town: Town) -> None:
    found = town.apply()
    assert (found["changed"], found["migrations"], found["rollback_allowed"], found["applied"]) == (True, EXPAND, True, True)
    assert (town.database.runs, town.history()) == (1, ["migrated"])
    assert town.database.units == {}
    assert "s3cret" not in json.dumps(found)
    assert town.apply()["changed"] is False
    assert town.database.runs == 1


def test_the_candidates_own_container_without_its_port_and_name(town: Town) -> None:
    town.apply()
    check, apply = town.started("--wait"), town.started("--no-block")
    image = check.index(DIGEST)
    assert check[image + 1 :] == ["rake", "pending"]
    assert apply[apply.index(DIGEST) + 1 :] == ["rake", "db:migrate now"]
    for call in (check, apply):
        assert {"--read-only", "--cap-drop=ALL", "--user=1000:1000", "--rm", "--env=SLIPWAY_RELEASE=v2"} <= set(call)
        assert "--env=PGOPTIONS=-c lock_timeout=5000ms -c statement_timeout=30000ms" in call
        files = [item.rpartition("/")[2] for item in call if item.startswith("--env-file=")]
        assert files == ["shop.env", "shop.migrations.env"]
        assert not any(item.startswith(("--publish", "--label", "--detach")) for item in call)
    assert {"--service-type=oneshot", "--remain-after-exit", "--property=TimeoutStartSec=30s"} <= set(apply)
    assert "--property=ExecStopPost=-/usr/bin/docker rm --force slipway-shop-migrate" in apply


def test_the_candidates_own_unit_with_its_sandbox(tmp_path: Path) -> None:
    town = Town(tmp_path, "systemd")
    town.apply()
    given = {item.split("=", 1)[1] for item in town.started("--no-block") if item.startswith("--property=")}
    assert {"User=shop", "WorkingDirectory=/opt/shop/slots/green-1", "EnvironmentFile=/etc/slipway/env/shop@green-1.env"} <= given
    assert {"ProtectSystem=strict", "SystemCallFilter=~@privileged @resources", "LimitNOFILE=1024"} <= given
    assert 'Environment="PGOPTIONS=-c lock_timeout=5000ms -c statement_timeout=30000ms"' in given
    assert not any(item.startswith(("Exec", "Restart=", "Type", "RuntimeDirectory")) for item in given)


@pytest.mark.parametrize("status", [1, 2, 11, 125, 126, 127])
def test_an_answer_that_means_nothing_is_an_error(town: Town, status: int) -> None:
    town.database.check = status
    with pytest.raises(
        SlipwayError, match=rf"(?s)`rake pending` ended with status {status} on web1.*Nothing was changed.*\n  asked"
    ):
        town.apply()
    assert town.database.runs == 0


@pytest.mark.parametrize(
    ("age", "more", "why"),
    [
        (None, {}, "there is none"),
        (601, {}, "base-7 is 601 s old, but at most 600 s are accepted"),
        (-400, {}, "compare the clocks"),
        (5, {"id": ""}, "its record is not"),
        (5, {"id": 7}, "its record is not"),
        (5, {"at": "today"}, "its record is not"),
        (5, {"at": True}, "its record is not"),
    ],
)
def test_a_contract_without_a_fresh_backup_is_refused(town: Town, age: Optional[float], more: dict[str, Any], why: str) -> None:
    town.database.pending = CONTRACT
    if age is not None:
        town.save_backup(age, **more)
    for ask in (town.apply, town.look):
        with pytest.raises(SlipwayError, match=why) as caught:
            ask()
        assert BACKUP in str(caught.value)
        assert "deploy again. Nothing was changed" in str(caught.value)
    assert town.database.runs == 0


def test_a_contract_with_a_backup_closes_the_way_back(town: Town) -> None:
    town.database.pending = CONTRACT
    town.save_backup(599)
    assert town.look()["rollback_allowed"] is False
    assert town.database.runs == 0
    found = town.apply()
    assert (found["migrations"], found["rollback_allowed"], found["backup"]) == (CONTRACT, False, "base-7")
    [entry] = town.host.records("shop").history()
    assert (entry["event"], entry["rollback_allowed"], entry["backup"]) == ("migrated", False, "base-7")


def test_the_way_back_stays_closed_until_what_serves_is_newer(town: Town) -> None:
    town.database.pending = CONTRACT
    town.save_backup(5)
    town.apply()
    again = town.apply("t2")
    assert (again["pending"], again["migrations"], again["rollback_allowed"]) == (NONE, CONTRACT, False)
    town.host.records("shop").save_slot(SlotState("blue", "active", "v3", DIGEST, "f", town.clock.now()))
    assert town.apply("t3")["rollback_allowed"] is True


def test_the_release_that_brought_a_contract_can_be_gone_back_to(town: Town) -> None:
    town.database.pending = CONTRACT
    town.save_backup(5)
    town.apply()
    candidate = town.host.records("shop").slot("green")
    assert candidate is not None
    town.host.records("shop").save_slot(replace(candidate, state="active"))
    town.host.records("shop").save_slot(SlotState("blue", "staged", "v3", DIGEST, "f", town.clock.now()))
    town.host.flags(town.app).switch("green")
    found = Migrator(town.host, town.app).apply(Request("blue", "v3", "t4", "green"))
    assert (found["migrations"], found["rollback_allowed"]) == (NONE, True)


def test_a_contract_that_failed_leaves_the_way_back_open(town: Town) -> None:
    town.database.pending, town.database.result = CONTRACT, "exit-code"
    town.save_backup(5)
    with pytest.raises(SlipwayError, match="exit status 1"):
        town.apply()
    town.database.pending = NONE
    assert town.apply("t2")["rollback_allowed"] is True


def test_a_backup_may_be_told_by_a_command_or_by_another_host(tmp_path: Path) -> None:
    town = Town(tmp_path, backup={"command": "backup-status --json", "max_age": 60})
    town.database.pending = CONTRACT
    record = json.dumps({"id": "wal-9", "at": town.clock.now() - 30})
    town.database.backup = Result(1, record, "Finished with result: exit-code\n")
    with pytest.raises(SlipwayError, match=r"there is none \(`backup-status --json`\)"):
        town.apply()
    with pytest.raises(SlipwayError, match="there is none"):
        town.apply(backup="null")
    assert town.apply(backup=record)["backup"] == "wal-9"
    town.database.pending = CONTRACT
    town.database.backup = Result(0, record, "Finished with result: success\n")
    assert town.apply("t2")["backup"] == "wal-9"


@pytest.mark.parametrize(
    ("result", "why"),
    [("exit-code", "exit status 1"), ("timeout", "they had not ended after 30 s and were killed"), ("oom-kill", "oom-kill")],
)
def test_a_failure_shows_the_last_lines_without_secrets(town: Town, result: str, why: str) -> None:
    town.database.result = result
    with pytest.raises(SlipwayError, match=rf"(?s)after 3 s: {why}.*Traffic was not touched.*last words") as caught:
        town.apply()
    assert "s3cret" not in str(caught.value) + json.dumps(caught.value.facts)
    assert "altering table with ****" in str(caught.value)
    assert (town.history(), town.database.units) == (["migration_failed"], {})
    town.database.result = "success"
    assert town.apply()["applied"] is True


def test_a_success_that_left_something_pending_is_a_failure(town: Town) -> None:
    town.database.check = 10
    with pytest.raises(SlipwayError, match="the check still finds migrations pending"):
        town.apply()


@pytest.mark.parametrize("txn", ["t1", "t2"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", [EXPAND, CONTRACT])
def test_killed_at_any_step_it_is_applied_once(tmp_path: Path, txn: str, after: bool, kind: str) -> None:
    for step in range(1, 100):
        town = Town(tmp_path / f"{step}")
        town.database.pending = kind
        town.save_backup(5)
        fuse = town.blow(step, after)
        with contextlib.suppress(Killed):
            town.apply()
        killed = fuse.blown
        town.restart()
        found = town.apply(txn)
        assert town.database.runs == 1, step
        assert found["migrations"] == (CONTRACT if kind == CONTRACT else found["pending"]), step
        assert town.database.pending == NONE
        assert town.database.units == {}
        assert [event for event in town.history() if event != "migration_unknown"] == ["migrated"]
        if not killed:
            return
    raise AssertionError("never came to an end")


def test_a_run_of_another_transaction_is_waited_for(town: Town) -> None:
    town.blow(5, True)
    with pytest.raises(Killed):
        town.apply("t1")
    assert town.database.runs == 1
    town.restart()
    begun = town.clock.passed
    found = town.apply("t2")
    assert (found["pending"], town.database.runs) == (NONE, 1)
    assert town.clock.passed >= begun + town.database.seconds - 1
    assert town.history() == ["migrated"]


def test_a_restart_of_the_host_asks_the_check_again(town: Town) -> None:
    town.blow(5, True)
    with pytest.raises(Killed):
        town.apply()
    town.database.units.clear()
    town.reboot()
    assert town.apply()["applied"] is True
    assert town.database.runs == 2


def test_only_the_candidate_is_asked(town: Town) -> None:
    with pytest.raises(SlipwayError, match="does not hold v3"):
        town.apply(release="v3")
    found = Migrator(town.host, town.app).look(Request("green", "v3", "t1"))
    assert (found["pending"], found["changed"]) == (None, False)
    assert town.database.calls == []


def test_somebody_elses_lease_is_respected(town: Town) -> None:
    town.host.leases("shop").acquire("other", "somebody", 60)
    with pytest.raises(Busy):
        town.apply()


def test_another_host_runs_them(town: Town) -> None:
    app = town.app
    assert app.migrations is not None
    with pytest.raises(SlipwayError, match="run on web2, not on web1"):
        Migrator(town.host, replace(app, migrations=replace(app.migrations, host="web2")))
    with pytest.raises(SlipwayError, match="declares no migrations"):
        Migrator(town.host, replace(app, migrations=None))


@pytest.mark.parametrize(("told", "allowed"), [({}, True), (migrations.facts(EXPAND), True), (migrations.facts(CONTRACT), False)])
def test_the_journal_tells_whether_there_is_a_way_back(told: dict[str, object], allowed: bool) -> None:
    begin: dict[str, object] = {"txn": "t1", "phase": "intent", "step": "begin", "source": "blue", "target": "green", **told}
    tx = journal.transaction([begin, {"txn": "t1", "phase": "done", "step": "switch"}])
    assert tx is not None
    assert tx.rollback_allowed is allowed
