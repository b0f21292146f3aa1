# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions about one application on several hosts, taken from what each of them reported; nothing is contacted.

A report is what `status.report` gives for one host. Reports of edges say where traffic is, those of the hosts that run
the application say what its slots hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Optional

from .errors import SlipwayError

Reports = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Choice:
    """Where traffic goes. `first` when nothing serves yet, `unchanged` when it is there already, `problem` why it goes nowhere.

    `release`: for a deployment the one that serves now, for a rollback the one that is gone back to. `txn`: the transaction
    of an earlier run for the same release that this one goes on with.
    """

    active: str
    target: str
    release: Optional[str]
    first: bool
    unchanged: bool
    problem: str = ""
    txn: str = ""

    def as_dict(self) -> dict[str, object]:
        """For a playbook."""
        return asdict(self)


def _edges(app: str, reports: Reports) -> dict[str, Mapping[str, Any]]:
    edges = {host: report for host, report in reports.items() if report.get("edge")}
    if not reports:
        raise SlipwayError(f"no host that answered knows {app}. The playbook status.yml shows the applications of all hosts.")
    if not edges:
        raise SlipwayError(f"{app} has no edge among {', '.join(sorted(reports))}: put a host into the group edge.")
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
            f"{app} runs on {', '.join(sorted(needed))}, but {', '.join(missing)} did not report: left out by --limit,"
            " unreachable or never converged. A release moves on all hosts or on none; widen the limit or mend the host."
        )


def _busy(app: str, txn: str, reports: Reports) -> None:
    """Raises SlipwayError when somebody else may change the application now, or traffic waits for a confirmation.

    Leases of edges count. Their dead man gives them back; that of another host may be left over from a dead run.
    """
    for host, report in sorted(_edges(app, reports).items()):
        lease, waiting = report.get("lease"), report.get("transaction")
        if lease and not lease["stale"] and lease["txn"] != txn:
            left = lease["expires_in"]
            if waiting and waiting["txn"] == lease["txn"] and waiting["seconds_left"] is not None:
                left = max(min(left, round(waiting["seconds_left"])), 0)  # the dead man gives the lease back
            raise SlipwayError(
                f"{lease['owner']} holds the lease of {app} on {host} (transaction {lease['txn']}) for another"
                f" {left} s. Wait for it, or, when that run is known to be dead, on {host}: slipway unlock {app}."
            )
        if waiting and waiting["switched"] and waiting["txn"] != txn:
            left = waiting["seconds_left"]
            then = f"; in {max(left, 0):.0f} s its traffic returns to {waiting['from']}" if left is not None else ""
            raise SlipwayError(
                f"transaction {waiting['txn']} of {waiting['owner']} moved {app} on {host} to {waiting['to']} and is not"
                f" confirmed{then}. Wait for that, or on {host}: slipway confirm {app}, or slipway rollback {app}."
            )


def _runs(report: Mapping[str, Any], slot: str) -> bool:
    """Whether any instance of `slot` is alive on the reporting host."""
    return any(instance["alive"] for instance in report["slots"][slot]["instances"])


def _holds(report: Mapping[str, Any], slot: str, release: str) -> bool:
    """Whether the host, if it has instances of `slot`, runs `release` in all of them."""
    found = report["slots"][slot]
    return not found["instances"] or (found["release"] == release and all(instance["alive"] for instance in found["instances"]))


def _free(report: Mapping[str, Any], slot: str, release: str) -> bool:
    """Whether `release` can be started in a slot that never served: nothing runs there on the host, or that very release."""
    return not _runs(report, slot) or report["slots"][slot]["release"] == release


def never_deployed(reports: Reports) -> bool:
    """True when no edge ever proved a release, and no unit of somebody else serves; without any edge nobody knows: False.

    What merely runs does not count: a first deployment that failed on another host leaves it behind.
    """
    edges = [report for report in reports.values() if report.get("edge")]
    active = {report["active"] for report in edges}
    external = any(_runs(report, slot) for report in reports.values() for slot in active if not report["slots"][slot]["managed"])
    return bool(edges) and not external and not any(report["served"] for report in edges)


def joining(host: str, reports: Reports) -> Optional[tuple[str, str]]:
    """Slot and release that all other edges serve, where `host` is an edge that never served any; None when it need not move."""
    own = reports.get(host) or {}
    others = [report for name, report in reports.items() if report.get("edge") and report["served"]]
    found = {(report["active"], report["served"].get(report["active"])) for report in others}
    if not own.get("edge") or own["served"] or len(found) != 1 or any(report.get("transaction") for report in others):
        return None
    slot, release = found.pop()
    return (str(slot), str(release)) if release else None


def _unfinished(app: str, release: str, reports: Reports) -> Optional[str]:
    """The transaction of an earlier run for `release` that still holds the lease of an edge; None when there is none."""
    leases = [report.get("lease") for report in _edges(app, reports).values()]
    found = {lease["txn"] for lease in leases if lease and not lease["stale"] and lease.get("release") == release}
    return found.pop() if len(found) == 1 else None


def choose(app: str, release: str, reports: Reports, txn: str = "", again: bool = False) -> Choice:
    """The slot for `release`: where it serves already, else an idle one; the active one only when nothing serves there.

    Raises SlipwayError when nothing can be decided or another transaction than `txn` is under way; one for the same release,
    whose run may be dead, is gone on with. With `again` the release takes an idle slot although it serves.
    """
    before = _unfinished(app, release, reports)
    choice = _choose(app, release, reports, before or txn, again)
    return replace(choice, txn=before or txn)


