# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers in the inventory: what is wrong with them, where they run, and all that follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan import parse_workers
from ansible_collections.slipway.server.plugins.module_utils.plan.demands import demands
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import Raw, parse
from ansible_collections.slipway.server.plugins.module_utils.settings import units
from ansible_collections.slipway.server.plugins.module_utils.traffic import config

from tests.unit.module_utils.plan.inventories import facts, fleet, planned, problems, spotik

LARAVEL = {"runtime": "systemd", "unit": "laravel.service", "port": 8000, "hosts": ["web1"], "health": {"path": "/api/health"}}


def entry(workers: Any = None, **backends: Any) -> dict[str, Any]:
    app = spotik()
    app["workers"] = workers or {
        "sidekiq": {"command": "/usr/bin/sidekiq", "replicas": 2, "quiet_signal": "TSTP", "threads": 10},
        "clock": {"command": "/usr/bin/clock", "singleton": True, "memory": "128M"},
    }
    app["backends"].update(backends)
    return app


def fleet_of(app: dict[str, Any], worker: bool = True) -> Raw:
    raw = fleet(app)
    groups = {**raw.groups, "all": [*raw.groups["all"], "jobs1"], **({"worker": ["jobs1"]} if worker else {})}
    return Raw(apps=raw.apps, groups=groups, hostvars={**raw.hostvars, "jobs1": {"ansible_host": "10.87.0.14"}})


@pytest.mark.parametrize(
    ("worker", "key", "what"),
    [
        ({"command": "/bin/x", "singelton": True}, "workers.one.singelton", "Did you mean `singleton`?"),
        ({}, "workers.one.command", "is missing"),
        ({"command": "sidekiq"}, "workers.one.command", "absolute path"),
        ({"command": "/bin/x", "concurrency": 5}, "workers.one.concurrency", "Did you mean `threads`?"),
        ({"command": "/bin/x", "backend": "contaners"}, "workers.one.backend", "Did you mean `containers`?"),
        ({"command": "/bin/x", "hosts": ["web3"]}, "workers.one.hosts[0]", "Did you mean `web"),
        ({"command": "/bin/x", "hosts": ["db1"]}, "workers.one.hosts[0]", "not in the group `worker` or `app`"),
        ({"command": "/bin/x", "singleton": True, "replicas": 2}, "workers.one.replicas", "must be 1 for a singleton"),
        ({"command": "/bin/x", "quiet_signal": "TSTOP"}, "workers.one.quiet_signal", "Did you mean `TSTP`?"),
        ({"command": "/bin/x", "stop_timeout": "60"}, "workers.one.stop_timeout", "without quotes"),
    ],
)
def test_one_mistake_names_key_and_remedy(worker: dict[str, Any], key: str, what: str) -> None:
    found = problems(fleet(entry({"one": worker})))
    assert [problem.key for problem in found] == [f"slipway_apps.spotik.{key}"]
    assert what in found[0].line()


@pytest.mark.parametrize(
    ("laravel", "key", "what"),
    [
        ({}, "workers", "Name its unit there"),
        ({"workers": {"queue": {"unit": "queue"}}}, "workers.queue.unit", "does not look right"),
        ({"workers": {"queue": {"unit": "q.timer", "quiet": "php artisan down"}}}, "workers.queue.quiet", "absolute path"),
        (
            {"workers": {"queue": {"unit": "q.service", "quiet": "/x", "quiet_signal": "HUP"}}},
            "workers.queue.quiet_signal",
            "one",
        ),
        ({"workers": {"queue": {"unit": "q.service", "command": "/x"}}}, "workers.queue.command", "is not a known key"),
        ({"workers": {"queue": {"unit": "laravel.service"}}}, "workers.queue.unit", "Give each unit one owner"),
    ],
)
def test_workers_of_units_of_others(laravel: dict[str, Any], key: str, what: str) -> None:
    found = problems(fleet(entry(laravel={**LARAVEL, **laravel})))
    assert [problem.key for problem in found] == [f"slipway_apps.spotik.backends.laravel.{key}"]
    assert what in found[0].line()


def test_all_problems_at_once() -> None:
    app = entry({"a": {"comand": "x"}, "b": {"command": "/x", "singleton": 1}, "C": {"command": "/x"}})
    app["initial"] = "laravle"
    app["backends"]["laravel"] = {**LARAVEL, "workers": {}}
    app["backends"]["units"]["workers"] = {}
    keys = {problem.key.replace("slipway_apps.spotik.", "") for problem in problems(fleet(app))}
    assert keys == {
        "workers.a.comand",
        "workers.a.command",
        "workers.b.singleton",
        "workers.C",
        "initial",
        "backends.units.workers",
    }


def test_no_worker_is_called_as_an_app() -> None:
    raw = fleet(entry())
    other = {**spotik(), "domain": "b.example", "workers": {}}
    other["backends"] = {"main": {"runtime": "docker", "port": 4000}}
    other["database"] = None
    both = Raw(apps={**raw.apps, "spotik-sidekiq": other}, groups=raw.groups, hostvars=raw.hostvars)
    assert [problem.key for problem in problems(both)] == ["slipway_apps.spotik.workers.sidekiq"]


