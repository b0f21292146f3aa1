# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml costs: first converge and a run that changes nothing on fleets of several sizes, beside one shell script.

`python -m tests.bench.site [--hosts 1,2] [--repeat 3] [--image debian12]`. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench import limit, system
from tests.bench.measure import CommandFailed, Cost, Recap, recap, slowest, timed
from tests.fleet import engine, hosts
from tests.fleet.shell import ROOT, FleetError, run, say, step
from tests.fleet.spec import Spec

RESULT = system.CACHE / "site.json"
FIRST_GOAL, NOOP_GOAL, RUNS_GOAL = 2.0, 0.5, 60
"""On one host: first converge and no-op as multiples of the script's wall time, and the no-op's task runs."""
SHOWN = 15
"""Tasks of the no-op run that are listed."""


@dataclass(frozen=True)
class Row:
    """One measured run; `recap` is None for the script."""

    what: str
    hosts: int
    cost: Cost
    recap: Recap | None
    slowest: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Limit:
    """The script's run, and where its end state differs from the converged host's."""

    row: Row
    packages: int
    files: int
    differences: tuple[str, ...]


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows: list[Row] = []
    made: Limit | None = None
    try:
        engine.ensure()
        for count in options.hosts:
            made = fleet(count, options.image, options.repeat, rows) or made
    except (FleetError, CommandFailed, OSError, ValueError) as error:
        say(f"bench: {error}")
        return 1
    finally:
        if rows:
            report(rows, made, options.image)
    return 0


def fleet(count: int, image: str, repeat: int, rows: list[Row]) -> Limit | None:
    """Measure one fleet into `rows`, and on one host the script, too; all hosts are removed in the end."""
    try:
        spec = system.fleet(count, image)
        inventory = system.inventory(spec)
        system.warm(hosts.container_name(spec.name, system.FIRST))
        rows.append(play("first converge", inventory, count))
        for _ in range(repeat):
            rows.append(play("no-op", inventory, count))
        return script(spec, image) if count == 1 else None
    finally:
        hosts.down(f"bench-{count}")


def play(what: str, inventory: Path, count: int) -> Row:
    """One run of site.yml over connections of its own, as a user starts it."""
    log = system.CACHE / f"{what.replace(' ', '-')}-{count}.log"
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as sockets, step(f"{what} on {count} hosts"):
        environment = {
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
            "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
            "ANSIBLE_NOCOLOR": "1",
        }
        cost = timed(["ansible-playbook", "site.yml", "-i", str(inventory)], log, ROOT, environment)
    output = log.read_text(errors="replace")
    return Row(what, count, cost, recap(output), tuple(slowest(output)))


def script(spec: Spec, image: str) -> Limit:
    """Generate the script from the converged host, run it on a fresh one and compare what came of it."""
    converged = hosts.container_name(spec.name, system.FIRST)
    try:
        fresh = system.limit_fleet(image)
        scratch, target = (hosts.container_name(fresh.name, name) for name in ("scratch", system.FIRST))
        with step("generating the script from the converged host"):
            before, wanted = limit.see(scratch), limit.see(converged)
            packages = sorted(wanted.packages - before.packages)
            run(["docker", "exec", scratch, "sh", "-c", limit.packages_only(packages)], timeout=900)
            found = limit.compare(before, limit.see(scratch), wanted)
            limit.carry(converged, found, target, system.CACHE / "limit", system.DOMAIN)
        with step("one shell script on a fresh host"):
            cost = timed(["docker", "exec", target, "bash", f"{limit.WORK}/script.sh"], system.CACHE / "script.log", ROOT)
        differences = compare(converged, target, *(_address(each, system.FIRST) for each in (spec, fresh)))
        return Limit(Row("shell script", 1, cost, None), len(found.packages), len(found.files), tuple(differences))
    finally:
        hosts.down("bench-limit")


def compare(converged: str, target: str, address: str, target_address: str) -> list[str]:
    """Where the script's host differs from the converged one, a sentence each."""
    wanted, made = limit.see(converged), limit.see(target)
    found = [f"package only on one host: {name}" for name in sorted(wanted.packages ^ made.packages)]
    found += [f"unit active on one host only: {name}" for name in sorted(wanted.units ^ made.units)]
    paths = sorted({*wanted.files, *made.files})
    found += [f"file differs: {path}" for path in paths if wanted.files.get(path) != made.files.get(path)]
    asked = {f"{name} firewall rules": limit.firewall_rules(name) for name in (converged, target)}
    if len(set(asked.values())) > 1:
        found.append(f"number of firewall rules: {asked}")
    releases = [system.served_release(each) for each in (address, target_address)]
    if len(set(releases)) > 1:
        found.append(f"served release: {releases}")
    return found


