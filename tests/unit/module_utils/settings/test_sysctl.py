# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import sysctl as s
from hypothesis import given
from hypothesis import strategies as st

KERNEL = {
    "net.core.somaxconn": "128",
    "net.ipv4.ip_forward": "1",
    "net.ipv4.ip_local_port_range": "32768\t60999",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.eth0.rp_filter": "0",
    "vm.nr_hugepages": "0",
    "vm.swappiness": "60",
}


class Machine(Runner):
    def __init__(self, container):
        self.container = container

    def run(self, argv, data=None, timeout=600.0, env=None):
        return Result(0 if self.container else 1, "", "")


class Host:
    """A root folder with a kernel that refuses what is in `refused` and clamps what is in `clamped`."""

    def __init__(self, root):
        self.root = root
        self.path = root / "etc/sysctl.d/60-slipway.conf"
        self.container = False
        self.refused: set[str] = set()
        self.clamped: dict[str, str] = {}
        self.reset: dict[str, str] = {}
        """What the kernel sets when forwarding changes."""
        for key, value in KERNEL.items():
            self.write("proc/sys/" + key.replace(".", "/"), f"{value}\n")

    def write(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def live(self, key):
        return (self.root / "proc/sys" / key.replace(".", "/")).read_text().strip()

    def run(self, settings, check_mode=False, **more):
        tool = s.Sysctl(Machine(self.container), self.root)
        real = tool._put

        def put(key, value):
            if key in self.refused and value != KERNEL.get(key):
                raise OSError(22, "Invalid argument")
            if key == s.FORWARD and value != self.live(key):
                for name, default in self.reset.items():
                    real(name, default)
            real(key, self.clamped.get(key, value) if value != KERNEL.get(key) else value)

        tool._put = put
        return tool.run(s.Declared(self.path, settings, **more), check_mode)


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_writes_kernel_and_file_and_is_quiet_the_second_time(host):
    wanted = {"net.core.somaxconn": 4096, "net.ipv4.ip_local_port_range": "16384  60999", "vm.swappiness": 10}
    first = host.run(wanted)
    assert sorted(change.key for change in first.changes) == sorted(wanted)
    assert host.live("net.core.somaxconn") == "4096"
    assert s.parse(host.path.read_text()) == {k: s.normal(v) for k, v in wanted.items()}
    second = host.run(wanted)
    assert not second.changed
    assert second.diff(host.path) == []


def test_white_space_is_no_difference(host):
    assert [c.write_live for c in host.run({"net.ipv4.ip_local_port_range": "32768 60999"}).changes] == [True]
    assert host.live("net.ipv4.ip_local_port_range") == "32768\t60999"


def test_drift_of_the_running_kernel_is_repaired(host):
    host.run({"net.core.somaxconn": 4096})
    host.write("proc/sys/net/core/somaxconn", "5\n")
    done = host.run({"net.core.somaxconn": 4096})
    assert done.changed
    assert host.live("net.core.somaxconn") == "4096"
    assert [part["before_header"] for part in done.diff(host.path)] == ["running kernel"]


def test_drift_of_the_file_is_repaired(host):
    host.run({"net.core.somaxconn": 4096})
    host.path.write_text("# gone\n")
    assert host.run({"net.core.somaxconn": 4096}).changed
    assert "somaxconn = 4096" in host.path.read_text()


def test_check_mode_touches_nothing(host):
    done = host.run({"net.core.somaxconn": 4096}, check_mode=True)
    assert done.changed
    assert not host.path.exists()
    assert host.live("net.core.somaxconn") == "128"
    assert "net.core.somaxconn = 4096" in done.diff(host.path)[0]["after"]


def test_what_is_no_longer_declared_goes_back(host):
    host.run({"net.core.somaxconn": 4096, "vm.swappiness": 10})
    host.write("usr/lib/sysctl.d/10-vendor.conf", "vm.swappiness=33\n")
    host.run({})
    assert not host.path.exists()
    assert host.live("net.core.somaxconn") == "128", "what the kernel had before"
    assert host.live("vm.swappiness") == "33", "what another file gives it at boot"
    assert not host.run({}).changed


def test_the_first_value_is_remembered_not_the_last(host):
    host.run({"net.core.somaxconn": 4096})
    host.run({"net.core.somaxconn": 8192})
    host.run({})
    assert host.live("net.core.somaxconn") == "128"


def test_unknown_settings_are_refused_together_and_nothing_changes(host):
    with pytest.raises(s.SysctlError) as error:
        host.run({"net.core.nonsense": 1, "kernel.typo": 1, "net.core.somaxconn": 4096})
    assert "net.core.nonsense" in str(error.value)
    assert "kernel.typo" in str(error.value)
    assert host.live("net.core.somaxconn") == "128"
    assert not host.path.exists()
    done = host.run({"net.core.nonsense": 1, "net.core.somaxconn": 4096}, strict=False)
    assert done.missing == ["net.core.nonsense"]
    assert "nonsense" in host.path.read_text()


def test_refused_and_clamped_values_bring_the_old_ones_back(host):
    host.refused, host.clamped = {"vm.swappiness"}, {"net.core.somaxconn": "65535"}
    with pytest.raises(s.SysctlError) as error:
        host.run({"net.ipv4.conf.all.rp_filter": 1, "vm.swappiness": 900, "net.core.somaxconn": 99999})
    assert "vm.swappiness: the kernel refuses 900" in str(error.value)
    assert "net.core.somaxconn: declared 99999, the kernel made it 65535" in str(error.value)
    assert host.live("net.ipv4.conf.all.rp_filter") == "0"
    assert host.live("net.core.somaxconn") == "128"
    assert not host.path.exists()


def test_a_container_keeps_its_hands_off_the_machine(host):
    host.container = True
    done = host.run({"vm.swappiness": 10, "net.core.somaxconn": 4096, "net.core.rmem_max": 1})
    assert host.live("vm.swappiness") == "60"
    assert host.live("net.core.somaxconn") == "4096"
    assert sorted(done.file_only) == ["net.core.rmem_max", "vm.swappiness"]
    assert f"{s.SHARED}vm.swappiness = 10\n" in host.path.read_text(), "a start of the container must not set it either"
    assert list(s.parse(host.path.read_text())) == ["net.core.somaxconn"]
    assert done.missing == []
    assert not host.run({"vm.swappiness": 10, "net.core.somaxconn": 4096, "net.core.rmem_max": 1}).changed
    host.run({})
    assert host.live("vm.swappiness") == "60"


@pytest.mark.parametrize("key", ["net.core.somaxxconn", "net.ipv4.ip_forwardd", "vm.swapiness"])
def test_a_misspelt_key_is_no_key_of_the_machine_below(host, key):
    host.container = True
    with pytest.raises(s.SysctlError, match=f"{key}: this kernel has no such setting"):
        host.run({key: 1, "net.core.somaxconn": 4096})
    assert host.live("net.core.somaxconn") == "128"
    assert host.run({key: 1}, strict=False).missing == [key]
    assert host.run({key: 1}, optional=[key]).missing == []


@pytest.mark.parametrize("key", ["net.ipv4.tcp_mem", "net.bridge.bridge-nf-call-iptables", "kernel.yama.ptrace_scope"])
def test_what_only_the_machine_below_has_is_left_to_it(host, key):
    host.container = True
    assert host.run({key: 1}).file_only == [key]


def test_live_true_and_false_decide(host):
    host.container = True
    host.run({"vm.swappiness": 10}, live="true")
    assert host.live("vm.swappiness") == "10"
    host.run({"net.core.somaxconn": 4096, "vm.swappiness": 10}, live="false")
    assert host.live("net.core.somaxconn") == "128"


@pytest.mark.parametrize(
    ("files", "overridden"),
    [
        ({"etc/sysctl.d/99-admin.conf": "net.core.somaxconn=1\n"}, "1 by /etc/sysctl.d/99-admin.conf"),
        ({"usr/lib/sysctl.d/99-vendor.conf": "net/core/somaxconn = 2\n"}, "2 by /usr/lib/sysctl.d/99-vendor.conf"),
        ({"etc/sysctl.d/10-admin.conf": "net.core.somaxconn=1\n"}, ""),
        ({"etc/sysctl.d/99-admin.conf": "net.core.somaxconn = 4096\n"}, ""),
        ({"etc/sysctl.d/99-v.conf": "# hides\n", "usr/lib/sysctl.d/99-v.conf": "net.core.somaxconn=3\n"}, ""),
        ({"etc/sysctl.d/99-admin.conf": "net.*.somaxconn=7\n"}, "7 by /etc/sysctl.d/99-admin.conf"),
        ({"etc/ufw/ufw.conf": "ENABLED=yes\n", "etc/ufw/sysctl.conf": "net/core/somaxconn=9\n"}, "9 by /etc/ufw/sysctl.conf"),
        ({"etc/ufw/ufw.conf": "ENABLED=no\n", "etc/ufw/sysctl.conf": "net/core/somaxconn=9\n"}, ""),
    ],
)
def test_files_that_are_read_later(host, files, overridden):
    for name, text in files.items():
        host.write(name, text)
    wanted = {"net.core.somaxconn": 4096}
    assert host.run(wanted, strict=False).overridden.get("net.core.somaxconn", "") == overridden
    if overridden:
        with pytest.raises(s.SysctlError, match="undoes the declared value"):
            host.run(wanted)
        assert host.run(wanted, optional=["net.core.somaxconn"]).overridden


def test_forwarding_under_docker(host):
    host.run({"net.ipv4.ip_forward": 0})
    host.run({"net.ipv4.ip_forward": 1})
    host.write("usr/bin/dockerd", "")
    with pytest.raises(s.SysctlError, match="cut the containers"):
        host.run({"net.ipv4.ip_forward": 0})
    assert host.live("net.ipv4.ip_forward") == "1"
    assert host.run({"net.ipv4.ip_forward": 0}, router="false").changed
    assert host.run({}, router="true").changed
    assert "ip_forward = 1" in host.path.read_text()
    with pytest.raises(s.SysctlError, match="leave one of them out"):
        host.run({"net.ipv4.ip_forward": 0}, router="true")


def test_what_the_kernel_sets_back_with_forwarding_is_held(host):
    wanted = {"net.ipv4.ip_forward": 0, "net.ipv4.conf.all.rp_filter": 0}
    host.reset = {"net.ipv4.conf.all.rp_filter": "2"}
    host.refused = {"vm.swappiness"}
    with pytest.raises(s.SysctlError, match="the old kernel settings are back"):
        host.run({**wanted, "vm.swappiness": 1})
    assert (host.live("net.ipv4.ip_forward"), host.live("net.ipv4.conf.all.rp_filter")) == ("1", "0")
    host.run(wanted)
    assert (host.live("net.ipv4.ip_forward"), host.live("net.ipv4.conf.all.rp_filter")) == ("0", "0")


def test_forwarding_is_written_first():
    assert s.render({"a.b": "1", "net.ipv4.ip_forward": "1"}).splitlines()[1] == "net.ipv4.ip_forward = 1"


def test_a_damaged_memory_is_no_obstacle(host):
    host.run({"net.core.somaxconn": 4096})
    memory = host.root / "var/lib/slipway/kernel/sysctl-before.json"
    assert json.loads(memory.read_text()) == {"net.core.somaxconn": "128"}
    memory.write_text("{")
    host.run({})
    assert not host.path.exists()


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}(\.[a-z0-9_]{1,8}){1,3}", fullmatch=True), st.integers(0, 2**31).map(str), min_size=1
    )
)
def test_what_is_rendered_is_read_back(settings):
    assert s.parse(s.render(settings)) == settings


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        ("net.core.somaxconn", "net.core.somaxconn"),
        ("net/core/somaxconn", "net.core.somaxconn"),
        ("net/ipv4/conf/eth0.1/rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
        ("net.ipv4.conf.eth0/1.rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
    ],
)
def test_spellings_of_a_key(spelling, key):
    assert s.normal_key(spelling) == key