def test_the_former_system_serves_until_a_release_is_deployed() -> None:
    app = entry(laravel={**LARAVEL, "workers": {}})
    assert planned(fleet(app)).hosts["web1"]["app_apps"]["spotik"]["slot_order"] == ["blue", "green", "laravel"]
    app["initial"] = "laravel"
    described = planned(fleet(app)).hosts["web1"]["app_apps"]["spotik"]
    assert (described["slot_order"], described["default_slot"]) == (["laravel", "blue", "green"], "laravel")
    assert planned(fleet(app)).hosts["web1"]["nginx_sites"][0]["slots"][0]["name"] == "laravel"


def test_beside_the_instances_without_a_group_of_their_own() -> None:
    plan = planned(fleet_of(entry(), worker=False))
    crews = {host: plan.hosts[host]["app_apps"]["spotik"]["workers"] for host in ("web1", "web2")}
    names = {host: [one["instances"] for one in crew] for host, crew in crews.items()}
    assert names["web1"] == [
        ["slipway-spotik-sidekiq-blue-1", "slipway-spotik-sidekiq-blue-2"],
        ["slipway-spotik-sidekiq-green-1", "slipway-spotik-sidekiq-green-2"],
        ["slipway-spotik-clock-blue-1"],
        ["slipway-spotik-clock-green-1"],
    ]
    assert names["web2"][0] == ["spotik-sidekiq@blue-1.service", "spotik-sidekiq@blue-2.service"]
    assert names["web2"][2:] == [[], []]
    assert [one["at"] for one in crews["web2"]] == [["web1", "web2"]] * 2 + [["web1"]] * 2
    assert "app_apps" not in plan.hosts["jobs1"] or plan.hosts["jobs1"]["app_apps"] == {}


def test_on_hosts_of_their_own() -> None:
    raw = fleet_of(entry({"sidekiq": {"command": "/usr/bin/sidekiq", "backend": "containers", "hosts": ["jobs1"]}}))
    plan = planned(raw)
    jobs = plan.hosts["jobs1"]
    described = jobs["app_apps"]["spotik"]
    assert (described["runtime"], described["slots"]["blue"]["instances"]) == (None, [])
    assert described["hosts"] == ["jobs1", "web1", "web2"]
    worker = described["workers"][0]
    assert worker["runtime"]["kind"] == "docker"
    assert worker["environment"] == {"SLIPWAY_WORKER": "sidekiq", "RAILS_MAX_THREADS": "5", "DB_POOL": "7"}
    assert "docker_bip" in jobs
    pooler = next(rule for rule in plan.hosts["db1"]["ufw_rules"] if rule["comment"] == "pgbouncer")
    assert "10.87.0.14" in pooler["from"]
    assert "docker.io" in demands(parse(raw, {})[0], [])["jobs1"]["preflight_packages"]
    parsed = config.parse(json.dumps(described), "x.json")
    assert [(one.slot, one.instances) for one in parsed.workers] == [
        ("blue", ("slipway-spotik-sidekiq-blue-1",)),
        ("green", ("slipway-spotik-sidekiq-green-1",)),
    ]


def test_units_share_sandbox_and_environment_with_the_app() -> None:
    plan = planned(fleet(entry()))
    found = {unit["name"]: unit for unit in plan.hosts["web2"]["systemd_units_units"]}
    assert set(found) == {"spotik@.service", "spotik-sidekiq@.service"}
    text = units.render(found["spotik-sidekiq@.service"])
    assert "ExecStart=/usr/bin/sidekiq\n" in text
    assert "KillSignal=SIGTERM" in text
    assert "TimeoutStopSec=60" in text
    assert "EnvironmentFile=/etc/slipway/env/spotik.systemd.env" in text
    assert "EnvironmentFile=/etc/slipway/env/spotik-sidekiq@%i.env" in text
    assert "WorkingDirectory=/opt/spotik/slots/%i" in text


def sessions(app: dict[str, Any]) -> tuple[int, int, int]:
    plan = planned(fleet_of(app, worker=False))
    db1 = plan.hosts["db1"]
    assert plan.violations() == []
    clients = int(db1["pgbouncer_settings"]["max_client_conn"])
    memory = next(int(row.value.split()[0]) for row in plan.rows if (row.host, row.variable) == ("web1", "app spotik memory"))
    return clients, int(db1["postgresql_settings"]["max_connections"]), memory


def test_their_connections_and_memory_count() -> None:
    without = spotik()
    without["database"]["pooled"] = False
    pooled, direct = sessions(spotik())[0], sessions(without)[1]
    # 2 hosts x 2 replicas x 2 slots x (10 + 2) and one scheduler x (5 + 2), times 1.25
    assert sessions(entry())[0] == pytest.approx(pooled + 1.25 * (96 + 7), abs=1)
    unpooled = entry()
    unpooled["database"]["pooled"] = False
    assert sessions(unpooled)[1] == pytest.approx(direct + 96 + 7, abs=10)
    small = planned(fleet(entry()), web1=facts(memory_mb=2048))
    assert any(check.number == 1 and "workers of spotik" in check.have for check in small.violations())


def test_a_pool_that_is_set_must_do_for_the_workers() -> None:
    app = entry()
    app["env"]["DB_POOL"] = "8"
    violated = planned(fleet(app)).violations()
    assert {check.rule for check in violated} == {"DB_POOL of spotik >= threads of its worker sidekiq"}
    assert "DB_POOL" not in planned(fleet(app)).hosts["web1"]["app_apps"]["spotik"]["workers"][0]["environment"]


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[4] / "docs/inventory.md").read_text(encoding="utf-8")
    assert {key for key in (*parse_workers.WORKER_KEYS, *parse_workers.EXTERNAL_KEYS) if f"`{key}`" not in text} == set()
