# SPDX-License-Identifier: GPL-3.0-or-later
"""Named users: their accounts, keys and rights with sudo."""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..host import files as disk
from ..host.runner import Runner
from .converge import DirectorySpec, FileSpec
from .sshd_access import KEY
from .sshd_policy import SshdError

SUDOERS = Path("/etc/sudoers.d")
SUDO = ("none", "password", "nopassword")
NAME = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")


@dataclass(frozen=True)
class User:
    """One declared user. `password`: a hash for /etc/shadow, or empty to leave it alone."""

    name: str
    present: bool = True
    keys: tuple[str, ...] = ()
    exclusive: bool = True
    groups: tuple[str, ...] = ()
    sudo: str = "none"
    password: str = ""
    shell: str = "/bin/bash"


@dataclass(frozen=True)
class Step:
    """A command that changes an account, in words that hold no secret, and what goes to its standard input."""

    says: str
    argv: tuple[str, ...]
    data: Optional[str] = None


@dataclass(frozen=True)
class Found:
    """An account as the host knows it."""

    name: str
    home: str
    shell: str
    group: str
    groups: tuple[str, ...]
    password: str = ""


def observe(name: str, shadow: str) -> Optional[Found]:
    """The account `name`, or None; `shadow` is the text of /etc/shadow."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    hashes = dict(line.split(":")[:2] for line in shadow.splitlines() if line.count(":") > 1)
    group = grp.getgrgid(entry.pw_gid).gr_name
    groups = tuple(sorted({group, *(item.gr_name for item in grp.getgrall() if name in item.gr_mem)}))
    return Found(name, entry.pw_dir, entry.pw_shell, group, groups, hashes.get(name, ""))


def check(users: Sequence[User]) -> list[str]:
    """Everything that is wrong with what is declared."""
    faults = []
    names = [user.name for user in users]
    faults += [f"sshd_users: {name} is declared twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for user in users:
        if not NAME.fullmatch(user.name):
            faults.append(f"sshd_users: `{user.name}` is no name of a user; write small letters, digits, . - _")
        if user.name == "root" and not user.present:
            faults.append("sshd_users: root cannot be absent; sshd_root_login: 'no' switches its login off")
        for number, key in enumerate(user.keys, 1):
            if "\n" in key.strip() or not KEY.search(key):
                faults.append(f"sshd_users: key {number} of {user.name} is no public key; write one line of an id_*.pub file")
        if user.password and not user.password.startswith("$"):
            faults.append(f"sshd_users: password of {user.name} is no hash; filter slipway_password_hash makes one")
    return faults


def steps(user: User, found: Optional[Found], groups: Sequence[str]) -> list[Step]:
    """Commands that bring the account to what is declared, but its removal; `groups` are those that exist."""
    if not user.present:
        return []
    name, done = user.name, []
    done += [Step(f"group {group} is made", ("groupadd", group)) for group in user.groups if group not in groups]
    if found is None:
        argv = ("useradd", "--create-home", "--shell", user.shell, "--password", "*", name)
        done.append(Step(f"user {name} is made", argv))
    elif found.shell != user.shell and name != "root":
        done.append(Step(f"shell of {name} is {user.shell}", ("usermod", "--shell", user.shell, name)))
    missing = [group for group in user.groups if found is None or group not in found.groups]
    if missing:
        says = f"{name} joins {', '.join(missing)}"
        done.append(Step(says, ("usermod", "--append", "--groups", ",".join(missing), name)))
    if user.password and (found is None or found.password != user.password):
        done.append(Step(f"password of {name} is set", ("chpasswd", "--encrypted"), f"{name}:{user.password}\n"))
    return done


def removal(user: User, found: Optional[Found]) -> list[Step]:
    """What ends the account; its home stays."""
    return [] if user.present or found is None else [Step(f"user {user.name} is removed", ("userdel", user.name))]


def key_lines(user: User, before: str) -> str:
    """authorized_keys: exactly the declared keys, or those that are there and the declared ones."""
    keys = [key.strip() for key in user.keys]
    if user.exclusive:
        return "".join(f"{key}\n" for key in keys)
    have = {blob for line in before.splitlines() for blob in [_blob(line)] if blob}
    added = "".join(f"{key}\n" for key in keys if _blob(key) not in have)
    return before + ("\n" if added and before and not before.endswith("\n") else "") + added


def _blob(line: str) -> str:
    found = KEY.search(line)
    return found.group(2) if found and not line.lstrip().startswith("#") else ""


def keys_path(user: User, found: Optional[Found]) -> Path:
    """Where sshd looks for the keys of a user by default."""
    home = found.home if found else ("/root" if user.name == "root" else f"/home/{user.name}")
    return Path(home) / ".ssh/authorized_keys"


def sudo_path(name: str) -> Path:
    """Where its rule stands: sudo skips files whose names have a dot."""
    return SUDOERS / f"slipway-{name.replace('.', '_')}"


def files(users: Sequence[User], shadow: str) -> tuple[list[DirectorySpec], list[FileSpec]]:
    """Folders and files that the declared users have to have, or not to have."""
    folders, found_files = [], []
    for user in users:
        found = observe(user.name, shadow)
        path, group = keys_path(user, found), found.group if found else user.name
        if user.present and (user.keys or not user.exclusive):
            folders.append(DirectorySpec(path.parent, user.name, group, 0o700))
            text = key_lines(user, disk.read_text(path) or "")
            found_files.append(FileSpec(path, text, user.name, group, 0o600, effect="none"))
        elif not user.present and found is not None:
            found_files.append(FileSpec(path, None, effect="none"))
        tag = {"password": "", "nopassword": "NOPASSWD: "}.get(user.sudo)
        rule = None if tag is None or not user.present else f"{user.name} ALL=(ALL:ALL) {tag}ALL\n"
        text_or_none = rule and f"# Managed by Ansible: slipway.server.sshd\n{rule}"
        if user.name != "root":
            found_files.append(FileSpec(sudo_path(user.name), text_or_none, mode=0o440, effect="none"))
    return folders, found_files


def validate_sudo(runner: Runner, specs: Sequence[FileSpec], stage: Path) -> None:
    """Have visudo read every new file of sudo; raises SshdError in its words."""
    for spec in specs:
        if spec.path.parent != SUDOERS or spec.content is None:
            continue
        copy = stage / spec.path.name
        disk.atomic_write(copy, spec.content, 0o440)
        said = runner.run(["visudo", "-cf", str(copy)])
        if not said.ok:
            why = (
                "sudo is not installed; install it, or set sudo: none"
                if said.rc == 127
                else said.text().replace(str(copy), str(spec.path))
            )
            raise SshdError(f"{spec.path} was not written: {why}")
