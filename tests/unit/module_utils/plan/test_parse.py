# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.slipway.server.plugins.module_utils.health.declared import ALSO
from ansible_collections.slipway.server.plugins.module_utils.plan import parse_app, parse_health
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import Raw, parse
from ansible_collections.slipway.server.plugins.module_utils.plan.placeholders import Undefined, is_placeholder

from tests.unit.module_utils.plan.inventories import DIGEST, PASSWORD, SECRET, fleet, problems, single, spotik

PROD = Path(__file__).parents[4] / "inventories/prod"


def put(path: str, value: Any, remove: bool = False) -> dict[str, Any]:
    """The sample app with one key changed; `path` uses / between keys."""
    app = spotik()
    *parents, last = path.split("/")
    target: Any = app
    for key in parents:
        target = target.setdefault(key, {})
    if remove:
        del target[last]
    else:
        target[last] = value
    return app


def test_the_sample_inventories_are_sound() -> None:
    assert problems(fleet()) == []
    assert problems(single()) == []


@pytest.mark.parametrize(
    ("path", "value", "key", "what"),
    [
        ("domian", "x.org", "domian", "Did you mean `domain`?"),
        ("health/expect_json", {}, "health.expect_json", "Did you mean `json`?"),
        ("backends/units/prot", 1, "backends.units.prot", "Did you mean `port`?"),
        ("migrations", {"chek": "x", "apply": "y"}, "migrations.chek", "Did you mean `check`?"),
        ("migrations", {"check": "x"}, "migrations.apply", "is missing"),
        ("migrations", {"check": "x 'y", "apply": "y"}, "migrations.check", "no closing quotation"),
        ("migrations", {"check": "x", "apply": "y", "timeout": 5}, "migrations.lock_timeout", "not below timeout 5 s"),
        ("migrations", {"check": "x", "apply": "y", "backup": {"file": "b.json"}}, "migrations.backup.file", "no absolute path"),
        (
            "migrations",
            {"check": "x", "apply": "y", "backup": {"file": "/b", "command": "c"}},
            "migrations.backup",
            "a file and a command",
        ),
        ("hooks", {"swiched": []}, "hooks.swiched", "Did you mean `switched`?"),
        ("hooks", {"switched": {"command": "x"}}, "hooks.switched", "must be a list"),
        ("hooks", {"switched": [{}]}, "hooks.switched[0].command", "is missing"),
        (
            "hooks",
            {"switched": [{"command": "x", "on_failure": "stop"}]},
            "hooks.switched[0].on_failure",
            "is none of abort, warn",
        ),
        (
            "hooks",
            {"retired": [{"command": "x", "on_failure": "abort"}]},
            "hooks.retired[0].on_failure",
            "nothing can be aborted",
        ),
        ("hooks", {"switched": [{"command": "x", "timeout": 0}]}, "hooks.switched[0].timeout", "outside 1 to 3600"),
        ("notify", {}, "notify", "neither command nor url"),
        ("notify", {"url": "http://hooks.example/x"}, "notify.url", "begins with https://"),
        ("notify", {"url": "https://hooks.example/x y"}, "notify.url", "begins with https://"),
        ("notify", {"url": 5}, "notify.url", "YAML read a number"),
        ("notify", {"url": "CHANGE_ME"}, "notify.url", "placeholder"),
        ("domain", True, "domain", "YAML read a boolean"),
        ("domain", 5, "domain", "YAML read a number"),
        ("domain", "", "domain", "is empty"),
        ("domain", "UPPER.org", "domain", "does not look right"),
        ("domain", "a b.org; return 200", "domain", "does not look right"),
        ("backends/units/port", "3000", "backends.units.port", "without quotes"),
        ("backends/units/port", True, "backends.units.port", "is a boolean"),
        ("backends/units/port", 70000, "backends.units.port", "outside 1 to 65535"),
        ("backends/units/port", 65530, "backends.units.port", "no room for the green slot"),
        ("backends/units/replicas", 11, "backends.units.replicas", "outside 1 to 10"),
        ("backends/units/runtime", "podman", "backends.units.runtime", "is none of docker, systemd"),
        ("backends/units/runtime", "dokcer", "backends.units.runtime", "Did you mean `docker`?"),
        ("backends/units/command", "puma", "backends.units.command", "absolute path"),
        ("backends/units/hosts", ["web3"], "backends.units.hosts[0]", "Did you mean `web"),
        ("backends/units/hosts", ["db1"], "backends.units.hosts[0]", "not in the group `app`"),
        ("backends/units/hosts", "web2", "backends.units.hosts", "must be a list"),
        ("backends/units/hosts", ["web1"], "backends.units.hosts", "second managed backend on web1"),
        ("backends/units/hardening", "ruby", "backends.units.hardening", "is none of standard, strict"),
        ("backends/units/capabilities", ["chown"], "backends.units.capabilities[0]", "does not look right"),
        ("backends/units/address_families", ["AF NETLINK"], "backends.units.address_families[0]", "does not look right"),
        ("backends/units/read_write_paths", ["srv"], "backends.units.read_write_paths[0]", "does not look right"),
        ("backends/units/loosen", {"privateUsers": False}, "backends.units.loosen.privateUsers", "is not a key of a unit"),
        ("backends/units/loosen", {"PrivateUsers": None}, "backends.units.loosen.PrivateUsers", "must be one line"),
        ("backends/units/pids", 100, "backends.units.pids", "belongs to runtime docker"),
        ("backends/containers/pids", 5, "backends.containers.pids", "outside 16 to"),
        ("backends/containers/capabilities", ["CAP_KILL"], "backends.containers.capabilities", "belongs to runtime systemd"),
        ("backends/containers/hardening", "strict", "backends.containers.hardening", "belongs to runtime systemd"),
        ("backends/units/user", "root", "backends.units.user", "is root"),
        ("backends/units/health", {"path": "/x"}, "backends.units.health", "belongs to the app"),
        ("backends/containers/user", "0:0", "backends.containers.user", "is root"),
        ("releases/v1/image", "reg.test.lan/spotik:v1", "releases.v1.image", "by tag"),
        ("releases/v1/image", "reg.test.lan/spotik@sha256:12", "releases.v1.image", "64 hexadecimal"),
        ("releases/v1", {"image": "r/s@" + DIGEST}, "releases.v1.archive", "backend units needs it"),
        ("releases", {}, "release", "not in releases"),
        ("release", 1.1, "release", "YAML read a number"),
        ("health/status", "200", "health.status", "HTTP status numbers"),
        ("health/deadline", 5, "health.deadline", "but a healthy start needs"),
        ("health/path", "health", "health.path", "does not look right"),
        ("health/methode", "GET", "health.methode", "Did you mean `method`?"),
        ("health/method", "GTE", "health.method", "Did you mean `GET`?"),
        ("health/method", "HEAD", "health.method", "no body to judge"),
        ("health/status", [], "health.status", "HTTP status numbers"),
        ("health/body", "ok(", "health.body", "is not a regular expression"),
        ("health/headers", {"X Y": "a"}, "health.headers.X Y", "no name of a header"),
        ("health/headers", {"X-A": 1}, "health.headers.X-A", "YAML read a number"),
        ("health/response_headers", {"X-A": "["}, "health.response_headers.X-A", "is not a regular expression"),
        ("health/max_latency_ms", 0, "health.max_latency_ms", "outside 1"),
        ("health/warmup", "/", "health.warmup", "must be a list"),
        ("health/warmup", ["products"], "health.warmup[0]", "does not look right"),
        ("health/start_period", -1, "health.start_period", "outside 0"),
        ("health/also", {"tcp": 1}, "health.also", "must be a list"),
        ("health/also", [{"websockets": "/ws"}], "health.also[0].websockets", "Did you mean `websocket`?"),
        ("health/also", [{}], "health.also[0]", "is empty"),
        ("health/also", ["/ws"], "health.also[0]", "must be a mapping"),
        ("health/also", [{"tcp": 1, "websocket": "/ws"}], "health.also[0]", "two proofs"),
        ("health/also", [{"websocket": "/ws", "status": 200}], "health.also[0].status", "is not a known key"),
        ("health/also", [{"websocket": "ws"}], "health.also[0].websocket", "does not look right"),
        ("health/also", [{"http": "/ready", "satus": 200}], "health.also[0].satus", "Did you mean `status`?"),
        ("health/also", [{"tcp": "9394"}], "health.also[0].tcp", "without quotes"),
        ("health/also", [{"exec": "rake check"}], "health.also[0].exec", "must be a list"),
        ("health/also", [{"exec": ["rake"]}], "health.also[0].exec", "absolute path"),
        ("health/also", [{"exec": ["/bin/x"], "exit_status": 256}], "health.also[0].exit_status", "exit statuses"),
        ("health/also", [{"exec": ["/bin/x"], "output": "("}], "health.also[0].output", "is not a regular expression"),
        ("health/also", [{"redis": "JWT_SECERT"}], "health.also[0].redis", "Did you mean `JWT_SECRET`?"),
        ("health/also", [{"redis": "redis://cache"}], "health.also[0].redis", "does not look right"),
        ("health/also", [{"postgresql": "OTHER_URL"}], "health.also[0].postgresql", "not in the app's environment"),
        ("health/also", [{"unit": "helper"}], "health.also[0].unit", "does not look right"),
        ("cutover/confirm_deadline", 20, "cutover.confirm_deadline", "less than bake"),
        ("cutover/drain", {"https": 5}, "cutover.drain.https", "Did you mean `http`?"),
        ("cutover/drain", {"http": 30, "websockets": 60, "pace": 40}, "cutover.drain.pace", "more than the 30 s"),
        ("cutover/bkae", 20, "cutover.bkae", "Did you mean `bake`?"),
        ("cutover/verdict", {"alfa": 0.1}, "cutover.verdict.alfa", "Did you mean `alpha`?"),
        ("cutover/verdict", {"ratio": 0.5}, "cutover.verdict.ratio", "is 0.5, outside 1 to 1000"),
        ("cutover/verdict", {"p95_ms": "500"}, "cutover.verdict.p95_ms", "must be a number, but is text"),
        ("cutover/verdict", {"error_percent": 1}, "cutover.verdict.usual_error_percent", "must be less than error_percent"),
        ("max_body", 50, "max_body", "YAML read a number"),
        ("rate_limits", {"/": 60}, "rate_limits", "must be a list, but is a mapping"),
        ("rate_limits", [{"path": "/a", "per_minute": "60"}], "rate_limits[0].per_minute", "must be a whole number, but is text"),
        ("rate_limits", [{"path": "/a", "per_minutes": 60}], "rate_limits[0].per_minutes", "Did you mean `per_minute`?"),
        ("rate_limits", [{"path": "/a", "per_minute": 1}] * 2, "rate_limits", "names /a twice"),
        ("restricted", [{"path": "/", "from": []}], "restricted[0].path", "covers the path of the health check"),
        ("restricted", [{"path": "/a", "from": ["office"]}], "restricted[0].from[0]", "neither an address nor a network"),
        ("threads", 0, "threads", "outside 1 to 512"),
        ("env/DEBUG", False, "env.DEBUG", "YAML read a boolean"),
        ("env/A-B", "x", "env.A-B", "not a name a shell can carry"),
        ("env/PORT", "3000", "env.PORT", "set by slipway"),
        ("env/WEB_CONCURRENCY", "3", "env.WEB_CONCURRENCY", "Set slipway_apps.spotik.processes instead"),
        ("env/DATABASE_URL", "postgres://", "env.DATABASE_URL", "would replace"),
        ("env/JWT_SECRET", "x", "secrets.JWT_SECRET", "is also set in"),
        ("env/MOTD", "two\nlines", "env.MOTD", "line break"),
        ("secrets/JWT_SECRET", "short-but-real-20chr", "secrets.JWT_SECRET", "fewer than 32"),
        ("secrets/API_KEY", "tooshort", "secrets.API_KEY", "fewer than 16"),
        ("secrets/API_KEY", "", "secrets.API_KEY", "placeholder or empty"),
        ("secrets/API_KEY", "ü" * 33000, "secrets.API_KEY", "more than 65000 bytes"),
        ("env/LONG", "y" * 65000, "env.LONG", "more than 65000 bytes"),
        ("secrets/API_KEY", "password", "secrets.API_KEY", "placeholder or empty"),
        ("secrets/API_KEY", 1234567890123456, "secrets.API_KEY", "YAML read a number"),
        ("secrets/API_KEY", None, "secrets.API_KEY", "is missing"),
        ("secrets/API_KEY", Undefined("'vault_api_key' is undefined"), "secrets.API_KEY", "vault_api_key"),
        ("database/password", "changeme", "database.password", "placeholder"),
        ("database/name", "a.b", "database.name", "does not look right"),
        ("database/host", "web1", "database.host", "not in the group `database`"),
        ("database/pool", 5, "database.pool", "Did you mean `pooled`?"),
        ("tls", {"source": "files"}, "tls.certificate", "is missing"),
        ("tls", {"source": "letsencrypt"}, "tls.source", "is none of"),
        ("tls", {"source": "files", "certificate": "c", "key": "k"}, "domain", "example domain"),
        ("websockets", "/ws", "websockets", "must be a list"),
    ],
)
def test_one_mistake_names_key_and_remedy(path: str, value: Any, key: str, what: str) -> None:
    found = [problem for problem in problems(fleet(put(path, value))) if problem.key == f"slipway_apps.spotik.{key}"]
    assert len(found) == 1
    assert what in found[0].line()
    assert found[0].where == "app spotik"


