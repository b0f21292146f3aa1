# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a plan takes, and whether it keeps its own checks, over random fleets: `python -m tests.bench.plan --fleets 10000`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

from ansible_collections.slipway.server.plugins.module_utils.plan.build import build
from ansible_collections.slipway.server.plugins.module_utils.plan.parse import parse

from tests.unit.module_utils.plan.fleets import faults, fleet, refused


def main() -> int:
    """Print the figures; 1 when a fleet has a violation that the plan brought about."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleets", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    options = parser.parse_args()
    spent: list[float] = []
    hosts = small = checks = bad = 0
    for seed in range(options.seed, options.seed + options.fleets):
        raw, facts = fleet(Random(seed))
        start = time.process_time()
        inventory, _problems = parse(raw, facts)
        plan = build(inventory, facts)
        spent.append((time.process_time() - start) * 1000)
        found = faults(plan)
        if found:
            bad += 1
            print(f"seed {seed}: {found[0].line()}")
        hosts, small, checks = hosts + len(facts), small + len(refused(plan)), checks + len(plan.checks)
    spent.sort()
    quantile = [spent[min(len(spent) - 1, int(len(spent) * part))] for part in (0.5, 0.99)]
    print(f"{len(spent)} fleets, {hosts} hosts, {checks} checks: {bad} with a violation of the plan's own making")
    print(f"{small} hosts refused as too small for what they are told to carry")
    print(f"inventory to plan, CPU time: median {quantile[0]:.1f} ms, p99 {quantile[1]:.1f} ms, most {spent[-1]:.1f} ms")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
