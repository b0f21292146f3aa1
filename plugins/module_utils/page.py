# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages of reports share. A page needs nothing else: no script, no style sheet, no font, no picture from elsewhere."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence
from typing import Optional

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


def table(head: Sequence[tuple[str, bool]], rows: Iterable[Sequence[tuple[str, bool]]]) -> str:
    """A table of cells (HTML, whether it is a number)."""

    def cells(tag: str, row: Sequence[tuple[str, bool]]) -> str:
        return "".join(f"<{tag}{' class=r' if right else ''}>{text}</{tag}>" for text, right in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def document(title: str, parts: Iterable[str]) -> str:
    """The whole page; `parts` are HTML already."""
    head = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{esc(title)}</title><style>{STYLE}</style></head><body><main>",
    ]
    text = "\n".join([*head, *(part for part in parts if part), "</main></body></html>"]) + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")
