# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible_collections.slipway.server.plugins.module_utils.plan import env
from ansible_collections.slipway.server.plugins.module_utils.plan.demands import demands
from ansible_collections.slipway.server.plugins.module_utils.plan.firewall import docker_network
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import OVERRIDES, parse
from ansible_collections.slipway.server.plugins.module_utils.plan.table import text
from ansible_collections.slipway.server.plugins.module_utils.traffic import config

from tests.unit.module_utils.plan.inventories import PASSWORD, SECRET, facts, fleet, planned, single, spotik
from tests.unit.module_utils.plan.test_parse import PROD


def rule(port: Any, *sources: str) -> dict[str, Any]:
    return {"port": port, "proto": "tcp", "from": list(sources)}


def without_comment(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if key != "comment"} for entry in rules]


def test_firewall_of_the_demo() -> None:
    hosts = planned(fleet()).hosts
    assert without_comment(hosts["web1"]["ufw_rules"]) == [rule(80, "any"), rule(443, "any")]
    assert without_comment(hosts["web2"]["ufw_rules"]) == [rule(3000, "10.87.0.11"), rule(3010, "10.87.0.11")]
    assert without_comment(hosts["db1"]["ufw_rules"]) == [rule(6432, "10.87.0.11", "10.87.0.12")]
    assert hosts["web1"]["ufw_container_rules"] == []


def test_containers_elsewhere_are_open_to_the_edges_only() -> None:
    raw = fleet()
    raw.groups["edge"] = ["web2"]
    raw.apps["spotik"]["backends"]["containers"]["replicas"] = 2
    hosts = planned(raw).hosts
    assert without_comment(hosts["web1"]["ufw_container_rules"]) == [
        {"port": "3000:3001", "from": ["10.87.0.12"]},
        {"port": "3010:3011", "from": ["10.87.0.12"]},
    ]
    assert without_comment(hosts["web1"]["ufw_rules"]) == []
    slots = hosts["web2"]["nginx_sites"][0]["slots"]
    assert slots[0] == {"name": "blue", "members": ["10.87.0.11:3000", "10.87.0.11:3001", "10.87.0.12:3000"]}


def test_two_edges_share_the_chance_of_a_false_alarm_and_the_time_of_hooks_is_part_of_a_move() -> None:
    raw = fleet()
    before = planned(raw).hosts["web1"]["app_apps"]["spotik"]
    raw.groups["edge"] = ["web1", "web2"]
    raw.apps["spotik"]["hooks"] = {"switched": [{"command": "smoke", "timeout": 9}], "confirmed": [{"command": "tell"}]}
    after = planned(raw).hosts["web1"]["app_apps"]["spotik"]
    assert after["verdict"]["alpha"] == before["verdict"]["alpha"] / 2 == 0.005
    assert after["longest_move"] == before["longest_move"] + 9


def test_each_of_several_edges_answers_challenges_that_another_one_caused() -> None:
    raw = fleet({**spotik(), "domain": "api.spotik.org", "tls": {"source": "acme"}})
    assert planned(raw).hosts["web1"]["nginx_acme_peers"] == []
    raw.groups["edge"] = ["web1", "web2"]
    hosts = planned(raw).hosts
    assert [hosts[name]["nginx_acme_peers"] for name in ("web1", "web2")] == [["10.87.0.12:80"], ["10.87.0.11:80"]]
    raw.apps["spotik"]["tls"] = {}
    assert planned(raw).hosts["web1"]["nginx_acme_peers"] == []


def test_single_host_listens_on_loopback_and_lets_containers_reach_the_pooler() -> None:
    one = planned(single()).hosts["one"]
    assert one["nginx_sites"][0]["slots"] == [
        {"name": "blue", "members": ["127.0.0.1:3000"]},
        {"name": "green", "members": ["127.0.0.1:3010"]},
    ]
    assert one["pgbouncer_listen"] == ["127.0.0.1", "10.0.0.5"]
    assert one["postgresql_listen"] == ["localhost"]
    assert without_comment(one["ufw_rules"]) == [rule(80, "any"), rule(443, "any"), rule(6432, "172.30.0.0/16")]
    assert one["docker_bip"] == "172.30.0.1/24"
    assert one["app_apps"]["spotik"]["environment"]["database"]["host"] == "10.0.0.5"