def _address(spec: Spec, name: str) -> str:
    return next(host.address for host in spec.hosts if host.name == name)


def median(rows: list[Row], what: str, count: int) -> Row | None:
    """The run of the middle wall time."""
    found = sorted((row for row in rows if (row.what, row.hosts) == (what, count)), key=lambda row: row.cost.wall)
    return found[len(found) // 2] if found else None


def goals(rows: list[Row], made: Limit) -> list[tuple[str, bool]]:
    """What one host has to reach, and whether it does."""
    found = []
    base = made.row.cost.wall
    for what, most in (("first converge", FIRST_GOAL), ("no-op", NOOP_GOAL)):
        row = median(rows, what, 1)
        if row:
            ratio = row.cost.wall / base
            found.append((f"{what}: {ratio:.2f} x the script, goal at most {most}", ratio <= most))
    noop = median(rows, "no-op", 1)
    if noop and noop.recap:
        found.append((f"no-op: {noop.recap.ok} task runs, goal at most {RUNS_GOAL}", noop.recap.ok <= RUNS_GOAL))
    changed = [row.recap.changed for row in rows if row.what == "no-op" and row.recap]
    found.append((f"no-op: {max(changed, default=0)} changes, goal none", not any(changed)))
    found.append((f"end state of the script: {len(made.differences)} differences, goal none", not made.differences))
    return found


def table(rows: list[Row], made: Limit | None) -> str:
    """All runs as a Markdown table."""
    base = made.row.cost.wall if made else None
    lines = [
        "| run | hosts | wall s | x script | controller cpu s | machine cpu s | ok | changed | skipped | load before |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in [*rows, *([made.row] if made else [])]:
        ratio = f"{row.cost.wall / base:.2f}" if base and row.hosts == 1 else "-"
        runs = (row.recap.ok, row.recap.changed, row.recap.skipped) if row.recap else ("-", "-", "-")
        cpu = f"{row.cost.controller:.1f}" if row.recap else "0"
        cells = (
            row.what,
            row.hosts,
            f"{row.cost.wall:.1f}",
            ratio,
            cpu,
            f"{row.cost.machine:.0f}",
            *runs,
            f"{row.cost.load:.2f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def report(rows: list[Row], made: Limit | None, image: str) -> None:
    """Print the table, the goals and the slowest tasks, and keep everything as JSON."""
    print(f"\nsite.yml on {image} hosts, {os.cpu_count()} cores. Host 1 is edge, app and database, all others are app hosts.")
    print("Machine CPU includes whatever else ran, which the load before each run tells.\n")
    print(table(rows, made))
    if made:
        print(f"\nThe script: {made.packages} packages, {made.files} files.")
        print("\n".join([f"  {line}" for line in made.differences[:20]]))
        for text, met in goals(rows, made):
            print(f"{'met    ' if met else 'NOT MET'} {text}")
    smallest = min((row for row in rows if row.what == "no-op"), key=lambda row: row.hosts, default=None)
    noop = median(rows, "no-op", smallest.hosts) if smallest else None
    if noop:
        told = sum(seconds for _, seconds in noop.slowest)
        print(f"\nSlowest tasks of the no-op on {noop.hosts} hosts, of {told:.1f} s in {len(noop.slowest)} tasks:")
        print("\n".join(f"{seconds:7.2f} s  {name}" for name, seconds in noop.slowest[:SHOWN]))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "image": image,
        "cores": os.cpu_count(),
        "runs": [asdict(row) for row in rows],
        "script": asdict(made) if made else None,
        "goals": [{"goal": text, "met": met} for text, met in goals(rows, made)] if made else [],
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\nAll figures: {RESULT.relative_to(ROOT)}; logs beside it.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.site", description="What site.yml costs, beside one shell script."
    )
    parser.add_argument("--hosts", type=_counts, default=[1, 2, 4, 8], metavar="1,2,4,8", help="sizes of the fleets")
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="no-op runs of each size; the median counts (default 3)"
    )
    parser.add_argument("--image", default="debian12", help="image of all hosts (default debian12)")
    return parser.parse_args()


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or not all(1 <= count <= 100 for count in counts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers of hosts such as 1,2")
    return counts


if __name__ == "__main__":
    sys.exit(main())
