# SPDX-License-Identifier: GPL-3.0-or-later
"""An application that goes from a host: in which order, what stays, and what stands against it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic.drivers import Artifact
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import Busy, SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.removal import Removal, Removed
from ansible_collections.slipway.server.plugins.module_utils.traffic.slots import Request, Slots

from tests.unit.module_utils.traffic.test_cutover import switch
from tests.unit.module_utils.traffic.test_slots import docked, engine_of, start, unpacked
from tests.unit.module_utils.traffic.world import World

SITE = "etc/nginx/slipway.d/site-shop.conf"


@pytest.fixture
def served(tmp_path: Path) -> World:
    """An edge that runs the application itself, with its site, next to another application's files."""
    world = docked(tmp_path, edge=True)
    start(world)
    for name in (
        SITE,
        "etc/nginx/slipway.d/site-shop-2.conf",
        "etc/slipway/env/shop.docker.env",
        "etc/slipway/env/shop-2.docker.env",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return world


def left(world: World) -> list[str]:
    return sorted(
        str(path.relative_to(world.root)) for path in world.root.rglob("*") if path.is_file() and "lock" not in path.parts
    )


def remove(world: World, write: bool = True) -> Removed:
    return Removal(world.host, world.app).run("alice", write)


def test_what_was_made_for_it_goes_and_nothing_else(served: World) -> None:
    told = remove(served)
    assert told.ended == ["slipway-shop-blue-1"]
    assert engine_of(served).containers == {}
    assert left(served) == ["env", "etc/nginx/slipway.d/site-shop-2.conf", "etc/slipway/env/shop-2.docker.env"]
    assert served.host.apps() == []


def test_links_that_started_its_units_go_though_their_template_went_before(served: World, tmp_path: Path) -> None:
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    for name in ("shop@blue-1.service", "shop-2@blue-1.service"):
        (wants / name).symlink_to(f"/etc/systemd/system/{name.partition('@')[0]}@.service")
    remove(served)
    assert [path.name for path in wants.iterdir()] == ["shop-2@blue-1.service"]


def test_its_site_goes_before_anything_ends(served: World) -> None:
    remove(served)
    calls = engine_of(served).calls
    assert calls.index(["systemctl", "try-reload-or-restart", "nginx"]) < calls.index(
        ["docker", "rm", "--force", "slipway-shop-blue-1"]
    )


def test_nobody_renews_its_certificate_any_more_and_others_stay(served: World, tmp_path: Path) -> None:
    renewal = tmp_path / "etc/letsencrypt/renewal"
    renewal.mkdir(parents=True)
    for name in ("shop", "shop-2"):
        (renewal / f"{name}.conf").write_text("renew_hook = /usr/local/sbin/slipway-certificate\n", encoding="utf-8")
    told = remove(served)
    assert [path for path in told.removed if "letsencrypt" in path] == [str(renewal / "shop.conf")]
    asked = [argv for argv in engine_of(served).calls if argv[0] == "certbot"]
    assert asked == [["certbot", "delete", "--non-interactive", "--cert-name", "shop"]]


def test_a_renewal_of_somebody_else_is_left_alone(served: World, tmp_path: Path) -> None:
    path = tmp_path / "etc/letsencrypt/renewal/shop.conf"
    path.parent.mkdir(parents=True)
    path.write_text("authenticator = nginx\n", encoding="utf-8")
    remove(served)
    assert not [argv for argv in engine_of(served).calls if argv[0] == "certbot"]


def test_check_mode_tells_the_same_and_touches_nothing(served: World) -> None:
    before = left(served)
    told = remove(served, write=False)
    assert left(served) == before
    assert told == remove(served)
    assert str(served.root / SITE) in told.removed


def test_nginx_that_would_not_run_without_its_site_gets_it_back(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = served.runner.run
    answer = Result(1, "", "no default server")
    monkeypatch.setattr(
        served.runner, "run", lambda argv, *rest, **more: answer if argv[0] == "nginx" else run(argv, *rest, **more)
    )
    with pytest.raises(SlipwayError, match=r"would not run without .*: no default server"):
        remove(served)
    assert (served.root / SITE).read_text(encoding="utf-8") == SITE
    assert list(engine_of(served).containers) == ["slipway-shop-blue-1"]


def test_not_while_somebody_holds_the_lease(served: World) -> None:
    served.host.leases("shop").acquire("t9", "bob", 60)
    with pytest.raises(Busy, match="bob"):
        remove(served)
    assert (served.root / SITE).exists()


def test_an_edge_that_the_application_has_left_ends_what_runs_and_goes_on(served: World) -> None:
    files = left(served)
    told = Removal(served.host, served.app).run("alice", write=False, keep_edge=True)
    assert (told.ended, len(engine_of(served).containers)) == (["slipway-shop-blue-1"], 1)
    assert Removal(served.host, served.app).run("alice", keep_edge=True) == told
    assert (engine_of(served).containers, set(files) - set(left(served))) == ({}, set())
    state = served.host.records("shop").slot("blue")
    assert state is not None
    assert state.state == "stopped"
    assert Removal(served.host, served.app).run("alice", keep_edge=True) == Removed([], [])


def test_not_while_a_transaction_waits(world: World) -> None:
    switch(world)
    with pytest.raises(SlipwayError, match="transaction t1 of tester is not confirmed yet on web1"):
        remove(world)


def test_one_that_was_killed_goes_on(served: World) -> None:
    (served.root / SITE).unlink()
    engine_of(served).containers.clear()
    assert remove(served).ended == []
    assert served.host.apps() == []


def test_in_the_place_of_releases_only_they_go(tmp_path: Path) -> None:
    unit = unpacked(tmp_path)
    Slots(unit.host, unit.app).start(Request("blue", Artifact("v1", archive="/v1.tar.gz")))
    (tmp_path / "opt/shop/notes").write_text("of somebody else", encoding="utf-8")
    told = remove(unit)
    assert {str(tmp_path / path) for path in ("opt/shop/releases", "opt/shop/slots", "etc/slipway/env/shop@blue-1.env")} <= set(
        told.removed
    )
    assert [path.name for path in (tmp_path / "opt/shop").iterdir()] == ["notes"]
