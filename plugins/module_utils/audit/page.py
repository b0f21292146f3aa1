# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of an audit: scores of every host, their course over time, and what remains. All text of hosts is escaped."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..page import amount, document, esc, stamp, table
from ..traffic.report_picture import LEFT, RIGHT, WIDTH, Strip, nice
from .judge import MINIMUM, TITLES, Finding, Verdict
from .report import SHORT, Report, shown

CHECKS = {
    "lynis": "Lynis",
    "ssh-audit": "ssh-audit",
    "exposure": "Exposure of services",
    "services": "Services",
    "settings": "Effective settings",
    "drift": "Files",
    "ports": "Ports",
}
COLOURS = ("new", "old", "other")
COURSES = (("lynis", "Lynis index", 100.0), ("app", "Exposure of applications", 10.0), ("nginx", "Exposure of nginx", 10.0))


def page(report: Report) -> str:
    """The whole page."""
    bad = bool(report.problems)
    pill = f'<span class="pill {"bad" if bad else "good"}">{"Below the minimum" if bad else "As wanted"}</span>'
    hosts = len(report.verdicts) + len(report.silent)
    open_ = sum(not finding.reason for verdict in report.verdicts for finding in verdict.findings)
    lead = f"{hosts} host{'s' if hosts != 1 else ''}, {stamp(report.at)}. {open_} findings are open."
    listed = "".join(f"<li>{esc(text)}</li>" for text in report.problems)
    return document(
        f"Audit of {time.strftime('%Y-%m-%d', time.gmtime(report.at))}",
        [
            f'<header>{pill}<h1>Audit</h1><p class="lead">{lead}</p></header>',
            f"<section><h2>Below the minimum</h2><ul>{listed}</ul></section>" if bad else "",
            _scores(report),
            _course(report),
            *(_host(verdict) for verdict in report.verdicts),
        ],
    )


def _scores(report: Report) -> str:
    def cell(verdict: Verdict, name: str) -> tuple[str, bool]:
        value = verdict.scores.get(name)
        bad = value is not None and (value < report.limits[name] if name == "lynis" else value > report.limits[name])
        return (f'<span class="{"fail" if bad else "pass"}">{shown(value)}</span>' if value is not None else shown(None), True)

    rows = [[(esc(verdict.host), False), *(cell(verdict, name) for name in MINIMUM)] for verdict in report.verdicts]
    wanted = [(f"{'≥' if name == 'lynis' else '≤'}\u00a0{report.limits[name]:g}", True) for name in MINIMUM]
    rows.append([("<small>wanted</small>", False), *wanted])
    head = [("host", False), *((SHORT[name], True) for name in MINIMUM)]
    note = "; ".join(f"{SHORT[name]}: {TITLES[name]}" for name in MINIMUM if SHORT[name] != TITLES[name])
    return f'<section><h2>Scores</h2>{table(head, rows)}<p class="note">{esc(note)}. A dash: not measured.</p></section>'


def _course(report: Report) -> str:
    """Scores over the audits that are known; one audit makes no course."""
    if len(report.history) < 2:
        return ""
    hosts = list(dict.fromkeys(host for entry in report.history for host in entry["hosts"]))
    begin, end = float(report.history[0]["at"]), float(report.history[-1]["at"])
    parts, y = [], 34.0
    for name, title, most in COURSES:
        points = {host: _points(report, host, name) for host in hosts}
        if not any(points.values()):
            continue
        strip = Strip(title, "", y, 70.0, max(most, nice(max(value for row in points.values() for _at, value in row))))
        y += 70.0 + 40.0
        parts += strip.frame()
        for number, host in enumerate(hosts):
            places = [(_x(at, begin, end), strip.at(value)) for at, value in points[host]]
            path = "".join(f"{'L' if index else 'M'}{x:.1f} {at:.1f}" for index, (x, at) in enumerate(places))
            parts.append(f'<path class="line {COLOURS[number % 3]}" d="{path}"><title>{esc(host)}</title></path>' if path else "")
    legend = "".join(f'<li class="{COLOURS[number % 3]}"><i></i>{esc(host)}</li>' for number, host in enumerate(hosts))
    picture = f'<svg viewBox="0 0 {WIDTH:g} {y:.0f}" role="img" aria-label="Scores over time">{"".join(parts)}</svg>'
    note = f"{amount(len(report.history))} audits from {stamp(begin)} to {stamp(end)}."
    return (
        f'<section><h2>Over time</h2><ul class="legend">{legend}</ul><div class="wide">{picture}</div>'
        f'<p class="note">{note}</p></section>'
    )


def _points(report: Report, host: str, name: str) -> list[tuple[float, float]]:
    found = [(float(entry["at"]), (entry["hosts"].get(host) or {}).get(name)) for entry in report.history]
    return [(at, float(value)) for at, value in found if isinstance(value, (int, float))]


def _x(at: float, begin: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (at - begin) / max(end - begin, 1.0)


def _host(verdict: Verdict) -> str:
    facts = "".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in verdict.facts.items())
    open_ = [finding for finding in verdict.findings if not finding.reason]
    kept = [finding for finding in verdict.findings if finding.reason]
    parts = [f"<h2>{esc(verdict.host)}</h2>", f"<dl>{facts}</dl>" if facts else ""]
    parts.append("".join(f'<p class="note">Not measured: {esc(text)}</p>' for text in verdict.missing))
    parts.append(_findings(open_, "what to do") if open_ else "<p>Nothing is open.</p>")
    if kept:
        parts.append(f"<details><summary>Accepted, {len(kept)} findings</summary>{_findings(kept, 'why it stays')}</details>")
    return f"<section>{''.join(parts)}</section>"


def _findings(findings: Sequence[Finding], last: str) -> str:
    order = list(CHECKS)
    rows = [
        [
            (esc(CHECKS.get(each.check, each.check)), False),
            (esc(each.id), False),
            (esc(each.text), False),
            (f"<small>{esc(each.reason or each.remedy)}</small>", False),
        ]
        for each in sorted(findings, key=lambda each: order.index(each.check) if each.check in order else len(order))
    ]
    return table([("check", False), ("what", False), ("finding", False), (last, False)], rows)
