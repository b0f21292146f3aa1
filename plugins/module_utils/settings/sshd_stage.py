# SPDX-License-Identifier: GPL-3.0-or-later
"""sshd's configuration as it would be, in a folder of its own, so that sshd itself judges it before anything is changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from ..host import files as disk
from ..host.runner import Runner
from .sshd_policy import SshdError, parse_effective

SSHD = "/usr/sbin/sshd"
FOLDER = Path("/etc/ssh")
MAIN = FOLDER / "sshd_config"
LARGEST = 262144
"""Bytes; no configuration is longer, moduli are."""
_INCLUDE = re.compile(r"^(\s*include\s+)(\S.*)$", re.IGNORECASE)


def redirected(text: str, stage: Path) -> str:
    """`text` with every Include below /etc/ssh led to the same place below `stage`."""
    lines = []
    for line in text.split("\n"):
        found = _INCLUDE.match(line)
        if found:
            words = [word.strip('"') for word in found.group(2).split()]
            line = found.group(1) + " ".join(_led(word, stage) for word in words)
        lines.append(line)
    return "\n".join(lines)


def _led(word: str, stage: Path) -> str:
    if word.startswith(f"{FOLDER}/"):
        return f"{stage}{word}"
    return word if word.startswith(("/", "~")) else f"{stage}{FOLDER}/{word}"


def includes_first(main: str, path: Path) -> bool:
    """True when the first setting in `main` is an Include that `path` belongs to, so that nothing comes before it."""
    for line in main.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _INCLUDE.match(line)
        patterns = [word.strip('"') for word in found.group(2).split()] if found else []
        return any(path.match(word if word.startswith("/") else f"{FOLDER}/{word}") for word in patterns[:1])
    return False


def build(stage: Path, wanted: Mapping[Path, Optional[str]], folder: Path = FOLDER) -> Path:
    """Copy sshd's configuration below `stage` with the files of `wanted` in it; returns the path of the main file."""
    texts: dict[Path, Optional[str]] = {}
    for path in [folder / "sshd_config", *sorted(folder.rglob("*.conf"))]:
        if path.is_file() and path.stat().st_size <= LARGEST:
            texts[path] = disk.read_text(path)
    texts.update({path: text for path, text in wanted.items() if path.is_relative_to(folder)})
    for path, text in texts.items():
        if text is not None and len(text) <= LARGEST:
            copy = stage / path.relative_to("/")
            disk.make_directories(copy.parent, 0o700)
            disk.atomic_write(copy, redirected(text, stage), 0o600)
    return stage / folder.relative_to("/") / "sshd_config"


def effective(runner: Runner, path: Path = MAIN, who: str = "", stage: str = "") -> dict[str, list[str]]:
    """What sshd makes of the file `path`, for the connection `who` (as `sshd -C` takes it); raises SshdError in sshd's words."""
    disk.make_directories(Path("/run/sshd"))  # not there while a socket waits for the first connection
    asked = runner.run([SSHD, "-T", "-f", str(path), *(["-C", who] if who else [])], timeout=30)
    if not asked.ok:
        raise SshdError(asked.text().replace(stage, "") if stage else asked.text())
    return parse_effective(asked.out.replace(stage, "") if stage else asked.out)


def places(keyword: str, wanted: Mapping[Path, Optional[str]], folder: Path = FOLDER) -> list[str]:
    """Where files that are not among `wanted` set `keyword`: path, line number and text."""
    found = []
    for path in [*sorted(folder.glob("sshd_config.d/*.conf")), folder / "sshd_config"]:
        text = "" if path in wanted and path != folder / "sshd_config" else disk.read_text(path) or ""
        for number, line in enumerate(text.splitlines(), 1):
            if line.split(None, 1)[:1] and line.split(None, 1)[0].lower().rstrip("=") == keyword.lower():
                found.append(f"{path} line {number}: {line.strip()}")
    return found