@pytest.mark.parametrize(
    "path",
    [
        "domain",
        "backends",
        "database/name",
        "database/user",
        "database/password",
        "backends/units/port",
        "backends/units/command",
    ],
)
def test_missing_key(path: str) -> None:
    found = problems(fleet(put(path, None, remove=True)))
    assert [problem.key for problem in found][:1] == ["slipway_apps.spotik." + path.replace("/", ".")]
    assert "is missing" in found[0].what


def test_all_problems_at_once_and_no_secret_among_them() -> None:
    app = spotik()
    app.update(domian="x", threads="5", secrets={"JWT_SECRET": "an-unlucky-value", "OTHER": PASSWORD + "\n"})
    app["database"]["password"] = "hunter2hunter2"
    lines = [problem.line() for problem in problems(fleet(app))]
    assert len(lines) == 5
    text = "\n".join(lines)
    for secret in ("an-unlucky-value", PASSWORD, "hunter2", SECRET):
        assert secret not in text


@pytest.mark.parametrize(
    "name", ["root", "postgres", "docker", "sudo", "dpkg", "slipway", "postgresql", "getty", "systemd-resolve"]
)
def test_an_app_of_systemd_is_not_called_as_something_of_the_system(name: str) -> None:
    raw = Raw(apps={name: spotik()}, groups=fleet().groups, hostvars=fleet().hostvars)
    assert [(problem.key, problem.remedy) for problem in problems(raw)] == [
        (f"slipway_apps.{name}", f"Rename the app, e.g. {name}-app")
    ]
    for backend in raw.apps[name]["backends"].values():
        backend.update(runtime="docker")
    assert problems(raw) == []


