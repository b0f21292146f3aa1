# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.guard.armed import Arming, Guard, TakenBack
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import ufw, ufw_compile, ufw_kernel, ufw_remove
from ansible_collections.slipway.server.plugins.module_utils.settings import ufw_model as m
from hypothesis import given, settings
from hypothesis import strategies as st

RECORDED = Path(__file__).resolve().parents[2] / "fixtures" / "ufw"
OPERATOR = m.Session("198.51.100.9", 22)

# The rules of the recording, in the order in which they were typed.
RULES = (
    m.Rule("allow", "tcp", "22", comment="SSH"),
    m.Rule("deny", "any", "any", "203.0.113.0/24"),
    m.Rule("allow", "tcp", "6432", "10.0.0.0/8", comment="pgbouncer, app hosts é"),
    m.Rule("allow", "tcp", "3000:3001"),
    m.Rule("limit", "tcp", "2222"),
    m.Rule("allow", "udp", "53"),
    m.Rule("allow", "any", "8080"),
    m.Rule("allow", "tcp", "443", "fd00::/8"),
    m.Rule("allow", "tcp", "9000", "10.1.2.3", "10.9.9.9"),
    m.Rule("allow", "any", "any", "192.0.2.7"),
)
AS_TYPED = m.Firewall(rules=RULES, close_containers=False)
MIXED = replace(AS_TYPED, incoming="reject", outgoing="deny", routed="allow", logging="medium")


def recorded(name):
    return (RECORDED / name).read_text()


def build(rules=(), containers=(), ssh=(22,), session=OPERATOR, **more):
    return m.build(rules, containers, ssh, session, **more)[0]


@pytest.mark.parametrize("level", m.LOG_LEVELS)
@pytest.mark.parametrize(("family", "name"), [(4, "user"), (6, "user6")])
def test_files_are_what_ufw_writes(level, family, name):
    assert ufw_compile.user_rules(replace(AS_TYPED, logging=level), family) == recorded(f"{level}.{name}.rules")


def test_files_are_what_ufw_writes_with_other_policies():
    assert ufw_compile.user_rules(MIXED, 4) == recorded("mixed.user.rules")
    edited = ufw_compile.defaults_file(recorded("default"), MIXED).replace("IPT_SYSCTL=\n", "IPT_SYSCTL=/etc/ufw/sysctl.conf\n")
    assert edited == recorded("mixed.default")


@pytest.mark.parametrize("level", m.LOG_LEVELS)
def test_the_kernels_spelling_is_understood(level):
    wanted = ufw_kernel.parse(ufw_compile.transaction(replace(AS_TYPED, logging=level), 4))
    assert ufw_kernel.differing(wanted, ufw_kernel.parse(recorded(f"{level}.save"))) == []


@pytest.mark.parametrize(
    ("family", "firewall", "save"), [(6, AS_TYPED, "low.save6"), (4, MIXED, "mixed.save"), (6, MIXED, "mixed.save6")]
)
def test_the_kernels_spelling_is_understood_for_ipv6_and_policies(family, firewall, save):
    wanted = ufw_kernel.parse(ufw_compile.transaction(firewall, family))
    assert ufw_kernel.differing(wanted, ufw_kernel.parse(recorded(save))) == []


def test_each_difference_is_named():
    live = ufw_kernel.parse(recorded("low.save"))
    wanted = ufw_kernel.parse(ufw_compile.transaction(replace(AS_TYPED, rules=RULES[:-1], incoming="allow"), 4))
    assert set(ufw_kernel.differing(wanted, live)) == {
        "INPUT", "ufw-user-input", "ufw-track-input", "ufw-skip-to-policy-input", "ufw-after-logging-input",
    }  # fmt: skip


def test_the_frame_of_a_running_ufw_is_whole_and_each_gap_is_found():
    files = {f"etc/ufw/{name}.rules": recorded(f"{name}.rules") for name in ("before", "after", "before6", "after6")}
    for family, name, save in ((4, "ufw", "low.save"), (6, "ufw6", "low.save6")):
        live = ufw_kernel.parse(recorded(save))
        assert ufw_kernel.frame_faults(live, name, ufw.framed(files, family)) == []
        for chain in ("INPUT", f"{name}-before-input", f"{name}-after-input", f"{name}-before-forward"):
            rules, live[chain].rules = live[chain].rules, []
            assert ufw_kernel.frame_faults(live, name, ufw.framed(files, family)), chain
            live[chain].rules = rules


