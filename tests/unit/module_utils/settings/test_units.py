# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import configparser

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import units as u

APP = {
    "name": "shop@.service",
    "description": "Shop, instance %i",
    "user": "shop",
    "create_user": True,
    "command": "puma -C config/puma.rb",
    "working_directory": "/opt/shop/slots/%i",
    "environment_files": ["/etc/slipway/env/shop.systemd.env", "/etc/slipway/env/shop@%i.env"],
    "environment": {"GREETING": 'say "hi" 100%'},
    "limits": {"nofile": 8192},
    "memory_max": "512M",
}


def lines(unit):
    return u.render(unit).splitlines()


def test_an_app_unit():
    text = lines(APP)
    assert text[0].startswith(f"# {u.MARKER}")
    for line in (
        "Description=Shop, instance %i",
        "Type=exec",
        "ExecStart=/usr/bin/env puma -C config/puma.rb",
        "User=shop",
        "Group=shop",
        "WorkingDirectory=/opt/shop/slots/%i",
        "EnvironmentFile=/etc/slipway/env/shop.systemd.env",
        "EnvironmentFile=/etc/slipway/env/shop@%i.env",
        'Environment="GREETING=say \\"hi\\" 100%%"',
        "LimitNOFILE=8192",
        "LimitCORE=0",
        "MemoryMax=512M",
        "Restart=on-failure",
        "KillMode=mixed",
        "TimeoutStopSec=30",
        "StateDirectory=shop",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
        "SystemCallFilter=~@privileged @resources",
        "WantedBy=multi-user.target",
    ):
        assert line in text, line
    assert not any("MemoryDenyWriteExecute" in line for line in text)


def test_a_sandbox_is_loosened_key_by_key_and_read_back():
    text = lines(
        {
            **APP,
            "hardening": "strict",
            "capabilities": ["CAP_NET_BIND_SERVICE"],
            "address_families": ["AF_NETLINK"],
            "read_write_paths": ["/srv/shop"],
            "extra": {"Service": {"ProcSubset": "all"}},
        }
    )
    for line in (
        "MemoryDenyWriteExecute=yes",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "ReadWritePaths=/srv/shop",
        "ProcSubset=all",
    ):
        assert line in text, line
    assert not any(line.startswith(("PrivateUsers", "ProcSubset=pid")) for line in text)
    loose = {**APP, "extra": {"Service": {"PrivateUsers": False, "Nice": 5}}}
    assert [(trial["unit"], trial["keys"]["PrivateUsers"]) for trial in u.transaction([loose])["trials"]] == [
        ("shop@.service", False)
    ]
    assert "Nice" not in u.transaction([loose])["trials"][0]["keys"]
    checks = u.transaction([APP, {"name": "old.service", "command": "/x", "hardening": "none"}])["checks"]
    assert [check["unit"] for check in checks if check["kind"] == "sandbox"] == ["shop@.service"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hardening": "total"}, "'total' is none of standard, strict, compatible, none"),
        ({"capabilities": ["net_bind"]}, "not a name such as CAP_NET_BIND_SERVICE"),
        ({"address_families": ["netlink"]}, "not a name such as AF_NETLINK"),
    ],
)
def test_a_sandbox_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(u.UnitError, match=says):
        u.render({**APP, **wrong})


def test_without_sandbox_nothing_of_it_is_left():
    text = lines({"name": "legacy.service", "command": "/usr/bin/legacy", "hardening": "none"})
    assert not any(line.startswith(("Protect", "Private", "User=", "SystemCall")) for line in text)


def test_extra_adds_and_replaces():
    text = lines(
        {**APP, "extra": {"Unit": {"Requires": "postgresql.service"}, "Service": {"ProtectHome": False, "OOMScoreAdjust": 5}}}
    )
    assert "Requires=postgresql.service" in text
    assert "ProtectHome=no" in text
    assert "ProtectHome=yes" not in text
    assert "OOMScoreAdjust=5" in text


