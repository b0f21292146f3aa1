# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings and restarts of a database beside other ways, many clients of its pooler, in one run: `python -m tests.bench.data`.

See README.md in this folder. A further part is one more function in PARTS.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.bench.measure import CommandFailed, Cost, recap, timed
from tests.bench.pgbench import Clients, Seen, stalls
from tests.bench.system import CACHE
from tests.fleet import engine, hosts
from tests.fleet.shell import ROOT, FleetError, run, say, step
from tests.fleet.spec import Spec, parse

FLEET, HOST, PASSWORD = "bench-data", "db1", "bench"
LOGS, RESULT = CACHE / "data", CACHE / "data.json"
PLAYBOOKS = Path("tests/bench/database")
DIRECT, POOLED = 5432, 6432
REST = 3.0
"""Seconds after a restart in which clients show whether they go on."""
PING_GOAL = 1.5
HBA = [{"type": "local", "database": ["bench"], "user": ["bench"], "method": "scram-sha-256"}]
BASE = {"shared_buffers": "128MB", "max_connections": 560, "shared_preload_libraries": ["pg_stat_statements"]}


def values(number: int) -> dict[str, str]:
    """Twenty settings, eighteen for a reload and two for a restart, other values for each `number`."""
    return {
        "shared_buffers": f"{129 + number}MB",
        "max_connections": str(561 + number),
        "work_mem": f"{5 + number}MB",
        "maintenance_work_mem": f"{65 + number}MB",
        "effective_cache_size": f"{1001 + number}MB",
        "random_page_cost": f"1.{11 + number}",
        "effective_io_concurrency": str(101 + number),
        "checkpoint_timeout": f"{301 + number}s",
        "checkpoint_completion_target": f"0.8{number % 10}",
        "max_wal_size": f"{2001 + number}MB",
        "min_wal_size": f"{201 + number}MB",
        "wal_compression": "on" if number % 2 else "off",
        "log_min_duration_statement": f"{1001 + number}ms",
        "log_checkpoints": "on" if number % 2 else "off",
        "log_lock_waits": "off" if number % 2 else "on",
        "deadlock_timeout": f"{1101 + number}ms",
        "autovacuum_naptime": f"{31 + number}s",
        "autovacuum_vacuum_cost_limit": str(301 + number),
        "default_statistics_target": str(101 + number),
        "jit": "on" if number % 2 else "off",
    }


@dataclass
class Part:
    """What a part found out: lines for a person, figures for the file, and whether what decides the exit status holds."""

    lines: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    goals: list[tuple[str, bool]] = field(default_factory=list)
    decisive: bool = True


@dataclass(frozen=True)
class Place:
    """The host: its container, its inventory, the major version of its PostgreSQL."""

    container: str
    inventory: Path
    version: str

    def on(self, *argv: str, data: str | None = None, timeout: float = 120) -> str:
        """Output of a command on the host; raises FleetError."""
        flags = ["--interactive"] if data is not None else []
        return run(["docker", "exec", *flags, self.container, *argv], input=data, timeout=timeout)

    def sql(self, text: str) -> str:
        """What PostgreSQL answers to its superuser."""
        return self.on("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", "postgres", data=text).strip()

    def play(self, name: str, playbook: str, **variables: Any) -> tuple[Cost, int]:
        """Run a playbook as a user does: what it cost, and how many tasks changed something. Raises CommandFailed."""
        log = LOGS / f"{name}.log"
        argv = ["ansible-playbook", "-i", str(self.inventory), playbook, "-e", json.dumps(variables)]
        cost = timed(argv, log, ROOT, {"ANSIBLE_NOCOLOR": "1"})
        return cost, recap(log.read_text(errors="replace")).changed


def make(image: str, reuse: bool) -> Place:
    """The host, made by the roles, with the tables of pgbench in it."""
    if not reuse:
        hosts.down(FLEET)
    spec: Spec = hosts.up(parse({"name": FLEET, "hosts": {HOST: {"image": image, "groups": ["database"]}}}))
    described: dict[str, Any] = hosts.inventory(spec)
    described["all"]["vars"] |= {
        "postgresql_settings": BASE,
        "postgresql_hba": HBA,
        "postgresql_roles": [{"name": "bench"}],
        "postgresql_passwords": {"bench": PASSWORD},
        "postgresql_databases": [{"name": "bench", "owner": "bench"}],
        "postgresql_pooler_user": "pgbouncer_auth",
        "pgbouncer_databases": [{"name": "bench", "host": "/var/run/postgresql", "port": DIRECT, "pool_size": 20}],
        "pgbouncer_settings": {"max_client_conn": 6000, "query_wait_timeout": 120},
        "pgbouncer_nofile": 16384,
    }
    inventory = CACHE / f"{FLEET}.yml"
    inventory.parent.mkdir(parents=True, exist_ok=True)
    inventory.write_text(yaml.safe_dump(described, sort_keys=False))
    container = hosts.container_name(FLEET, HOST)
    place = Place(container, inventory, "")
    with step("a database and its pooler, by the roles"):
        place.play("make", str(PLAYBOOKS / "make.yml"))
    version = place.sql("SHOW server_version").partition(".")[0]
    fill = f"PGPASSWORD={PASSWORD} pgbench -i -q -s 20 -h 127.0.0.1 -U bench bench"
    place.on("sh", "-c", fill, timeout=300)
    return Place(container, inventory, version)