def test_ipv6_switched_off_is_recognised():
    files = {f"etc/ufw/{name}.rules": recorded(f"{name}.rules") for name in ("before", "after")}
    tables = {4: ufw_kernel.parse(recorded("low.save")), 6: ufw_kernel.parse(recorded("no6.save6"))}
    off = replace(AS_TYPED, ipv6=False)
    assert ufw.effective_faults(off, ufw.Live(True, files, tables)) == ([], False)
    tables[6] = ufw_kernel.parse(recorded("low.save6"))
    assert ufw.effective_faults(off, ufw.Live(True, files, tables))[1] is True


def test_docker_before_its_user_chain_is_noticed():
    live = ufw_kernel.parse(recorded("low.save"))
    assert not ufw_kernel.docker_unhooked(live)
    live["FORWARD"].rules.remove("-j DOCKER-USER")
    assert ufw_kernel.docker_unhooked(live)
    assert not ufw_kernel.docker_unhooked({})
    live["FORWARD"].rules.insert(1, "-j DOCKER-USER")  # as Docker leaves it after a restart with running containers
    assert live["FORWARD"].rules[0] == "-j DOCKER-ISOLATION-STAGE-1"
    assert not ufw_kernel.docker_unhooked(live)
    live["FORWARD"].rules.insert(0, "-o docker0 -j DOCKER")
    assert ufw_kernel.docker_unhooked(live)


def test_a_return_that_docker_adds_behind_the_drop_is_no_difference():
    firewall = build()
    wanted = ufw_kernel.parse(ufw_compile.transaction(firewall, 4))
    live = ufw_kernel.parse(ufw_compile.transaction(firewall, 4))
    live["DOCKER-USER"].rules.append("-j RETURN")
    assert ufw_kernel.differing(wanted, live) == []
    live["DOCKER-USER"].rules.insert(0, "-j RETURN")
    assert ufw_kernel.differing(wanted, live) == ["DOCKER-USER"]


def test_the_narrower_source_comes_first():
    firewall = build([{"port": 5432}, {"port": 5432, "from": "10.0.0.0/8", "action": "deny"}, {"port": 5432, "from": "10.1.1.1"}])
    assert [rule.source for rule in firewall.rules if rule.port == "5432"] == ["10.1.1.1", "10.0.0.0/8", "any"]


def test_the_order_of_the_inventory_means_nothing():
    rules = [
        {"port": 80},
        {"port": "80:90", "action": "deny"},
        {"from": "10.0.0.0/8", "action": "deny"},
        {"port": 443, "from": "10.0.0.1"},
    ]
    assert build(rules) == build(rules[::-1])


def test_a_rule_hidden_by_an_open_port_is_reported():
    _firewall, warnings = m.build([{"port": 5432}, {"port": 5432, "from": "10.0.0.0/8"}], [], [22], OPERATOR)
    assert len(warnings) == 1
    assert "restricts nothing" in warnings[0]


def test_ssh_is_opened_where_the_session_and_the_variable_say():
    firewall = build(ssh=(2222,), session=m.Session("198.51.100.9", 22))
    assert {rule.port for rule in firewall.rules} == {"22", "2222"}


def test_an_own_rule_for_ssh_stands_alone():
    firewall = build([{"port": 22, "from": "198.51.100.0/24"}])
    assert [rule.source for rule in firewall.rules] == ["198.51.100.0/24"]


@pytest.mark.parametrize(
    "rules",
    [
        [{"port": 22, "action": "deny"}],
        [{"port": 22, "from": "192.0.2.0/24"}],
        [{"from": "198.51.100.0/24", "action": "deny"}],
        [{"port": 22, "from": "198.51.100.9", "action": "deny"}],
    ],
)
def test_rules_that_cut_the_session_are_refused(rules):
    with pytest.raises(m.RuleError, match=r"would be cut|contradict"):
        build(rules)


def test_a_wider_rule_does_not_cut_ssh():
    assert build([{"port": "1:1024", "action": "reject"}, {"action": "deny"}]).rules[0].port == "22"


def test_rules_without_any_way_to_ssh_are_refused_without_a_session_too():
    with pytest.raises(m.RuleError, match="no client could reach SSH"):
        build([{"port": 22, "from": "192.0.2.0/24"}, {"from": "192.0.2.0/24", "port": "20:30", "action": "deny"},
               {"port": 22, "from": "192.0.2.0/25", "action": "deny"}], session=m.Session())  # fmt: skip


def test_a_mapped_address_is_the_operators_ipv4_address():
    build([{"port": 22, "from": "198.51.100.0/24"}], session=m.Session("::ffff:198.51.100.9", 22))