def test_ports_of_two_apps_collide_through_the_green_slot() -> None:
    raw = fleet()
    other = spotik()
    other.update(domain="b.spotik.example", database=None)
    other["backends"] = {"main": {"runtime": "docker", "port": 3009, "replicas": 2, "hosts": ["web1"]}}
    raw.apps["other"] = other
    found = problems(raw)
    assert [(problem.where, problem.key) for problem in found] == [("web1", "slipway_apps.other.backends.main.port")]
    assert "port 3010 belongs to app spotik, backend containers" in found[0].what
    other["backends"]["main"]["hosts"] = ["web2"]
    raw.apps["other"]["backends"]["main"].update(port=4000)
    assert problems(raw) == []


@pytest.mark.parametrize(
    ("port", "owner"), [(443, "nginx"), (70, "nginx"), (22, "sshd"), (5422, "PostgreSQL"), (6432, "pgbouncer")]
)
def test_ports_of_the_platform_are_taken(port: int, owner: str) -> None:
    raw = single()
    raw.apps["spotik"]["backends"]["main"]["port"] = port
    assert [f"belongs to {owner}" in problem.what for problem in problems(raw)] == [True]


def test_domains_and_databases_have_one_owner() -> None:
    raw = fleet()
    other = spotik()
    other.update(aliases=["api.spotik.example"], domain="b.spotik.example")
    other["database"].update(user="other", password="zT5fQ8mV2xK9cR4w")
    other["backends"] = {"main": {"runtime": "docker", "port": 4000, "hosts": ["web1"]}}
    raw.apps["other"] = other
    assert [problem.key for problem in problems(raw)] == ["slipway_apps.other.aliases[0]", "slipway_apps.other.database.user"]
    other["aliases"] = []
    other["database"]["user"] = "spotik"
    assert [problem.key for problem in problems(raw)] == ["slipway_apps.other.database.password"]