def test_units_beside_the_pooler_use_loopback() -> None:
    raw = single()
    raw.apps["spotik"]["backends"] = {"main": {"runtime": "systemd", "port": 3000, "command": "/usr/bin/puma"}}
    one = planned(raw).hosts["one"]
    assert one["app_apps"]["spotik"]["environment"]["database"]["host"] == "127.0.0.1"
    assert one["pgbouncer_listen"] == ["127.0.0.1"]
    assert [entry["port"] for entry in one["ufw_rules"]] == [80, 443]
    assert "docker_bip" not in one
    assert one["systemd_units_units"][0]["name"] == "spotik@.service"


def test_what_an_app_needs_of_its_sandbox_reaches_unit_and_container() -> None:
    raw = single()
    loose = {"hardening": "strict", "capabilities": ["CAP_NET_BIND_SERVICE"], "loosen": {"PrivateUsers": False}}
    raw.apps["spotik"]["backends"] = {
        "main": {"runtime": "systemd", "port": 3000, "command": "/usr/bin/puma", "read_write_paths": ["/srv/x"], **loose}
    }
    unit = planned(raw).hosts["one"]["systemd_units_units"][0]
    assert (unit["hardening"], unit["capabilities"]) == ("strict", ["CAP_NET_BIND_SERVICE"])
    assert (unit["read_write_paths"], unit["extra"]) == (["/srv/x"], {"Service": {"PrivateUsers": "no"}})
    assert "address_families" not in unit


def test_an_app_without_pooler_reaches_postgresql_itself() -> None:
    app = spotik()
    app["database"]["pooled"] = False
    hosts = planned(fleet(app)).hosts
    assert hosts["db1"]["postgresql_listen"] == ["localhost", "10.87.0.13"]
    assert rule(5432, "10.87.0.11", "10.87.0.12") in without_comment(hosts["db1"]["ufw_rules"])
    assert [(entry["type"], entry.get("address")) for entry in hosts["db1"]["postgresql_hba"]] == [
        ("local", None),
        ("hostssl", "10.87.0.11/32"),
        ("hostssl", "10.87.0.12/32"),
        ("host", "127.0.0.1/32"),
    ]
    assert hosts["web1"]["app_apps"]["spotik"]["environment"]["database"]["port"] == 5432


def test_a_chosen_version_of_postgresql_is_the_role_s_business_and_sized() -> None:
    raw = fleet(db1={"postgresql_version": 18})
    assert planned(raw).hosts["db1"]["postgresql_version"] == 18
    inventory, problems = parse(raw)
    assert problems == []
    wanted = demands(inventory, [])["db1"]["preflight_packages"]
    assert "pgbouncer" in wanted
    assert "postgresql" not in wanted


def test_options_of_role_base_bring_their_packages() -> None:
    options = {"base_fail2ban": True, "base_auditd": False, "base_hostname": "db", "base_packages": ["debsums", {"a": 1}]}
    inventory, problems = parse(fleet(db1=options))
    assert problems == []
    wanted = {host: set(of_host["preflight_packages"]) for host, of_host in demands(inventory, []).items()}
    assert {"fail2ban", "nftables", "libnss-myhostname", "debsums"} <= wanted["db1"]
    assert not {"auditd", "aide"} & wanted["db1"]
    assert "fail2ban" not in wanted["web1"]
    _inventory, problems = parse(fleet(db1={"base_fail2ban": "yes"}))
    assert [(problem.key, problem.what) for problem in problems] == [("base_fail2ban", "must be a boolean, but is text")]


TOKEN = "https://hooks.example/T0/a-token-of-some-length"
CHANGE: dict[str, Any] = {
    "migrations": {"check": "rake pending", "apply": "rake migrate"},
    "hooks": {"switched": [{"command": "smoke", "timeout": 9}], "confirmed": [{"command": "tell", "user": "deploy"}]},
    "notify": {"url": TOKEN},
}


