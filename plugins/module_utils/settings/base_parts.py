# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server has to look like, part by part: the files of its own, those of others that are changed, units, checks."""

from __future__ import annotations

import pwd
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..host import files as disk
from . import base_texts as texts
from .converge import DirectorySpec, FileSpec, LinkSpec, UnitSpec, observe

FIRST_USER, LAST_USER = 1000, 59999
PERMISSIONS = ("cron", "homes", "noexec", "sudoers")
NOEXEC = ("tmp", "dev")
CRON_FOLDERS = ("d", "hourly", "daily", "weekly", "monthly", "yearly")
NEEDED = frozenset(
    (
        "overlay", "br_netfilter", "bridge", "veth", "nf_nat", "nf_conntrack", "nf_tables", "nft_chain_nat", "nft_compat",
        "ip_tables", "ip6_tables", "iptable_nat", "iptable_filter", "ip6table_filter", "xt_conntrack", "xt_MASQUERADE",
        "xt_addrtype", "xt_nat", "xt_tcpudp", "x_tables", "ipvlan", "macvlan", "vxlan", "tun", "ext4", "xfs", "btrfs", "vfat",
        "loop", "virtio_net", "virtio_blk", "virtio_pci"
    )
)  # fmt: skip
"""What Docker, the firewall or the start of a server needs."""


class BaseError(Exception):
    """What was declared cannot be; the message names everything and what to do. Nothing was changed."""


@dataclass(frozen=True)
class Settings:
    """The variables of the role, without their prefix. `passwords` has quality, history, lockout and ageing."""

    timezone: str = "Etc/UTC"
    hostname: str = ""
    time_sync: bool = True
    ntp_servers: Sequence[str] = ()
    journal_max_use: str = "500M"
    journal_keep_free: str = "1G"
    journal_max_age: str = ""
    install_recommends: bool = False
    needrestart: str = "list"
    banner: str = ""
    umask: str = "027"
    passwords: Mapping[str, Any] = field(default_factory=dict)
    sudo: Sequence[str] = ()
    session_timeout: int = 0
    core_dumps: bool = False
    modules_off: Sequence[str] = ()
    services_off: Sequence[str] = ()
    cron_users: Sequence[str] = ("root",)
    permissions: Sequence[str] = ("cron", "homes", "sudoers")
    auditd: bool = False
    fail2ban: bool = False
    fail2ban_ignore: Sequence[str] = ()
    aide: bool = False


@dataclass
class Parts:
    """`own` are files of this collection, `edited` those of others; `login` holds what a new login has to confirm, of both.

    `packages` are missing.
    """

    folders: list[DirectorySpec] = field(default_factory=list)
    own: list[FileSpec] = field(default_factory=list)
    edited: list[Any] = field(default_factory=list)
    login: list[FileSpec] = field(default_factory=list)
    login_edited: list[Any] = field(default_factory=list)
    units: list[UnitSpec] = field(default_factory=list)
    apply: list[tuple[str, ...]] = field(default_factory=list)
    validate: list[tuple[str, ...]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)

    def add(self, path: Path, text: Optional[str], effect: str = "none", mode: int = 0o644, group: str = "root") -> None:
        """A file of our own, or none."""
        self.own.append(FileSpec(path, text, group=group, mode=mode, effect=effect))


def faults(settings: Settings, root: Path = Path("/")) -> list[str]:
    """Everything that is wrong with what is declared."""
    found = texts.sudo_faults(settings.sudo)
    needed = {name.replace("_", "-") for name in NEEDED}
    for name in settings.modules_off:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            found.append(f"modules_off: `{name}` is no name of a kernel module")
        elif name.replace("_", "-") in needed:
            found.append(f"modules_off: {name} is needed by Docker, the firewall or the start of a server; leave it out")
    if settings.umask and not re.fullmatch(r"0?[0-7]{3}", settings.umask):
        found.append(f'umask: `{settings.umask}` is no umask; write three octal digits in quotes, e.g. "027"')
    zones = root / "usr/share/zoneinfo"  # not there yet in check mode on a new host
    if zones.is_dir() and not (zones / settings.timezone).is_file():
        found.append(f"timezone: there is no {settings.timezone} in /usr/share/zoneinfo")
    return found