def test_addresses() -> None:
    raw = fleet(web2={"ansible_host": "web2.lan"})
    assert [(problem.where, problem.key) for problem in problems(raw)] == [("web2", "slipway_address")]
    assert parse(raw)[1] == []  # without facts nothing can be missing yet
    raw = fleet(web2={"slipway_address": "10.0.0.300"})
    assert [problem.what for problem in problems(raw)] == ["is not an IP address"]
    inventory, _found = parse(fleet(web2={"slipway_address": "10.9.9.9"}), {})
    assert inventory.host("web2").address == "10.9.9.9"


def test_groups() -> None:
    raw = fleet()
    groups = {**raw.groups, "edges": raw.groups["edge"]}
    del groups["edge"]
    found = problems(Raw(apps=raw.apps, groups=groups, hostvars=raw.hostvars))
    assert [problem.key for problem in found] == ["groups.edge"]
    assert "did you mean `edges`" in found[0].remedy
    del groups["database"]
    assert any("no host in the group `database`" in problem.what for problem in problems(Raw(raw.apps, groups, raw.hostvars)))


def test_backend_hosts_may_name_a_group() -> None:
    raw = fleet()
    raw.apps["spotik"]["backends"]["units"]["hosts"] = ["units"]
    raw = Raw(raw.apps, {**raw.groups, "units": ["web2"]}, raw.hostvars)
    inventory, found = parse(raw, {})
    assert found == []
    assert inventory.apps[0].hosts() == ("web1", "web2")