def _choose(app: str, release: str, reports: Reports, txn: str, again: bool) -> Choice:
    _busy(app, txn, reports)
    held = [report["transaction"] for report in _edges(app, reports).values() if report.get("transaction")]
    if txn and held and all(waiting["txn"] == txn and waiting["kind"] == "cutover" for waiting in held):
        return Choice(str(held[0]["from"]), str(held[0]["to"]), None, False, False)
    active = str(_agreed(app, reports, "active"))
    edges = _edges(app, reports)
    sample = next(iter(edges.values()))
    first = never_deployed(reports) and sample["slots"][active]["managed"]
    now = next((report["slots"][active]["release"] for report in reports.values() if report["slots"][active]["release"]), None)
    told = all(report["served"].get(active) == release for report in edges.values())
    if told and not again and all(_holds(report, active, release) for report in reports.values()):
        return Choice(active, active, now, False, True)
    if first and all(_free(report, active, release) for report in reports.values()):
        return Choice(active, active, None, True, False)
    idle = [slot for slot in sample["slot_order"] if slot != active and sample["slots"][slot]["managed"]]
    if not idle:
        raise SlipwayError(f"{app} has no idle managed slot beside {active}: its entry needs a backend without `unit`.")
    whole = [slot for slot in idle if not _without(slot, reports)]
    if not whole:
        raise SlipwayError(_in_the_way(app, idle[0], reports))
    warm = [slot for slot in whole if all(_holds(report, slot, release) for report in reports.values())]
    return Choice(active, (warm or whole)[0], now, False, False)


def _without(slot: str, reports: Reports) -> list[str]:
    """Hosts that have come since the slot was set up: app hosts without a place in it, edges that it cannot be reached from."""
    found = []
    for host, report in sorted(reports.items()):
        entry = report["slots"][slot]
        far = report.get("edge") and any(member.startswith(("127.", "[::1]")) for member in entry.get("members", ()))
        if entry.get("held") and not entry["instances"] and (report.get("runs") or far):
            found.append(host)
    return found


def _in_the_way(app: str, slot: str, reports: Reports) -> str:
    """What stands against a deployment into a slot that not all hosts take part in, and what to do."""
    stands = ", ".join(host for host, report in sorted(reports.items()) if _runs(report, slot))
    end = f"wait until it is drained, or on {stands}: slipway retire {app} {slot} --now. Then run" if stands else "run"
    return (
        f"slot {slot} of {app}, the next to be used, is set up for the hosts of before, without "
        f"{', '.join(_without(slot, reports))}. Nothing was moved. To use it on all hosts, {end} site.yml, and deploy again."
    )


def _before(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report with `previous` as a rollback sees it: an unconfirmed move goes back to where it came from."""
    waiting = report.get("transaction")
    return {**report, "previous": waiting["from"]} if waiting and waiting["kind"] == "cutover" else dict(report)


def choose_back(app: str, to: str, reports: Reports) -> Choice:
    """The slot to go back to: `to` when it is given, else the one that had traffic before; raises SlipwayError."""
    reports = {host: _before(report) for host, report in reports.items()}
    edges = _edges(app, reports)
    sample = next(iter(edges.values()))
    active = str(_agreed(app, reports, "active") if not to else sample["active"])
    target = to or _agreed(app, reports, "previous")
    if not target:
        raise SlipwayError(
            f"{app} has nothing to go back to: no other release had its traffic before. Deploy a good one instead."
        )
    if target not in sample["slots"]:
        raise SlipwayError(f"{app} has no slot {target!r}. Slots: {', '.join(sample['slot_order'])}.")
    release = next((report["served"][target] for report in edges.values() if report["served"].get(target)), None)
    left = [report["active"] for report in edges.values() if report["active"] != target]
    there, active = not left, str(left[0]) if left else active
    return Choice(active, str(target), release or sample["slots"][target]["release"], False, there)


def asleep(target: str, reports: Reports) -> list[str]:
    """Hosts that have instances of slot `target` of which one does not run."""
    slots = {host: report["slots"].get(target) or {"instances": []} for host, report in reports.items()}
    return sorted(host for host, slot in slots.items() if not all(instance["alive"] for instance in slot["instances"]))


def failures(results: Mapping[str, Optional[Mapping[str, Any]]], silent_too: bool = True) -> list[str]:
    """One text for each host whose step failed or, with `silent_too`, never answered; empty when all are well.

    Skipped steps are well.
    """
    found = []
    for host, result in sorted(results.items()):
        if result is None or result.get("unreachable"):
            found += [f"{host}: did not answer, or failed before, as told above"] if silent_too else []
        elif result.get("failed"):
            found.append(f"{host}: {result.get('msg', 'failed')}")
    return found


def last_words(results: Mapping[str, Optional[Mapping[str, Any]]]) -> str:
    """The log lines that stopped processes left, from the results of the module slot on all hosts."""
    logs = [
        (f"{host}, {name}", lines)
        for host, result in sorted(results.items())
        for name, lines in ((result or {}).get("logs") or {}).items()
    ]
    return "".join(f"\nLast log lines of {name}:\n  " + ("\n  ".join(lines) or "(none)") for name, lines in logs)