def test_migrations_go_past_the_pooler_from_one_host() -> None:
    hosts = planned(fleet({**spotik(), **CHANGE})).hosts
    assert hosts["db1"]["postgresql_listen"] == ["localhost", "10.87.0.13"]
    assert rule(5432, "10.87.0.11") in without_comment(hosts["db1"]["ufw_rules"])
    addresses = [entry.get("address") for entry in hosts["db1"]["postgresql_hba"]]
    assert addresses == [None, "10.87.0.11/32", "127.0.0.1/32"]
    found = hosts["web1"]["app_apps"]["spotik"]["migrations"]
    assert found["host"] == "web1"
    assert found["database"] == {"name": "spotik_production", "user": "spotik", "host": "10.87.0.13", "port": 5432}
    assert found["backup"] == {"max_age": 3600, "file": "/var/lib/slipway/backups/spotik_production.json", "host": "db1"}


def test_without_a_database_the_record_of_a_backup_belongs_to_the_host_of_the_migrations() -> None:
    app = {**spotik(), **CHANGE}
    del app["database"]
    for backup in ({}, {"command": "cat /root/backup.json"}, {"file": "/root/backup.json"}):
        app["migrations"] = {**CHANGE["migrations"], "backup": backup}
        assert planned(fleet(app)).hosts["web1"]["app_apps"]["spotik"]["migrations"]["backup"] == {
            "max_age": 3600,
            "host": "web1",
            **backup,
        }


def test_what_belongs_to_a_change_reaches_the_host_command() -> None:
    app = {**spotik(), **CHANGE}
    found = planned(fleet(app)).hosts["web1"]["app_apps"]["spotik"]
    read = config.parse(json.dumps(found), "spotik.json")
    assert read.hooks["switched"] == (config.Hook("smoke", "abort", 9.0, "root"),)
    assert read.hooks["confirmed"] == (config.Hook("tell", "warn", 60.0, "deploy"),)
    assert read.notify == config.Notify(None, "/etc/slipway/env/spotik.notify", 5.0)
    assert read.migrations is not None
    assert (read.migrations.check, read.migrations.direct) == ("rake pending", True)
    assert TOKEN not in json.dumps(found)
    files = env.files(app, found)
    assert files["/etc/slipway/env/spotik.notify"] == TOKEN + "\n"
    assert files["/etc/slipway/env/spotik.migrations.env"].startswith(
        f"DATABASE_URL=postgresql://spotik:{PASSWORD}@10.87.0.13:5432/"
    )
    assert list(files) == env.paths(found)


def test_the_secrets_of_a_change_lie_only_where_they_are_used() -> None:
    app = {**spotik(), **CHANGE}
    found = planned(fleet(app)).hosts["web2"]["app_apps"]["spotik"]
    assert env.paths(found) == ["/etc/slipway/env/spotik.systemd.env"]


def test_declared_hba_opens_the_database() -> None:
    entry = {
        "type": "hostssl",
        "database": "replication",
        "user": "standby",
        "address": "10.87.0.14/32",
        "method": "scram-sha-256",
    }
    hosts = planned(fleet(db1={"postgresql_hba": [entry]})).hosts
    assert rule(5432, "10.87.0.14") in without_comment(hosts["db1"]["ufw_rules"])
    assert entry in hosts["db1"]["postgresql_hba"]


def test_ssh_port_follows_the_connection() -> None:
    assert planned(fleet(web2={"ansible_port": 2222})).hosts["web2"]["ufw_ssh_ports"] == [2222]


def test_a_new_ssh_port_is_open_beside_the_old_one() -> None:
    hosts = planned(fleet(web1={"sshd_ports": [2222]}, web2={"ansible_port": 2222, "sshd_ports": [2222]})).hosts
    assert hosts["web1"]["ufw_ssh_ports"] == [22, 2222]
    assert hosts["web2"]["ufw_ssh_ports"] == [2222]
    (problem,) = parse(fleet(web1={"sshd_ports": [70000]}))[1]
    assert (problem.key, problem.what) == ("sshd_ports", "is not a list of port numbers")


