# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots of a host that runs them: containers, units, and units of others."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic import archive
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.drivers import Artifact
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.records import Traffic
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request as Move
from ansible_collections.slipway.server.plugins.module_utils.traffic.slots import Request, Slots, watch

from tests.unit.module_utils.traffic.world import CONFIG, FakeRunner, World

DIGEST = "reg.example:5000/shop@sha256:" + "a" * 64
OTHER = "reg.example:5000/shop@sha256:" + "b" * 64


def described(runtime: dict[str, Any], edge: bool = False) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    config.update(edge=edge, runtime=runtime)
    for slot, port in (("blue", 3000), ("green", 3010)):
        config["slots"][slot]["instances"] = [{"name": f"slipway-shop-{slot}-1", "address": "10.0.0.1", "port": port}]
    config["slots"]["legacy"].update(
        unit="old.service", instances=[{"name": "old.service", "address": "10.0.0.1", "port": 8000}], gate={"path": "/api/up"}
    )
    return config


class Engine(FakeRunner):
    """Containers and units that exist by name; `fate` of a release is what becomes of its processes."""

    def __init__(self, world: World) -> None:
        super().__init__(world.clock, world.fuse)
        self.world = world
        self.containers: dict[str, dict[str, Any]] = {}
        self.units: dict[str, bool] = {}
        self.enabled: set[str] = set()
        self.images: set[str] = set()
        self.pull = Result(0, "", "")
        self.dies: set[str] = set()

    def run(
        self,
        argv: Sequence[str],
        data: Optional[str] = None,
        timeout: float = 600.0,
        env: Optional[Mapping[str, str]] = None,
    ) -> Result:
        answer = self._engine(list(argv))
        if answer is None:
            return super().run(argv, data, timeout, env)
        self.calls.append(list(argv))
        return answer

    def _engine(self, argv: list[str]) -> Optional[Result]:
        if argv[:3] == ["docker", "image", "inspect"]:
            return Result(0 if argv[-1] in self.images else 1, "", "")
        if argv[:2] == ["docker", "pull"]:
            self.images.add(argv[-1]) if self.pull.ok else None
            return self.pull
        if argv[:2] == ["docker", "run"]:
            name = next(item.split("=", 1)[1] for item in argv if item.startswith("--name="))
            image = next(item for item in argv if "@sha256" in item)
            self.containers[name] = {"image": image, "restart": "no", "argv": argv}
            return Result(0, "id", "")
        if argv[:2] == ["docker", "update"]:
            self.containers[argv[-1]]["restart"] = argv[2].split("=")[1]
            return Result(0, "", "")
        if argv[:3] == ["docker", "inspect", "--type=container"]:
            found = self.containers.get(argv[3])
            if found is None:
                return Result(1, "", "No such container")
            dead = found["image"] in self.dies
            state = {"Status": "exited" if dead else "running", "ExitCode": 3 if dead else 0, "StartedAt": "t", "Pid": 7}
            return Result(0, json.dumps([{"State": state, "RestartCount": found.get("restarts", 0)}]), "")
        if argv[:2] == ["docker", "rm"]:
            self.containers.pop(argv[-1], None)
            self.world.machine.processes.pop(7, None)
            return Result(0, "", "")
        if argv[:2] == ["docker", "logs"]:
            return Result(0, "booting with hush-hush\n", "crashed\n")
        if argv[0] == "systemctl" and argv[1] in ("start", "stop", "enable", "disable") and argv[-1].startswith(("shop@", "old")):
            if argv[1] in ("start", "stop"):
                self.units[argv[-1]] = argv[1] == "start"
            else:
                self.enabled.add(argv[-1]) if argv[1] == "enable" else self.enabled.discard(argv[-1])
            return Result(0, "", "")
        if argv[:2] == ["systemctl", "show"]:
            up = self.units.get(argv[-1], False)
            state = f"ActiveState={'active' if up else 'inactive'}\nSubState=x\nMainPID={9 if up else 0}\nNRestarts=0\n"
            return Result(0, f"LoadState=loaded\n{state}", "")
        return None


