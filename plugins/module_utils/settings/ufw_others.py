# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else had set in a firewall that is taken over: rules that go, and lines of ufw's own files that stay. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

PACKAGED = "usr/share/ufw/iptables"
CHAINS = tuple(f"IPv{family} {way}:" for family in (4, 6) for way in ("in", "out", "routed"))
FRAMES = ("before.rules", "before6.rules")


def gone(before: str, after: str) -> list[str]:
    """Rules in force that are not declared, without the notes that stand behind them."""

    def rules(text: str) -> list[str]:
        return [line.split("  # ")[0].strip() for line in text.splitlines() if line.startswith(CHAINS)]

    kept = set(rules(after))
    return [rule for rule in rules(before) if rule not in kept and ": default " not in rule]


def staying(files: Mapping[str, str], packaged: Mapping[str, str]) -> list[str]:
    """Lines that were added to `before.rules` by hand, as `name: line`."""
    found = []
    for name in FRAMES:
        known = set(packaged.get(name, "").splitlines())
        lines = files.get(f"etc/ufw/{name}", "").splitlines() if name in packaged else []
        found += [f"{name}: {line.strip()}" for line in lines if line.startswith("-") and line not in known]
    return found


def words(first: bool, before: str, after: str, files: Mapping[str, str], packaged: Mapping[str, str]) -> list[str]:
    """What the operator has to know when a firewall is taken over (`first`)."""
    if not first:
        return []
    rules, lines = gone(before, after), staying(files, packaged)
    found = [f"rules that somebody else had set are not declared and go: {'; '.join(rules)}"] if rules else []
    return found + (
        [f"lines that were added by hand stay in force in front of the declared rules: {'; '.join(lines)}"] if lines else []
    )