def journal_and_time(settings: Settings, root: Path, parts: Parts) -> None:
    """The journal on disk, and the clock."""
    journal, clock = root / "etc/systemd/journald.conf.d/60-slipway.conf", root / "etc/systemd/timesyncd.conf.d/60-slipway.conf"
    parts.folders += [DirectorySpec(root / "etc/slipway"), DirectorySpec(root / "var/lib/slipway")]
    parts.add(journal, texts.journald(settings.journal_max_use, settings.journal_keep_free, settings.journal_max_age), "restart")
    servers = settings.ntp_servers if settings.time_sync else ()
    parts.add(clock, texts.timesyncd(servers) if servers else None, "restart")
    parts.edited += [
        LinkSpec(root / "etc/localtime", f"/usr/share/zoneinfo/{settings.timezone}", "none"),
        FileSpec(root / "etc/timezone", f"{settings.timezone}\n", effect="none"),
    ]
    parts.units += [UnitSpec("systemd-journald.service", None, follows=(journal,), on_change="restart")]
    parts.units += [UnitSpec("logrotate.timer", on_change="none")]
    parts.checks += [
        {"kind": "command", "what": "time zone", "argv": ["readlink", "/etc/localtime"]}
        | {"equals": f"/usr/share/zoneinfo/{settings.timezone}"},
        {"kind": "command", "what": "persistent journal", "argv": ["find", "/var/log/journal", "-name", "system.journal"]}
        | {"matches": r"system\.journal$"}
        | {"remedy": "See the log of systemd-journald; the disk of /var/log may be full or read-only."},
        {"kind": "unit", "unit": "logrotate.timer", "properties": {"ActiveState": "active"}},
        {"kind": "file", "path": "/var/lib/slipway", "mode": "0755", "owner": "root"},
    ]
    if settings.time_sync:
        parts.units += [UnitSpec("systemd-timesyncd.service", follows=(clock,), on_change="restart")]
        argv = ["systemctl", "show", "--property=ActiveState,ConditionResult", "systemd-timesyncd.service"]
        remedy = (
            "See the log of systemd-timesyncd; another time service may have replaced it (base_time_sync: false leaves it alone)."
        )
        parts.checks += [
            {"kind": "command", "what": "time synchronisation", "argv": argv, "remedy": remedy}
            | {"matches": r"^(ActiveState=active|ConditionResult=no)$"}
        ]
    if settings.hostname:
        parts.checks += [{"kind": "command", "what": "host name", "argv": ["uname", "--nodename"], "equals": settings.hostname}]


def archive(settings: Settings, root: Path, parts: Parts) -> None:
    """Apt installs what is asked and what is signed; packages' files can be compared."""
    parts.add(
        root / "etc/apt/apt.conf.d/60-slipway.conf", texts.apt(settings.install_recommends, "noexec" in settings.permissions)
    )
    parts.add(root / "etc/needrestart/conf.d/60-slipway.conf", texts.needrestart(settings.needrestart))
    parts.validate += [("apt-config", "dump")]
    wanted = {"APT::Install-Recommends": str(settings.install_recommends).lower(), **texts.APT_TRUST}
    says = {"true": "(1|true)", "false": "(0|false|no)"}
    lines = "\n".join(f"{re.escape(key)} {says[value]}" for key, value in wanted.items())
    parts.checks += [
        {"kind": "command", "what": "apt's settings", "argv": ["apt-config", "dump", "--format", "%f %v%n", *wanted]}
        | {
            "matches": f"^{lines}$",
            "remedy": "A file in /etc/apt/apt.conf.d that is read after 60-slipway.conf sets one of them.",
        }
    ]
    debsums = root / "etc/default/debsums"
    if debsums.is_file():
        parts.edited += [_keys(debsums, {"CRON_CHECK": "weekly"}, "=")]
    trusted = [path for path in _sources(root) if re.search(r"trusted\s*[=:]\s*yes", disk.read_text(path) or "", re.IGNORECASE)]
    parts.warnings += [
        f"{path} trusts a repository without signature (trusted=yes); sign it, and remove that word" for path in trusted
    ]


