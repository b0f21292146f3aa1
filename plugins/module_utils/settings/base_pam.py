# SPDX-License-Identifier: GPL-3.0-or-later
"""PAM through the distribution's own tool: profiles for pam-auth-update, whose work is seen in a folder before it is real."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ..host import files as disk
from ..host.runner import Runner
from .converge import FileSpec, observe

PROFILES = "usr/share/pam-configs"
PREFIX = "slipway-"
KINDS = ("auth", "account", "password", "session", "session-noninteractive")
STACKS = tuple(f"etc/pam.d/common-{kind}" for kind in KINDS)
RECORDS = tuple(f"var/lib/pam/{kind}" for kind in (*KINDS, "seen"))
"""What pam-auth-update itself remembers."""
FOLDER = "var/lib/slipway/base"
MEMORY = f"{FOLDER}/pam.json"
REFUSES = "Local modifications"
LOCKOUT = ("deny", "unlock_time", "fail_interval", "even_deny_root", "root_unlock_time")
UNIX = re.compile(r"^((?:account|password)\s+\[[^]]*\]\s+pam_unix\.so)[ \t]*(.*)$", re.MULTILINE)
OURS = re.compile(r"no_pass_expiry|rounds=\d+")
"""Options of pam_unix that are added to the line of its own profile; pam-auth-update keeps them."""


class PamError(Exception):
    """PAM cannot be what was declared; nothing was changed, and the message says what to do."""


@dataclass(frozen=True)
class Pam:
    """`lockout`: options of pam_faillock(8), `history`: old passwords not taken again, `umask` of sessions, `cost` of yescrypt.

    What is empty or 0 is left alone.
    """

    lockout: Mapping[str, Any] = field(default_factory=dict)
    history: int = 0
    umask: str = ""
    cost: int = 0


def profiles(pam: Pam) -> dict[str, str]:
    """Text of each profile by its file name."""
    found = {}
    if pam.lockout:
        options = " ".join(filter(None, (_option(key, pam.lockout.get(key)) for key in LOCKOUT)))
        before, after = (
            f"requisite\tpam_faillock.so preauth silent {options}",
            f"[default=die]\tpam_faillock.so authfail {options}",
        )
        # Only a good password clears the count: in the account stack, every cron job of the user would.
        clear = f"required\tpam_faillock.so authsucc {options}"
        found["lockout-before"] = _profile("Refuse users who are locked out", 1024, "Auth", "Primary", before)
        found["lockout-after"] = _profile("Count failed logins", 0, "Auth", "Primary", after)
        found["lockout-clear"] = _profile("Forget failed logins after a good one", 0, "Auth", "Additional", clear)
    if pam.history:
        first = f"requisite\tpam_pwhistory.so remember={pam.history} enforce_for_root"
        text = _profile("Refuse passwords that were used before", 512, "Password", "Primary", f"{first} use_authtok")
        found["history"] = f"{text}Password-Initial:\n\t{first}\n"
    if pam.umask:
        line = f"optional\tpam_umask.so umask=0{pam.umask} nousergroups"
        found["umask"] = _profile("Umask of sessions", 0, "Session", "Additional", line, "Session-Interactive-Only: yes\n")
    return {f"{PREFIX}{name}": text for name, text in found.items()}


def _option(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return key if value else ""
    return "" if value is None else f"{key}={value}"


def _profile(name: str, priority: int, kind: str, block: str, line: str, more: str = "") -> str:
    head = f"Name: {name} (slipway.server.base)\nDefault: no\nPriority: {priority}\n"
    return f"{head}{kind}-Type: {block}\n{more}{kind}:\n\t{line}\n"


def tuned(stack: str, cost: Optional[int]) -> str:
    """The stack of accounts or passwords with our options of pam_unix; without them when `cost` is None.

    A password that is too old stops only logins by password: else a user who has a key, and no password, would be kept out once
    the greatest age is over. And hashes are dear also where pam_unix does not read their cost in login.defs (before 1.7).
    """

    def line(found: re.Match[str]) -> str:
        options = [word for word in found.group(2).split() if not OURS.fullmatch(word)]
        if cost is not None and found.group(1).startswith("account"):
            options.append("no_pass_expiry")
        elif cost and "yescrypt" in options:
            options.append(f"rounds={cost}")
        return " ".join([found.group(1), *options])

    return UNIX.sub(line, stack)


class PamFiles:
    """What PAM's files of this host have to be; `root` is / except in tests."""

    def __init__(self, runner: Runner, root: Path = Path("/")) -> None:
        self.runner = runner
        self.root = root
        folder = root / PROFILES
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        self.foreign = {name: disk.read_text(folder / name) or "" for name in names if not name.startswith(PREFIX)}
        self.old = [name for name in names if name.startswith(PREFIX)]
        self.live = {name: disk.read_text(root / name) for name in (*STACKS, *RECORDS)}

    def wanted(self, pam: Optional[Pam]) -> list[FileSpec]:
        """All files, as pam-auth-update makes them with our profiles, or without any (None). Raises PamError."""
        memory = self._memory()
        if pam is None and not self.old and memory is None:
            return []
        gone = [name for name, text in self.live.items() if text is None]
        if gone:
            raise PamError(f"/{gone[0]} does not exist; `apt-get install --reinstall libpam-runtime` brings it back")
        ours = profiles(pam) if pam else {}
        live = {name: text or "" for name, text in self.live.items()}
        after = (
            live
            if memory and memory["print"] == self._print(live, ours, pam)
            else self._made(live, ours, memory, pam.cost if pam else None)
        )
        specs = [self._like(name, text) for name, text in after.items()]
        specs += [FileSpec(self.root / PROFILES / name, ours.get(name), effect="none") for name in sorted({*self.old, *ours})]
        remembered = json.dumps({"print": self._print(after, ours, pam), "files": after}, indent=1) + "\n" if pam else None
        return [*specs, FileSpec(self.root / MEMORY, remembered, mode=0o600, effect="none")]

    def _memory(self) -> Optional[dict[str, Any]]:
        """What the last run made, and of what."""
        try:
            found = json.loads(disk.read_text(self.root / MEMORY) or "null")
        except ValueError:
            return None
        return found if isinstance(found, dict) and {"print", "files"} <= set(found) else None

    def _print(self, files: Mapping[str, str], ours: Mapping[str, str], pam: Optional[Pam]) -> str:
        made_of = [files, self.foreign, ours, pam.cost if pam else None]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    def _like(self, name: str, text: str) -> FileSpec:
        state = observe(self.root / name)
        return FileSpec(self.root / name, text, state.owner, state.group, state.mode, effect="none")

    def _made(
        self, live: Mapping[str, str], ours: Mapping[str, str], memory: Optional[Mapping[str, Any]], cost: Optional[int]
    ) -> dict[str, str]:
        """Lines that somebody wrote by hand since the last run go; what pam-auth-update did since stays."""
        before = memory["files"] if memory else None
        starts = [live] if before is None else [before] if _enabled(before) == _enabled(live) else [live, before]
        said = ""
        for start in starts:
            made, said = self._run({**start, **{name: tuned(start[name], cost) for name in STACKS[1:3]}}, ours)
            if REFUSES not in said:
                self._judge(made, ours, said)
                return made
        raise PamError(
            "/etc/pam.d/common-* have lines that pam-auth-update did not write and cannot keep, so no rules can be added."
            " Move them to a profile in /usr/share/pam-configs and run `pam-auth-update --force`, which drops them there"
        )

    def _run(self, start: Mapping[str, str], ours: Mapping[str, str]) -> tuple[dict[str, str], str]:
        with tempfile.TemporaryDirectory(prefix="slipway-pam-") as name:
            stage = Path(name)
            folder = {f"{PROFILES}/{profile}": text for profile, text in {**self.foreign, **ours}.items()}
            for path, text in {**start, **folder}.items():
                disk.make_directories((stage / path).parent)
                (stage / path).write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
            argv = ["pam-auth-update", "--root", name, "--package", *(["--enable", *ours] if ours else [])]
            # Its questions have answers of their own here, so that those of the host stay as they are.
            answers = {"DEBIAN_FRONTEND": "noninteractive", "DEBCONF_DB_REPLACE": f"File{{{name}/debconf.dat}}"}
            done = self.runner.run(argv, timeout=60, env=answers)
            made = {path: disk.read_text(stage / path) or "" for path in start}
            return made, done.text() if done.ok else f"status {done.rc}: {done.text()}"

    def _judge(self, made: Mapping[str, str], ours: Mapping[str, str], said: str) -> None:
        enabled = _enabled(made)
        missing = [name for name in ours if name not in enabled]
        if missing:
            raise PamError(f"pam-auth-update did not enable {', '.join(missing)}: {said[-500:] or 'it said nothing'}")
        folders = [
            path for form in ("lib/*/security", "lib/security", "lib64/security") for path in self.root.glob(f"usr/{form}")
        ]
        used = {name: stack for stack in STACKS for name in re.findall(r"^\w[^#\n]*?\s(pam_\w+\.so)", made[stack], re.MULTILINE)}
        lost = [f"/{stack} uses {name}" for name, stack in used.items() if not any((path / name).exists() for path in folders)]
        if lost:
            raise PamError(
                f"{'; '.join(lost)}, which is not installed: nobody could log in. Install its package, or remove its profile"
            )


def _enabled(files: Mapping[str, str]) -> set[str]:
    """The profiles that pam-auth-update wrote, with the stack they are in not told apart."""
    return {name for path in RECORDS[:-1] for name in re.findall(r"^Module: (\S+)$", files.get(path, ""), re.MULTILINE)}
