# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was seen of a host to its scores, to what remains, and to what is below the minimum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from . import accepted, ports, services

MINIMUM: dict[str, float] = {
    "lynis": 87,
    "ssh_fail": 0,
    "ssh_warn": 0,
    "app": 1.5,
    "nginx": 2.5,
    "postgresql": 2.5,
    "services": 0,
    "settings": 0,
    "drift": 0,
    "ports": 0,
}
"""The least Lynis index; of all others the most."""
TITLES = {
    "lynis": "Lynis index",
    "ssh_fail": "ssh-audit failures",
    "ssh_warn": "ssh-audit warnings",
    "app": "exposure of applications",
    "nginx": "exposure of nginx",
    "postgresql": "exposure of PostgreSQL",
    "services": "services that do not run",
    "settings": "settings that are not effective",
    "drift": "files changed by hand",
    "ports": "ports that nobody declared",
}
UNITS = {"nginx": ("nginx.service",), "postgresql": ("postgresql.service", "postgresql@*.service")}
REMEDIES = {
    "settings": "Run site.yml.",
    "drift": "Run site.yml, which puts the declared file back, or declare what was changed.",
    "ports": "Stop what listens there, remove the rule that opens it, or declare it.",
    "services": "See `systemctl status` of it.",
    "exposure": "See `systemd-analyze security` of it, and its sandbox in the role.",
}


@dataclass(frozen=True)
class Finding:
    """One thing that remains. `reason` tells why it is accepted; without one it is open, and `remedy` tells what to do."""

    check: str
    id: str
    text: str
    remedy: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """One host. A score that is None was not measured, and `missing` tells why."""

    host: str
    scores: Mapping[str, Optional[float]]
    findings: tuple[Finding, ...]
    below: tuple[str, ...]
    missing: tuple[str, ...]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Evidence:
    """All that was seen of a host: by itself, from elsewhere (by the name of who looked), and what its roles read back."""

    host: str
    inside: Mapping[str, Any]
    outside: Mapping[str, Mapping[str, Any]]
    settings: Sequence[Mapping[str, Any]] = ()
    plan: Mapping[str, Any] = ()  # type: ignore[assignment]


def minimum(given: Mapping[str, Any]) -> dict[str, float]:
    """The limits, those of `audit_minimum` before our own; raises ValueError for a name that is none."""
    unknown = sorted(set(given) - set(MINIMUM))
    if unknown:
        raise ValueError(f"audit_minimum: there is no score {', '.join(unknown)}; scores are {', '.join(MINIMUM)}")
    return {**MINIMUM, **{name: float(value) for name, value in given.items()}}


def judge(evidence: Evidence, limits: Mapping[str, float], own: Iterable[accepted.Accepted] = ()) -> Verdict:
    """Scores and findings of one host."""
    own, container = tuple(own), bool(evidence.inside.get("container"))
    found: list[Finding] = []

    def add(check: str, name: str, text: str, remedy: str = "") -> bool:
        """Note it; whether it counts."""
        why = accepted.reason(evidence.host, check, name, text, container, own)
        found.append(Finding(check, name, text, remedy, why))
        return not why

    def count(check: str, rows: Iterable[tuple[str, str]]) -> float:
        return float(sum(add(check, name, text, REMEDIES[check]) for name, text in rows))

    scores: dict[str, Optional[float]] = dict.fromkeys(MINIMUM)
    missing: list[str] = []
    facts: dict[str, str] = {}
    _lynis(evidence, scores, missing, facts, add)
    _ssh(evidence, scores, missing, facts, add)
    _exposure(evidence, limits, scores, add)
    scores["services"] = count("services", [(text.split(" ")[0], text) for text in evidence.inside.get("off") or ()])
    scores["settings"] = count("settings", _settings(evidence))
    drift = evidence.inside.get("drift") or ()
    scores["drift"] = count("drift", [(row["path"], f"{row['path']} {row['what']} ({row['owner']})") for row in drift])
    if any("open" in look for look in evidence.outside.values()):
        scores["ports"] = count("ports", _ports(evidence))
    else:
        missing.append("ports: nobody looked from elsewhere")
    return Verdict(evidence.host, scores, tuple(found), tuple(_below(scores, limits)), tuple(missing), facts)