def waits(place: Place) -> bool:
    """Whether both settings that need a restart wait for it."""
    names = "('shared_buffers', 'max_connections')"
    return place.sql(f"SELECT count(*) FROM pg_settings WHERE pending_restart AND name IN {names}") == "2"


def settings(place: Place, options: argparse.Namespace) -> Part:
    """Twenty settings: ours, a loop, and one ping, in turn; the second run of each with a restart still pending."""
    times: dict[str, list[float]] = {name: [] for name in ("ping", "ours", "ours again", "loop", "loop again")}
    changed: dict[str, list[int]] = {name: [] for name in times}
    place.play("warm", str(PLAYBOOKS / "ping.yml"))
    pending = True
    for number in range(options.repeat):
        with step(f"settings, round {number + 1} of {options.repeat}"):
            wanted = {"version": place.version, "settings": values(number)}
            for name, playbook in zip(times, ("ping", "ours", "ours", "loop", "loop"), strict=True):
                if name == "loop":
                    pending = pending and waits(place)
                    wanted["settings"] = values(number + 50)
                cost, count = place.play(name, str(PLAYBOOKS / f"{playbook}.yml"), **wanted)
                times[name].append(cost.wall)
                changed[name].append(count)
            place.sql("ALTER SYSTEM RESET ALL; SELECT pg_reload_conf() \\g /dev/null")
    middle = {name: statistics.median(each) for name, each in times.items()}
    part = Part(figures={"seconds": times, "changed": changed})
    part.lines = ["| 20 settings | median s (min to max) | x ping | changed |", "|---|---|---|---|"]
    for name, each in times.items():
        spread = f"{middle[name]:.2f} ({min(each):.2f} to {max(each):.2f})"
        part.lines.append(f"| {name} | {spread} | {middle[name] / middle['ping']:.2f} | {sorted(set(changed[name]))} |")
    again = not any(changed["ours again"]) and pending
    part.goals = [
        (f"first run of ours at most {PING_GOAL} x ping", middle["ours"] <= PING_GOAL * middle["ping"]),
        (f"second run of ours at most {PING_GOAL} x ping", middle["ours again"] <= PING_GOAL * middle["ping"]),
        ("second run of ours changed=0 while two settings wait for a restart", again),
    ]
    part.decisive = all(met for _goal, met in part.goals)
    return part


def plain(place: Place) -> None:
    """What everybody does."""
    place.on("systemctl", "restart", f"postgresql@{place.version}-main.service")


def ours(place: Place) -> None:
    """What an operator of this collection does."""
    place.play("restart", "playbooks/restart_database.yml", policy="now", force=True)


def reachable(place: Place, port: int) -> None:
    """Wait until logins work, also after a plain restart, from which a pooler needs a while to recover; raises FleetError."""
    script = (
        f"for i in $(seq 80); do psql -XAtqc 'SELECT 1' -h 127.0.0.1 -p {port} -U bench bench && exit; sleep 0.5; done; exit 1"
    )
    place.on("env", f"PGPASSWORD={PASSWORD}", "sh", "-c", script)


def restarts(place: Place, clients: int, port: int, how: Callable[[Place], None], times: int) -> list[Seen]:
    """Restart `times` times under clients; fewer when all of them are gone."""
    spans: list[tuple[float, float]] = []
    counts: list[int] = []
    reachable(place, port)
    with Clients(place.container, clients, port, PASSWORD) as working:
        while len(spans) < times and working.working():
            time.sleep(1)
            before, begun = working.aborted(), time.time()
            how(place)
            with contextlib.suppress(FleetError):
                reachable(
                    place, port
                )  # a plain restart leaves a pooler without its database for as long as it waits to try again
            time.sleep(REST)
            spans.append((begun - 0.5, time.time()))
            counts.append(working.aborted() - before)
    counts[-1] = working.aborted() - sum(counts[:-1])
    found = stalls(place.container, spans)
    return [Seen(clients, count, stall) for count, stall in zip(counts, found, strict=True)]


