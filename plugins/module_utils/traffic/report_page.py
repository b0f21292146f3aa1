# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a report. Every text that comes from a host or an application is escaped; nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..page import NONE, amount, document, esc, percent, stamp, table
from .report import Event, Run, number
from .report_picture import BAD, legend, marks, picture

PILLS = {"confirmed": "good", "rolled back": "warn", "failed": "bad"}


def page(run: Run) -> str:
    """The whole page."""
    title = f"{run.app} {run.release or run.target or ''}, {run.outcome}"
    parts = [
        _header(run),
        _tiles(run),
        _course(run),
        _verdicts(run),
        _gates(run),
        _timings(run),
        _lines(run),
        f"<footer>Transaction {esc(run.txn)}. Times on the axis count from {stamp(run.started)}.</footer>",
    ]
    return document(title, parts)


def _header(run: Run) -> str:
    moved = f"{esc(run.source)} → {esc(run.target)}" if run.source and run.target else NONE
    facts = (
        ("Release", esc(run.release or NONE)),
        ("Slots", moved),
        ("Asked for by", esc(run.owner or NONE)),
        ("Hosts", esc(", ".join(run.hosts))),
        ("Began", stamp(run.started)),
        ("Took", f"{run.seconds:.1f}\u00a0s"),
    )
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f'<header><span class="pill {PILLS.get(run.outcome, "")}">{esc(run.outcome.capitalize())}</span>'
        f"<h1>{esc(run.app)} to {esc(run.release or run.target or 'another slot')}</h1>"
        f'<p class="lead">{esc(run.reason)}</p></header><section><dl>{listed}</dl></section>'
    )


def _tiles(run: Run) -> str:
    """The four numbers that one looks for first."""
    tiles: list[tuple[str, str, bool]] = []
    new, old = run.total(run.target), run.total(run.source)
    everything = [sum(pair) for pair in zip(*(run.total(slot) for slot in {point.slot for point in run.points}))]
    if everything:
        text = f"requests while it ran, {amount(everything[1])} failed"
        tiles.append((amount(everything[0]), text, False))
    if new[0]:
        text = f"of the new release's requests failed; {percent(old[1], old[0])} of the former one's"
        tiles.append((percent(new[1], new[0]), text, new[1] * (old[0] or 1) > 2 * max(old[1], 1) * new[0]))
        text = f"mean time of an answer; {amount(run.mean(run.source), 'ms')} from the former one"
        tiles.append((amount(run.mean(run.target), "ms"), text, False))
    if run.switch_ms:
        slowest = max(run.switch_ms.values())
        tiles.append(
            (f"{slowest:.2f}\u00a0ms", "to move all traffic" + (", slowest edge" if len(run.switch_ms) > 1 else ""), False)
        )
    tile = '<div class="tile{}"><b>{}</b><span>{}</span></div>'
    inner = "".join(tile.format(" alarm" if alarm else "", value, text) for value, text, alarm in tiles)
    return f'<div class="tiles">{inner}</div>' if tiles else ""


def _course(run: Run) -> str:
    names = [
        ("old", f"{run.source}, the former release"),
        ("new", f"{run.target}, the new one ({run.release or 'release unknown'})"),
    ]
    names = [(kind, text) for (kind, text), slot in zip(names, (run.source, run.target)) if slot]
    if any(point.errors for point in run.points if point.slot == run.target):
        names.append(("error", "errors of the new one"))
    events = "".join(_event(run, mark.event, str(mark.number)) for mark in marks(run))
    return (
        f'<section><h2>What happened</h2>{legend(run, names)}<div class="wide">{picture(run)}</div></section>'
        f'<section><h2>Events</h2><ol class="events">{events}</ol></section>'
    )


def _event(run: Run, event: Event, label: str) -> str:
    kind = ' class="bad"' if event.state in BAD else ""
    where = f"{esc(event.host)}: " if len(run.hosts) > 1 else ""
    state = esc(event.state.replace("_", " ").capitalize())
    return (
        f'<li{kind}><span class="n">{label}</span><span class="t">{event.at - run.started:.1f}\u00a0s</span>'
        f'<span class="s">{state}</span><span class="x">{where}{esc(event.text)}</span></li>'
    )


