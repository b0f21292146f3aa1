# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings that are to stay, each with its reason: those that are known, and those that an inventory declares."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Accepted:
    """`check`, `id` and `host` are patterns, `text` is a regular expression; `container`: only where the kernel is shared."""

    check: str
    id: str
    reason: str
    text: str = ""
    host: str = "*"
    container: bool = False

    def fits(self, host: str, check: str, name: str, text: str, container: bool) -> bool:
        """Whether it is about this finding."""
        patterns = ((host, self.host), (check, self.check), (name, self.id))
        meant = all(fnmatch.fnmatch(value, pattern) for value, pattern in patterns)
        return meant and (container or not self.container) and re.search(self.text, text, re.IGNORECASE) is not None


def _lynis(name: str, reason: str, text: str = "", container: bool = False) -> Accepted:
    return Accepted("lynis", name, reason, text, container=container)


KERNEL = "the kernel of this container is the machine's: "
KNOWN = (
    _lynis("LYNIS", "Debian's archive keeps the version of the release", "months old"),
    _lynis("ACCT-9628", KERNEL + "it gives no audit netlink, so auditd cannot start", container=True),
    _lynis("ACCT-9622", KERNEL + "process accounting belongs to the machine", container=True),
    _lynis("KRNL-5788", KERNEL + "there is none to boot here", container=True),
    _lynis("KRNL-6000", KERNEL + "kernel.*, fs.* and dev.* are set on the machine, not here", container=True),
    _lynis("BOOT-5180", "the list of services at boot is systemd's here; a runlevel says nothing"),
    _lynis("BOOT-5264", "measured service by service by systemd-analyze, see exposure"),
    _lynis("NAME-4028", "the containers of a test have no domain", container=True),
    _lynis("FILE-6310", "partitions are made when a server is installed; converging does not move data"),
    _lynis("SSH-7408", "another port hides sshd from nobody who scans, and breaks what expects it", r"\bPort \("),
    _lynis(
        "SSH-7408", "several runs share one connection for their sessions; sshd_settings may allow fewer", r"\bMaxSessions \("
    ),
    _lynis("DEB-0810", "made for testing and unstable: a stable release has no new bugs in an upgrade"),
    _lynis("DEB-0880", "its settings are in jail.d, which upgrades leave alone, too", "jail.local"),
    _lynis("DEB-0880", "no password is accepted by sshd, so there is nothing to guess; rules in ufw decide who may try"),
    _lynis("FIRE-4513", "a rule that nobody needed since the start is still the declared one"),
    _lynis("LOGG-2154", "needs a log host, which not every fleet has; the journal is persistent"),
    _lynis(
        "HTTP-6710",
        "it wants the server's order of ciphers; all allowed ones are good, so clients may choose",
    ),
    _lynis("PKGS-7388", "the archive of a test is the machine's own mirror, which has another name", container=True),
    _lynis("PKGS-7394", "needrestart and unattended-upgrades tell what is old"),
    Accepted("ssh-audit", "*", "this ssh-audit is older than the algorithm", r"unknown algorithm.*ssh-audit [12]\."),
    Accepted("ssh-audit", "sntrup761*", "this ssh-audit is older than the standard", r"experimental.*ssh-audit [12]\."),
)


def declared(entries: Iterable[Mapping[str, Any]]) -> tuple[Accepted, ...]:
    """`audit_accepted` of an inventory; raises ValueError for an entry without a reason, or with a key that is none."""
    found = []
    for entry in entries:
        unknown = set(entry) - {"check", "id", "reason", "text", "host"}
        if unknown or not str(entry.get("reason", "")).strip() or not entry.get("id"):
            raise ValueError(
                f"audit_accepted: {dict(entry)} needs `id` and `reason`; `check`, `text` and `host` may narrow it, nothing else"
            )
        given = {"check": "*", "text": "", "host": "*", **{key: str(value) for key, value in entry.items()}}
        found.append(Accepted(given["check"], given["id"], given["reason"], given["text"], given["host"]))
    return tuple(found)


def reason(
    host: str, check: str, name: str, text: str, container: bool, more: Iterable[Accepted] = (), known: Iterable[Accepted] = KNOWN
) -> str:
    """Why this finding stays; empty when it does not."""
    rules = (*more, *known)
    return next((rule.reason for rule in rules if rule.fits(host, check, name, text, container)), "")
