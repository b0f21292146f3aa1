# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine of a host: daemon.json, registries and their logins as one transaction, effective values read back."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..host import files as disk
from ..host.runner import Runner
from .converge import Converger, DirectorySpec, FileSpec, Outcome, Transaction, UnitSpec
from .readback import Mismatch

DAEMON = Path("/etc/docker/daemon.json")
CERTIFICATES = Path("/etc/docker/certs.d")
LOGINS = Path("/root/.docker/config.json")
UNIT = "docker.service"
VALIDATES_SINCE = (23,)
"""First version of dockerd that has --validate."""
SHOWS_PRIVILEGES_SINCE = (23,)
"""First version whose `docker info` says no-new-privileges; the container's own process shows it in every version."""
RELOADED = frozenset(
    {
        "allow-nondistributable-artifacts", "authorization-plugins", "debug", "default-runtime", "default-shm-size", "features",
        "insecure-registries", "labels", "live-restore", "max-concurrent-downloads", "max-concurrent-uploads",
        "max-download-attempts", "registry-mirrors", "runtimes", "shutdown-timeout",
    }
)  # fmt: skip
"""What dockerd takes over from daemon.json on SIGHUP; everything else needs a restart."""
RELOCATING = ("data-root", "exec-root", "graph", "storage-driver", "userns-remap")
"""What moves the engine to other data: images and containers would be out of sight."""
KEEP_CONTAINERS = (
    ("systemctl", "reload", UNIT),
    ("timeout", "20", "sh", "-c", "until docker info --format '{{.LiveRestoreEnabled}}' | grep -q true; do sleep 0.2; done"),
)
REMEDY = f"The daemon was not restarted since the change: systemctl restart {UNIT}."
BRIDGE_REMEDY = f"Running containers hold the default bridge as it is: stop them all, systemctl restart {UNIT}, start them again."
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")


class DockerError(Exception):
    """The engine cannot be brought to this; the message names every violation."""


@dataclass(frozen=True)
class Registry:
    """A registry `host[:port]`: login for root (both or none) and the PEM text of its certificate authority."""

    host: str
    username: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""


@dataclass(frozen=True)
class Engine:
    """What is declared of the engine. `nofile` is the number of open files a container may have by default."""

    nofile: int
    bip: str = ""
    address_pool: str = ""
    address_pool_size: int = 24
    live_restore: bool = True
    userland_proxy: bool = False
    icc: bool = False
    no_new_privileges: bool = True
    log_driver: str = "local"
    log_options: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    registries: tuple[Registry, ...] = ()


def problems(engine: Engine) -> list[str]:
    """Everything that is wrong with `engine`, one sentence each."""
    found = []
    bridge = pool = None
    try:
        bridge = ipaddress.ip_interface(engine.bip).network if engine.bip else None
        if bridge and (str(bridge.network_address) == engine.bip.partition("/")[0] or "/" not in engine.bip):
            found.append(f"docker_bip: {engine.bip} is not the bridge's own address with its prefix (172.30.0.1/24)")
    except ValueError as error:
        found.append(f"docker_bip: {error}")
    try:
        pool = ipaddress.ip_network(engine.address_pool) if engine.address_pool else None
    except ValueError as error:
        found.append(f"docker_address_pool: {error}")
    if pool and not pool.prefixlen <= engine.address_pool_size <= 30:
        found.append(f"docker_address_pool_size: /{engine.address_pool_size} does not fit into {pool}")
    if bridge and pool and bridge.version == pool.version and bridge.overlaps(pool):
        found.append(f"docker_bip {engine.bip} lies in docker_address_pool {pool}; take apart addresses")
    for registry in engine.registries:
        if not HOST.fullmatch(registry.host):
            found.append(f"docker_registries: `{registry.host}` is no host or host:port")
        if bool(registry.username) != bool(registry.password):
            found.append(f"docker_registries: {registry.host} needs both username and password, or none")
        if registry.ca and "-----BEGIN CERTIFICATE-----" not in registry.ca:
            found.append(f"docker_registries: the ca of {registry.host} is no certificate in PEM form")
    hosts = [registry.host for registry in engine.registries]
    found += [f"docker_registries: {host} is there twice" for host in sorted({h for h in hosts if hosts.count(h) > 1})]
    return found


def hard_limit(runner_proc: Path = Path("/proc")) -> int:
    """How many open files a process of this host may be given at most: the limit of process 1, and the kernel's."""
    kernel = int((runner_proc / "sys/fs/nr_open").read_text(encoding="ascii"))
    for line in (runner_proc / "1/limits").read_text(encoding="ascii").splitlines():
        if line.startswith("Max open files"):
            hard = line.split()[4]
            return kernel if hard == "unlimited" else min(kernel, int(hard))
    return kernel


