# SPDX-License-Identifier: GPL-3.0-or-later
"""Default resource limits of services and logins: the same numbers for systemd's units, its user managers and PAM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ..host.runner import Runner
from .converge import FileSpec, Transaction, plan
from .readback import LIMIT_NAMES, at_least, parse_limit

HEADER = "# Managed by slipway.server.kernel_settings; changes by hand are taken back.\n"
SYSTEM = Path("/etc/systemd/system.conf.d/60-slipway.conf")
USER = Path("/etc/systemd/user.conf.d/60-slipway.conf")
LOGIN = Path("/etc/security/limits.d/60-slipway.conf")
SYSTEMD_HARD_NOFILE = 524288
"""systemd's own default for the hard limit: services may raise themselves up to it, so it is not lowered."""


LOGIN_READS = {"nofile": "-Sn", "core": "-Sc"}
"""What POSIX's ulimit of a login shell can tell in the kernel's own unit (core: 0 is the same in every unit)."""


class LimitError(Exception):
    """A limit that cannot be what was declared; the message names each and what to do. Nothing was changed."""


@dataclass(frozen=True)
class Limit:
    """Soft and hard limit, as numbers or `infinity`; `hard` None leaves the hard limit of logins as it is."""

    name: str
    soft: str
    hard: Optional[str]

    def for_systemd(self) -> str:
        """Value of DefaultLimit…= and Limit…=."""
        return f"{self.soft}:{self.hard or SYSTEMD_HARD_NOFILE}"

    def for_logins(self) -> list[str]:
        """Lines of limits.conf(5), for everybody and for root, whom `*` does not include."""
        pairs = [("soft", self.soft)] + ([("hard", self.hard)] if self.hard else [])
        rows = [(kind, "unlimited" if value == "infinity" else value) for kind, value in pairs]
        return [f"{who} {kind} {self.name} {value}" for who in ("*", "root") for kind, value in rows]


def parse(settings: Mapping[str, object]) -> list[Limit]:
    """Limits from name to `soft` or `soft:hard`. Raises LimitError naming every wrong entry.

    A lone number is soft and hard limit; for nofile it is the soft one, and the hard one stays unless it is below.
    """
    found, problems = [], []
    for name, given in sorted(settings.items()):
        text = str(given).strip().replace("unlimited", "infinity")
        match = re.fullmatch(r"(\d+|infinity)(?::(\d+|infinity))?", text)
        if name not in LIMIT_NAMES:
            problems.append(f"{name}: not one of {', '.join(LIMIT_NAMES)}")
            continue
        if not match:
            problems.append(f"{name}: {given!r} is neither a number nor soft:hard")
            continue
        soft, hard = match.group(1), match.group(2)
        if hard is None and (name != "nofile" or soft == "infinity" or int(soft) > SYSTEMD_HARD_NOFILE):
            hard = soft
        if hard and not at_least(hard.replace("infinity", "unlimited"), soft):
            problems.append(f"{name}: the soft limit {soft} is above the hard limit {hard}")
            continue
        found.append(Limit(name, soft, hard))
    if problems:
        raise LimitError("no limit was changed:\n" + "\n".join(f"- {line}" for line in problems))
    return found


def transaction(limits: list[Limit]) -> Transaction:
    """The three files; without limits they go. Services get new defaults when they are started the next time."""
    defaults = "".join(f"DefaultLimit{limit.name.upper()}={limit.for_systemd()}\n" for limit in limits)
    manager = f"{HEADER}[Manager]\n{defaults}" if limits else None
    logins = HEADER + "".join(f"{line}\n" for limit in limits for line in limit.for_logins()) if limits else None
    return Transaction(
        name="limits",
        files=(
            FileSpec(SYSTEM, manager, effect="daemon-reload"),
            FileSpec(USER, manager, effect="daemon-reload"),
            FileSpec(LOGIN, logins, effect="none"),
        ),
    )


def checks(limits: list[Limit]) -> list[dict[str, Any]]:
    """What reads the limits back: systemd's default, a service started for the purpose, a login session."""
    found: list[dict[str, Any]] = []
    for limit in limits:
        name = f"DefaultLimit{limit.name.upper()}Soft"
        soft = limit.soft.replace("infinity", "unlimited")
        argv = ["systemctl", "show", "--value", f"--property={name}"]
        found.append({"kind": "command", "what": name, "argv": argv, "equals": limit.soft})
        found.append({"kind": "limit", "name": limit.name, "value": soft, "at_least": False})
        if limit.name in LOGIN_READS:
            argv = ["runuser", "--shell=/bin/sh", f"--command=ulimit {LOGIN_READS[limit.name]}", "nobody"]
            what = f"limit {limit.name} of a login session"
            remedy = "A file in /etc/security/limits.d that is read after 60-slipway.conf sets it, or pam_limits is not in use."
            found.append({"kind": "command", "what": what, "argv": argv, "equals": soft, "remedy": remedy})
    return found


def refuse_what_the_host_cuts(runner: Runner, limits: list[Limit]) -> None:
    """Start a service with the declared limits and compare: the kernel gives less without a word. Raises LimitError.

    A login whose limit is above what the host grants is refused by pam_limits, so this comes before any file.
    """
    if not limits:
        return
    properties = [f"--property=Limit{limit.name.upper()}={limit.for_systemd()}" for limit in limits]
    argv = ["systemd-run", "--wait", "--pipe", "--quiet", "--collect", *properties, "cat", "/proc/self/limits"]
    table = runner.must(argv, timeout=60).out
    problems = []
    for limit in limits:
        for column, declared in ((0, limit.soft), (1, limit.hard)):
            granted = parse_limit(table, LIMIT_NAMES[limit.name], column)
            wanted = (declared or "0").replace("infinity", "unlimited")
            enough = granted == "unlimited" if wanted == "unlimited" else at_least(granted, wanted)
            if not enough:
                kind = ("soft", "hard")[column]
                problems.append(f"{limit.name}: the {kind} limit {wanted} is declared, this host grants {granted}")
    if problems:
        raise LimitError(
            "no limit was changed:\n"
            + "\n".join(f"- {line}" for line in problems)
            + "\nDeclare at most that, or raise it where this host is started (docker run --ulimit, the provider's settings)."
        )


def prepared(runner: Runner, settings: Optional[Mapping[str, object]], check_mode: bool = False) -> Optional[Transaction]:
    """The transaction that writes `settings`, granted by the host if it changes anything; None without. Raises LimitError."""
    if settings is None:
        return None
    declared = parse(settings)
    wanted = transaction(declared)
    if not check_mode and plan(wanted):
        refuse_what_the_host_cuts(runner, declared)
    return wanted