def test_collection_variables() -> None:
    raw = fleet()
    assert [problem.key for problem in problems(Raw(None, raw.groups, raw.hostvars, unknown={"slipway_app": "inventory"}))] == [
        "slipway_app",
        "slipway_apps",
    ]
    assert (
        problems(Raw(raw.apps, raw.groups, raw.hostvars, unknown={"slipway_plan": "inventory", "slipway_inventory": "x"})) == []
    )


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"host": "https://reg.lan"}, "slipway_registries[0].host"),
        ({"host": "reg.lan", "username": "u"}, "slipway_registries[0].password"),
        ({"host": "reg.lan", "password": PASSWORD}, "slipway_registries[0].username"),
        ({"hots": "reg.lan"}, "slipway_registries[0].hots"),
        ({"host": "your-registry:5000"}, "slipway_registries[0].host"),
    ],
)
def test_registries(entry: dict[str, Any], key: str) -> None:
    raw = fleet()
    assert key in [problem.key for problem in problems(Raw(raw.apps, raw.groups, raw.hostvars, registries=[entry]))]


def test_overrides_have_types() -> None:
    found = problems(fleet(db1={"postgresql_settings": ["a"], "pgbouncer_nofile": "many", "kernel_nofile": True}))
    assert [problem.key for problem in found] == ["postgresql_settings", "kernel_nofile", "pgbouncer_nofile"]