def test_a_timer_has_no_service_section():
    text = u.render({"name": "tidy.timer", "extra": {"Timer": {"OnCalendar": "daily", "Persistent": True}}})
    parser = configparser.ConfigParser(delimiters="=")
    parser.optionxform = str
    parser.read_string(text)
    assert parser.sections() == ["Unit", "Timer", "Install"]
    assert parser["Timer"]["Persistent"] == "yes"
    assert parser["Install"]["WantedBy"] == "timers.target"


def test_a_oneshot_is_not_restarted():
    text = lines({"name": "job.service", "command": "/bin/true", "user": "job", "type": "oneshot"})
    assert "Restart=no" in text
    assert not any(line.startswith("RestartSec") for line in text)


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ({}, "a unit without name"),
        ({"name": "x.conf"}, "not a unit name"),
        ({"name": "../x.service"}, "not a unit name"),
        ({"name": "x.service", "user": "x"}, "command is missing"),
        ({"name": "x.service", "command": "y"}, "user is missing"),
        ({"name": "x.service", "command": "y", "user": "a b"}, "not a user name"),
        ({"name": "x.service", "command": "y", "user": "root", "create_user": True}, "other than root"),
        ({"name": "x.service", "command": "y\nExecStartPre=z", "user": "x"}, "line break"),
        ({"name": "x.service", "command": "y", "user": "x", "limits": {"nofile": "many"}}, "not a number"),
        ({"name": "x.service", "command": "y", "user": "x", "limits": {"files": 1}}, "limits.files"),
        ({"name": "x.service", "command": "y", "user": "x", "environment": {"A B": 1}}, "environment.A B"),
        ({"name": "x@.service", "command": "y", "user": "x", "state": "started"}, "no state of its own"),
    ],
)
def test_wrong_declarations_are_named(unit, words):
    with pytest.raises(u.UnitError, match=words):
        u.render(unit)


def test_all_problems_of_all_units_at_once():
    twice = {"name": "a.service", "command": "/bin/true", "user": "a"}
    with pytest.raises(u.UnitError) as error:
        u.transaction([twice, twice, {"name": "b.service", "user": "b"}])
    assert "a.service: declared 2 times" in str(error.value)
    assert "b.service: command is missing" in str(error.value)


def test_transaction_of_a_template_and_a_service():
    worker = {"name": "worker.service", "command": "/usr/bin/worker", "user": "shop", "group": "web", "create_user": True}
    parts = u.transaction([APP, {**worker, "user": "worker"}])
    assert [file["path"] for file in parts["files"]] == [
        "/etc/sysusers.d/slipway-shop.conf",
        "/etc/sysusers.d/slipway-worker.conf",
        "/etc/systemd/system/shop@.service",
        "/etc/systemd/system/worker.service",
    ]
    assert [unit["name"] for unit in parts["units"]] == ["worker.service"], "a template is never started"
    assert parts["units"][0]["follows"] == ["/etc/systemd/system/worker.service"]
    assert parts["apply"] == [["systemd-sysusers", "/etc/sysusers.d/slipway-shop.conf", "/etc/sysusers.d/slipway-worker.conf"]]
    assert {(check["kind"], check.get("unit")) for check in parts["checks"]} == {
        ("command", None),
        ("limit", "shop@.service"),
        ("unit", "worker.service"),
        ("sandbox", "shop@.service"),
        ("sandbox", "worker.service"),
    }


def test_users_are_system_users_without_a_shell():
    files = u.user_file([APP, {**APP, "name": "other@.service", "description": "again"}])
    assert list(files) == ["/etc/sysusers.d/slipway-shop.conf"]
    assert 'u shop - "Shop" /var/lib/shop /usr/sbin/nologin' in files["/etc/sysusers.d/slipway-shop.conf"]
    group = u.user_file([{**APP, "group": "web"}])["/etc/sysusers.d/slipway-shop.conf"]
    assert group.splitlines()[-2:] == ["g web -", "m shop web"]


def test_nothing_declared_is_an_empty_transaction_that_still_tidies_up():
    parts = u.transaction([])
    assert parts["files"] == parts["units"] == parts["apply"] == parts["checks"] == []
    assert {rule["marker"] for rule in parts["exclusive"]} == {u.MARKER}
