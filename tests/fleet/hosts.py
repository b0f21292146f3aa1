# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets of hosts: start, stop, restart, list."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from tests.fleet import images
from tests.fleet.shell import ROOT, STATE, FleetError, attempt, lock, run, say, step
from tests.fleet.spec import Host, Network, Spec, free_subnet

LABEL = "slipway.fleet"
SPEC_LABEL = "slipway.host"
KEY = STATE / "id_ed25519"
BOOT_TIMEOUT = 120.0
"""Seconds until systemd and sshd must be up; they need 2 to 5 on an idle machine."""

# What systemd needs, without CAP_SYS_RESOURCE, which build machines lack, and so without --privileged.
FLAGS = (
    "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE",
    "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
    "--security-opt", "systempaths=unconfined",
    "--cgroupns=host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec,nosuid,nodev,mode=1777",
    "--stop-signal", "SIGRTMIN+3", "--env", "container=docker",
)  # fmt: skip

AUTHORIZE = """
umask 077
mkdir -p /root/.ssh
read -r key
grep -qxF "$key" /root/.ssh/authorized_keys 2>/dev/null || echo "$key" >>/root/.ssh/authorized_keys
"""


def up(spec: Spec) -> Spec:
    """Start all hosts that do not run as specified, and return the fleet with its addresses.

    Afterwards .fleet/<name>/known_hosts and .fleet/<name>/hosts.yml let ssh and ansible in without a question.
    """
    images.ensure(host.image for host in spec.hosts)
    _make_key()
    with lock(f"fleet-{spec.name}"), step(f"starting fleet {spec.name} ({len(spec.hosts)} hosts)"):
        with lock("network"):
            spec = spec.place(_network(spec))
        _remove_strangers(spec)
        _all(lambda host: _start(spec, host), spec.hosts)
        _write_state(spec)
    return spec


def down(name: str) -> int:
    """Remove the containers, their volumes and the network of a fleet; returns how many containers there were."""
    with lock(f"fleet-{name}"):
        found = _containers(name)
        if found:
            run(["docker", "rm", "--force", "--volumes", *found])
        networks = run(["docker", "network", "ls", "--quiet", "--filter", f"label={LABEL}={name}"]).split()
        if networks:
            run(["docker", "network", "rm", *networks])
        shutil.rmtree(STATE / name, ignore_errors=True)
        return len(found)


def restart(name: str, host: str | None = None) -> None:
    """Restart one or all hosts as a reboot would, and wait until they are up again."""
    names = [container_name(name, host)] if host else _containers(name)
    if not names:
        raise FleetError(f"no fleet {name!r} runs here: see 'python -m tests.fleet list'")
    with lock(f"fleet-{name}"), step(f"restarting {', '.join(names)}"):
        _all(_restart, names)


def listing() -> list[dict[str, str]]:
    """One row per host of every fleet on this engine."""
    form = f'{{"fleet": "{{{{.Label "{LABEL}"}}}}", "host": "{{{{.Label "{SPEC_LABEL}.name"}}}}", '
    form += '"image": "{{.Image}}", "status": "{{.Status}}", "container": "{{.Names}}"}'
    lines = run(["docker", "ps", "--all", "--filter", f"label={LABEL}", "--format", form]).splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda row: (row["fleet"], row["host"]))


def container_name(fleet: str, host: str) -> str:
    return f"slipway-{fleet}-{host}"


def ssh_options(name: str) -> str:
    """Options with which ssh reaches the hosts of a fleet without a question."""
    known = STATE / name / "known_hosts"
    return f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"


def inventory(spec: Spec) -> dict[str, object]:
    """An Ansible inventory of the fleet."""
    shared = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(KEY),
        "ansible_ssh_common_args": ssh_options(spec.name),
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    groups: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for host in spec.hosts:
        for group in host.groups:
            groups.setdefault(group, {"hosts": {}})["hosts"][host.name] = {}
    hosts = {host.name: {"ansible_host": host.address} for host in spec.hosts}
    return {"all": {"hosts": hosts, "vars": shared, "children": groups}}


def _all(action: Callable[..., object], items: Iterable[object]) -> None:
    items = list(items)
    with ThreadPoolExecutor(max_workers=len(items) or 1) as pool:
        list(pool.map(action, items))


def _make_key() -> None:
    STATE.mkdir(mode=0o700, exist_ok=True)
    with lock("key"):
        if not KEY.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "slipway-fleet", "-f", str(KEY)])


def _containers(name: str) -> list[str]:
    listed = run(["docker", "ps", "--all", "--filter", f"label={LABEL}={name}", "--format", "{{.Names}}"])
    return listed.split()


def _network(spec: Spec) -> Network:
    """The network of the fleet: the one it has, or a new one on the subnet it wants or on a free one."""
    name = f"slipway-{spec.name}"
    subnets = _subnets()
    if name in subnets and spec.subnet in (None, subnets[name]):
        return subnets[name]
    if name in subnets:
        raise FleetError(
            f"fleet {spec.name} runs on {subnets[name]}, but its specification says {spec.subnet}. "
            f"Remove it first: python -m tests.fleet down {spec.name}"
        )
    for other, used in subnets.items():
        if spec.subnet and spec.subnet.overlaps(used):
            raise FleetError(f"subnet {spec.subnet} of fleet {spec.name} overlaps {used} of Docker network {other}")
    subnet = spec.subnet or free_subnet(spec.name, subnets.values())
    run(["docker", "network", "create", "--subnet", str(subnet), "--label", f"{LABEL}={spec.name}", name])
    return subnet