def equip(world: World) -> Engine:
    engine = Engine(world)
    world.runner = world.host.runner = engine
    return engine


def docked(tmp_path: Path, edge: bool = False) -> World:
    (tmp_path / "env").write_text("JWT_SECRET=hush-hush\n", encoding="utf-8")
    docker = {
        "kind": "docker",
        "container_port": 3000,
        "user": "1000:1000",
        "memory": "512M",
        "env_file": "/env",
        "stop_timeout": 9,
    }
    world = World(tmp_path, described(docker, edge))
    equip(world)
    return world


@pytest.fixture
def dock(tmp_path: Path) -> World:
    return docked(tmp_path)


def start(world: World, slot: str = "blue", release: str = "v1", image: str = DIGEST, **more: Any) -> dict[str, object]:
    return Slots(world.host, world.app).start(Request(slot, Artifact(release, image), **more))


def engine_of(world: World) -> Engine:
    assert isinstance(world.runner, Engine)
    return world.runner


def test_container_is_locked_down_and_proven(dock: World) -> None:
    done = start(dock)
    assert (done["changed"], done["state"], done["artifact"]) == (True, "staged", DIGEST)
    engine = engine_of(dock)
    argv = engine.containers["slipway-shop-blue-1"]["argv"]
    wanted = {
        "--read-only",
        "--tmpfs=/tmp",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--pids-limit=512",
        "--user=1000:1000",
        "--memory=512M",
        "--publish=10.0.0.1:3000:3000",
        "--restart=no",
        "--stop-timeout=9",
        "--pull=never",
        "--env=SLIPWAY_SLOT=blue",
        f"--env-file={dock.root}/env",
    }
    assert wanted <= set(argv)
    assert not any("hush" in item for call in engine.calls for item in call)
    assert engine.containers["slipway-shop-blue-1"]["restart"] == "unless-stopped"
    assert start(dock)["changed"] is False
    (dock.root / "env").write_text("JWT_SECRET=other-secret\n", encoding="utf-8")
    assert start(dock)["changed"] is True


@pytest.mark.parametrize("image", ["shop:v1", "reg.example/shop", "reg.example/shop:v1", "shop@sha256:" + "a" * 64])
def test_tags_are_refused(dock: World, image: str) -> None:
    with pytest.raises(SlipwayError, match="is not REGISTRY/NAME@sha256:DIGEST"):
        start(dock, image=image)
    assert engine_of(dock).calls == []


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("manifest for x not found: manifest unknown", "it does not know this digest"),
        ("dial tcp 10.0.0.5:5000: connect: connection refused", "it cannot be reached"),
        ("lookup reg.example: no such host", "it cannot be reached"),
        ("unauthorized: authentication required", "it refuses the login"),
        ("x509: certificate signed by unknown authority", "its certificate is not accepted"),
        ("write /x: no space left on device", "the disk here is full"),
    ],
)
def test_pull_failures_name_host_reference_and_remedy(dock: World, said: str, remedy: str) -> None:
    engine_of(dock).pull = Result(1, "", said)
    with pytest.raises(SlipwayError) as failure:
        start(dock)
    text = str(failure.value)
    assert "web1 could not pull" in text
    assert DIGEST in text
    assert "from reg.example:5000" in text
    assert remedy in text
    assert engine_of(dock).containers == {}


def test_candidate_that_dies_is_removed_with_its_words(dock: World) -> None:
    engine_of(dock).dies.add(OTHER)
    start(dock)
    with pytest.raises(SlipwayError) as failure:
        start(dock, "green", "v2", OTHER)
    text = str(failure.value)
    assert "slipway-shop-green-1 died: exited, exit code 3. It was removed again; traffic was not touched" in text
    assert "booting with ********\n  crashed" in text
    assert "hush" not in text + json.dumps(failure.value.facts)
    assert list(engine_of(dock).containers) == ["slipway-shop-blue-1"]
    assert dock.clock.passed - 1000 < 5
    green = dock.host.records("shop").slot("green")
    assert green is not None
    assert (green.state, green.release) == ("stopped", None)


