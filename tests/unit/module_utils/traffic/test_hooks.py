# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks at the states of a transaction, and what is told of its end."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result
from ansible_collections.slipway.server.plugins.module_utils.traffic import config, hooks, notify, transient
from ansible_collections.slipway.server.plugins.module_utils.traffic.config import ABORTABLE, HOOK_STATES
from ansible_collections.slipway.server.plugins.module_utils.traffic.cutover import Cutover
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.run import Request

from tests.unit.module_utils.traffic.world import CONFIG, World

FACTS = {"txn": "t1", "release": "v2", "from": "blue", "to": "green", "reason": "two\nlines"}
# What systemd-run 252 writes to its standard error with --wait.
FAILED = """Running as unit: slipway-shop-hook.service
Finished with result: {result}
Main processes terminated with: code=exited/status={rc}
Service runtime: 11ms
"""


def ended(rc: int = 0, result: str = "success", out: str = "") -> Result:
    return Result(rc, out, FAILED.format(result=result, rc=rc))


def told(world: World, command: str) -> list[list[str]]:
    return [call for call in world.runner.calls if call[0] == command]


def make(tmp_path: Path, **more: Any) -> World:
    return World(tmp_path, {**CONFIG, **more})


def with_hook(tmp_path: Path, state: str, answer: Result, **more: Any) -> World:
    world = make(tmp_path, hooks={state: [{"command": "notify-team $SLIPWAY_TO", **more}]})
    world.runner.answers["systemd-run"] = answer
    return world


def test_a_hook_knows_the_transaction(tmp_path: Path) -> None:
    world = with_hook(tmp_path, "switched", ended(out="done\n"), user="deploy", timeout=7)
    [result] = hooks.run(world.host, world.app, "switched", FACTS)
    assert (result.ok, result.output, result.detail) == (True, ("done",), "")
    [call] = told(world, "systemd-run")
    assert {"--property=User=deploy", "--property=RuntimeMaxSec=7s", "--setenv=SLIPWAY_FROM=blue"} <= set(call)
    assert {"--setenv=SLIPWAY_REASON=two lines", "--setenv=SLIPWAY_HOST=web1", "--setenv=SLIPWAY_STATE=switched"} <= set(call)
    assert call[-1] == "notify-team $$SLIPWAY_TO"
    assert world.history() == []


@pytest.mark.parametrize("state", ABORTABLE)
def test_before_the_confirmation_a_failure_aborts(tmp_path: Path, state: str) -> None:
    world = with_hook(tmp_path, state, ended(3, "exit-code", "smoke test: 500\n"))
    with pytest.raises(SlipwayError, match=r"hook `notify-team \$SLIPWAY_TO` ended with status 3.*\n  smoke test: 500") as caught:
        hooks.run(world.host, world.app, state, FACTS)
    assert caught.value.facts["hook"] == state
    assert world.history() == ["hook_failed"]


def test_every_state_on_the_way_has_its_hooks_in_turn(tmp_path: Path) -> None:
    hook = [{"command": "note"}]
    world = make(tmp_path, canary={"steps": [50], "dwell": 1}, hooks=dict.fromkeys(HOOK_STATES, hook))
    world.runner.answers["systemd-run --unit=slipway-shop-hook"] = ended()
    cutover = Cutover(world.host, world.app)
    cutover.switch(Request("green", "v2", "t1"))
    cutover.confirm("t1")
    ran = [word for call in told(world, "systemd-run") for word in call if word.startswith("--setenv=SLIPWAY_STATE=")]
    assert [word.rpartition("=")[2] for word in ran] == [*ABORTABLE, "confirmed"]


@pytest.mark.parametrize("state", ["planned", "staged", "healthy", "gated"])
@pytest.mark.parametrize("migrations", ["none", "contract"])
def test_an_abort_before_traffic_moves_leaves_everything_where_it_was(tmp_path: Path, state: str, migrations: str) -> None:
    world = with_hook(tmp_path, state, ended(3, "exit-code"))
    with pytest.raises(SlipwayError, match=f"stays on blue: shop goes no further than {state}") as caught:
        Cutover(world.host, world.app).switch(Request("green", "v2", "t1", migrations=migrations))
    assert (caught.value.facts["outcome"], world.serving, world.runner.timers) == ("aborted", "blue", {})
    assert world.host.records("shop").traffic().active is None
    assert world.host.journal(world.app).pending() is None


def test_a_warning_goes_on_with_the_next(tmp_path: Path) -> None:
    listed = [{"command": "one", "on_failure": "warn"}, {"command": "two"}]
    world = make(tmp_path, hooks={"canary": listed})
    world.runner.answers["systemd-run"] = ended(1, "timeout")
    with pytest.raises(SlipwayError, match="`two` had not ended after 60 s and was killed"):
        hooks.run(world.host, world.app, "canary", FACTS)
    assert world.history() == ["hook_failed", "hook_failed"]


@pytest.mark.parametrize("state", [state for state in HOOK_STATES if state not in ABORTABLE])
def test_on_the_way_back_nothing_stops(tmp_path: Path, state: str) -> None:
    world = with_hook(tmp_path, state, Result(1, "", "Failed to connect to bus"))
    world.disk.full = True
    [result] = hooks.run(world.host, world.app, state, {})
    assert (result.ok, result.detail) == (False, "could not be started")