def restart(place: Place, options: argparse.Namespace) -> Part:
    """Restarts under load: plainly without and with the pooler, and ours."""
    part = Part(
        lines=["| restart under load | clients | restarts | clients aborted | stall s, median (max) |", "|---|---|---|---|---|"]
    )
    lost = blind = 0
    for clients in options.clients:
        ways = {
            "plain, direct": (DIRECT, plain, 1),
            "plain, behind the pooler": (POOLED, plain, 1),
            "ours, behind the pooler": (POOLED, ours, options.restarts),
        }
        for name, (port, how, times) in ways.items():
            with step(f"{name}: {clients} clients, {times} restart(s)"):
                seen = restarts(place, clients, port, how, times)
            part.figures[f"{name}, {clients}"] = [asdict(each) for each in seen]
            aborted = sum(each.aborted for each in seen)
            known = [each.stall for each in seen if each.stall is not None and each.aborted < clients]
            stall = f"{statistics.median(known):.2f} ({max(known):.2f})" if known else "run over"
            part.lines.append(f"| {name} | {clients} | {len(seen)} | {aborted} | {stall} |")
            if how is ours:
                lost += aborted + (times - len(seen))
                held = sum(not each.aborted for each in seen)
                part.goals.append((f"{clients} clients: none aborted in {held} of {times} restarts", held == times))
            else:
                blind += not aborted
    part.goals.append(("each plain restart aborts clients, or else this proves nothing", not blind))
    part.decisive = not lost and not blind
    return part


def connections(place: Place, options: argparse.Namespace) -> Part:
    """Clients connected all at once through the pooler, each answered."""
    part = Part(lines=["| clients at once | connected | answered | connecting s | answering s |", "|---|---|---|---|---|"])
    place.on("sh", "-c", "cat >/tmp/clients.py", data=(ROOT / "tests/bench/clients.py").read_text(encoding="utf-8"))
    for count in options.connections:
        argv = f"python3 /tmp/clients.py --user=bench --database=bench --count={count} || true"
        with step(f"{count} clients at once"):
            told = json.loads(place.on("sh", "-c", argv, data=f"{PASSWORD}\n", timeout=600))
        part.figures[str(count)] = told
        seconds = f"{told['connect_seconds']:.2f} | {told['answer_seconds']:.2f}"
        part.lines.append(f"| {count} | {told['connected']} | {told['answered']} | {seconds} |")
        part.goals.append((f"{count} clients connected at once and answered", told["connected"] == told["answered"] == count))
    part.decisive = all(met for _goal, met in part.goals)
    return part


PARTS: dict[str, Callable[[Place, argparse.Namespace], Part]] = {
    "settings": settings,
    "restart": restart,
    "connections": connections,
}


def show(part: Part) -> None:
    """The part's table and goals."""
    print("\n" + "\n".join(part.lines))
    print("\n".join(f"{'met    ' if met else 'NOT MET'} {text}" for text, met in part.goals), flush=True)


def report(parts: dict[str, Part], options: argparse.Namespace, seconds: float) -> None:
    """Keep all figures as JSON."""
    print(f"\n{options.image}, {os.cpu_count()} cores for everything, load {os.getloadavg()[0]:.1f}.")
    document = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "image": options.image,
        "cores": os.cpu_count(),
        "seconds": round(seconds, 1),
        "parts": {name: {**part.figures, "goals": part.goals} for name, part in parts.items()},
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\nAll figures: {RESULT.relative_to(ROOT)}; output of every run in {LOGS.relative_to(ROOT)}.")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    try:
        engine.ensure()
        place = make(options.image, options.reuse)
        parts = {}
        for name in options.only:
            parts[name] = PARTS[name](place, options)
            show(parts[name])
        report(parts, options, time.monotonic() - begun)
        return 0 if all(part.decisive for part in parts.values()) else 1
    except (FleetError, CommandFailed, OSError, ValueError) as error:
        say(f"bench: {error}")
        return 1
    finally:
        if not options.keep:
            hosts.down(FLEET)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.data", description="Settings and restarts of a database.")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), metavar="PART,…", help=", ".join(PARTS))
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds of settings (default 3)")
    parser.add_argument("--restarts", type=int, default=10, metavar="N", help="restarts in our way for each load (default 10)")
    parser.add_argument("--clients", type=_numbers, default=[40, 500], metavar="N,…", help="loads (default 40,500)")
    parser.add_argument("--connections", type=_numbers, default=[1000, 5000], metavar="N,…", help="at once (default 1000,5000)")
    parser.add_argument("--image", default="debian13", help="image of the host (default debian13)")
    parser.add_argument("--keep", action="store_true", help="leave the host up")
    parser.add_argument("--reuse", action="store_true", help="measure on a host that an earlier run left up")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.only if name not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