def daemon(engine: Engine, nofile: int) -> dict[str, Any]:
    """The content of daemon.json; `nofile` is what the host can give of the declared limit."""
    wanted: dict[str, Any] = {
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": nofile, "Soft": nofile}},
        "icc": engine.icc,
        "live-restore": engine.live_restore,
        "log-driver": engine.log_driver,
        "log-opts": {key: str(value) for key, value in engine.log_options.items()},
        "no-new-privileges": engine.no_new_privileges,
        "userland-proxy": engine.userland_proxy,
    }
    if engine.bip:
        wanted["bip"] = engine.bip
    if engine.address_pool:
        wanted["default-address-pools"] = [{"base": engine.address_pool, "size": engine.address_pool_size}]
    return {**wanted, **engine.options}


def parse_json(text: Optional[str], path: Path) -> dict[str, Any]:
    """The mapping in a JSON file that may be absent or empty; raises DockerError when it is something else."""
    if not text or not text.strip():
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DockerError(f"{path} is no JSON ({error}); correct or remove it") from None
    if not isinstance(content, dict):
        raise DockerError(f"{path} holds no JSON object; correct or remove it")
    return content


def effect(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """`reload` when dockerd takes all that differs by SIGHUP, else `restart`."""
    changed = {key for key in {*old, *new} if old.get(key) != new.get(key)}
    return "reload" if changed <= RELOADED else "restart"


def logins(old: Mapping[str, Any], registries: tuple[Registry, ...]) -> dict[str, Any]:
    """Docker's client configuration with the declared logins; what else is in it stays."""
    auths = dict(old.get("auths") or {})
    for registry in registries:
        if registry.username:
            code = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
            auths[registry.host] = {"auth": code}
    return {**old, "auths": auths} if auths else dict(old)


def logins_back(now: str, before: str, registries: tuple[Registry, ...]) -> str:
    """Docker's client configuration without the declared logins, with those of before and those that others added since."""
    content, old = parse_json(now, LOGINS), parse_json(before, LOGINS).get("auths") or {}
    mine = {registry.host for registry in registries if registry.username}
    auths = {host: login for host, login in (content.get("auths") or {}).items() if host not in mine}
    content["auths"] = {**auths, **{host: old[host] for host in mine if host in old}}
    return _text(content) if content["auths"] or set(content) > {"auths"} else ""


def let_go(runner: Runner, engine: Engine, check_mode: bool, converger: Optional[Converger] = None) -> Outcome:
    """The files as they were before; the engine is restarted for them only while no container runs, or it would stop them all."""
    running = (
        runner.run(["docker", "ps", "--quiet"]).out.split() if runner.run(["systemctl", "is-active", "--quiet", UNIT]).ok else []
    )
    transaction = Transaction("docker", units=(UnitSpec(UNIT, enabled=None),))
    undo = {LOGINS: lambda now, before: logins_back(now, before, engine.registries)}
    done = (converger or Converger(runner)).let_go(transaction, check_mode, undo, "reload" if running else "restart")
    if running and done.changed:
        done.words.append(
            f"docker: {len(running)} container(s) run, so the engine goes on with what it has and takes the rest of {DAEMON} at"
            " its next start, which stops containers unless that file has live-restore"
        )
    return done


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def transaction(engine: Engine, version: str, nofile: int, running: bool, root: Path = Path("/")) -> Transaction:
    """Everything of the engine on the host; reads what is there to merge and to choose between reload and restart.

    A `running` daemon that is to be restarted and does not keep its containers alive yet is told so by SIGHUP first: the
    restart would stop them. Raises DockerError.
    """
    old = parse_json(disk.read_text(root / str(DAEMON)[1:]), DAEMON)
    new = daemon(engine, nofile)
    moved = [key for key in RELOCATING if key in old and old[key] != new.get(key)]
    if moved:
        values = ", ".join(f"{key}={json.dumps(old[key])}" for key in moved)
        raise DockerError(
            f"{DAEMON} has {values}, which is not declared: the engine's images and containers would be out of sight."
            " Put it into docker_options, or move the data and take it out of the file"
        )
    validate = "dockerd --validate --config-file %s" if _at_least(version, VALIDATES_SINCE) else ""
    wanted = [FileSpec(DAEMON, _text(new), validate=validate, effect=effect(old, new))]
    folders = [DirectorySpec(DAEMON.parent)]
    authorities = [registry for registry in engine.registries if registry.ca]
    if authorities:
        folders.append(DirectorySpec(CERTIFICATES))
    for registry in authorities:
        folders.append(DirectorySpec(CERTIFICATES / registry.host))
        wanted.append(FileSpec(CERTIFICATES / registry.host / "ca.crt", registry.ca.strip() + "\n", effect="none"))
    if any(registry.username for registry in engine.registries):
        merged = logins(parse_json(disk.read_text(root / str(LOGINS)[1:]), LOGINS), engine.registries)
        folders.append(DirectorySpec(LOGINS.parent, mode=0o700))
        wanted.append(FileSpec(LOGINS, _text(merged), mode=0o600, effect="none", secret=True))
    return Transaction(
        name="docker",
        directories=tuple(folders),
        files=tuple(wanted),
        apply=KEEP_CONTAINERS if running and new.get("live-restore") and not old.get("live-restore") else (),
        units=(UnitSpec(UNIT, follows=(DAEMON,)),),
        check=(("docker", "info", "--format", "{{.ServerVersion}}"),),
        check_timeout=60.0,
        originals=True,
    )


def _at_least(version: str, wanted: tuple[int, ...]) -> bool:
    return tuple(int(number) for number in re.findall(r"\d+", version)[: len(wanted)]) >= wanted


def mismatches(engine: Engine, nofile: int, runner: Runner, proc: Path = Path("/proc")) -> list[Mismatch]:
    """What of `engine` the running daemon does not have; starts nothing."""
    asked = runner.run(["docker", "info", "--format", "{{json .}}"], timeout=60)
    if not asked.ok:
        return [Mismatch("docker", "running", asked.text()[-300:] or "no answer", f"See `systemctl status {UNIT}`.")]
    info = parse_json(asked.out, Path("docker info"))
    wanted = daemon(engine, nofile)
    inspected = runner.run(["docker", "network", "inspect", "bridge", "--format", "{{json .}}"], timeout=60)
    bridge = parse_json(inspected.out, Path("docker network inspect bridge"))
    found = [
        ("live-restore", bool(info.get("LiveRestoreEnabled")), wanted["live-restore"]),
        ("log-driver", info.get("LoggingDriver"), wanted["log-driver"]),
        ("icc", (bridge.get("Options") or {}).get("com.docker.network.bridge.enable_icc") == "true", wanted["icc"]),
        ("forwarding (net.ipv4.ip_forward)", (proc / "sys/net/ipv4/ip_forward").read_text(encoding="ascii").strip(), "1"),
    ]
    if _at_least(str(info.get("ServerVersion", "")), SHOWS_PRIVILEGES_SINCE):
        shown = "name=no-new-privileges" in (info.get("SecurityOptions") or [])
        found.append(("no-new-privileges", shown, wanted["no-new-privileges"]))
    if engine.address_pool:
        pools = [f"{pool.get('Base')} by /{pool.get('Size')}" for pool in info.get("DefaultAddressPools") or []]
        found.append(("default-address-pools", ", ".join(pools), f"{engine.address_pool} by /{engine.address_pool_size}"))
    if engine.bip:
        nets = [config for config in (bridge.get("IPAM") or {}).get("Config") or [] if "." in str(config.get("Subnet"))]
        prefix = str(nets[0].get("Subnet")).partition("/")[2] if nets else ""
        found.append(("bip", f"{nets[0].get('Gateway')}/{prefix}" if nets else "no bridge", engine.bip))
    if not wanted["userland-proxy"]:
        found.append(("processes docker-proxy", _processes(proc, "docker-proxy"), 0))
    if wanted.get("iptables", True):
        forward = runner.run(["iptables", "-S", "FORWARD"])
        found.append(("Docker's rules in chain FORWARD", "-j DOCKER" in forward.out, True))
    if wanted.get("userns-remap"):
        found.append(("userns-remap", "name=userns" in (info.get("SecurityOptions") or []), True))
    pid = runner.run(["systemctl", "show", "--property=MainPID", "--value", "--", UNIT]).out.strip()
    return [
        *(
            Mismatch(f"docker {name}", str(declared), str(actual), BRIDGE_REMEDY if name in ("icc", "bip") else REMEDY)
            for name, actual, declared in found
            if actual != declared
        ),
        *_limits(nofile, pid, proc),
    ]


def _limits(nofile: int, pid: str, proc: Path) -> list[Mismatch]:
    for line in (disk.read_text(proc / pid / "limits") or "").splitlines() if pid.isdigit() and pid != "0" else ():
        if line.startswith("Max open files"):
            hard = line.split()[4]
            if hard != "unlimited" and int(hard) < nofile:
                remedy = f"Containers cannot get more than the daemon has; raise LimitNOFILE of {UNIT}."
                return [Mismatch("docker nofile of the daemon", f"at least {nofile}", hard, remedy)]
            return []
    return [Mismatch("docker nofile of the daemon", f"at least {nofile}", "unknown", f"{UNIT} does not run as a systemd unit.")]


def _processes(proc: Path, name: str) -> int:
    comms = (disk.read_text(path) for path in proc.glob("[0-9]*/comm"))
    return sum(1 for text in comms if text is not None and text.strip() == name)