def test_descriptions_are_read_by_the_host_command() -> None:
    raw = fleet()
    raw.apps["spotik"]["health"].update(
        {
            "headers": {"X-Forwarded-Proto": "https"},
            "response_headers": {"Content-Type": "json"},
            "body": "ok",
            "max_latency_ms": 500,
            "warmup": ["/products?page=1"],
            "start_period": 30,
            "also": [
                {"websocket": "/ws"},
                {"http": "/ready", "status": [200, 204], "timeout": 2},
                {"exec": ["/bin/echo", "a", "a"], "output": "^a a$"},
                {"postgresql": "DATABASE_URL"},
            ],
        }
    )
    raw.apps["spotik"]["backends"]["laravel"] = {
        "runtime": "systemd",
        "unit": "spotik-laravel.service",
        "port": 8000,
        "hosts": ["web2"],
        "health": {"path": "/api/health"},
    }
    hosts = planned(raw).hosts
    for name in ("web1", "web2"):
        app = config.parse(json.dumps(hosts[name]["app_apps"]["spotik"]), "spotik.json")
        assert app.slot_order == ("blue", "green", "laravel")
        assert app.edge is (name == "web1")
        assert app.slots["laravel"].gate.path == "/api/health"
        assert app.slots["laravel"].unit == "spotik-laravel.service"
        assert app.slots["laravel"].members == ("10.87.0.12:8000",)
        assert app.slots["blue"].members == ("10.87.0.11:3000", "10.87.0.12:3000")
        gate = app.slots["blue"].gate
        assert gate.headers == {"Host": app.domain, "X-Forwarded-Proto": "https"}
        assert (gate.method, gate.warmup, gate.rules.start_period) == ("GET", ("/products?page=1",), 30.0)
        expected = gate.expected
        assert (expected.headers, expected.body, expected.max_latency_ms) == ({"Content-Type": "json"}, "ok", 500.0)
        assert [(one.kind, one.target or one.command) for one in gate.also] == [
            ("websocket", "/ws"),
            ("http", "/ready"),
            ("exec", ("/bin/echo", "a", "a")),
            ("postgresql", "DATABASE_URL"),
        ]
        assert (gate.also[1].expected.status, gate.also[1].timeout, gate.also[2].output) == ((200, 204), 2.0, "^a a$")
        assert gate.env_file == hosts[name]["app_apps"]["spotik"]["runtime"]["env_file"]
        assert app.slots["laravel"].gate.also == ()
    assert [one.name for one in app.slots["green"].instances] == ["spotik@green-1.service"]
    assert hosts["db1"]["app_apps"] == {}


def test_an_existing_unit_alone_needs_no_managed_runtime() -> None:
    raw = fleet()
    raw.apps["spotik"]["backends"] = {
        name: {"runtime": "systemd", "unit": f"{name}.service", "port": port, "hosts": ["web2"]}
        for name, port in (("old", 8000), ("new", 8001))
    }
    app = planned(raw).hosts["web2"]["app_apps"]["spotik"]
    assert app["runtime"] is None
    assert config.parse(json.dumps(app), "x").default_slot == "old"


def test_prepared_statements_follow_the_pooler() -> None:
    old = planned(fleet(), db1=facts(pgbouncer="1.18.0", postgresql="15")).hosts
    new = planned(fleet(), db1=facts(pgbouncer="1.24.1", postgresql="17")).hosts
    values = [hosts["web1"]["app_apps"]["spotik"]["environment"]["values"]["DB_PREPARED_STATEMENTS"] for hosts in (old, new)]
    assert values == ["false", "true"]
    assert "max_prepared_statements" not in old["db1"]["pgbouncer_settings"]
    assert new["db1"]["pgbouncer_settings"]["max_prepared_statements"] == "200"


def test_overrides_win_and_are_named_in_the_table() -> None:
    raw = fleet(
        db1={
            "postgresql_settings": {"work_mem": "8MB"},
            "postgresql_databases": [{"name": "spotik_production", "extensions": ["pg_trgm"]}],
        },
        web1={"ufw_rules": [{"port": 9100, "proto": "tcp", "from": ["10.1.1.1"]}], "nginx_worker_connections": 512},
    )
    plan = planned(raw)
    assert plan.hosts["db1"]["postgresql_settings"]["work_mem"] == "8MB"
    assert plan.hosts["db1"]["postgresql_databases"] == [
        {"name": "spotik_production", "owner": "spotik", "pooled": True, "extensions": ["pg_trgm"]}
    ]
    assert plan.hosts["web1"]["ufw_rules"][-1]["port"] == 9100
    assert plan.hosts["web1"]["nginx_worker_connections"] == 512
    assert plan.hosts["web1"]["nginx_nofile"] == 2048
    reasons = {(row.host, row.variable): row.reason for row in plan.rows}
    assert reasons["db1", "postgresql_settings"] == "set in the inventory"
    assert ("db1", "postgresql_settings work_mem") not in reasons