def test_every_violation_is_named_at_once():
    with pytest.raises(m.RuleError) as caught:
        build(
            [
                {"port": 70000},
                {"port": 80, "from": "10.0.0.1/8"},
                {"porto": 1},
                {"port": 1, "action": "drop"},
                {"port": 1, "from": []},
            ],
            [{"from": "any"}],
            ssh=(0,),
            container_interfaces=("eth0; reboot",),
        )
    text = str(caught.value)
    for part in (
        "`70000`",
        "did you mean 10.0.0.0/8?",
        "`porto`",
        "`drop`",
        "ufw_rules[4]",
        "ufw_container_rules[0]",
        "ufw_ssh_ports",
        "eth0;",
    ):
        assert part in text


@given(
    st.lists(st.sampled_from(RULES), unique=True), st.ip_addresses(v=4), st.sampled_from([22, 53, 443, 3000, 6432, 8080, 9000])
)
@settings(max_examples=60)
def test_the_first_rule_that_matches_is_the_narrowest(rules, address, port):
    ordered, problems = m.order(rules)
    assert problems == []
    matching = [rule for rule in ordered if rule.covers(str(address), port)]
    widths = [129 if rule.source == "any" else 32 - ipaddress.ip_network(rule.source).prefixlen for rule in matching]
    assert widths == sorted(widths)


def test_container_rules_ask_for_the_published_port():
    firewall = build(containers=[{"port": 3000, "from": ["10.0.0.2", "fd00::2"]}])
    assert "-A DOCKER-USER -p tcp -s 10.0.0.2 -m conntrack --ctorigdstport 3000 -j RETURN" in ufw_compile.container_lines(
        firewall, 4
    )
    assert "-A DOCKER-USER -p tcp -s fd00::2 -m conntrack --ctorigdstport 3000 -j RETURN" in ufw_compile.container_lines(
        firewall, 6
    )
    assert ufw_compile.container_lines(firewall, 6)[-1] == "-A DOCKER-USER -j DROP"


def test_the_block_comes_and_goes_without_a_trace():
    original = recorded("after.rules")
    block = ufw_compile.container_block(build(), 4)
    once = ufw_compile.with_block(original, block)
    assert ufw_compile.with_block(once, block) == once
    assert ufw_compile.with_block(once, "") == original


def test_settings_are_replaced_where_they_stand():
    assert ufw_compile.with_setting("A=1\nB=2\nA=3", "A", "4") == "B=2\nA=4\n"
    assert ufw_compile.with_setting("B=2\n", "A", "4") == "B=2\nA=4\n"


def test_the_session_is_found_above_sudo(tmp_path):
    for pid, parent, environment in ((30, 20, "A=1\0"), (20, 10, "SSH_CONNECTION=198.51.100.9 50000 10.0.0.1 22\0"), (10, 1, "")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_text(environment)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S {parent} 1 1")
    assert ufw.session_of(ufw.ancestors(tmp_path, 30)) == m.Session("198.51.100.9", 22)
    assert ufw.session_of([]) == m.Session()


DOCKER = "*filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER"


class FakeHost(Runner):
    """A kernel without rules until ufw-init ran; iptables-restore sets what it gets."""

    def __init__(self, root: Path, tables=None):
        self.root, self.tables = root, tables or {}
        self.calls: list[str] = []
        self.fail = ""

    def run(self, argv, data=None, timeout=600.0, env=None):
        line = " ".join(argv)
        self.calls.append(line)
        if self.fail and line.startswith(self.fail):
            return Result(1, "", "broken")
        if argv[0].endswith("-save"):
            return Result(0, self.tables.get(argv[0][:-5], "*filter\nCOMMIT\n"), "")
        if line == f"{ufw.INIT} force-stop":
            self.tables = {name: DOCKER if "DOCKER-USER" in text else "*filter" for name, text in self.tables.items()}
        if line == f"{ufw.INIT} force-reload":
            self.tables = {"iptables": recorded("low.save"), "ip6tables": recorded("low.save6")}
        if argv[0].endswith("-restore") and "--test" not in argv:
            old = ufw_kernel.parse(self.tables[argv[0][:-8]])
            old.update(
                {name: chain for name, chain in ufw_kernel.parse(data).items() if name not in ("INPUT", "OUTPUT", "FORWARD")}
            )
            lines = [f":{name} {chain.policy or '-'} [0:0]" for name, chain in old.items()]
            lines += [f"-A {name} {rule}" for name, chain in old.items() for rule in chain.rules]
            self.tables[argv[0][:-8]] = "\n".join(["*filter", *lines])
        return Result(0, "enabled" if argv[:2] == ["systemctl", "is-enabled"] else "", "")


@pytest.fixture
def host(tmp_path, monkeypatch):
    for folder in ("etc/ufw", "etc/default", "lib/ufw"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("before", "before6", "after", "after6"):
        shutil.copy(RECORDED / f"{name}.rules", tmp_path / "etc/ufw")
    shutil.copy(RECORDED / "ufw.conf", tmp_path / "etc/ufw")
    shutil.copy(RECORDED / "default", tmp_path / "etc/default/ufw")
    (tmp_path / ufw.INIT.lstrip("/")).touch()
    monkeypatch.setattr(ufw.disk.os, "fchown", lambda *_: None)
    return FakeHost(tmp_path)


def test_ssh_is_held_open_before_anything_is_loaded_and_released_after(host):
    done = ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22])
    acting = [call for call in host.calls if "-save" not in call and "--test" not in call and " -S" not in call]
    guards = [n for n, call in enumerate(acting) if " -I " in call]
    assert len(guards) == 4
    assert max(guards) < acting.index(f"{ufw.INIT} force-reload")
    assert done.changed
    assert "IPv4 in: -p tcp --dport 443 -j ACCEPT" in done.after
    assert "# SSH" in done.after
    assert not ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22]).changed


