# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.traffic import recovery, served, status
from ansible_collections.slipway.server.plugins.module_utils.traffic.cli import main
from ansible_collections.slipway.server.plugins.module_utils.traffic.config import App
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request
from ansible_collections.slipway.server.plugins.module_utils.traffic.sensors import Chosen

from .world import CONFIG, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An edge whose nginx has the site, with all traffic on green."""
    made = World(tmp_path)
    site = made.layout.site("shop")
    site.parent.mkdir(parents=True)
    members = [member for slot in CONFIG["slots"].values() for member in slot["members"]]
    site.write_text("".join(f"server {member} max_fails=0;\n" for member in members), encoding="utf-8")
    made.host.flags(made.app).switch("green")
    return made


def flag(world: World, name: str) -> Path:
    return world.layout.flags("shop") / name


def test_nginx_that_does_as_the_flags_say_is_no_trouble(world: World) -> None:
    assert served.trouble(world.host, world.app) is None
    assert main(["status", "--check", "--all"], world.host) == 0


def test_flags_that_nginx_cannot_see_are_told_and_made_readable(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.layout.state("shop").chmod(0o700)
    world.sensors.sees = "blue"
    words = f"nginx sends requests to blue, but the flags say green: it does not see {world.layout.flags('shop')}, "
    words += f"since {world.layout.state('shop')} is closed to others. Run: slipway recover shop"
    assert f" ! {words}." in status.lines(status.report(world.host, world.app))
    assert main(["status", "shop", "--check"], world.host) == 1
    assert main(["status", "shop"], world.host) == 0
    capsys.readouterr()
    recovery.recover(world.host, world.app)
    assert world.layout.state("shop").stat().st_mode & 0o777 == 0o755


def test_no_candidate_starts_in_a_slot_that_nginx_serves_against_the_flags(world: World) -> None:
    world.sensors.sees = "blue"
    assert str(served.trouble(world.host, world.app)).endswith("after nginx was started. Then: systemctl restart nginx")
    with pytest.raises(SlipwayError, match="no candidate of shop starts in slot blue: on web1, nginx sends requests to blue"):
        Cutover(world.host, world.app).prepare(Request("blue", "v3"))


def test_nginx_that_is_silent_is_trouble_and_one_without_the_site_is_not_asked(world: World) -> None:
    world.sensors.nginx = False
    assert str(served.trouble(world.host, world.app)).startswith("nginx does not answer for shop.example: connection refused")
    world.layout.site("shop").unlink()
    assert served.trouble(world.host, world.app) is None


@pytest.mark.parametrize(("takes", "asked"), [(0.1, 2), (2.0, 1)])
def test_one_that_hangs_is_not_asked_twice(world: World, monkeypatch: pytest.MonkeyPatch, takes: float, asked: int) -> None:
    looks = []

    def chosen(app: App) -> Chosen:
        looks.append(app.name)
        world.clock.sleep(takes)
        return Chosen(None, "no answer")

    monkeypatch.setattr(world.sensors, "chosen", chosen)
    assert served.trouble(world.host, world.app) is not None
    assert len(looks) == asked


def test_flags_of_a_canary_that_no_transaction_explains_are_told_and_removed(world: World) -> None:
    flag(world, "blue.03").touch()
    told = "flags that no transaction explains split the requests: blue 5 %, green 95 %. Run: slipway recover shop"
    assert served.trouble(world.host, world.app) == told
    found = recovery.recover(world.host, world.app)
    assert (found.action, found.changed, found.active) == ("tidied", True, "green")
    assert (served.trouble(world.host, world.app), flag(world, "blue.03").exists()) == (None, False)
    assert recovery.recover(world.host, world.app).action == "nothing"


def test_a_candidate_gets_no_requests_by_flags_left_over(world: World) -> None:
    flag(world, "blue.03").touch()
    planned = Cutover(world.host, world.app).prepare(Request("blue", "v3"), write=False)
    assert (planned["changed"], flag(world, "blue.03").exists()) == (True, True)
    assert Cutover(world.host, world.app).prepare(Request("blue", "v3"))["changed"] is True
    assert world.host.flags(world.app).shares() == {"green": 100}
