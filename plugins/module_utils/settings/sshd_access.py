# SPDX-License-Identifier: GPL-3.0-or-later
"""Would this user still get in? sshd's own rules, asked before the change instead of after it."""

from __future__ import annotations

import base64
import fnmatch
import ipaddress
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

KEY = re.compile(r"(?:^|\s)((?:sk-)?(?:ssh|ecdsa)-[\w@.-]+) ([A-Za-z0-9+/]+={0,3})(?:\s|$)")


@dataclass(frozen=True)
class Account:
    """The user of a connection. `address`: where it comes from."""

    name: str
    uid: int
    home: str
    groups: tuple[str, ...] = ()
    address: str = ""


@dataclass(frozen=True)
class KeyFile:
    """A file of keys as sshd would find it: its text, and what StrictModes would say against it (nothing when all is well)."""

    text: str
    fault: str = ""


Look = Callable[[Path, Account], Optional[KeyFile]]


def problems(account: Account, effective: Mapping[str, list[str]], look: Look) -> list[str]:
    """Every reason why `account` could not log in by a key under the settings `effective` (of `sshd -T`), with its remedy."""
    name = account.name
    found = []
    for keyword, fits in (("denyusers", _user(account)), ("denygroups", _group(account))):
        if any(fits(pattern) for pattern in _words(effective, keyword)):
            found.append(f"{keyword} keeps {name} out")
    users, groups = _words(effective, "allowusers"), _words(effective, "allowgroups")
    if users and not _listed(users, _user(account)):
        found.append(f"user {name} is not in AllowUsers ({' '.join(users)}); add it to sshd_allow_users")
    if groups and not _listed(groups, _group(account)):
        has = f"; {name} is in {' '.join(account.groups)}" if account.groups else ""
        found.append(f"no group of user {name} is in AllowGroups ({' '.join(groups)}){has}; add one to sshd_allow_groups")
    if account.uid == 0 and effective.get("permitrootlogin", ["yes"])[0] in ("no", "forced-commands-only"):
        found.append("this run is connected as root, whose login would be off; connect as another user (ansible_user) first")
    if effective.get("pubkeyauthentication", ["yes"])[0] == "no":
        found.append("PubkeyAuthentication would be off")
    return found + _keys(account, effective, look)


def _keys(account: Account, effective: Mapping[str, list[str]], look: Look) -> list[str]:
    other_ways = ("authorizedkeyscommand", "trustedusercakeys")
    if any(effective.get(keyword, ["none"])[0] != "none" for keyword in other_ways):
        return []  # keys come from elsewhere; only a login can tell
    accepted = set((effective.get("pubkeyacceptedalgorithms") or [""])[0].split(","))
    least = int((effective.get("requiredrsasize") or ["1024"])[0])
    said = []
    for word in _words(effective, "authorizedkeysfile"):
        path = key_path(word, account)
        file = look(path, account)
        if file is None:
            said.append(f"{path} does not exist")
            continue
        usable, refused = usable_keys(file.text, accepted, least)
        if file.fault:
            said.append(f"{path}: {file.fault}")
        elif usable:
            return []
        else:
            said.append(f"{path} has no key that would be accepted" + (f" ({'; '.join(refused)})" if refused else ""))
    why = ", ".join(said)
    return [f"user {account.name} would have no key to log in with: {why}; add one to sshd_users or to that file"]


def key_path(word: str, account: Account) -> Path:
    """A word of AuthorizedKeysFile with its tokens replaced (sshd_config(5), TOKENS)."""
    tokens = {"%%": "%", "%h": account.home, "%u": account.name, "%U": str(account.uid)}
    return Path(account.home) / re.sub("%[%huU]", lambda found: tokens[found.group()], word)


def usable_keys(text: str, accepted: set[str], least_rsa: int) -> tuple[int, list[str]]:
    """How many keys of an authorized_keys file give a login with a shell, and why others do not."""
    usable, refused = 0, []
    for line in text.splitlines():
        found = KEY.search(line)
        if line.lstrip().startswith("#") or not found:
            continue
        kind, blob = found.groups()
        before = line[: found.start()].strip()
        names = {"rsa-sha2-512", "rsa-sha2-256"} if kind == "ssh-rsa" else {kind}
        bits = rsa_bits(blob) if kind == "ssh-rsa" else None
        if re.search(r"(^|,)(command=|cert-authority)", before):
            refused.append(f"a {kind} key is for a command or for certificates only")
        elif not names & accepted:
            refused.append(f"keys of type {kind} are not accepted by this profile")
        elif bits is not None and bits < least_rsa:
            refused.append(f"an RSA key has {bits} bits, at least {least_rsa} are needed")
        else:
            usable += 1
    return usable, refused


def rsa_bits(blob: str) -> int:
    """Bits of the modulus of a public RSA key in base64 (RFC 4253, section 6.6); 0 when it cannot be read."""
    try:
        data = base64.b64decode(blob, validate=False)
        position = 0
        for _part in range(2):  # the name of the type, the exponent
            (length,) = struct.unpack_from(">I", data, position)
            position += 4 + length
        (length,) = struct.unpack_from(">I", data, position)
        return int.from_bytes(data[position + 4 : position + 4 + length], "big").bit_length()
    except (ValueError, struct.error):
        return 0


def _words(effective: Mapping[str, list[str]], keyword: str) -> list[str]:
    return [word for value in effective.get(keyword, []) for word in value.split()]


def _listed(patterns: Sequence[str], fits: Callable[[str], bool]) -> bool:
    refused = any(fits(pattern[1:]) for pattern in patterns if pattern.startswith("!"))
    return not refused and any(fits(pattern) for pattern in patterns if not pattern.startswith("!"))


def _group(account: Account) -> Callable[[str], bool]:
    return lambda pattern: any(fnmatch.fnmatchcase(group, pattern) for group in account.groups)


def _user(account: Account) -> Callable[[str], bool]:
    def fits(pattern: str) -> bool:
        user, _at, host = pattern.partition("@")
        if not fnmatch.fnmatchcase(account.name, user):
            return False
        return not host or not account.address or _from(account.address, host)

    return fits


def _from(address: str, pattern: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        # A name: only sshd, which looks it up, can tell; the login over a fresh connection will.
        return fnmatch.fnmatchcase(address, pattern) or not re.fullmatch(r"[0-9a-fA-F.:*?/]+", pattern)