def test_a_running_firewall_changes_in_one_transaction_for_each_family(host):
    ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22])
    host.calls.clear()
    done = ufw.Ufw(host, host.root).apply(build([{"port": 80}]), [22])
    assert done.actions == ["iptables-restore", "ip6tables-restore"]
    assert not [call for call in host.calls if "force-reload" in call]


def test_a_unit_that_is_enabled_is_started_and_not_enabled_again(host):
    host.fail = "systemctl is-active"
    ufw.Ufw(host, host.root).apply(build(), [22])
    assert [call for call in host.calls if "systemctl" in call and "is-" not in call] == [f"systemctl start {ufw.UNIT}"]


def arming(host):
    return Arming(Guard("ufw", host, root=host.root), lambda: None, 60)


def test_a_change_of_files_waits_for_its_confirmation_and_comes_back(host):
    before = {path.name: path.read_bytes() for path in (host.root / "etc").rglob("*") if path.is_file()}
    armed = arming(host)
    assert ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22], arming=armed).changed
    assert armed.waiting() == {"name": "ufw", "txn": armed.txn, "seconds": 60}
    host.calls.clear()
    armed.guard.revert()
    assert f"{ufw.INIT} force-stop" in host.calls  # no firewall was there before
    assert before == {path.name: path.read_bytes() for path in (host.root / "etc").rglob("*") if path.is_file()}


def test_what_was_taken_back_is_not_what_is_owned(host):
    record = host.root / ufw.MANIFEST / "ufw.json"
    armed = arming(host)
    ufw.Ufw(host, host.root).apply(build(), [22], arming=armed)
    armed.guard.revert()
    assert not record.exists()
    ufw.Ufw(host, host.root).apply(build(), [22])
    kept = record.read_text()
    armed = arming(host)
    ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22], arming=armed)
    assert record.read_text() != kept
    armed.guard.revert()
    assert record.read_text() == kept
    armed = arming(host)
    ufw_remove.remove(ufw.Ufw(host, host.root), [22], arming=armed)
    assert not record.exists()
    armed.guard.revert()
    assert record.read_text() == kept


def test_what_was_opened_in_the_kernel_by_hand_is_repaired_at_once(host):
    ufw.Ufw(host, host.root).apply(build(), [22])
    host.tables["iptables"] += "\n-A ufw-user-input -p tcp --dport 9000 -j ACCEPT"
    armed = arming(host)
    ufw.Ufw(host, host.root).apply(build(), [22], arming=armed)
    assert armed.waiting() == {}


def test_a_guarded_change_that_fails_is_over_at_once(host):
    ufw.Ufw(host, host.root).apply(build(), [22])
    before = {path.name: path.read_bytes() for path in (host.root / "etc").rglob("*") if path.is_file()}
    host.fail = "ufw status"
    armed = arming(host)
    with pytest.raises(TakenBack):
        ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22], arming=armed)
    assert armed.waiting() == {}
    assert before == {path.name: path.read_bytes() for path in (host.root / "etc").rglob("*") if path.is_file()}