def _subnets() -> dict[str, Network]:
    ids = run(["docker", "network", "ls", "--quiet"]).split()
    found = {}
    for entry in json.loads(run(["docker", "network", "inspect", *ids])):
        for config in entry["IPAM"]["Config"] or []:
            if "." in config.get("Subnet", ""):
                found[entry["Name"]] = Network(config["Subnet"])
    return found


def _remove_strangers(spec: Spec) -> None:
    wanted = {container_name(spec.name, host.name) for host in spec.hosts}
    gone = [name for name in _containers(spec.name) if name not in wanted]
    if gone:
        run(["docker", "rm", "--force", "--volumes", *gone])


def run_arguments(spec: Spec, host: Host) -> list[str]:
    """The arguments of `docker run` for one host, without the label that carries their hash."""
    others = [item for other in spec.hosts if other != host for item in ("--add-host", f"{other.name}:{other.address}")]
    volume = ["--volume", "/var/lib/docker"] if host.docker else []
    return [
        "--name", container_name(spec.name, host.name), "--hostname", host.name,
        "--label", f"{LABEL}={spec.name}", "--label", f"{SPEC_LABEL}.name={host.name}",
        "--network", f"slipway-{spec.name}", "--ip", host.address, *others, *FLAGS, *volume,
    ]  # fmt: skip


def _start(spec: Spec, host: Host) -> None:
    name = container_name(spec.name, host.name)
    arguments = run_arguments(spec, host)
    image = images.image_id(host.image)
    wanted = hashlib.sha256("\n".join([*arguments, images.resolve(host.image).host]).encode()).hexdigest()[:16]
    form = f'{{{{index .Config.Labels "{SPEC_LABEL}"}}}} {{{{.State.Running}}}} {{{{.Image}}}}'
    current = attempt(["docker", "inspect", "--type", "container", "--format", form, name]).stdout.split()
    good: tuple[str, ...] = ("running",)
    if current[:1] != [wanted]:
        if current:
            run(["docker", "rm", "--force", "--volumes", name])
        run(["docker", "run", "--detach", "--label", f"{SPEC_LABEL}={wanted}", *arguments, image, "/lib/systemd/systemd"])
    else:
        if current[2] != image:
            say(f"  ! {name} keeps an older image; 'python -m tests.fleet down {spec.name}' first gives it the new one")
        if current[1] != "true":
            run(["docker", "start", name])
        else:
            # What a test broke on a host that runs is for the test to judge.
            good = ("running", "degraded")
    _wait_running(name, good)
    key = KEY.with_suffix(".pub").read_text()
    run(["docker", "exec", "--interactive", name, "sh", "-c", AUTHORIZE], input=key)
    _wait_ssh(host.address)


def _restart(name: str) -> None:
    run(["docker", "restart", "--time", "60", name], timeout=120)
    _wait_running(name)
    _wait_ssh(run(["docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name]))


def _wait_running(name: str, good: tuple[str, ...] = ("running",)) -> None:
    """Wait until systemd has started everything. Raises FleetError with the units that failed."""
    deadline = time.monotonic() + BOOT_TIMEOUT
    state = ""
    while time.monotonic() < deadline:
        asked = attempt(["docker", "exec", name, "systemctl", "is-system-running", "--wait"], timeout=BOOT_TIMEOUT)
        state = asked.stdout.strip() or asked.stderr.strip()
        if state in good:
            return
        if state in ("degraded", "maintenance"):
            failed = attempt(["docker", "exec", name, "systemctl", "--failed", "--no-legend", "--plain"]).stdout
            raise FleetError(
                f"{name} is {state}. Failed units:\n{failed}Look with: docker exec {name} journalctl -b. "
                "With many hosts, raise the machine's fs.inotify.max_user_instances (128 is too few for ten)."
            )
        time.sleep(0.2)
    logs = attempt(["docker", "logs", "--tail", "15", name])
    raise FleetError(f"{name} did not come up in {BOOT_TIMEOUT:.0f} s (state: {state}).\n{logs.stdout}{logs.stderr}")


def _wait_ssh(address: str) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT
    while True:
        try:
            with socket.create_connection((address, 22), timeout=2) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError as error:
            if time.monotonic() > deadline:
                raise FleetError(
                    f"no SSH at {address}: {error}. Does this machine reach the networks of its containers "
                    "(Docker Desktop does not offer that)?"
                ) from error
        time.sleep(0.1)


def _write_state(spec: Spec) -> None:
    directory = STATE / spec.name
    directory.mkdir(exist_ok=True)
    lines = []
    for host in spec.hosts:
        keys = run(["docker", "exec", container_name(spec.name, host.name), "sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub"])
        for key in keys.splitlines():
            lines.append(f"{host.name},{host.address} " + " ".join(key.split()[:2]))
    (directory / "known_hosts").write_text("\n".join(lines) + "\n")
    (directory / "hosts.yml").write_text(yaml.safe_dump(inventory(spec), sort_keys=False))


def spec_path(argument: str) -> Path:
    """A specification by its path, or by its bare name among tests/fleet/specs/."""
    path = Path(argument)
    named = ROOT / "tests" / "fleet" / "specs" / f"{argument}.yml"
    return named if not path.exists() and named.exists() else path
