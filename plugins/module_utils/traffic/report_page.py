# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a report. Every text that comes from a host or an application is escaped; nothing is loaded from elsewhere."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from .report import Event, Run, number
from .report_picture import BAD, legend, marks, picture

STYLE = """
:root{color-scheme:light dark;--ground:#f6f7f9;--paper:#fff;--ink:#1b2230;--soft:#5d6778;--rule:#dfe3ea;--grid:#e7eaf0;
--old:#8a93a3;--new:#2463d6;--other:#9467bd;--bad:#c8323f;--good:#1b7f4b;--warn:#a46400;--tint:#eef3fd;--badtint:#fdeeee}
@media(prefers-color-scheme:dark){:root{--ground:#12151b;--paper:#1a1f28;--ink:#e6e9ef;--soft:#9aa4b5;--rule:#2c333f;
--grid:#262d38;--old:#8d97a8;--new:#6ea0ff;--other:#b99be0;--bad:#ff7a82;--good:#57c48c;--warn:#e0a84a;--tint:#1f2a40;
--badtint:#3a2127}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 48px}
header{margin-bottom:20px}
h1{font-size:27px;line-height:1.25;margin:6px 0 4px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:16px;margin:0 0 12px}
p{margin:0}
.lead{color:var(--soft);max-width:80ch;overflow-wrap:anywhere}
.pill{display:inline-block;padding:2px 12px;border-radius:99px;font-size:13px;font-weight:600;color:#fff;background:var(--soft)}
.pill.good{background:#1b7f4b}.pill.bad{background:#b92b38}.pill.warn{background:#9a5d00}
section{background:var(--paper);border:1px solid var(--rule);border-radius:10px;padding:18px 20px;margin-top:16px}
dl{display:flex;flex-wrap:wrap;gap:12px 40px;margin:0}
dt{color:var(--soft);font-size:12.5px}
dd{margin:0;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px;margin-top:16px}
.tile{background:var(--paper);border:1px solid var(--rule);border-radius:10px;padding:12px 16px}
.tile b{display:block;font-size:24px;line-height:1.3;font-weight:650;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px;display:block}
.tile.alarm b{color:var(--bad)}
svg{display:block;width:100%;height:auto}
.wide{overflow-x:auto}.wide svg{min-width:720px}
svg text{font-size:12px;fill:var(--soft);font-family:inherit;font-variant-numeric:tabular-nums}
svg .strip{font-size:13px;font-weight:600;fill:var(--ink)}
svg .scale{text-anchor:end}svg .time,svg .none{text-anchor:middle}
svg .percent{font-weight:600;fill:var(--new)}
.grid{stroke:var(--grid)}.tick{stroke:var(--soft)}
.line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}
.line.thin{stroke-width:1.2;stroke-dasharray:3 3;opacity:.85}
.line.old{stroke:var(--old)}.line.new{stroke:var(--new)}.line.other{stroke:var(--other)}
.area.new{fill:var(--new);opacity:.14}
.bar.old{fill:var(--old)}.bar.new{fill:var(--bad)}.bar.other{fill:var(--other)}
.mark path{fill:none;stroke:var(--soft);stroke-dasharray:2 4;opacity:.75}
.mark circle{fill:var(--paper);stroke:var(--soft);stroke-width:1.3}
.mark text{text-anchor:middle;font-size:11px;font-weight:600;fill:var(--ink)}
.mark.bad path,.mark.bad circle{stroke:var(--bad)}.mark.bad text{fill:var(--bad)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 20px;margin:0 0 6px;padding:0;font-size:13px;color:var(--soft)}
.legend i{display:inline-block;width:18px;height:0;border-top:3px solid var(--old);
margin-right:7px;vertical-align:middle;border-radius:2px}
.legend .new i{border-color:var(--new)}.legend .other i{border-color:var(--other)}
.legend .error i{border-top:9px solid var(--bad);width:7px}
.legend .dash i{border-top:2px dashed var(--soft);width:24px;border-radius:0}
ol.events{list-style:none;margin:0;padding:0}
ol.events li{display:grid;grid-template-columns:26px 64px 118px 1fr;gap:10px;padding:5px 0;
border-top:1px solid var(--rule);align-items:baseline}
ol.events li:first-child{border-top:0}
ol.events .n{border:1.3px solid var(--soft);border-radius:50%;width:21px;height:21px;font-size:11px;font-weight:600;display:grid;
place-items:center;align-self:start}
ol.events .t{color:var(--soft);font-variant-numeric:tabular-nums}
ol.events .s{font-weight:600;font-size:13px}
ol.events .x{overflow-wrap:anywhere}
ol.events .bad .s{color:var(--bad)}ol.events .bad .n{border-color:var(--bad);color:var(--bad)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);font-size:12.5px;text-align:left;white-space:nowrap}
th,td{padding:6px 14px 6px 0;border-top:1px solid var(--rule);vertical-align:top}
thead th{border-top:0}
td.r,th.r{text-align:right}
td small{color:var(--soft);font-size:13px}
.pass{color:var(--good);font-weight:600}.fail{color:var(--bad);font-weight:600}.inconclusive{color:var(--warn);font-weight:600}
pre{margin:8px 0 0;padding:10px 12px;background:var(--ground);border-radius:8px;overflow-x:auto;font-size:12.5px;line-height:1.45}
summary{cursor:pointer;color:var(--soft)}
.note{color:var(--soft);font-size:12.5px;margin-top:10px}
section.narrow table{width:auto}section.narrow th,section.narrow td{padding-right:36px}
details{margin-top:6px}
footer{color:var(--soft);font-size:12.5px;margin-top:18px}
@media(max-width:640px){ol.events li{grid-template-columns:26px 58px 1fr}ol.events .x{grid-column:1/-1}}
@media print{body{background:#fff}section,.tile{break-inside:avoid}}
"""
NONE = "\u2013"
PILLS = {"confirmed": "good", "rolled back": "warn", "failed": "bad"}