def test_an_optional_key_is_left_out_where_the_kernel_lacks_it(host):
    wanted = {"net.core.somaxconn": 4096, "net.ipv6.conf.all.accept_redirects": 0}
    done = host.run(wanted, optional=["net.ipv6.conf.all.accept_redirects"])
    assert done.missing == []
    assert "ipv6" not in host.path.read_text()
    assert not host.run(wanted, optional=["net.ipv6.conf.all.accept_redirects"]).changed
    with pytest.raises(s.SysctlError, match="no such setting"):
        host.run(wanted)


def test_what_the_kernel_only_tightens_goes_from_the_file_alone(host):
    host.write("proc/sys/kernel/unprivileged_bpf_disabled", "2\n")
    host.run({"kernel.unprivileged_bpf_disabled": 1})
    host.run({})
    assert not host.path.exists()
    assert host.live("kernel.unprivileged_bpf_disabled") == "1"
    assert not host.run({}).changed


def test_the_hardening_profile_leaves_forwarding_to_docker(host):
    profile = yaml.safe_load((Path(__file__).parents[4] / "roles/kernel/vars/main.yml").read_text())["__kernel_hardening"]
    assert not [key for key in profile if "forward" in key or "accept_ra" in key]
    host.write("usr/bin/dockerd", "")
    for key in profile:
        if not (host.root / "proc/sys" / key.replace(".", "/")).exists():
            host.write("proc/sys/" + key.replace(".", "/"), "9\n")
    host.run(profile, optional=list(profile))
    assert host.live("net.ipv4.ip_forward") == "1"
    assert host.live("net.ipv4.conf.all.rp_filter") == "1"