def test_candidate_that_never_gets_well(dock: World) -> None:
    dock.sensors.well["green"] = False
    with pytest.raises(SlipwayError, match="not healthy within 6 s; slipway-shop-green-1: status 503"):
        start(dock, "green", "v2", OTHER)
    assert engine_of(dock).containers == {}


def ended_once(world: World) -> None:
    """The candidate ends between two looks, and its engine starts it again."""
    engine_of(world).containers["slipway-shop-green-1"]["restarts"] = 1


def test_a_candidate_that_ended_while_nobody_looked_is_seen_later(dock: World) -> None:
    start(dock, "green", "v2", OTHER)
    slots = Slots(dock.host, dock.app)
    assert slots.still(Request("green"))["state"] == "staged"
    ended_once(dock)
    with pytest.raises(
        SlipwayError, match=r"v2 in slot green of shop passed its gate on web1 and did not stay well: .* was restarted"
    ) as why:
        slots.still(Request("green"))
    assert why.value.facts["disproved"]
    assert "crashed" in str(why.value)
    assert start(dock, "green", "v2", OTHER)["changed"], "it is started and proven again, not taken as it is"
    slots.still(Request("green"))


def test_after_a_restart_of_the_host_a_candidate_is_another_process_rightly(dock: World) -> None:
    start(dock, "green", "v2", OTHER)
    dock.reboot()
    ended_once(dock)
    Slots(dock.host, dock.app).still(Request("green"))


def test_the_edge_beside_it_moves_no_traffic_to_a_candidate_that_ended_since_its_gate(tmp_path: Path) -> None:
    world = docked(tmp_path, edge=True)
    start(world, "green", "v2", OTHER)
    ended_once(world)
    with pytest.raises(SlipwayError, match="did not pass the gate from web1, slipway-shop-green-1 was restarted 1 times"):
        Cutover(world.host, world.app).switch(Move("green", "v2"))
    assert world.serving == "blue"


def test_what_served_before_may_have_been_restarted_since(tmp_path: Path) -> None:
    world = docked(tmp_path, edge=True)
    start(world, "green", "v2", OTHER)
    world.host.records("shop").save_traffic(Traffic("blue", "green", {"green": "v2"}))
    ended_once(world)
    Cutover(world.host, world.app).switch(Move("green", "v2"))
    assert world.serving == "green"


def test_a_first_release_that_ended_since_its_gate_is_not_adopted(tmp_path: Path) -> None:
    world = docked(tmp_path, edge=True)
    start(world)
    engine_of(world).containers["slipway-shop-blue-1"]["restarts"] = 1
    with pytest.raises(SlipwayError, match="shop does not serve v1 from blue: slipway-shop-blue-1 was restarted"):
        Cutover(world.host, world.app).switch(Move("blue", "v1"))


def test_the_slot_with_the_traffic_is_not_touched(dock: World) -> None:
    start(dock)
    with pytest.raises(
        SlipwayError, match=r"slot blue of shop has the traffic on web1 and runs v1: v2 belongs into another slot \(green"
    ):
        start(dock, "blue", "v2", OTHER, active="blue")
    slots = Slots(dock.host, dock.app)
    slots.mark_active(Request("blue"))
    with pytest.raises(SlipwayError, match="has the traffic on web1: it is not stopped"):
        slots.stop(Request("blue"))
    with pytest.raises(SlipwayError, match="it is not stopped"):
        slots.standby(Request("blue"))
    assert start(dock)["changed"] is False
    dock.sensors.well["blue"] = False
    with pytest.raises(SlipwayError, match=r"status 503\. Deploy v1 into another slot, or roll back"):
        start(dock)
    (dock.root / "env").write_text("JWT_SECRET=other\n", encoding="utf-8")
    assert start(dock)["outdated"] is True, "a new environment is what may mend it"


