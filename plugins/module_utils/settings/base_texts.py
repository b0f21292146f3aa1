# SPDX-License-Identifier: GPL-3.0-or-later
"""The drop-ins that role base writes, as texts; and lines changed in files that have no drop-ins, and changed back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MARKER = "Managed by slipway.server.base; changes by hand are taken back."
HEADER = f"# {MARKER}\n"

APT_TRUST = {
    "APT::Get::AllowUnauthenticated": "false",
    "Acquire::AllowInsecureRepositories": "false",
    "Acquire::AllowWeakRepositories": "false",
    "Acquire::AllowDowngradeToInsecureRepositories": "false",
}
"""What would let a package in whose origin nobody has proved."""
SUDO_REFUSED = {
    "requiretty": "it keeps everything out that comes without a terminal, this collection included",
    "noexec": "it keeps programs that start others from working, this collection's Python included",
}


def journald(max_use: str, keep_free: str, max_age: str) -> str:
    """On disk, compressed, limited."""
    limits = f"SystemMaxUse={max_use}\nSystemKeepFree={keep_free}\nRuntimeMaxUse=64M\n"
    age = f"MaxRetentionSec={max_age}\n" if max_age else ""
    return f"{HEADER}[Journal]\nStorage=persistent\nCompress=yes\n{limits}{age}"


def timesyncd(servers: Sequence[str]) -> str:
    """The time servers."""
    return f"{HEADER}[Time]\nNTP={' '.join(servers)}\n"


def apt(recommends: bool, noexec: bool = False) -> str:
    """Installs what is asked, from where its origin is proved. Questions of packages are programs, which /tmp may not start."""
    settings = {
        "APT::Install-Recommends": str(recommends).lower(),
        "APT::Install-Suggests": "false",
        "Acquire::Retries": "3",
        "DPkg::Lock::Timeout": "600",
        **APT_TRUST,
        **({"APT::ExtractTemplates::TempDir": "/var/cache/apt"} if noexec else {}),
    }
    return f"// {MARKER}\n" + "".join(f'{key} "{value}";\n' for key, value in settings.items())


def needrestart(what: str) -> str:
    """It lists, or restarts, and never asks."""
    return f"{HEADER}$nrconf{{restart}} = '{'a' if what == 'restart' else 'l'}';\n$nrconf{{kernelhints}} = -1;\n"


def modprobe(modules: Iterable[str]) -> str:
    """Modules that neither an alias nor a name brings in."""
    return HEADER + "".join(f"install {name} /bin/false\nblacklist {name}\n" for name in modules)


def blocked(text: str) -> list[str]:
    """The modules that such a text names."""
    return re.findall(r"^install (\S+) /bin/false$", text, re.MULTILINE)


def no_core_manager() -> str:
    """Defaults of systemd for services, and systemd itself."""
    return f"{HEADER}[Manager]\nDefaultLimitCORE=0\nDumpCore=no\n"


def no_core_users() -> str:
    """The same for what users start."""
    return f"{HEADER}[Manager]\nDefaultLimitCORE=0\n"


def no_core_logins() -> str:
    """The same for logins; `*` does not include root."""
    return f"{HEADER}* hard core 0\nroot hard core 0\n"


def no_coredump() -> str:
    """systemd-coredump, where it is installed, keeps nothing."""
    return f"{HEADER}[Coredump]\nStorage=none\nProcessSizeMax=0\n"


def noexec(places: Sequence[str]) -> str:
    """A unit that has nothing start from `places`, however they were mounted."""

    def command(how: str) -> str:
        step = f"! mountpoint --quiet $$place || mount -o remount,{how} $$place"
        return f"/bin/sh -c 'for place in {' '.join(places)}; do {step}; done'"

    return (
        f"{HEADER}[Unit]\nDescription=Start nothing from {' and '.join(places)} (slipway)\nAfter=local-fs.target\n\n"
        f"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={command('noexec')}\nExecStop={command('exec')}\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def profile(umask: str, timeout: int, core_dumps: bool = True) -> str:
    """For login shells. The time limit is of those with a terminal, and cannot be taken away again within."""
    limit = f'case $- in\n*i*) [ -n "${{TMOUT-}}" ] || {{ TMOUT={timeout}; readonly TMOUT; export TMOUT; }} ;;\nesac\n'
    return HEADER + (f"umask {umask}\n" if umask else "") + ("" if core_dumps else "ulimit -c 0\n") + (limit if timeout else "")


def quality(settings: Mapping[str, Any]) -> str:
    """pwquality.conf(5); a switch stands there without a value."""
    lines = []
    for key, value in sorted(settings.items()):
        if isinstance(value, bool) and key in ("enforce_for_root", "local_users_only"):
            lines += [key] if value else []
        else:
            lines.append(f"{key} = {int(value) if isinstance(value, bool) else value}")
    return HEADER + "".join(f"{line}\n" for line in lines)


def tally() -> str:
    """The folder in which pam_faillock counts, at every start."""
    return f"{HEADER}d /run/faillock 0755 root root -\n"


def sudo_faults(defaults: Sequence[str]) -> list[str]:
    """Settings of sudo that are not taken, and why."""
    return [f"sudo: {word}: {SUDO_REFUSED[word]}" for word in map(str.strip, defaults) if word in SUDO_REFUSED]


def sudoers(defaults: Sequence[str]) -> str:
    """One line for each setting."""
    return HEADER + "".join(f"Defaults {line}\n" for line in defaults)


def sudo_log(defaults: Sequence[str]) -> str:
    """Where sudo logs to a file of its own; empty when it does not."""
    found = [line.partition("=")[2].strip().strip('"') for line in defaults if re.match(r"\s*logfile\s*=", line)]
    return found[-1] if found else ""


def rotation(path: str) -> str:
    """Such a file is kept for half a year."""
    rules = "".join(
        f"    {rule}\n" for rule in ("monthly", "rotate 6", "compress", "missingok", "notifempty", "create 0600 root root")
    )
    return f"{HEADER}{path} {{\n{rules}}}\n"


def _lines_of(text: str, key: str, separator: str) -> list[int]:
    form = re.compile(rf"\s*{re.escape(key)}" + (r"\s*=" if separator == "=" else r"(\s|$)"))
    return [number for number, line in enumerate(text.split("\n")) if form.match(line)]


def with_keys(text: str, settings: Mapping[str, str], separator: str = "\t") -> str:
    """`text` with every line of a key changed to its value; keys that have no line get one at the end."""
    lines = text.split("\n")
    added = []
    for key, value in settings.items():
        numbers = _lines_of(text, key, separator)
        for number in numbers:
            if re.split(rf"\s*{separator}\s*" if separator == "=" else r"\s+", lines[number].strip(), maxsplit=1)[1:] != [value]:
                lines[number] = f"{key}{separator}{value}"
        added += [] if numbers else [f"{key}{separator}{value}\n"]
    whole = "\n".join(lines)
    return whole + ("\n" if added and whole and not whole.endswith("\n") else "") + "".join(added)


def without_keys(text: str, original: str, keys: Iterable[str], separator: str = "\t") -> str:
    """The lines of `keys` as `original` has them, every other line as `text` has it."""
    lines: list[str] = text.split("\n")
    old = original.split("\n")
    gone: set[int] = set()
    for key in keys:
        before = _lines_of(original, key, separator)
        for count, number in enumerate(_lines_of(text, key, separator)):
            if count < len(before):
                lines[number] = old[before[count]]
            else:
                gone.add(number)
    return "\n".join(line for number, line in enumerate(lines) if number not in gone)
