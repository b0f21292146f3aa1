# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardening by the roles beside loops of stock modules, on two equal fresh hosts: `python -m tests.bench.harden`.

See README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.bench import stock
from tests.bench.measure import CommandFailed, Cost, Recap, recap, timed
from tests.bench.system import CACHE, warm
from tests.fleet import engine, hosts
from tests.fleet.shell import ROOT, FleetError, run, say, step
from tests.fleet.spec import parse

FLEET = "bench-harden"
LOGS, RESULT = CACHE / "harden", CACHE / "harden.json"
OURS = Path("tests/bench/hardening/ours.yml")
RUN = re.compile(r"^(?:ok|changed): \[", re.M)
"""One run of a module, of a loop's items each one."""
GOAL = 0.25
RULES = [
    {"port": 80, "from": ["any"]},
    {"port": 443, "from": ["any"]},
    {"port": 3000, "from": ["10.0.0.0/24"]},
    {"port": 5432, "from": ["10.0.0.0/24"]},
    {"port": 6432, "from": ["10.0.0.0/24"]},
    {"port": 9100, "from": ["10.0.0.9"]},
]
FOLDER = {"kind": "directory", "owner": "root", "group": "root", "mode": "0755"}
"""What a module of the roles makes above a file."""
VARIABLES = {"ufw_rules": RULES, "kernel_hardening": True, "kernel_live": "auto"}


@dataclass(frozen=True)
class Row:
    """One run of a playbook: what it cost, its recap, and how often a module ran."""

    what: str
    cost: Cost
    recap: Recap
    runs: int


def module_runs(output: str) -> int:
    """How often a module ran, from what ansible-playbook printed."""
    return len(RUN.findall(output))


def play(what: str, inventory: Path, playbook: Path) -> Row:
    """Run a playbook over connections of its own. Raises CommandFailed."""
    log = LOGS / f"{what.replace(' ', '-')}.log"
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as sockets, step(what):
        environment = {"ANSIBLE_SSH_CONTROL_PATH_DIR": sockets, "ANSIBLE_NOCOLOR": "1"}
        cost = timed(["ansible-playbook", str(playbook), "-i", str(inventory)], log, ROOT, environment)
    output = log.read_text(errors="replace")
    return Row(what, cost, recap(output), module_runs(output))


def on(host: str, *argv: str) -> str:
    """Output of a command on a host; raises FleetError."""
    return run(["docker", "exec", hosts.container_name(FLEET, host), *argv], timeout=120)


def owned() -> stock.Owned:
    """What the roles own on the converged host."""
    names = on("ours", "ls", stock.OWNED).split()
    records = {name: on("ours", "cat", f"{stock.OWNED}/{name}") for name in names}
    entries = stock.read(records, {}).entries
    texts = {path: on("ours", "cat", path) for path, entry in entries.items() if entry["kind"] == "file"}
    folders = sorted({str(Path(path).parent) for path in texts} - set(entries))
    absent = on("stock", "sh", "-c", 'for each; do [ -d "$each" ] || echo "$each"; done', "sh", *folders).split()
    return stock.read({**records, "folders": json.dumps(dict.fromkeys(absent, FOLDER))}, texts)


def installed(host: str) -> set[str]:
    """Names of its packages."""
    return set(on(host, "dpkg-query", "--show", "--showformat", "${Package}\n").split())


def generate() -> Path:
    """The playbook of stock modules for what the converged host has."""
    rules = [{"rule": "allow", "port": "22", "proto": "tcp"}]
    for rule in RULES:
        sources = [{} if source == "any" else {"from_ip": source} for source in rule["from"]]  # type: ignore[attr-defined]
        rules += [{"rule": "allow", "port": str(rule["port"]), "proto": "tcp", **source} for source in sources]
    packages = sorted(installed("ours") - installed("stock"))
    body: dict[str, Any] = {"name": "Harden a server by stock modules", "hosts": "stock", "become": True, "gather_facts": False}
    body["tasks"] = stock.tasks(owned(), rules, packages, LOGS / "files")
    path = LOGS / "stock.yml"
    path.write_text(yaml.safe_dump([{**body, "handlers": [stock.HANDLER]}], sort_keys=False))
    return path


