# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker engine: the one that runs, or one installed and started here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.fleet.shell import FleetError, attempt, lock, run, step

LOG = Path("/var/log/slipway-dockerd.log")
PID_FILES = (Path("/run/docker.pid"), Path("/run/docker/containerd/containerd.pid"))
START_TIMEOUT = 90.0
"""Seconds a starting engine may take; the first start on a slow disk needs about 10."""


INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES = 2048
"""A host needs about 12 and all hosts share the machine's; the kernel's own limit of 128 ends with ten hosts."""


def ensure() -> None:
    """Return when `docker info` answers.

    Raises FleetError when there is no engine and none can be started here.
    """
    raise_inotify()
    if _answers():
        return
    with lock("engine"):
        if not _answers():
            _require_root()
            install(docker="dockerd")
            with step("starting the Docker engine"):
                _start()


def install(**programs: str) -> None:
    """Install what is missing from the archive: `docker="dockerd"` is package docker.io for the program dockerd."""
    names = {"docker": "docker.io"}
    missing = [names.get(key, key) for key, program in programs.items() if not shutil.which(program)]
    if not missing:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise FleetError(f"{', '.join(missing)} is missing here. Install it, or run this as root on Debian or Ubuntu.")
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    with step(f"installing {', '.join(missing)}"):
        attempt([*apt, "update"], timeout=300)
        run([*apt, "install", "-y", "--no-install-recommends", *missing], timeout=900)


def raise_inotify(setting: Path = INOTIFY) -> None:
    """Make room for more hosts where this is allowed; elsewhere a host that finds none says which units failed."""
    if os.access(setting, os.W_OK) and int(setting.read_text()) < INOTIFY_INSTANCES:
        setting.write_text(f"{INOTIFY_INSTANCES}\n")


def _answers() -> bool:
    result = attempt(["docker", "info", "--format", "{{json .ServerVersion}}"], timeout=20)
    try:
        return result.returncode == 0 and bool(json.loads(result.stdout))
    except ValueError:
        return False


def _require_root() -> None:
    if os.geteuid():
        said = attempt(["docker", "info"], timeout=20).stderr.strip().splitlines()
        raise FleetError(
            "No Docker engine answers, and starting one needs root. Start Docker, or add yourself to the group docker. "
            f"'docker info' says: {said[-1] if said else 'nothing'}"
        )


def _start() -> None:
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"], timeout=START_TIMEOUT)
    else:
        clear_leftovers()
        _spawn()
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers():
        if time.monotonic() > deadline:
            tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-15:]) if LOG.exists() else ""
            raise FleetError(f"The Docker engine did not answer within {START_TIMEOUT:.0f} s. End of {LOG}:\n{tail}")
        time.sleep(0.3)


def _spawn() -> None:
    """Start dockerd in a session of its own.

    systemd in Debian 13 needs a pure cgroup v2 tree. Where the machine has the hybrid layout the engine gets a
    mount namespace of its own with such a tree, and the rest of the machine stays as it is.
    """
    argv = ["dockerd"]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        script = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec dockerd"
        argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
    with LOG.open("ab") as log:
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, close_fds=True)


def clear_leftovers(pid_files: tuple[Path, ...] = PID_FILES, proc: Path = Path("/proc")) -> None:
    """Make way after an engine that was ended hard.

    A pid file may name a process that is gone or a stranger: the file goes. It may name a dockerd that does not
    answer or a containerd without its dockerd: both are ended, because a new engine would wait for them in vain.
    """
    for file in pid_files:
        if not file.exists():
            continue
        pid = file.read_text().strip()
        try:
            command = (proc / pid / "comm").read_text().strip()
        except OSError:
            command = ""
        if pid and command in ("dockerd", "containerd"):
            os.kill(int(pid), signal.SIGKILL)
            _wait_gone(proc / pid)
        file.unlink(missing_ok=True)


def _wait_gone(entry: Path) -> None:
    deadline = time.monotonic() + 5
    while entry.exists() and time.monotonic() < deadline:
        if " Z " in (entry / "stat").read_text():
            return
        time.sleep(0.05)