def esc(value: object) -> str:
    """`value` as text of a page."""
    return html.escape(str(value))


def stamp(at: float) -> str:
    """A moment in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) + " UTC"


def amount(value: Optional[float], unit: str = "", digits: int = 0) -> str:
    """A number with its unit, with narrow gaps between thousands; a dash for none."""
    if value is None:
        return NONE
    return f"{value:,.{digits}f}".replace(",", "\u202f") + (f"\u00a0{unit}" if unit else "")


def percent(part: float, of: float) -> str:
    """A share."""
    return NONE if not of else f"{100.0 * part / of:.2f}\u00a0%"


def page(run: Run) -> str:
    """The whole page."""
    title = f"{run.app} {run.release or run.target or ''}, {run.outcome}"
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{esc(title)}</title><style>{STYLE}</style></head><body><main>",
        _header(run),
        _tiles(run),
        _course(run),
        _verdicts(run),
        _gates(run),
        _timings(run),
        _lines(run),
        f"<footer>Transaction {esc(run.txn)}. Times on the axis count from {stamp(run.started)}.</footer>",
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


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


def _table(head: Sequence[tuple[str, bool]], rows: Iterable[Sequence[tuple[str, bool]]]) -> str:
    """A table of cells (HTML, whether it is a number)."""

    def cells(tag: str, row: Sequence[tuple[str, bool]]) -> str:
        return "".join(f"<{tag}{' class=r' if right else ''}>{text}</{tag}>" for text, right in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


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
    return f'<section><h2>Verdicts</h2>{_table(head, rows)}<p class="note">{note}</p></section>'


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
    return f"<section><h2>Gate</h2>{_table([*head, ('why', False)], rows)}{''.join(answers)}</section>"


def _timings(run: Run) -> str:
    rows = [
        [(esc(state.replace("_", " ").capitalize()), False)]
        + [(amount(of_host.get(host), "s", 1), True) for host in run.hosts]
        for state, of_host in run.timings.items()
    ]  # fmt: skip
    head = [("state", False), *((esc(host), True) for host in run.hosts)]
    return f'<section class="narrow"><h2>When each state was reached</h2>{_table(head, rows)}</section>'


def _lines(run: Run) -> str:
    text = "\n".join(
        f"{event.at - run.started:9.1f}  {event.host:<{max(map(len, run.hosts))}}  {event.state:<12}  {event.text}"
        for event in run.events
    )
    return f"<section><details><summary>All lines, {len(run.events)} of them</summary><pre>{esc(text)}</pre></details></section>"