def test_a_first_release_that_proved_itself_nowhere_is_removed_though_requests_would_go_to_it(dock: World) -> None:
    start(dock)
    slots = Slots(dock.host, dock.app)
    with pytest.raises(SlipwayError, match="it is not stopped"):
        slots.stop(Request("blue", active="blue"))
    assert slots.stop(Request("blue", active="blue", first=True))["changed"]
    assert engine_of(dock).containers == {}


def test_a_release_that_was_proven_is_no_first_one(dock: World) -> None:
    start(dock)
    dock.host.records("shop").save_traffic(Traffic("blue", None, {"blue": "v1"}))
    with pytest.raises(SlipwayError, match="it is not stopped"):
        Slots(dock.host, dock.app).stop(Request("blue", active="blue", first=True))


def test_marking_active_demotes_the_other(dock: World) -> None:
    start(dock)
    start(dock, "green", "v2", OTHER)
    slots = Slots(dock.host, dock.app)
    assert slots.mark_active(Request("blue"))["changed"] is True
    assert slots.mark_active(Request("green"))["changed"] is True
    assert slots.mark_active(Request("green"))["changed"] is False
    assert {name: state.state for name, state in dock.host.records("shop").slots().items()} == {
        "blue": "standby",
        "green": "active",
    }


def test_check_mode_touches_nothing(dock: World) -> None:
    before = sorted(dock.root.rglob("*"))
    done = Slots(dock.host, dock.app).start(Request("blue", Artifact("v1", DIGEST)), write=False)
    assert done["changed"] is True
    assert sorted(dock.root.rglob("*")) == before
    assert not any(call[1] in ("run", "pull", "rm", "stop") for call in engine_of(dock).calls)


def test_bad_release_needs_force(dock: World) -> None:
    dock.host.records("shop").mark_bad("v1", "t", "it failed")
    with pytest.raises(SlipwayError, match=r"taken back before \(it failed\)"):
        start(dock)
    assert start(dock, force=True)["changed"] is True


def bundle(path: Path, members: dict[str, Any]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, tarfile.TarInfo):
                entry = content
                entry.name = name
                tar.addfile(entry)
            else:
                entry.size, entry.mode, entry.uid = len(content), 0o4777, 1234
                tar.addfile(entry, io.BytesIO(content.encode()))
    return path


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname = kind, target
    return entry


def unpacked(tmp_path: Path) -> World:
    runtime = {"kind": "systemd", "unit": "shop@{slot}-{n}.service", "root": "/opt/shop", "env_file": "/env"}
    world = World(tmp_path, described(runtime))
    equip(world)
    (tmp_path / "opt").mkdir()
    for release in ("v1", "v2"):
        bundle(tmp_path / f"{release}.tar.gz", {"app.rb": f"release {release}", "bin/run": "#!/bin/sh"})
    return world


@pytest.fixture
def unit(tmp_path: Path) -> World:
    return unpacked(tmp_path)


def test_a_unit_that_is_started_again_by_the_system_has_the_environment_that_it_was_proven_with(unit: World) -> None:
    shared, own = unit.root / "env", unit.root / "etc/slipway/env/shop@blue-1.env"
    shared.write_text('MODE="old"\nTOKEN="first-secret"\n', encoding="utf-8")
    Slots(unit.host, unit.app).start(Request("blue", Artifact("v1", archive="/v1.tar.gz")))
    shared.write_text('MODE="new"\nTOKEN="other-secret"\n', encoding="utf-8")
    lines = own.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ['MODE="old"', 'TOKEN="first-secret"', "PORT=3000"]
    hidden = Slots(unit.host, unit.app).driver(unit.app.slot("blue")).secrets()
    assert {"first-secret", "other-secret"} <= hidden
    assert "v1" not in hidden


