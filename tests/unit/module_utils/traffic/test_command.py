# SPDX-License-Identifier: GPL-3.0-or-later
"""The host command: what it prints, how it ends, and how it gets onto a host."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.payload import closure, loaded
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic import cli, install
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.records import SlotState
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request

from tests.unit.module_utils.traffic.world import FakeClock, FakeRunner, Fuse, World

ROOT = cli.__name__.rpartition(".traffic.")[0]


def run(world: World, *arguments: str) -> int:
    return cli.main(arguments, world.host)


def switched(world: World) -> World:
    cutover = Cutover(world.host, world.app)
    cutover.switch(Request("blue", "v1"))
    cutover.switch(Request("green", "v2", "t1", "tester"))
    return world


def test_status(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    switched(world)
    assert run(world, "status", "shop") == 0
    text = capsys.readouterr().out
    assert "shop  https://shop.example  on web1 (edge)" in text
    assert " > green" in text
    assert "transaction t1 of tester: blue -> green, done hold, 57.0 s left to confirm" in text
    assert "lease of tester, transaction t1" in text
    assert run(world, "status", "--all", "--json") == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert (data["active"], data["transaction"]["txn"], data["slots"]["green"]["active"]) == ("green", "t1", True)
    assert data["idle"] == ["blue"]


def test_confirm_rollback_history(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    switched(world)
    assert run(world, "confirm", "shop", "--txn", "other") == 1
    assert "nothing waits for a confirmation of shop as other" in capsys.readouterr().err
    assert run(world, "confirm", "shop") == 0
    assert capsys.readouterr().out == "shop: green is confirmed.\n"
    assert run(world, "rollback", "shop", "--reason", "orders fail") == 0
    assert "shop: traffic is on blue (v1), moved in" in capsys.readouterr().out
    assert run(world, "rollback", "shop", "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["failed"] is True
    assert "no slot before it is known" in captured.err
    assert run(world, "history", "shop") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["adopted", "confirmed", "rolled_back"]
    assert "orders fail" in lines[-1]


def test_rollback_tells_beforehand_and_settle_marks_what_came_of_it(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    switched(world)
    assert run(world, "confirm", "shop") == 0
    for slot, release in (("blue", "v1"), ("green", "v2")):
        world.host.records("shop").save_slot(SlotState(slot, "active" if slot == "green" else "standby", release))
    capsys.readouterr()
    assert run(world, "rollback", "shop", "--dry-run") == 0
    assert capsys.readouterr().out == "shop: would go from green to blue (well): remove flag spare.blue; remove flag green.\n"
    assert world.serving == "green"
    assert run(world, "settle", "shop", "--active", "blue", "--standby", "green") == 1
    assert "the flags on web1 say green" in capsys.readouterr().err
    assert run(world, "rollback", "shop", "--owner", "ann") == 0
    assert world.host.records("shop").history(1)[0]["owner"] == "ann"
    assert run(world, "settle", "shop", "--active", "blue", "--standby", "green") == 0
    assert capsys.readouterr().out.endswith("shop: blue is marked active, green is standby.\n")
    assert {name: state.state for name, state in world.host.records("shop").slots().items()} == {
        "blue": "active",
        "green": "standby",
    }


def test_recover(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    switched(world)
    assert run(world, "recover", "--all") == 0
    assert "green waits for its confirmation for another 57 s" in capsys.readouterr().out
    assert run(world, "recover", "shop", "--deadline") == 0
    assert "took traffic back to blue: not confirmed within 60 s. Traffic is on blue." in capsys.readouterr().out
    assert run(world, "recover") == 1
    assert "name an application or say --all. Known here: shop" in capsys.readouterr().err
    world.layout.config("blog").write_text("{}", encoding="utf-8")
    assert run(world, "recover", "--all") == 1


def test_what_cannot_be_recovered_leaves_the_others_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    switched(world)
    world.layout.config("blog").write_text(json.dumps({**world.config, "app": "blog", "edge": False}), encoding="utf-8")
    world.host.records("blog").save_slot(SlotState("blue", "standby", "v1", retire_at=world.clock.now() + 900, window=300))
    world.reboot()
    world.runner.can_arm = False
    assert run(world, "recover", "--all") == 1
    told = capsys.readouterr()
    assert "slot blue of blog runs on and does not stop by itself: systemd-run could not set the timer" in told.err
    assert "Then run: slipway recover blog." in told.err
    assert "shop: took traffic back to blue" in told.out
    world.runner.can_arm = True
    world.layout.config("another").write_text(json.dumps({**world.config, "app": "another", "edge": False}), encoding="utf-8")
    world.layout.lock("another").mkdir()
    assert run(world, "recover", "--all") == 1
    assert "another is not recovered: [Errno 21] Is a directory" in capsys.readouterr().err
    assert "slipway-blog-retire-blue" in world.runner.timers


def test_the_dead_man_does_not_wait_for_a_hung_run(world: World) -> None:
    switched(world)
    with world.host.lock("shop").held("a run that hangs"):
        assert run(world, "recover", "shop") == cli.BUSY
        assert run(world, "recover", "shop", "--deadline") == 0
    assert world.serving == "blue"


def test_unlock_and_retire(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    switched(world)
    assert run(world, "unlock", "shop") == 0
    assert run(world, "unlock", "shop") == 0
    assert capsys.readouterr().out == "shop: released the lease of tester.\nshop: no lease.\n"
    assert run(world, "retire", "shop", "blue") == 0
    assert capsys.readouterr().out == "shop: slot blue is unused, not standby: left alone.\n"


def test_usage(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "status", "blog") == cli.USAGE
    assert "no application 'blog' on this host" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        run(world, "explode")
    assert ended.value.code == 2


def test_guards_have_a_command_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["guard", "confirm"])
    assert "usage: slipway guard confirm" in capsys.readouterr().err


def test_empty_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path)
    world.layout.config("shop").unlink()
    assert run(world, "status") == 0
    assert run(world, "recover", "--all") == 0
    assert capsys.readouterr().out == "No application is described on this host.\n"


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return closure(loaded(importlib.import_module, ROOT), install.ENTRY)


def test_only_what_the_command_needs(sources: dict[str, str]) -> None:
    assert {"__init__.py", "traffic/__init__.py", "traffic/cli.py", "traffic/slots.py", "health/gate.py"} <= set(sources)
    assert {path.split("/")[0] for path in sources} == {"__init__.py", "traffic", "health", "guard", "host"}
    assert "traffic/install.py" not in sources
    assert not any("import ansible" in text for text in sources.values())


class Systemd(FakeRunner):
    def __init__(self) -> None:
        super().__init__(FakeClock(), Fuse())
        self.enabled = False

    def _run(self, argv: list[str]) -> Result:
        if argv[:2] == ["systemctl", "is-enabled"]:
            return Result(0 if self.enabled else 1, "", "")
        if argv[1] in ("enable", "disable"):
            self.enabled = argv[1] == "enable"
        return super()._run(argv)


def test_installs_once_and_runs_alone(tmp_path: Path, sources: dict[str, str]) -> None:
    systemd = Systemd()
    installer = install.Installer(systemd, tmp_path)
    files = install.files(sources)
    wanted, texts = install.expected(files), {item.path: item.text for item in files}
    plan = installer.plan(wanted)
    assert plan.changed
    assert not any(tmp_path.iterdir())
    installer.apply(plan, texts)
    assert systemd.enabled
    assert not installer.plan(wanted).changed
    library = tmp_path / "usr/lib/slipway"
    code = f"import sys; sys.path.insert(0, {str(library)!r}); from slipway.traffic.cli import main; sys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "rollback" in done.stdout, done.stderr) == (0, True, "")

    (library / "slipway/traffic/old.py").write_text("", encoding="utf-8")
    (library / "slipway/traffic/cli.py").write_text("# changed", encoding="utf-8")
    (tmp_path / "usr/local/sbin/slipway").chmod(0o644)
    plan = installer.plan(wanted)
    assert plan.names == [
        "/usr/lib/slipway/slipway/traffic/cli.py",
        "/usr/lib/slipway/slipway/traffic/old.py",
        "/usr/local/sbin/slipway",
    ]
    installer.apply(plan, texts)
    assert not installer.plan(wanted).changed
    assert list(library.rglob("__pycache__")) == []

    installer.apply(installer.plan([]), {})
    assert not library.exists()
    assert not (tmp_path / "usr/local/sbin/slipway").exists()
    assert not systemd.enabled


@pytest.mark.parametrize("broken", ["", "text", "gone", "mode", "more", "unit off"])
def test_one_shell_command_sees_whatever_differs(
    broken: str, tmp_path: Path, sources: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "usr/lib/slipway"
    monkeypatch.setattr(install, "LIBRARY", str(library))
    files = [item for item in install.files(sources) if item.path.startswith(str(library))]
    for item in files:
        path = Path(item.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(item.text, encoding="utf-8")
        path.chmod(item.mode)
    systemctl = tmp_path / "bin/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f"#!/bin/sh\nexit {int(broken == 'unit off')}\n", encoding="utf-8")
    systemctl.chmod(0o755)
    one = library / "slipway/traffic/cli.py"
    if broken == "text":
        one.write_text("# changed", encoding="utf-8")
    elif broken == "gone":
        one.unlink()
    elif broken == "mode":
        one.chmod(0o666)
    elif broken == "more":
        one.with_name("old.py").touch()
    environment = {"PATH": f"{systemctl.parent}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", install.proof(install.expected(files))], env=environment, check=False)
    assert (done.returncode == 0) is (not broken)


def test_a_rollback_waits_for_no_module_that_it_does_not_need(sources: dict[str, str], tmp_path: Path) -> None:
    for item in install.files(sources):
        path = tmp_path / item.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(item.text, encoding="utf-8")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'usr/lib/slipway')!r}); import slipway.traffic.cli; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    heavy = {"http.client", "email.parser", "subprocess", "tempfile", "hashlib", "logging", "slipway.traffic.slots"}
    assert set(done.stdout.split()) & heavy == set()


def test_launcher_is_what_systemd_calls() -> None:
    files: dict[str, Any] = {item.path: item for item in install.files({})}
    assert files["/usr/local/sbin/slipway"].mode == 0o755
    assert "ExecStart=/usr/local/sbin/slipway recover --all" in files["/etc/systemd/system/slipway-recover.service"].text
    assert files["/usr/local/sbin/slipway"].text.startswith("#!/usr/bin/python3 -IS\n")