def _part(verdict: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = verdict.get(name)
    return found if isinstance(found, Mapping) else {}


def _pair(verdict: Mapping[str, Any], key: str, unit: str = "", digits: int = 0) -> str:
    """A figure of the candidate, and below it that of the control."""
    new, old = (number(_part(verdict, side).get(key)) for side in ("candidate", "control"))
    return f"{amount(new, unit, digits)}<br><small>{amount(old, unit, digits)}</small>"


def _chance(verdict: Mapping[str, Any], key: str) -> str:
    found, limit = number(verdict.get(key)), number(verdict.get("threshold"))
    if found is None:
        return NONE
    text = f"{found:.2g}"
    return f"<b>{text}</b>" if limit is not None and found <= limit else text


def _verdicts(run: Run) -> str:
    rows = []
    for event in run.events:
        verdict = event.verdict
        if verdict is None:
            continue
        outcome = str(verdict.get("outcome", NONE))
        known = outcome if outcome in ("pass", "fail", "inconclusive") else ""
        reasons = [*_texts(verdict.get("reasons")), *(f"warning: {text}" for text in _texts(verdict.get("warnings")))]
        share = "" if event.share is None else f"{event.share:g}\u00a0%"
        rows.append(
            (
                (f"{event.at - run.started:.1f}\u00a0s", True),
                (esc(event.host), False),
                (share, True),
                (f'<span class="{known}">{esc(outcome)}</span>', False),
                (_pair(verdict, "requests"), True),
                (_pair(verdict, "errors"), True),
                (_pair(verdict, "error_percent", "%", 2), True),
                (_pair(verdict, "mean_ms", "ms", 1), True),
                (_pair(verdict, "p95_ms", "ms", 1), True),
                (_chance(verdict, "error_p"), True),
                (_chance(verdict, "latency_p"), True),
                (f"<small>{esc('; '.join(reasons))}</small>", False),
            )
        )
    if not rows:
        return ""
    head = [
        ("after", True),
        ("host", False),
        ("share", True),
        ("verdict", False),
        ("requests", True),
        ("failed", True),
        ("failed %", True),
    ]
    head += [("mean", True), ("p95", True), ("p errors", True), ("p latency", True), ("why", False)]
    note = (
        "Figures of the new release; below them, those of the former one in the same time. p: the chance of such a difference "
        "between equal releases; bold where it is below the threshold."
    )
    return f'<section><h2>Verdicts</h2>{table(head, rows)}<p class="note">{note}</p></section>'


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []


def _gates(run: Run) -> str:
    rows, answers = [], []
    for event in run.events:
        gate = event.gate
        if gate is None:
            continue
        latency = gate.get("latency_ms")
        slow = number(latency.get("max")) if isinstance(latency, Mapping) else None
        well = gate.get("healthy") is not False
        rows.append(
            (
                (esc(event.host), False),
                (f'<span class="{"pass" if well else "fail"}">{"passed" if well else "not passed"}</span>', False),
                (amount(number(gate.get("attempts"))), True),
                (amount(number(gate.get("seconds")), "s", 1), True),
                (amount(number(gate.get("first_healthy_after")), "s", 1), True),
                (amount(slow, "ms", 1), True),
                (esc(gate.get("reason", "")), False),
            )
        )
        last = _texts(gate.get("last_answers"))
        if last:
            text = esc("\n".join(last))
            answers.append(f"<details><summary>Last answers to {esc(event.host)}</summary><pre>{text}</pre></details>")
    if not rows:
        return ""
    head = [("host", False), ("gate", False), ("tries", True), ("took", True), ("first well after", True), ("slowest", True)]
    return f"<section><h2>Gate</h2>{table([*head, ('why', False)], rows)}{''.join(answers)}</section>"


def _timings(run: Run) -> str:
    rows = [
        [(esc(state.replace("_", " ").capitalize()), False)]
        + [(amount(of_host.get(host), "s", 1), True) for host in run.hosts]
        for state, of_host in run.timings.items()
    ]  # fmt: skip
    head = [("state", False), *((esc(host), True) for host in run.hosts)]
    return f'<section class="narrow"><h2>When each state was reached</h2>{table(head, rows)}</section>'


def _lines(run: Run) -> str:
    text = "\n".join(
        f"{event.at - run.started:9.1f}  {event.host:<{max(map(len, run.hosts))}}  {event.state:<12}  {event.text}"
        for event in run.events
    )
    return f"<section><details><summary>All lines, {len(run.events)} of them</summary><pre>{esc(text)}</pre></details></section>"