def test_units_run_from_an_archive(unit: World) -> None:
    request = Request("blue", Artifact("v1", archive="/v1.tar.gz"))
    done = Slots(unit.host, unit.app).start(request)
    assert (done["state"], str(done["artifact"])[:7]) == ("staged", "sha256:")
    root = unit.root / "opt/shop"
    assert os.readlink(root / "slots/blue") == "../releases/v1"
    assert (root / "slots/blue-1/app.rb").read_text(encoding="utf-8") == "release v1"
    assert (root / "releases/v1/app.rb").stat().st_mode & 0o7777 == 0o755
    own = unit.root / "etc/slipway/env/shop@blue-1.env"
    assert own.stat().st_mode & 0o777 == 0o600
    assert own.read_text(encoding="utf-8").splitlines()[:2] == ["PORT=3000", "BIND=10.0.0.1"]
    os.utime(own, (12.5, 12.5))
    watch(unit.host, unit.app, unit.app.slot("blue")).processes[0].logs()
    engine = engine_of(unit)
    assert "--since=@12.500" in engine.calls[-1]
    assert (engine.units, engine.enabled) == ({"shop@blue-1.service": True}, {"shop@blue-1.service"})
    assert ["systemctl", "reset-failed", "shop@blue-1.service"] in engine.calls
    assert Slots(unit.host, unit.app).start(request)["changed"] is False
    Slots(unit.host, unit.app).stop(Request("blue"))
    assert (engine.units, engine.enabled) == ({"shop@blue-1.service": False}, set())
    again = Slots(unit.host, unit.app).start(Request("blue", Artifact("v1")))
    assert again["changed"] is True


