# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health.process import ProcessProbe
from ansible_collections.slipway.server.plugins.module_utils.traffic import config
from ansible_collections.slipway.server.plugins.module_utils.traffic.config import App
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError
from ansible_collections.slipway.server.plugins.module_utils.traffic.sensors import Each, Sensors

from tests.unit.module_utils.health.servers import serving
from tests.unit.module_utils.traffic.world import CONFIG

GATE: dict[str, Any] = {
    "path": "/health",
    "headers": {"Host": "shop.example"},
    "response_headers": {"Content-Type": "json"},
    "method": "GET",
    "warmup": ["/", "/products"],
    "start_period": 20,
    "also": [
        {"websocket": "/ws", "timeout": 2},
        {"http": "/ready", "status": 204},
        {"tcp": 9394},
        {"exec": ["/bin/sh", "-c", 'echo "$PORT $SLIPWAY_SLOT $SLIPWAY_INSTANCE"'], "output": "^3000 blue shop-blue-1$"},
        {"redis": "REDIS_URL"},
        {"postgresql": "DATABASE_URL"},
        {"unit": "helper.service"},
        {"container": "helper"},
        {"unix": "/run/helper.sock"},
        {"quantum": "/q"},
    ],
}
HERE = [{"name": "shop-blue-1", "address": "127.0.0.1", "port": 3000}]


def app(gate: dict[str, Any], env_file: str = "/none") -> App:
    runtime = {"kind": "docker", "container_port": 3000, "env_file": env_file}
    slots = {**CONFIG["slots"], "blue": {**CONFIG["slots"]["blue"], "instances": HERE}}
    return config.parse(json.dumps({**CONFIG, "gate": gate, "runtime": runtime, "slots": slots}), "shop.json")


def parts(probe: object) -> list[str]:
    assert isinstance(probe, Each)
    return [part.name for part in probe.parts]


def test_where_each_proof_is_looked_at() -> None:
    described, sensors = app(GATE), Sensors()
    slot = described.slot("blue")
    assert parts(sensors.instance(slot, slot.instances[0], "v1")) == [
        "http://127.0.0.1:3000/health",
        "ws://127.0.0.1:3000/ws",
        "http://127.0.0.1:3000/ready",
        "tcp:127.0.0.1:9394",
        "exec:/bin/sh",
        "redis of REDIS_URL",
        "postgresql of DATABASE_URL",
        "helper.service",
        "helper",
        "unix:/run/helper.sock",
        "quantum",
    ]
    assert parts(sensors.members(slot, "v1")[0]) == [
        "http://10.0.0.1:3000/health",
        "ws://10.0.0.1:3000/ws",
        "http://10.0.0.1:3000/ready",
    ]
    assert parts(sensors.through_edge(described, slot, "v1")) == ["https://127.0.0.1:443/health"]
    assert [probe.name for probe in sensors.warmup(slot, slot.instances)] == [
        "http://127.0.0.1:3000/",
        "http://127.0.0.1:3000/products",
    ]
    assert slot.gate.rules.start_period == 20.0


def test_a_limit_caps_every_part() -> None:
    probe = Sensors().members(app(GATE).slot("blue"), None, 0.5)[0]
    assert isinstance(probe, Each)
    assert [part.timeout for part in probe.parts] == [0.5, 0.5, 0.5]  # type: ignore[attr-defined]


def test_every_look_at_a_process_is_a_first_one() -> None:
    slot = app({"also": [{"unit": "x.service"}]}).slot("blue")
    first, second = (Sensors().instance(slot, slot.instances[0], None) for _time in range(2))
    assert isinstance(first, Each)
    assert isinstance(second, Each)
    assert isinstance(first.parts[1], ProcessProbe)
    assert first.parts[1] is not second.parts[1]


@pytest.fixture
def here() -> Iterator[int]:
    def talk(client: Any) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/json\r\n\r\n{}")

    with serving(talk) as port:
        yield port


def look(port: int, also: dict[str, Any], env_file: str = "/none") -> str:
    slot = app({**GATE, "also": [also]}, env_file).slot("blue")
    instance = config.Instance("shop-blue-1", "127.0.0.1", port, 1)
    return Sensors().instance(slot, instance, None).look().detail


def test_the_command_knows_the_instance(here: int) -> None:
    script = f"test $PORT = {here} && test $SLIPWAY_SLOT = blue && test $SLIPWAY_INSTANCE = shop-blue-1"
    assert look(here, {"exec": ["/bin/sh", "-c", script]}) == "status 200"
    assert look(here, {"exec": ["/bin/sh", "-c", "echo none; exit 3"]}) == "exec:/bin/sh: exit status 3, not 0: none"


def test_what_is_unknown_is_not_proven(here: int) -> None:
    assert look(here, {"quantum": "/q"}).startswith("quantum: this version of slipway cannot look at that")


@pytest.mark.parametrize("line", ["REDIS_URL=redis://app:s3cr3t@127.0.0.1:%d/0", 'REDIS_URL="redis://app:s3cr3t@127.0.0.1:%d/0"'])
def test_addresses_come_from_the_environment(here: int, tmp_path: Path, line: str) -> None:
    def talk(client: Any) -> None:
        heard = client.recv(65536)
        client.sendall(b"-ERR unknown password s3cr3t\r\n" if b"s3cr3t" in heard else b"-NOAUTH\r\n")

    file = tmp_path / "shop.env"
    with serving(talk) as port:
        file.write_text(f"OTHER=1\n{line % port}\n", encoding="utf-8")
        said = look(here, {"redis": "REDIS_URL"}, str(file))
    assert said == f"redis of REDIS_URL: redis://127.0.0.1:{port}: AUTH was answered by ERR unknown password ********"
    assert look(here, {"postgresql": "DATABASE_URL"}, str(file)) == f"postgresql of DATABASE_URL: {file} has no DATABASE_URL"
    file.write_text("DATABASE_URL=mysql://app:s3cr3t@db/shop\n", encoding="utf-8")
    wrong = look(here, {"postgresql": "DATABASE_URL"}, str(file))
    assert "is not a URL such as postgresql://" in wrong
    assert "s3cr3t" not in wrong


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"method": 1}, "gate.method must be a string"),
        ({"response_headers": {"X": "("}}, "gate.response_headers must be a regular expression"),
        ({"warmup": "/"}, "gate.warmup must be a list"),
        ({"also": {"tcp": 1}}, "gate.also must be a list"),
        ({"also": [{"tcp": "x"}]}, r"gate.also\[0\].tcp must be a whole number"),
        ({"also": [{"exec": []}]}, r"gate.also\[0\].exec must be a command"),
        ({"also": [{"http": "ready"}]}, r"gate.also\[0\].http must be a path"),
        ({"also": [{"exec": ["x"], "output": "("}]}, r"gate.also\[0\].output must be a regular expression"),
    ],
)
def test_refused(gate: dict[str, Any], said: str) -> None:
    with pytest.raises(SlipwayError, match=said):
        app(gate)