def _sources(root: Path) -> list[Path]:
    folder = root / "etc/apt/sources.list.d"
    return [
        path
        for path in (root / "etc/apt/sources.list", *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources")))
        if path.is_file()
    ]


def core_dumps(settings: Settings, root: Path, parts: Parts) -> None:
    """No process leaves its memory on disk; fs.suid_dumpable is the kernel role's."""
    off = not settings.core_dumps
    files = {
        "etc/systemd/system.conf.d/60-slipway-core.conf": (texts.no_core_manager(), "daemon-reload"),
        "etc/systemd/user.conf.d/60-slipway-core.conf": (texts.no_core_users(), "none"),
        "etc/security/limits.d/60-slipway-core.conf": (texts.no_core_logins(), "none"),
        "etc/systemd/coredump.conf.d/60-slipway.conf": (texts.no_coredump(), "none"),
    }
    for name, (text, effect) in files.items():
        parts.add(root / name, text if off else None, effect)
    if off:
        shown = ["systemctl", "show", "--value", "--property=DefaultLimitCORE"]
        login = ["runuser", "--shell=/bin/sh", "--command=ulimit -Hc", "nobody"]
        remedy = "A file in /etc/security/limits.d that is read after 60-slipway-core.conf sets it."
        parts.checks += [
            {"kind": "command", "what": "core dumps of services", "argv": shown, "equals": "0"},
            {"kind": "command", "what": "core dumps of logins", "argv": login, "equals": "0", "remedy": remedy},
        ]


def modules(settings: Settings, root: Path, parts: Parts) -> None:
    """Kernel modules that are not to be loaded; one that is in use when it is first declared is left alone."""
    path = root / "etc/modprobe.d/60-slipway.conf"
    before, busy = texts.blocked(disk.read_text(path) or ""), _modules_in_use(root)
    used = [name for name in settings.modules_off if name.replace("-", "_") in busy and name not in before]
    parts.warnings += [f"kernel module {name} is in use on this host and stays allowed" for name in used]
    off = [name for name in settings.modules_off if name not in used]
    parts.add(path, texts.modprobe(off) if off else None)
    if off and (root / "usr/sbin/modprobe").exists():
        argv = ["modprobe", "--dry-run", "--verbose", "--all", *off]
        matches = r"\A" + r"install /bin/false\s*" * len(off) + r"\Z"
        remedy = "Another file in /etc/modprobe.d says otherwise."
        parts.checks += [{"kind": "command", "what": "modules that are off", "argv": argv, "matches": matches, "remedy": remedy}]


def _modules_in_use(root: Path) -> set[str]:
    loaded = [line.split()[:1] for line in (disk.read_text(root / "proc/modules") or "").splitlines()]
    tables = [disk.read_text(root / name) or "" for name in ("proc/mounts", "etc/fstab")]
    mounted = [line.split()[2:3] for text in tables for line in text.splitlines() if not line.startswith("#")]
    return {name.replace("-", "_") for row in (*loaded, *mounted) for name in row}


def banner(settings: Settings, root: Path, parts: Parts) -> None:
    """What is shown before a login."""
    if settings.banner:
        text = f"{settings.banner.rstrip()}\n"
        parts.edited += [FileSpec(root / "etc" / name, text, effect="none") for name in ("issue", "issue.net")]


def shells(settings: Settings, root: Path, parts: Parts) -> None:
    """Login shells."""
    path = root / "etc/profile.d/60-slipway.sh"
    wanted = settings.umask or settings.session_timeout or not settings.core_dumps
    parts.add(path, texts.profile(settings.umask, settings.session_timeout, settings.core_dumps) if wanted else None)


def login_defs(settings: Settings) -> dict[str, str]:
    """Lines of login.defs(5)."""
    ageing = {str(key): str(value) for key, value in (settings.passwords.get("ageing") or {}).items()}
    umask = {"UMASK": settings.umask} if settings.umask else {}
    return {**ageing, **umask, **({"HOME_MODE": "0700"} if "homes" in settings.permissions else {})}


def passwords(settings: Settings, root: Path, parts: Parts) -> None:
    """Rules for new passwords, their age and their hashes."""
    quality = settings.passwords.get("quality") or {}
    path = root / "etc/security/pwquality.conf.d/60-slipway.conf"
    parts.login.append(FileSpec(path, texts.quality(quality) if quality else None, effect="none"))
    # Else it is made by the first failure of a boot, and until then faillock(8) knows only an error to say.
    lockout = bool(settings.passwords.get("lockout"))
    parts.add(root / "etc/tmpfiles.d/60-slipway.conf", texts.tally() if lockout else None)
    parts.folders += [DirectorySpec(root / "run/faillock")] if lockout else []
    definitions = root / "etc/login.defs"
    if definitions.is_file():
        parts.login_edited.append(_keys(definitions, login_defs(settings)))


def _keys(path: Path, settings: Mapping[str, str], separator: str = "\t") -> FileSpec:
    state = observe(path)
    text = texts.with_keys(state.content, settings, separator)
    return FileSpec(path, text, state.owner, state.group, state.mode, effect="none")


def sudo(settings: Settings, root: Path, parts: Parts) -> None:
    """Settings of sudo, its log, its folder."""
    folder = root / "etc/sudoers.d"
    if not folder.is_dir():
        return
    parts.login.append(
        FileSpec(folder / "00-slipway", texts.sudoers(settings.sudo) if settings.sudo else None, mode=0o440, effect="none")
    )
    log = texts.sudo_log(settings.sudo)
    parts.add(root / "etc/logrotate.d/slipway-sudo", texts.rotation(log) if log else None)
    if "sudoers" in settings.permissions:
        parts.login_edited.append(_closed(folder, 0o750))


def _closed(path: Path, mode: int) -> Any:
    """The same file or folder with less rights."""
    state = observe(path)
    kept = state.mode & mode
    if state.kind == "directory":
        return DirectorySpec(path, state.owner, state.group, kept)
    return FileSpec(path, state.content, state.owner, state.group, kept, effect="none")


def permissions(settings: Settings, root: Path, parts: Parts) -> None:
    """Files of cron and homes."""
    if "cron" in settings.permissions:
        parts.edited += [_closed(path, 0o700) for name in CRON_FOLDERS for path in [root / f"etc/cron.{name}"] if path.is_dir()]
        parts.edited += [_closed(path, 0o600) for path in [root / "etc/crontab"] if path.is_file()]
        allowed = "".join(f"{name}\n" for name in settings.cron_users)
        for program, group in (("cron", "crontab"), ("at", "daemon")):
            if (root / f"usr/bin/{'crontab' if program == 'cron' else 'at'}").exists():
                # Read by programs that have this group.
                parts.edited.append(FileSpec(root / f"etc/{program}.allow", allowed, group=group, mode=0o640, effect="none"))
                parts.edited.append(FileSpec(root / f"etc/{program}.deny", None, effect="none"))
    if "homes" in settings.permissions:
        parts.edited += [_closed(path, 0o700) for path in _homes(pwd.getpwall(), root)]


def noexec(settings: Settings, root: Path, parts: Parts) -> None:
    """Nothing is started from places where everybody may write, and from devices; where they are mounts of their own."""
    path, on = root / "etc/systemd/system/slipway-noexec.service", "noexec" in settings.permissions
    parts.add(path, texts.noexec([f"/{name}" for name in NOEXEC]) if on else None, "daemon-reload")
    if not on:
        return
    parts.units.append(UnitSpec(path.name, on_change="none"))
    mounts = [line.split()[1:2] for line in (disk.read_text(root / "proc/mounts") or "").splitlines()]
    for place in (f"/{name}" for name in NOEXEC):
        if [place] in mounts:
            argv = ["findmnt", "--noheadings", "--first-only", "--output=VFS-OPTIONS", place]
            remedy = f"Another unit mounted it anew; `systemctl restart {path.name}` brings it back."
            parts.checks += [
                {"kind": "command", "what": f"mount of {place}", "argv": argv, "matches": r"\bnoexec\b", "remedy": remedy}
            ]
        else:
            parts.warnings.append(f"{place} is no mount of its own on this host, so programs may still be started from there")


def _homes(users: Iterable[Any], root: Path) -> list[Path]:
    found = []
    for user in users:
        path = root / user.pw_dir.lstrip("/")
        shell = not user.pw_shell.endswith(("/nologin", "/false"))
        if FIRST_USER <= user.pw_uid <= LAST_USER and shell and Path(user.pw_dir).parent == Path("/home"):
            with_home = path.is_dir() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode)
            found += [path] if with_home else []
    return sorted(set(found))