def test_a_release_name_means_one_content(unit: World) -> None:
    Slots(unit.host, unit.app).start(Request("blue", Artifact("v1", archive="/v1.tar.gz")))
    with pytest.raises(SlipwayError, match="holds release v1 with other content"):
        Slots(unit.host, unit.app).start(Request("green", Artifact("v1", archive="/v2.tar.gz")))
    with pytest.raises(SlipwayError, match=f"but {'0' * 64} is wanted"):
        Slots(unit.host, unit.app).start(Request("green", Artifact("v2", archive="/v2.tar.gz", sha256="0" * 64)))
    with pytest.raises(SlipwayError, match="names no archive"):
        Slots(unit.host, unit.app).start(Request("green", Artifact("v2", DIGEST)))
    with pytest.raises(SlipwayError, match=r"archive .*/v9.tar.gz is not on this host"):
        Slots(unit.host, unit.app).start(Request("green", Artifact("v9", archive="/v9.tar.gz")))
    assert "shop@green-1.service" not in engine_of(unit).units


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil": "x"}, "lies outside"),
        ({"a/../../evil": "x"}, "lies outside"),
        ({"/etc/evil": "x"}, "lies outside"),
        ({"link": link("/etc")}, "lies outside"),
        ({"a/link": link("../../etc")}, "lies outside"),
        ({"hard": link("../shadow", tarfile.LNKTYPE)}, "lies outside"),
        ({"d": link("sub"), "d/file": "x"}, "goes through a link"),
        ({"pipe": link("", tarfile.FIFOTYPE)}, "is a device or a pipe"),
        ({"dev": link("", tarfile.CHRTYPE)}, "is a device or a pipe"),
    ],
)
def test_archives_that_reach_out(tmp_path: Path, members: dict[str, Any], message: str) -> None:
    path = bundle(tmp_path / "x.tar.gz", {"fine": "x", **members})
    with pytest.raises(SlipwayError, match=message):
        archive.unpack(path, tmp_path / "releases", "v1")
    assert list((tmp_path / "releases").iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_archives_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(b"not an archive")
    with pytest.raises(SlipwayError, match="cannot be unpacked"):
        archive.unpack(path, tmp_path / "releases", "v1")
    assert list((tmp_path / "releases").iterdir()) == []


def test_links_inside_are_fine(tmp_path: Path) -> None:
    path = bundle(tmp_path / "x.tar.gz", {"./bin/app": "x", "current": link("bin/../bin/app")})
    target, _digest, new = archive.unpack(path, tmp_path / "releases", "v1")
    assert new
    assert (target / "current").read_text(encoding="utf-8") == "x"
    assert archive.unpack(path, tmp_path / "releases", "v1")[2] is False


def test_a_step_of_a_drain_is_waited_for(unit: World, monkeypatch: pytest.MonkeyPatch) -> None:
    unit.sensors.running.clear()
    sleep, until = unit.clock.sleep, unit.clock.monotonic() + 35.0
    with contextlib.ExitStack() as drain:

        def step_ends(seconds: float) -> None:
            sleep(seconds)
            if unit.clock.monotonic() > until:
                drain.close()

        drain.enter_context(unit.host.lock("shop").held("retiring slot green of shop"))
        monkeypatch.setattr(unit.clock, "sleep", step_ends)
        done = Slots(unit.host, unit.app).start(Request("blue", Artifact("v1", archive="/v1.tar.gz")))
    assert done["state"] == "staged"


def test_old_releases_go(unit: World) -> None:
    unit.sensors.running.clear()
    for number in range(9):
        bundle(unit.root / f"r{number}.tar.gz", {"app.rb": str(number)})
        Slots(unit.host, unit.app).start(Request("blue", Artifact(f"r{number}", archive=f"/r{number}.tar.gz")))
    left = sorted(path.name for path in (unit.root / "opt/shop/releases").iterdir())
    assert left == ["r2", "r3", "r4", "r5", "r6", "r7", "r8"]


def test_units_of_others_are_only_started_and_watched(dock: World) -> None:
    slots = Slots(dock.host, dock.app)
    assert slots.start(Request("legacy"))["state"] == "staged"
    assert slots.start(Request("legacy"))["changed"] is False
    assert engine_of(dock).units == {"old.service": True}
    dock.sensors.well["legacy"] = False
    with pytest.raises(SlipwayError, match="did not become healthy in slot legacy"):
        slots.start(Request("legacy"))
    assert engine_of(dock).units == {"old.service": True}
    slots.stop(Request("legacy"))
    assert engine_of(dock).units == {"old.service": False}


def test_slots_of_other_hosts(world: World) -> None:
    with pytest.raises(SlipwayError, match="web1 runs no instance of slot blue of shop"):
        start(world)
    with pytest.raises(SlipwayError, match="web1 does not run slot legacy of shop"):
        Slots(world.host, world.app).start(Request("legacy"))


def redescribed(world: World, **runtime: Any) -> World:
    """The same host after the role wrote another description."""
    config = described({**runtime, "env_file": "/env"})
    config["slots"]["blue"]["instances"] = [{"name": "shop@blue-1.service", "address": "10.0.0.1", "port": 4000}]
    again = World(world.root, config)
    again.host.runner = again.runner = world.runner
    return again


def test_what_runs_is_known_as_it_was_started_whatever_the_description_says_now(dock: World) -> None:
    start(dock, active="green")
    now = redescribed(dock, kind="systemd", unit="shop@{slot}-{n}.service", root="/opt/shop")
    slots, blue = Slots(now.host, now.app), now.app.slot("blue")
    place = slots.driver(blue).places[0]
    assert (place.instance.name, place.instance.port) == ("slipway-shop-blue-1", 3000)
    told = slots.start(Request("blue", Artifact("v1", archive="/a.tar.gz"), active="blue"), write=False)
    assert (told["changed"], told["outdated"]) == (False, True)
    slots.stop(Request("blue", active="green"))
    assert engine_of(dock).containers == {}
    assert slots.driver(blue).places[0].instance.name == "shop@blue-1.service"


def test_a_slot_that_waits_for_its_place_is_outdated_also_where_it_does_not_run_yet(dock: World) -> None:
    config = described({"kind": "docker", "container_port": 3000, "env_file": "/env"})
    config["slots"]["blue"].update(instances=[], held=True)
    world = World(dock.root, config)
    told = Slots(world.host, world.app).start(Request("blue", Artifact("v1", DIGEST), active="blue"), write=False)
    assert (told["changed"], told["outdated"]) == (False, True)