def test_hosts_without_facts_keep_what_needs_none() -> None:
    raw = fleet()
    inventory, _found = parse(raw, {"web1": facts()})
    from ansible_collections.slipway.server.plugins.module_utils.plan.build import build

    plan = build(inventory, {"web1": facts()})
    assert plan.problems == ()
    assert "nginx_worker_connections" in plan.hosts["web1"]
    assert "kernel_sysctl" not in plan.hosts["web2"]
    assert plan.hosts["web2"]["ufw_rules"]
    del raw.apps["spotik"]["processes"]
    del raw.apps["spotik"]["memory"]
    inventory, _found = parse(raw, {"db1": facts()})
    limited = build(inventory, {"db1": facts()})
    assert [problem.where for problem in limited.problems] == ["web1", "web2"]
    assert "Run without --limit" in limited.problems[0].remedy


def test_no_secret_leaves() -> None:
    plan = planned(fleet())
    shown = repr(plan)
    assert PASSWORD not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("taken", "free"),
    [
        ([], "172.30.0.0/16"),
        (["172.16.0.0/12"], "192.168.0.0/16"),
        (["172.30.4.0/24"], "172.29.0.0/16"),
        (["fd00::1"], "172.30.0.0/16"),
    ],
)
def test_docker_network_avoids_the_fleet(taken: list[str], free: str) -> None:
    assert docker_network(taken) == free


def test_demands_for_preflight() -> None:
    inventory, _found = parse(fleet())
    wanted = demands(inventory, [{"host": "reg.lan:5000", "username": "u", "password": PASSWORD, "ca": "PEM"}])
    assert wanted["web1"]["preflight_registries"] == [{"host": "reg.lan:5000", "ca": "PEM"}]
    assert wanted["web2"]["preflight_registries"] == []
    assert [entry["port"] for entry in wanted["web1"]["preflight_ports"]] == [80, 443, 3000, 3010]
    assert wanted["web2"]["preflight_ports"][0]["units"] == ["spotik@*.service"]
    packages = {host: set(of_host["preflight_packages"]) for host, of_host in wanted.items()}
    assert {"postgresql", "pgbouncer", "ufw"} <= packages["db1"]
    assert not {"nginx", "docker.io"} & packages["db1"]
    assert {"nginx", "docker.io", "openssl"} <= packages["web1"]
    assert set(inventory.apps[0].backends_on("web2")[0].packages) <= packages["web2"]


def test_every_planned_variable_has_a_line_in_the_playbooks_mapping() -> None:
    files = sorted((PROD.parents[1] / "playbooks/vars").glob("plan*.yml"))
    mapping = {name: value for path in files for name, value in yaml.safe_load(path.read_text()).items()}
    planned_names = {name for values in planned(fleet()).hosts.values() for name in values}
    assert planned_names - set(mapping) == {"served_apps", "pooled_apps"}
    assert set(OVERRIDES) - set(mapping) == set()


def test_table_shows_reasons_ports_and_checks() -> None:
    plan = planned(fleet())
    shown = {"hosts": plan.hosts, "checks": [vars(check) for check in plan.checks], "table": [vars(row) for row in plan.rows]}
    lines = text(shown, ["db1"])
    assert lines[1] == "db1"
    assert any("port 6432" in line and "10.87.0.11, 10.87.0.12" in line for line in lines)
    assert any(line.startswith("checks: ") and line.endswith(" 0 violated") for line in lines)
    assert "web1" not in " ".join(lines)


def test_table_shows_what_is_violated_first_with_its_remedy() -> None:
    plan = planned(fleet(db1={"postgresql_settings": {"shared_buffers": "900GB"}}))
    shown = {"hosts": plan.hosts, "checks": [vars(check) for check in plan.checks], "table": [vars(row) for row in plan.rows]}
    lines = text(shown)
    first = next(number for number, line in enumerate(lines) if line.startswith("checks: "))
    assert lines[first + 1] == "  VIOLATED 2 postgresql-cache on db1: shared_buffers <= 40 % of PostgreSQL's memory"
    assert "921600 MB against" in lines[first + 2]
    assert "change postgresql_settings shared_buffers: set at most" in lines[first + 2]
