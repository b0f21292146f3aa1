# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways into the Docker engine that are closed: its socket, listeners without TLS; and options that would harm its containers."""

from __future__ import annotations

import grp
import pwd
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..host import files as disk
from ..host.runner import Runner
from .readback import Mismatch

SOCKET = Path("/run/docker.sock")
TLS = ("tlsverify", "tlscacert", "tlscert", "tlskey")
USE_SSH = "Use `docker -H ssh://HOST`, or give tlsverify: true with tlscacert, tlscert and tlskey"


def refusals(options: Mapping[str, Any], old: Mapping[str, Any], possible: int, containers: Sequence[str]) -> list[str]:
    """What of `docker_options` is not taken, a sentence each; `possible`: open files, `containers`: those that there are."""
    found = []
    exposed = [str(host) for host in options.get("hosts") or [] if str(host).startswith("tcp:")]
    if exposed and not all(options.get(key) for key in TLS):
        found.append(f"docker_options: hosts {', '.join(exposed)} lets everybody who reaches it be root here. {USE_SSH}")
    nofile = (options.get("default-ulimits") or {}).get("nofile") or {}
    most = max((int(nofile.get(key) or 0) for key in ("Hard", "Soft")), default=0)
    if most > possible:
        found.append(
            f"docker_options: default-ulimits nofile is {most}, this host can give {possible}, so that no container would start."
            " Take it out: docker_nofile is cut to what is possible"
        )
    if options.get("userns-remap") and not old.get("userns-remap") and containers:
        found.append(
            f"docker_options: userns-remap would put {len(containers)} container(s) ({', '.join(containers[:5])}) and all images"
            " out of sight, and files in their volumes belong to other users then. Declare it on a host without containers,"
            " or remove them first (docker rm) and deploy again"
        )
    return found


def containers(runner: Runner) -> list[str]:
    """The names of all containers; none where no engine answers."""
    asked = runner.run(["docker", "ps", "--all", "--format", "{{.Names}}"], timeout=30)
    return asked.out.split() if asked.ok else []


def leaving(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys that somebody else put into daemon.json and that go."""
    return sorted(set(old) - set(new))


def mismatches(
    options: Mapping[str, Any], pid: str, runner: Runner, proc: Path = Path("/proc"), socket: Path = SOCKET
) -> list[Mismatch]:
    """Whether the daemon's socket is for root and its group only, and it offers its interface on no TCP port without TLS."""
    group = str(options.get("group") or "docker")
    found = []
    try:
        status = socket.stat()
        shown = f"{_name(pwd.getpwuid, status.st_uid)}:{_name(grp.getgrgid, status.st_gid)} {stat.S_IMODE(status.st_mode):04o}"
    except OSError as error:
        shown = str(error.strerror)
    if shown != f"root:{group} 0660":
        remedy = "Whoever writes to it is root: see `systemctl cat docker.socket`, then systemctl restart docker.socket."
        found.append(Mismatch(f"docker socket {socket}", f"root:{group} 0660", shown, remedy))
    command = (disk.read_text(proc / pid / "cmdline") or "").split("\0") if pid.isdigit() else []
    # Its own sockets tell nothing: without a proxy it holds the published ports of containers, too.
    places = [word.rpartition("=")[2] for word in command if "tcp://" in word] + _of_systemd(runner)
    if places and not options.get("tlsverify") and "--tlsverify" not in command:
        remedy = f"Remove it from drop-ins of docker.service and docker.socket. {USE_SSH}."
        found.append(Mismatch("docker TCP listener without TLS", "none", ", ".join(places), remedy))
    return found


def _of_systemd(runner: Runner) -> list[str]:
    """What systemd listens on for the daemon besides paths."""
    shown = runner.run(["systemctl", "show", "--property=Listen", "--value", "--", "docker.socket"]).out
    return [line.split(" ")[0] for line in shown.splitlines() if line and not line.startswith("/")]


def _name(lookup: Any, number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)