def test_check_mode_writes_nothing(host):
    before = {path: path.read_bytes() for path in host.root.rglob("*") if path.is_file()}
    assert ufw.Ufw(host, host.root).apply(build(), [22], check_mode=True).changed
    assert before == {path: path.read_bytes() for path in host.root.rglob("*") if path.is_file()}
    assert all("save" in call or "is-enabled" in call for call in host.calls)


def test_check_mode_on_a_host_without_ufw(tmp_path):
    class Bare(Runner):
        def run(self, argv, data=None, timeout=600.0, env=None):
            return Result(127, "", "command not found")

    done = ufw.Ufw(Bare(), tmp_path).apply(build(), [22], check_mode=True)
    assert done.changed
    assert "firewall: inactive" in done.before
    with pytest.raises(ufw.UfwError, match="not installed"):
        ufw.Ufw(Bare(), tmp_path).apply(build(), [22])


@pytest.mark.parametrize(
    "failing", ["iptables-restore --test", "iptables-restore --noflush", f"{ufw.INIT} force-reload", "ufw status"]
)
def test_a_failure_leaves_the_old_files(host, failing):
    before = {path.name: path.read_bytes() for path in host.root.rglob("*") if path.is_file()}
    host.fail = failing
    with pytest.raises(ufw.UfwError):
        ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22])
    assert before == {path.name: path.read_bytes() for path in host.root.rglob("*") if path.is_file()}


def test_a_guard_left_by_a_killed_run_is_a_difference(host):
    ufw.Ufw(host, host.root).apply(build(), [22])
    host.tables["iptables"] += "\n-I INPUT -p tcp --dport 22 -m comment --comment slipway-guard -j ACCEPT"
    assert ufw.plan(build(), ufw.Ufw(host, host.root).observe()).faults == [
        "IPv4: chain INPUT still has the rule that held SSH open"
    ]


def content(root):
    return {str(path): path.read_bytes() for path in (root / "etc").rglob("*") if path.is_file()}


def test_taken_away_leaves_the_bytes_of_before(host):
    before = content(host.root)
    ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22])
    ufw.Ufw(host, host.root).apply(build([{"port": 8443}]), [22])
    seen = ufw_remove.remove(ufw.Ufw(host, host.root), [22], check_mode=True)
    assert seen.changed
    assert content(host.root) != before
    done = ufw_remove.remove(ufw.Ufw(host, host.root), [22])
    assert content(host.root) == before
    assert done.files["etc/ufw/user.rules"] == ""
    assert "firewall: active" in done.before
    assert "firewall: inactive" in done.after
    assert not any(call.startswith("systemctl disable") for call in host.calls)
    assert not (host.root / ufw.ORIGINALS).exists()
    assert not ufw_remove.remove(ufw.Ufw(host, host.root), [22]).changed


def test_taken_away_opens_what_containers_publish(host):
    ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22])
    host.calls.clear()
    assert ufw_remove.remove(ufw.Ufw(host, host.root), [22], check_mode=True).words == []
    host.tables["iptables"] += "\n-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8081 -j ACCEPT"
    done = ufw_remove.remove(ufw.Ufw(host, host.root), [22])
    assert [word.partition(" are reached from everywhere")[0] for word in done.words] == [
        "containers that publish their port 8081"
    ]
    assert [call for call in host.calls if "DOCKER-USER" in call and call.startswith("iptables")] == [
        "iptables -F DOCKER-USER",
        "iptables -A DOCKER-USER -j RETURN",
    ]
    guards = [n for n, call in enumerate(host.calls) if " -I INPUT 1" in call]
    assert max(guards) < host.calls.index(f"{ufw.INIT} force-stop")


def test_a_firewall_of_which_nothing_is_kept_is_not_guessed_at(host):
    ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22])
    shutil.rmtree(host.root / ufw.ORIGINALS)
    with pytest.raises(ufw.UfwError, match="ufw --force reset"):
        ufw_remove.remove(ufw.Ufw(host, host.root), [22])


def test_a_firewall_that_does_not_stop_is_an_error(host, monkeypatch):
    ufw.Ufw(host, host.root).apply(build([{"port": 443}]), [22])
    running, stop = dict(host.tables), host.run

    def stubborn(argv, data=None, timeout=600.0, env=None):
        done = stop(argv, data)
        host.tables = running if "force-stop" in argv else host.tables
        return done

    monkeypatch.setattr(host, "run", stubborn)
    with pytest.raises(ufw.UfwError, match="still has rules"):
        ufw_remove.remove(ufw.Ufw(host, host.root), [22])
