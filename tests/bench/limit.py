# SPDX-License-Identifier: GPL-3.0-or-later
"""The limit: one shell script that makes the end state of a converged host, generated from that host.

It knows everything beforehand and asks nothing, so no tool that looks before it changes can be faster.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fleet.shell import FleetError, run

ROOTS = ("/etc", "/opt", "/usr/local", "/usr/lib/slipway", "/var/lib/slipway")
"""Where a converge writes files."""
IDENTITY = (
    "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid", "/etc/.pwd.lock",
    "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id", "/etc/mtab", "/etc/ld.so.cache", "/etc/ssh/ssh_host_",
    "/etc/ssh/slipway_host_",
    "/etc/ssl/certs/ssl-cert-snakeoil.pem", "/etc/ssl/private/ssl-cert-snakeoil.key", "/etc/ssl/certs/",
)  # fmt: skip
"""Prefixes of what every host makes for itself; users come from sysusers and from packages."""
EARLY = ("/etc/sysusers.d/", "/etc/postgresql-common/", "/etc/apt/", "/etc/needrestart/")
"""Prefixes of files that packages and users read while they are made."""
WORK = "/root/limit"

MANIFEST = """
import grp, hashlib, json, os, pwd, stat, sys
roots, own = json.loads(sys.argv[1])
def users(entry):
    try:
        return pwd.getpwuid(entry.st_uid).pw_name, grp.getgrgid(entry.st_gid).gr_name
    except KeyError:
        return str(entry.st_uid), str(entry.st_gid)
found = {}
for root in roots:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for path in [folder, *(os.path.join(folder, name) for name in folders + files)]:
            entry = os.lstat(path)
            kind = stat.S_IFMT(entry.st_mode)
            if path.startswith(tuple(own)) or kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                continue
            what = ""
            if kind == stat.S_IFLNK:
                what = os.readlink(path)
            elif kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    what = hashlib.sha256(file.read()).hexdigest()
            mode = "link" if kind == stat.S_IFLNK else oct(entry.st_mode)
            found[path] = [mode, *users(entry), what]