def test_no_hooks_cost_nothing(tmp_path: Path) -> None:
    world = make(tmp_path)
    assert hooks.run(world.host, world.app, "switched", FACTS) == []
    assert world.runner.calls == []


def test_secrets_are_hidden_and_lines_are_bounded(tmp_path: Path) -> None:
    secret = "q7Vw2mZr9Kc4Tb8N"
    world = make(tmp_path, hooks={"switched": [{"command": f"curl -H {secret}"}]}, runtime={
        "kind": "docker", "container_port": 3000, "env_file": "/etc/slipway/env/shop.docker.env"})  # fmt: skip
    env_file = tmp_path / "etc/slipway/env/shop.docker.env"
    env_file.parent.mkdir(parents=True)
    env_file.write_text(f"API_TOKEN={secret}\n")
    out = "\n".join(str(number) for number in range(30)) + "\n" + "x" * (transient.WIDTH - 5) + secret + "\n"
    world.runner.answers["systemd-run"] = ended(1, "exit-code", out)
    with pytest.raises(SlipwayError) as caught:
        hooks.run(world.host, world.app, "switched", FACTS)
    everything = str(caught.value) + json.dumps(caught.value.facts) + world.layout.history("shop").read_text()
    assert secret[:5] not in everything
    assert "curl -H ****" in everything
    assert "\n  9\n" not in everything
    assert "\n  11\n" in everything


@pytest.mark.parametrize(
    ("declared", "what"),
    [
        ({"switcht": []}, "hooks.switcht must be a list at one of planned"),
        ({"confirmed": [{"command": "x", "on_failure": "abort"}]}, "warn, since nothing can be aborted then"),
        ({"switched": [{"command": 1}]}, "command must be a string"),
        ({"switched": [{"command": "x", "timeout": 0}]}, "a number of at least 1"),
    ],
)
def test_a_description_that_is_wrong_is_refused(tmp_path: Path, declared: dict[str, Any], what: str) -> None:
    with pytest.raises(SlipwayError, match=what):
        config.parse(json.dumps({**CONFIG, "hooks": declared}), "shop.json")


def test_a_command_that_outlives_its_unit_is_killed(tmp_path: Path) -> None:
    world = make(tmp_path)
    world.runner.answers["systemd-run"] = Result(124, "", "systemd-run: no end after 20 s")
    found = transient.run(world.runner, "some-unit", ["true"], 3, {})
    assert (found.result, found.why(3)) == ("timeout", "had not ended after 3 s and was killed")
    assert world.runner.calls[-1] == ["systemctl", "kill", "--signal=KILL", "some-unit.service"]


def test_a_notification_goes_to_a_command(tmp_path: Path) -> None:
    world = make(tmp_path, notify={"command": "mail ops", "timeout": 2})
    world.runner.answers["systemd-run"] = ended()
    assert notify.send(world.host, world.app, {**FACTS, "outcome": "confirmed"}) == []
    [call] = told(world, "systemd-run")
    assert (call[-1], "--property=RuntimeMaxSec=2s" in call) == ("mail ops", True)


URL = "https://hooks.example/services/T0/aSecretToken"


def with_url(tmp_path: Path, url: str = URL, **more: Any) -> World:
    world = make(tmp_path, notify={"url_file": "/etc/slipway/env/shop.notify", **more})
    path = tmp_path / "etc/slipway/env/shop.notify"
    path.parent.mkdir(parents=True)
    path.write_text(url + "\n")
    return world


def test_a_notification_is_posted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[tuple[str, Any]] = []
    monkeypatch.setattr(notify, "post", lambda url, text, _timeout: posted.append((url, json.loads(text))))
    world = with_url(tmp_path)
    assert notify.send(world.host, world.app, {**FACTS, "outcome": "rolled_back"}) == []
    [(url, document)] = posted
    assert url == URL
    assert {**FACTS, "outcome": "rolled_back", "app": "shop", "host": "web1"}.items() <= document.items()


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def wait(_url: str, _text: str, _timeout: float) -> Optional[str]:
        never.wait(30)
        return None

    monkeypatch.setattr(notify, "post", wait)
    world = with_url(tmp_path, timeout=0.1)
    assert notify.send(world.host, world.app, FACTS) == ["the URL: no answer within the time"]
    never.set()
    assert world.history() == ["notify_failed"]


def test_the_address_is_never_told(tmp_path: Path) -> None:
    for url in (
        "https://127.0.0.1:1/aSecretToken",
        "http://127.0.0.1/aSecretToken",
        "https://[aSecretToken",
        "https:///aSecretToken",
    ):
        detail = notify.post(url, "{}", 1)
        assert detail
        assert "aSecretToken" not in detail


def test_whatever_happens_a_notification_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise RuntimeError("aSecretToken")

    world = with_url(tmp_path)
    monkeypatch.setattr(world.disk, "read", lambda path: broken() if path.suffix == ".notify" else None)
    app = config.parse(json.dumps(world.config), "shop.json")
    world.disk.full = True
    assert notify.send(world.host, app, FACTS) == ["RuntimeError"]


def test_a_missing_address_is_told(tmp_path: Path) -> None:
    world = make(tmp_path, notify={"url_file": "/etc/slipway/env/shop.notify"})
    [detail] = notify.send(world.host, world.app, FACTS)
    assert "shop.notify is missing or empty" in detail
