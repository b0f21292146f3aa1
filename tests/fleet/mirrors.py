# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this machine gets Debian from: its own apt sources, read and understood."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APT = Path("/etc/apt")
MAIN_SUITES = frozenset(
    f"{name}{tail}"
    for name in ("bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable")
    for tail in ("", "-updates")
)


@dataclass(frozen=True)
class Mirrors:
    """URLs of the Debian archive and, if this machine uses one, of its security archive."""

    main: str
    security: str | None = None

    def sources(self, codename: str) -> str:
        """The deb822 text of a sources file for the release `codename`."""
        stanzas = [_stanza(self.main, f"{codename} {codename}-updates")]
        if self.security:
            stanzas.append(_stanza(self.security, f"{codename}-security"))
        return "\n".join(stanzas)


def _stanza(uri: str, suites: str) -> str:
    return (
        f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )


def of_this_machine(apt: Path = APT) -> Mirrors | None:
    """The mirrors in the apt sources below `apt`; None when they name no Debian archive."""
    texts = [path.read_text() for path in sorted(apt.glob("sources.list.d/*.sources"))]
    entries = [entry for text in texts for entry in parse_deb822(text)]
    lists = [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]
    entries += [entry for path in lists if path.exists() for entry in parse_lines(path.read_text())]
    return choose(entries)


def choose(entries: list[tuple[str, str]]) -> Mirrors | None:
    """Pick the archives from (URI, suite) pairs, in the order of the sources."""
    main = next((uri for uri, suite in entries if suite in MAIN_SUITES), None)
    security = next((uri for uri, suite in entries if re.fullmatch(r"[a-z]+(-security|/updates)", suite)), None)
    return Mirrors(main.rstrip("/"), security.rstrip("/") if security else None) if main else None


def parse_deb822(text: str) -> Iterator[tuple[str, str]]:
    """(URI, suite) pairs of a .sources file; disabled stanzas and source-only ones are left out."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[key] = fields.get(key, "") + " " + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0") or "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri, suite


def parse_lines(text: str) -> Iterator[tuple[str, str]]:
    """(URI, suite) pairs of a one-line-style .list file."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)", line)
        if match:
            yield match[1], match[2]