print(json.dumps(found))
"""

Manifest = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Seen:
    """What is on a host: installed packages, units that are active and not transient, files by path."""

    packages: frozenset[str]
    units: frozenset[str]
    files: Manifest


@dataclass(frozen=True)
class Difference:
    """What a converge added: packages against a fresh host, the rest against a host with nothing but these packages."""

    packages: tuple[str, ...]
    files: tuple[str, ...]
    removed: tuple[str, ...]
    restart: tuple[str, ...]
    start: tuple[str, ...]

    @property
    def early(self) -> tuple[str, ...]:
        return tuple(path for path in self.files if path.startswith(EARLY))

    @property
    def late(self) -> tuple[str, ...]:
        return tuple(path for path in self.files if not path.startswith(EARLY))


def see(container: str) -> Seen:
    """Look at a host."""
    packages = _on(container, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\\n").splitlines()
    shape = ["--plain", "--no-legend", "--state=active", "--type=service,timer,socket,path"]
    names = [line.split()[0] for line in _on(container, "systemctl", "list-units", *shape).splitlines()]
    shown = _on(container, "systemctl", "show", "--property=Id,UnitFileState", *names).split("\n\n")
    kept = [dict(line.split("=", 1) for line in block.strip().splitlines()) for block in shown]
    units = [unit["Id"] for unit in kept if unit["UnitFileState"] != "transient" and not unit["Id"].startswith("user")]
    options = json.dumps([ROOTS, IDENTITY])
    files = json.loads(_on(container, "python3", "-c", MANIFEST, options))
    return Seen(
        packages=frozenset(line.split()[1] for line in packages if line.startswith("installed ")),
        units=frozenset(units),
        files={path: tuple(entry) for path, entry in files.items()},
    )


def compare(fresh: Seen, packaged: Seen, converged: Seen) -> Difference:
    """What the script has to do between a fresh host and a converged one."""
    files = tuple(sorted(path for path, entry in converged.files.items() if packaged.files.get(path) != entry))
    removed = tuple(sorted((path for path in packaged.files if path not in converged.files), reverse=True))
    return Difference(
        packages=tuple(sorted(converged.packages - fresh.packages)),
        files=files,
        removed=removed,
        restart=tuple(sorted(unit for unit in converged.units & packaged.units if _concerned(unit, files))),
        start=tuple(sorted(converged.units - packaged.units)),
    )


def _concerned(unit: str, files: Iterable[str]) -> bool:
    """True when the path of a file names the unit: /etc/nginx/… and nginx.service, /etc/postgresql/… and postgresql@15-main."""
    stem = unit.rpartition(".")[0].partition("@")[0].removeprefix("systemd-")
    return any(f"/{stem}/" in path or f"/{stem}." in path or f"/{stem}@" in path for path in files)


def script(found: Difference, domain: str) -> str:
    """The shell script; its archives and SQL lie beside it in WORK."""
    databases = [unit for unit in found.restart if unit.startswith("postgresql@")]
    others = [unit for unit in found.restart if not unit.startswith(("postgresql", "ufw"))]
    request = f"GET /version HTTP/1.1\\r\\nHost: {domain}\\r\\nConnection: close\\r\\n\\r\\n"
    lines = [
        "set -eu",
        f"cd {WORK}",
        "export DEBIAN_FRONTEND=noninteractive",
        "tar -C / -xpf early.tar",
        "apt-get -q -y -o Dpkg::Options::=--force-confold install --no-install-recommends " + " ".join(found.packages),
        "systemd-sysusers",
        # The package was told to make none; it starts once, with its settings.
        *(f"pg_createcluster {unit.partition('@')[2].partition('-')[0]} main" for unit in databases),
        "tar -C / -xpf late.tar",
        # A host's key is its own.
        "ssh-keygen -q -t rsa -b 4096 -N '' -f /etc/ssh/slipway_host_rsa_key",
        # Directories go last, when they are empty.
        *(f"rm -fd {path}" for path in found.removed),
        # What is not of the network would change the machine of all hosts; the roles leave it out, too.
        "sed -n '/^net\\./p' /etc/sysctl.d/60-slipway.conf | sysctl -q -p -",
        "systemctl daemon-reload",
        f"systemctl restart {' '.join(databases)}" if databases else "",
        "runuser -u postgres -- psql -q -d postgres <objects.sql >/dev/null 2>&1" if databases else "",
        "ufw --force enable",
        f"systemctl restart {' '.join(others)}" if others else "",
        f"systemctl enable --now {' '.join(found.start)}" if found.start else "",
        f"until printf '{request}' | timeout 5 openssl s_client -quiet -connect 127.0.0.1:443 -servername {domain} 2>/dev/null"
        " | grep -q '^HTTP/1.1 200'; do sleep 0.2; done",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def packages_only(packages: Iterable[str]) -> str:
    """The script's first step alone, for the host against which files and units are compared."""
    return f"set -eu\nexport DEBIAN_FRONTEND=noninteractive\napt-get -q -y install --no-install-recommends {' '.join(packages)}\n"


def carry(converged: str, found: Difference, target: str, directory: Path, domain: str) -> None:
    """Make archives, SQL and script from the converged host in `directory`, and put them on the target."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, paths in (("early", found.early), ("late", found.late)):
        pack = ["docker", "exec", "-i", converged, "tar", "-C", "/", "--no-recursion", "--null", "-T", "-", "-cf", "-"]
        done = subprocess.run(pack, input="\0".join(path[1:] for path in paths).encode(), capture_output=True)
        if done.returncode:
            raise FleetError(f"tar on {converged} failed: {done.stderr.decode()[-500:]}")
        (directory / f"{name}.tar").write_bytes(done.stdout)
    dump = _on(converged, "runuser", "-u", "postgres", "--", "pg_dumpall", "--schema-only")
    (directory / "objects.sql").write_text(dump + "\n")
    (directory / "script.sh").write_text(script(found, domain))
    run(["docker", "exec", target, "mkdir", "-p", WORK])
    for name in ("early.tar", "late.tar", "objects.sql", "script.sh"):
        run(["docker", "cp", str(directory / name), f"{target}:{WORK}/{name}"])


def firewall_rules(container: str) -> int:
    """Rules that ufw shows."""
    return sum(word in line for line in _on(container, "ufw", "status").splitlines() for word in (" ALLOW ", " DENY ", " LIMIT "))


def _on(container: str, *argv: str) -> str:
    return run(["docker", "exec", container, *argv], timeout=120)