@pytest.mark.parametrize(
    "text",
    [
        "changeme",
        "CHANGE_ME",
        "your-domain.org",
        "YOUR_KEY",
        "put_token_here",
        "replace-me",
        "<secret>",
        "xxx",
        "postgresql://<user>:<password>@db",
        "https://<host>.acme.org",
        "your password",
        "sha256:<digest>",
        "CHANGE_ME_NOW",
    ],
)
def test_placeholders(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize(
    "text",
    [
        "exchange.org",
        "mirror.your.org",
        "/where/here",
        "a<b",
        "yourself",
        "adhere",
        "exxxon",
        "Shop <shop@acme.org>",
        "<h1>.*</h1>",
        "sort < in > out",
        "Track your orders",
        "exchange-media.org",
        "exchange members",
    ],
)
def test_no_placeholders(text: str) -> None:
    assert not is_placeholder(text)


def test_the_shipped_starting_point_is_refused_with_every_placeholder() -> None:
    data = {}
    for name in ("apps.yml", "vault.example.yml"):
        data.update(yaml.safe_load((PROD / "group_vars/all" / name).read_text()))

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(below) for key, below in value.items()}
        if isinstance(value, list):
            return [filled(below) for below in value]
        if isinstance(value, str) and value.startswith("{{ vault_"):
            return data[value.strip("{} ")]
        return value

    hosts = yaml.safe_load((PROD / "hosts.yml").read_text())
    everything = hosts.pop("all")
    groups = {"all": list(everything["hosts"]), **{name: list(group["hosts"]) for name, group in hosts.items()}}
    hostvars = {name: {**everything["vars"], **(own or {})} for name, own in everything["hosts"].items()}
    found = problems(Raw(filled(data["slipway_apps"]), groups, hostvars, filled(data["slipway_registries"])))
    text = "".join(
        (PROD / name).read_text() for name in ("hosts.yml", "group_vars/all/apps.yml", "group_vars/all/vault.example.yml")
    )
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    wanted = sum(is_placeholder(line.partition(": ")[2].split(" #")[0].strip('" ')) for line in lines)
    placeholders = [problem for problem in found if "placeholder" in problem.what]
    assert len({problem.key for problem in placeholders}) == wanted - 1  # two hosts, one key: ansible_host
    assert not any("changeme" in problem.line() or "your-" in problem.line() for problem in found)


def test_every_key_is_documented() -> None:
    text = (PROD.parents[1] / "docs/inventory.md").read_text()
    keys = {*parse_app.APP_KEYS, *parse_app.BACKEND_KEYS, *parse_health.HEALTH_KEYS, *parse_app.DATABASE_KEYS}
    keys |= {option for options in ALSO.values() for option in options}
    assert {key for key in keys if f"`{key}`" not in text} == set()
    assert {key for key in ALSO if f"`{{{key}: " not in text} == set()


def test_addresses_of_two_families_cannot_work_together() -> None:
    (found,) = problems(fleet(db1={"ansible_host": "fd77::13"}))
    assert (found.where, found.key) == ("db1", "slipway_address")
    assert "is fd77::13, but web1 has 10.87.0.11" in found.line()
    assert problems(fleet(db1={"ansible_host": "fd77::13", "slipway_address": "10.87.0.13"})) == []
    six = {name: {"ansible_host": f"fd77::{number}"} for number, name in enumerate(("web1", "web2", "db1"), 11)}
    assert problems(fleet(**six)) == []


def test_a_restricted_path_below_websockets_would_lose_its_upgrades() -> None:
    app = {**put("websockets", ["/ws"]), "restricted": [{"path": "/ws/admin", "from": ["10.0.0.0/8"]}]}
    assert [(one.key, one.what) for one in problems(fleet(app))] == [
        ("slipway_apps.spotik.restricted[0].path", "`/ws/admin` is below a path of `websockets`")
    ]