def _lynis(evidence: Evidence, scores: dict[str, Any], missing: list[str], facts: dict[str, str], add: Any) -> None:
    seen = evidence.inside.get("lynis") or {}
    if not seen.get("version"):
        missing.append("lynis: " + ("not installed (-e audit_install=true installs it)" if "version" in seen else "not asked"))
        return
    scores["lynis"] = seen.get("index")
    facts["Lynis"] = f"{seen['version']}, {seen.get('tests', 0)} tests"
    if seen.get("index") is None:
        missing.append(f"lynis: no index: {seen.get('problem', '')}")
    for row in seen.get("findings") or ():
        add("lynis", row["id"], f"{row['text']}{': ' + row['detail'] if row.get('detail') else ''}", f"See {row['id']} of Lynis.")


def _ssh(evidence: Evidence, scores: dict[str, Any], missing: list[str], facts: dict[str, str], add: Any) -> None:
    looks = [(who, look) for who, seen in evidence.outside.items() for look in (seen.get("ssh") or {}).values()]
    good = [(who, look) for who, look in looks if not look.get("problem")]
    missing += [f"ssh-audit: {look['problem']}" for _who, look in looks if look.get("problem")]
    if not good:
        missing += [] if looks else ["ssh-audit: no host has it (-e audit_install=true installs it)"]
        return
    scores.update(ssh_fail=0.0, ssh_warn=0.0)
    facts["ssh-audit"] = ", ".join(sorted({f"{look['version']} on {who}" for who, look in good}))
    for _who, look in good:
        for row in look["findings"]:
            text = f"{row['kind']}: {row['id']}: {row['text']} (ssh-audit {look['version']})"
            scores[f"ssh_{row['kind']}"] += add("ssh-audit", row["id"], text, "See `sshd_profile` and `sshd_settings`.")


def _exposure(evidence: Evidence, limits: Mapping[str, float], scores: dict[str, Any], add: Any) -> None:
    apps = tuple(
        str(unit.get("name", "")).replace("@.", "@*.") for unit in (dict(evidence.plan).get("systemd_units_units") or ())
    )
    for name, patterns in {"app": apps, **UNITS}.items():
        units = services.worst(evidence.inside.get("exposure") or {}, patterns)
        if units:
            scores[name] = max(units.values())
        for unit, value in units.items():
            if value > limits[name]:
                add("exposure", unit, f"{unit} has exposure {value:g}, at most {limits[name]:g} is wanted", REMEDIES["exposure"])


def _settings(evidence: Evidence) -> list[tuple[str, str]]:
    found = []
    for failure in evidence.settings:
        lines = failure.get("mismatches") or [str(failure.get("msg", "it could not be read back"))]
        found += [(str(failure.get("role", "?")), f"{failure.get('role', '?')}: {line}") for line in lines]
    return found


def _ports(evidence: Evidence) -> list[tuple[str, str]]:
    rules = ports.declared(dict(evidence.plan))
    names = {int(row["port"]): str(row.get("process") or "") for row in evidence.inside.get("ports") or ()}
    found: dict[int, list[str]] = {}
    for who, look in evidence.outside.items():
        for row in look.get("open") or ():
            seen = ports.Seen(str(row["address"]), int(row["port"]), str(row["source"]))
            if not ports.opens(rules, seen):
                found.setdefault(seen.port, []).append(f"{who} ({seen.source}) at {seen.address}")
    return [
        (str(port), f"port {port}{f' ({names[port]})' if names.get(port) else ''} answers {', '.join(sorted(set(whos)))}")
        for port, whos in sorted(found.items())
    ]


def _below(scores: Mapping[str, Optional[float]], limits: Mapping[str, float]) -> list[str]:
    found = []
    for name, score in scores.items():
        if score is None:
            continue
        bad = score < limits[name] if name == "lynis" else score > limits[name]
        if bad:
            found.append(f"{TITLES[name]}: {score:g}, {'at least' if name == 'lynis' else 'at most'} {limits[name]:g}")
    return found