def test_ufw_that_was_told_to_leave_the_kernel_alone_overrides_nothing(host):
    host.write("etc/ufw/ufw.conf", "ENABLED=yes\n")
    host.write("etc/ufw/sysctl.conf", "net/core/somaxconn=1\n")
    with pytest.raises(s.SysctlError, match=r"etc/ufw/sysctl\.conf"):
        host.run({"net.core.somaxconn": 4096})
    host.write("etc/default/ufw", "IPT_SYSCTL=\n")
    assert host.run({"net.core.somaxconn": 4096}).changed


def test_huge_pages_that_a_long_running_kernel_cannot_give_come_with_its_next_start(host):
    host.clamped["vm.nr_hugepages"] = "100"
    wanted = {"vm.nr_hugepages": 700, "vm.swappiness": 10}
    first = host.run(wanted)
    assert (first.changed, first.pending) == (True, {"vm.nr_hugepages": "100"})
    # Some are worse than none.
    assert (host.live("vm.nr_hugepages"), host.live("vm.swappiness")) == ("0", "10")
    assert s.parse(host.path.read_text())["vm.nr_hugepages"] == "700"
    for check_mode in (False, True):
        again = host.run(wanted, check_mode)
        assert (again.changed, list(again.pending)) == (False, ["vm.nr_hugepages"])
    host.clamped.clear()
    later = host.run(wanted)
    assert (later.changed, later.pending, host.live("vm.nr_hugepages")) == (True, {}, "700")
    assert not host.run(wanted).changed


def test_let_go_forwarding_goes_first_and_nothing_is_left(host):
    host.reset = {"net.ipv4.conf.all.rp_filter": "7"}
    host.write("proc/sys/net/ipv4/ip_forward", "0\n")
    host.run({"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.rp_filter": 1})
    assert (host.live("net.ipv4.ip_forward"), host.live("net.ipv4.conf.all.rp_filter")) == ("1", "1")
    host.run({})
    assert (host.live("net.ipv4.ip_forward"), host.live("net.ipv4.conf.all.rp_filter")) == ("0", "0")
    assert not host.path.exists()
    assert not (host.root / "var/lib/slipway/kernel/sysctl-before.json").exists()
    assert not host.run({}).changed
