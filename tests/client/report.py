# SPDX-License-Identifier: GPL-3.0-or-later
"""What a log says: a pure function from records and switches to figures."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .records import Record

EXAMPLES = 10
UNHURRIED = ("slow", "ws")
"""Kinds whose duration says nothing about the server, left out of the latencies."""


@dataclass(frozen=True)
class Switch:
    """Traffic moves to release `to` between `at`, just before the switch, and `done`, just after (seconds since 1970)."""

    at: float
    to: str | None = None
    name: str | None = None
    done: float | None = None


def switches_of(path: Path) -> list[Switch]:
    """Switches from a file of JSON objects with the keys at, to, name, done: a list, or one object a line."""
    text = path.read_text().strip()
    entries = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    return sorted((Switch(**entry) for entry in entries), key=lambda switch: switch.at)


def moves(journal: Iterable[dict[str, Any]]) -> list[Switch]:
    """The moves of traffic that the journal of an edge tells of, between the intent and the deed of each."""
    begun: dict[str, dict[str, Any]] = {}
    meant: dict[str, float] = {}
    found = []
    for entry in journal:
        if entry["step"] == "begin":
            begun[entry["txn"]] = entry
        elif entry["step"] == "switch" and entry["phase"] == "intent":
            meant[entry["txn"]] = entry["at"]
        elif entry["step"] == "switch":
            begin = begun[entry["txn"]]
            found.append(Switch(meant[entry["txn"]], begin["release"], f"{begin['kind']} {entry['switch_ms']} ms", entry["at"]))
    return found


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Nearest rank: the smallest value that at least `percent` of all do not exceed; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def latency(values: Sequence[float]) -> dict[str, float | None]:
    """Milliseconds."""
    return {"p50": percentile(values, 50), "p95": percentile(values, 95), "p99": percentile(values, 99),
            "max": max(values, default=None)}  # fmt: skip


def summarise(
    records: Iterable[Record], switches: Sequence[Switch] = (), window: float = 5.0, grace: float = 0.0
) -> dict[str, Any]:
    """Figures of a log; `window` is the number of seconds looked at on either side of a switch, `grace` the number of
    seconds after it in which an answer of the old release is allowed to a request that started then.
    """
    records = list(records)
    requests = sorted((r for r in records if "kind" in r and "status" in r), key=lambda r: r["t"])
    events = [r for r in records if "event" in r]
    http = [r for r in requests if r["kind"] != "ws"]
    failures = [r for r in requests if failed(r)]
    times = [r["t"] for r in records]
    seconds = max(times) - min(times) if times else 0.0
    return {
        "seconds": round(seconds, 1),
        "requests": len(http),
        "per_second": round(len(http) / seconds, 1) if seconds else 0.0,
        "by_kind": dict(Counter(r["kind"] for r in http)),
        "failures": len(failures),
        "failures_by_kind": dict(Counter(r["kind"] for r in failures)),
        "failure_examples": failures[:EXAMPLES],
        "latency_ms": latency(_durations(http)),
        "latency_ms_by_kind": {kind: latency([r["ms"] for r in group]) for kind, group in _by_kind(requests).items()},
        "longest_silence_ms": longest_silence(http),
        "idle_closes": sum(e["event"] == "idle_close" for e in events),
        "idle_resets": sum(e["event"] == "idle_reset" for e in events),
        "websockets": _websockets(requests, events),
        "releases": _releases(http),
        "switches": [_around(s, following, requests, events, window, grace) for s, following in _pairs(switches)],
    }


def failed(record: Record) -> bool:
    return bool(record.get("error"))


def longest_silence(http: Iterable[Record]) -> float | None:
    """Milliseconds of the longest time without a good answer; slow requests do not count as signs of life."""
    ends = sorted(r["t"] + r["ms"] / 1000 for r in http if not failed(r) and r["kind"] not in UNHURRIED)
    gaps = [later - earlier for earlier, later in zip(ends, ends[1:], strict=False)]
    return round(max(gaps) * 1000, 1) if gaps else None


def stale(requests: Iterable[Record], switch: Switch, until: float = math.inf, grace: float = 0.0) -> list[Record]:
    """Requests that started after the switch, ended before `until` and were answered by another release.

    Those under way at `until`, the next switch, may have been sent to either. Echoes are not among them: an open WebSocket stays
    where it is.
    """
    return [r for r in requests if switch.to and r.get("release") not in (None, switch.to) and r["method"] != "ECHO"
            and (switch.done or switch.at) + grace < r["t"] <= r["t"] + r["ms"] / 1000 < until]  # fmt: skip


def _durations(http: Iterable[Record]) -> list[float]:
    return [r["ms"] for r in http if r["kind"] not in UNHURRIED and not failed(r)]


def _by_kind(requests: Iterable[Record]) -> dict[str, list[Record]]:
    groups = defaultdict(list)
    for record in requests:
        if not failed(record):
            groups[record["kind"]].append(record)
    return groups


def _websockets(requests: list[Record], events: list[Record]) -> dict[str, Any]:
    cuts = [e for e in events if e["event"] == "ws_cut"]
    return {
        "opened": sum(e["event"] == "ws_open" for e in events),
        "echoes": sum(r["method"] == "ECHO" for r in requests),
        "cut": len(cuts),
        "cut_by_code": dict(Counter(str(e.get("code", "none")) for e in cuts)),
    }


def _releases(http: list[Record]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for record in http:
        if name := record.get("release"):
            end = round(record["t"] + record["ms"] / 1000, 4)
            entry = found.setdefault(name, {"requests": 0, "first": end, "last": end})
            entry["requests"] += 1
            entry["first"], entry["last"] = min(entry["first"], end), max(entry["last"], end)
    return found


def _pairs(switches: Sequence[Switch]) -> list[tuple[Switch, float]]:
    """Each switch with the time of the next one."""
    return list(zip(switches, [s.at for s in switches[1:]] + [math.inf], strict=False))


def _around(
    switch: Switch, following: float, requests: list[Record], events: list[Record], window: float, grace: float
) -> dict[str, Any]:
    start, end = switch.at - window, min(switch.at + window, following)
    near = [r for r in requests if start <= r["t"] < end]
    http = [r for r in near if r["kind"] != "ws"]
    ends = [r["t"] + r["ms"] / 1000 for r in requests if r.get("release") == switch.to and r["method"] != "ECHO"]
    first = min((each for each in ends if each >= switch.at), default=None)
    old = stale(requests, switch, following, grace)
    return {
        "at": switch.at, "to": switch.to, "name": switch.name,
        "requests": len(http), "failures": sum(failed(r) for r in near),
        "latency_ms": latency(_durations(http)), "longest_silence_ms": longest_silence(http),
        "websockets_cut": sum(e["event"] == "ws_cut" and start <= e["t"] < end for e in events),
        "first_answer_ms": round((first - switch.at) * 1000, 1) if switch.to and first is not None else None,
        "stale": len(old), "stale_examples": old[:EXAMPLES],
    }  # fmt: skip


def text(summary: dict[str, Any]) -> str:
    """The summary for people."""
    s, w = summary, summary["websockets"]
    lines = [
        f"requests    {s['requests']} in {s['seconds']} s ({s['per_second']}/s): {_pairs_text(s['by_kind'])}",
        f"failures    {s['failures']} {_pairs_text(s['failures_by_kind'])}".rstrip(),
        f"latency     {_latency_text(s['latency_ms'])}, longest silence {s['longest_silence_ms']} ms",
        f"websockets  {w['opened']} opened, {w['echoes']} echoes, {w['cut']} cut {_pairs_text(w['cut_by_code'])}".rstrip(),
        f"idle        {s['idle_closes']} closed, {s['idle_resets']} reset",
        *(f"release     {name}: {r['requests']} requests" for name, r in s["releases"].items()),
    ]
    for each in s["switches"]:
        lines.append(
            f"switch      {each['name'] or each['to']}: {each['failures']} of {each['requests']} failed, "
            f"{_latency_text(each['latency_ms'])}, first answer after {each['first_answer_ms']} ms, "
            f"{each['stale']} from an old release, {each['websockets_cut']} WebSockets cut"
        )
    lines += [f"  failed    {r['kind']} {r['method']} {r['path']}: {r['error']}" for r in s["failure_examples"]]
    return "\n".join(lines)


def _pairs_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(counts.items()))


def _latency_text(values: dict[str, float | None]) -> str:
    return "/".join(values) + " " + "/".join(str(value) for value in values.values()) + " ms"
