# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import docker as d

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
ENGINE = d.Engine(
    nofile=65536, bip="172.30.0.1/24", address_pool="172.30.128.0/17", log_options={"max-size": "10m", "max-file": "5"}
)


def limits(hard):
    return f"Limit Soft Hard Units\nMax open files            1024                 {hard}                files\n"


def files(transaction):
    return {str(spec.path): spec for spec in transaction.files}


@pytest.mark.parametrize(
    ("hard", "kernel", "possible"), [("20000", 1048576, 20000), ("1048576", 5000, 5000), ("unlimited", 7000, 7000)]
)
def test_the_limit_is_what_the_host_can_give(tmp_path, hard, kernel, possible):
    (tmp_path / "sys/fs").mkdir(parents=True)
    (tmp_path / "sys/fs/nr_open").write_text(f"{kernel}\n")
    (tmp_path / "1").mkdir()
    (tmp_path / "1/limits").write_text(limits(hard))
    assert d.hard_limit(tmp_path) == possible


def test_own_keys_win():
    daemon = d.daemon(d.Engine(nofile=1, options={"icc": True, "labels": ["a=b"]}), 1)
    assert daemon["icc"] is True
    assert daemon["labels"] == ["a=b"]
    assert "bip" not in daemon


@pytest.mark.parametrize(
    ("old", "new", "effect"),
    [
        ({"labels": []}, {"labels": ["a=b"], "live-restore": True}, "reload"),
        ({"labels": []}, {"labels": ["a=b"], "icc": False}, "restart"),
        ({"bip": "172.17.0.1/16"}, {}, "restart"),
    ],
)
def test_reload_where_the_daemon_takes_all_by_signal(old, new, effect):
    assert d.effect(old, new) == effect


def test_validation_where_the_daemon_can(tmp_path):
    assert files(d.transaction(ENGINE, "20.10.24", 1, False, tmp_path))["/etc/docker/daemon.json"].validate == ""
    assert "--validate" in files(d.transaction(ENGINE, "26.1.5", 1, False, tmp_path))["/etc/docker/daemon.json"].validate


def test_containers_are_kept_through_the_first_restart_only(tmp_path):
    assert d.transaction(ENGINE, "26.1.5", 1, True, tmp_path).apply == d.KEEP_CONTAINERS
    assert d.transaction(ENGINE, "26.1.5", 1, False, tmp_path).apply == ()
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text('{"live-restore": true}')
    assert d.transaction(ENGINE, "26.1.5", 1, True, tmp_path).apply == ()


def test_the_engines_data_is_not_moved_out_of_sight(tmp_path):
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text('{"data-root": "/srv/docker"}')
    with pytest.raises(d.DockerError, match=r'data-root="/srv/docker"'):
        d.transaction(ENGINE, "26.1.5", 1, False, tmp_path)
    d.transaction(d.Engine(nofile=1, options={"data-root": "/srv/docker"}), "26.1.5", 1, False, tmp_path)


def test_logins_are_merged_and_stay_secret(tmp_path):
    (tmp_path / "root/.docker").mkdir(parents=True)
    (tmp_path / "root/.docker/config.json").write_text('{"auths": {"other": {"auth": "x"}}, "psFormat": "y"}')
    registry = d.Registry("registry.example:5000", "deploy", "hush", PEM)
    assert "hush" not in repr(registry)
    transaction = d.transaction(d.Engine(nofile=1, registries=(registry,)), "26.1.5", 1, False, tmp_path)
    spec = files(transaction)["/root/.docker/config.json"]
    assert (spec.secret, spec.mode) == (True, 0o600)
    assert json.loads(spec.content) == {
        "auths": {"other": {"auth": "x"}, "registry.example:5000": {"auth": "ZGVwbG95Omh1c2g="}},
        "psFormat": "y",
    }
    assert files(transaction)["/etc/docker/certs.d/registry.example:5000/ca.crt"].content == PEM


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_cannot_be_merged_is_named(tmp_path, text):
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text(text)
    with pytest.raises(d.DockerError, match=r"daemon\.json.*correct or remove"):
        d.transaction(ENGINE, "26.1.5", 1, False, tmp_path)


def test_every_violation_is_named():
    engine = d.Engine(
        nofile=1,
        bip="172.30.0.0/16",
        address_pool="172.30.128.0/17",
        address_pool_size=16,
        registries=(d.Registry("https://r", "u"), d.Registry("r", "", "", "no pem"), d.Registry("r")),
    )
    text = "\n".join(d.problems(engine))
    for part in ("own address", "does not fit", "take apart", "no host", "both username", "PEM", "twice"):
        assert part in text
    assert d.problems(ENGINE) == []


class FakeEngine(Runner):
    def __init__(self, info, bridge):
        self.info, self.bridge = info, bridge

    def run(self, argv, data=None, timeout=600.0, env=None):
        if argv[:2] == ["docker", "info"]:
            return Result(0, json.dumps(self.info), "") if self.info else Result(1, "", "Cannot connect")
        if argv[:3] == ["docker", "network", "inspect"]:
            return Result(0, json.dumps(self.bridge), "")
        return Result(0, "4711\n" if argv[0] == "systemctl" else "-A FORWARD -o docker0 -j DOCKER\n", "")


GOOD = {
    "LiveRestoreEnabled": True,
    "LoggingDriver": "local",
    "ServerVersion": "26.1.5",
    "SecurityOptions": ["name=seccomp", "name=no-new-privileges"],
    "DefaultAddressPools": [{"Base": "172.30.128.0/17", "Size": 24}],
}
BRIDGE = {
    "Options": {"com.docker.network.bridge.enable_icc": "false"},
    "IPAM": {"Config": [{"Subnet": "172.30.0.0/24", "Gateway": "172.30.0.1"}]},
}


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "sys/net/ipv4").mkdir(parents=True)
    (tmp_path / "sys/net/ipv4/ip_forward").write_text("1\n")
    (tmp_path / "4711").mkdir()
    (tmp_path / "4711/limits").write_text(limits("20000"))
    (tmp_path / "4711/comm").write_text("dockerd\n")
    return tmp_path


def test_a_daemon_with_all_settings_has_no_mismatch(proc):
    assert d.mismatches(ENGINE, 20000, FakeEngine(GOOD, BRIDGE), proc) == []


def test_each_setting_that_did_not_arrive_is_named(proc):
    (proc / "sys/net/ipv4/ip_forward").write_text("0\n")
    (proc / "4711/comm").write_text("docker-proxy\n")
    info = {**GOOD, "LiveRestoreEnabled": False, "LoggingDriver": "json-file", "SecurityOptions": [], "DefaultAddressPools": None}
    bridge = {"Options": {"com.docker.network.bridge.enable_icc": "true"}, "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}}
    text = "\n".join(map(str, d.mismatches(ENGINE, 30000, FakeEngine(info, bridge), proc)))
    for part in (
        "live-restore",
        "log-driver",
        "no-new-privileges",
        "icc",
        "forwarding",
        "default-address-pools",
        "bip",
        "docker-proxy",
        "nofile",
    ):
        assert f"docker {part}" in text or part in text, part


def test_an_older_engine_does_not_tell_about_privileges(proc):
    info = {**GOOD, "ServerVersion": "20.10.24+dfsg1", "SecurityOptions": ["name=seccomp"]}
    assert d.mismatches(ENGINE, 20000, FakeEngine(info, BRIDGE), proc) == []


def test_a_daemon_that_does_not_answer_is_one_mismatch(proc):
    assert len(d.mismatches(ENGINE, 20000, FakeEngine({}, {}), proc)) == 1