def measure(image: str, repeat: int) -> list[Row]:
    """First runs of both, then both in turn on hosts that are as wanted."""
    hosts.down(FLEET)
    spec = hosts.up(parse({"name": FLEET, "hosts": {name: {"image": image, "groups": [name]} for name in ("ours", "stock")}}))
    described: dict[str, Any] = hosts.inventory(spec)
    described["all"]["vars"] |= VARIABLES
    LOGS.mkdir(parents=True, exist_ok=True)
    inventory = LOGS / "hosts.yml"
    # Groups of one host with its own name are not wanted: the name alone is a pattern.
    described["all"].pop("children", None)
    inventory.write_text(yaml.safe_dump(described, sort_keys=False))
    warm(hosts.container_name(FLEET, "ours"))
    rows = [play("ours first", inventory, OURS)]
    other = generate()
    rows.append(play("stock first", inventory, other))
    play("stock settles", inventory, other)
    for _ in range(repeat):
        rows += [play("ours", inventory, OURS), play("stock", inventory, other)]
    return rows


def middle(rows: list[Row], what: str) -> Row:
    """The run of the middle wall time."""
    found = sorted((row for row in rows if row.what == what), key=lambda row: row.cost.wall)
    return found[len(found) // 2]


def table(rows: list[Row]) -> list[str]:
    """Ours and stock side by side, with how many times as much stock needs."""
    lines = [
        "| run | wall s | module runs | tasks ok | changed | controller cpu s | machine cpu s |",
        "|---|---|---|---|---|---|---|",
    ]
    for first, second in (("ours first", "stock first"), ("ours", "stock")):
        pair = [middle(rows, first), middle(rows, second)]
        figures = [
            (row.cost.wall, row.runs, row.recap.ok, row.recap.changed, row.cost.controller, row.cost.machine) for row in pair
        ]
        for row, each in zip(pair, figures, strict=True):
            name = row.what if "first" in row.what else f"{row.what}, nothing to do"
            cells = (f"{each[0]:.1f}", each[1], each[2], each[3], f"{each[4]:.1f}", f"{each[5]:.1f}")
            lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
        ratios = [f"{other / mine:.1f} x" if mine else "-" for mine, other in zip(*figures, strict=True)]
        lines.append("| stock / ours | " + " | ".join(ratios) + " |")
    return lines


def goals(rows: list[Row]) -> list[tuple[str, bool]]:
    """What has to hold."""
    mine, other = middle(rows, "ours"), middle(rows, "stock")
    changed = max(row.recap.changed for row in rows if row.what == "ours")
    share = mine.runs / max(other.runs, 1)
    return [
        (f"module runs with nothing to do: {share:.2f} of those of stock modules, goal at most {GOAL}", share <= GOAL),
        (f"changes of ours with nothing to do: {changed}, goal none", changed == 0),
    ]


def main() -> int:
    """Exit status 0 when both goals are met."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.harden", description=__doc__)
    parser.add_argument("--image", default="debian12", help="image of both hosts (default debian12)")
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="runs with nothing to do; the median counts (default 3)"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        engine.ensure()
        rows = measure(options.image, options.repeat)
    except (FleetError, CommandFailed, OSError, ValueError) as error:
        say(f"bench: {error}")
        return 1
    finally:
        hosts.down(FLEET)
    print(f"\nHardening a {options.image} host: base, kernel, unattended_upgrades, ufw, sshd beside loops of stock modules.\n")
    print("\n".join(table(rows)))
    met = goals(rows)
    print("\n" + "\n".join(f"{'met    ' if held else 'NOT MET'} {text}" for text, held in met))
    load = statistics.median(row.cost.load for row in rows)
    RESULT.write_text(json.dumps({"image": options.image, "load": load, "runs": [asdict(row) for row in rows]}, indent=2) + "\n")
    print(f"\nLoad before the runs {load:.1f}. All figures: {RESULT.relative_to(ROOT)}; logs beside it.")
    return 0 if all(held for _text, held in met) else 1


if __name__ == "__main__":
    sys.exit(main())
