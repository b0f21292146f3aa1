# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions about one application on several hosts, taken from what each of them reported; nothing is contacted.

A report is what `status.report` gives for one host. Reports of edges say where traffic is, those of the hosts that run
the application say what its slots hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Optional

from .errors import SlipwayError

Reports = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Choice:
    """Where a release goes. `first` when nothing runs yet, `unchanged` when it is there already, `problem` why it goes nowhere."""

    active: str
    target: str
    release_now: Optional[str]
    first: bool
    unchanged: bool
    problem: str = ""

    def as_dict(self) -> dict[str, object]:
        """For a playbook."""
        return asdict(self)


def _edges(app: str, reports: Reports) -> dict[str, Mapping[str, Any]]:
    edges = {host: report for host, report in reports.items() if report.get("edge")}
    if not edges:
        raise SlipwayError(f"{app} has no edge among {', '.join(sorted(reports)) or 'no hosts'}: put a host into the group edge.")
    return edges


def _agreed(app: str, reports: Reports, key: str) -> Any:
    """The value of `key` on all edges; raises SlipwayError when they differ."""
    values = {host: report.get(key) for host, report in _edges(app, reports).items()}
    if len(set(values.values())) > 1:
        told = ", ".join(f"{host} says {value}" for host, value in sorted(values.items()))
        raise SlipwayError(
            f"the edges of {app} do not agree about `{key}`: {told}. Bring them together first:"
            f" ansible-playbook rollback.yml -e app={app} -e to=SLOT."
        )
    return next(iter(values.values()))


def missing_hosts(app: str, needed: Mapping[str, Any], present: Reports) -> None:
    """Raises SlipwayError when hosts of the application are not part of the run."""
    missing = sorted(set(needed) - set(present))
    if missing:
        raise SlipwayError(
            f"{app} runs on {', '.join(sorted(needed))}, but {', '.join(missing)} did not report: left out by --limit, unreachable"
            " or never converged. A release moves on all hosts or on none; widen the limit or mend the host."
        )


def _runs(report: Mapping[str, Any], slot: str) -> bool:
    """Whether any instance of `slot` is alive on the reporting host."""
    return any(instance["alive"] for instance in report["slots"][slot]["instances"])


def _holds(report: Mapping[str, Any], slot: str, release: str) -> bool:
    """Whether the host, if it has instances of `slot`, runs `release` in all of them."""
    found = report["slots"][slot]
    return not found["instances"] or (found["release"] == release and all(instance["alive"] for instance in found["instances"]))


def never_deployed(reports: Reports) -> bool:
    """True when no edge remembers a release and no slot with traffic has a living instance."""
    return not any(
        report["slots"][report["active"]]["release"] or _runs(report, report["active"])
        for report in reports.values()
        if report.get("active")
    )


def choose(app: str, release: str, reports: Reports) -> Choice:
    """The slot for `release`: where it is already, else an idle one; the active one only when nothing runs there."""
    active = str(_agreed(app, reports, "active"))
    edges = _edges(app, reports)
    sample = next(iter(edges.values()))
    first = never_deployed(reports)
    now = next((report["slots"][active]["release"] for report in reports.values() if report["slots"][active]["release"]), None)
    told = all(report["slots"][active]["release"] == release for report in edges.values())
    if told and all(_holds(report, active, release) for report in reports.values()):
        return Choice(active, active, now, False, True)
    if first and sample["slots"][active]["managed"]:
        return Choice(active, active, None, True, False)
    idle = [slot for slot in sample["slot_order"] if slot != active and sample["slots"][slot]["managed"]]
    if not idle:
        raise SlipwayError(f"{app} has no idle managed slot beside {active}: its entry needs a backend without `unit`.")
    warm = [slot for slot in idle if all(_holds(report, slot, release) for report in reports.values())]
    return Choice(active, (warm or idle)[0], now, False, False)


def choose_back(app: str, to: str, reports: Reports) -> Choice:
    """The slot to go back to: `to` when it is given, else the one that had traffic before; raises SlipwayError."""
    active = str(_agreed(app, reports, "active") if not to else next(iter(_edges(app, reports).values()))["active"])
    target = to or _agreed(app, reports, "previous")
    sample = next(iter(_edges(app, reports).values()))
    if not target:
        raise SlipwayError(
            f"{app} has nothing to go back to: no other release had its traffic before. Deploy a good one instead."
        )
    if target not in sample["slots"]:
        raise SlipwayError(f"{app} has no slot {target!r}. Slots: {', '.join(sample['slot_order'])}.")
    now = next((report["slots"][active]["release"] for report in reports.values() if report["slots"][active]["release"]), None)
    there = all(report["active"] == target for report in _edges(app, reports).values())
    return Choice(active, str(target), now, False, there)


def failures(results: Mapping[str, Optional[Mapping[str, Any]]]) -> list[str]:
    """One text for each host whose step failed or never answered; empty when all are well. Skipped steps are well."""
    found = []
    for host, result in sorted(results.items()):
        if result is None or result.get("unreachable"):
            found.append(f"{host}: did not answer")
        elif result.get("failed"):
            found.append(f"{host}: {result.get('msg', 'failed')}")
    return found
