# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host under test, from standard input, and drives cutovers there as module `cutover` does: `python3 - VERB JSON`.

It uses the library of the host command that is installed, and answers with one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, "/usr/lib/slipway")

import slipway.traffic
from slipway.traffic import moves, retire, status
from slipway.traffic.detached import Detached
from slipway.traffic.drivers import Artifact
from slipway.traffic.errors import SlipwayError
from slipway.traffic.host import Host
from slipway.traffic.run import Request
from slipway.traffic.slots import Request as Start
from slipway.traffic.slots import Slots

HOST = Host()
PATIENCE = 30.0


def until(found: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first answer of `found` that counts."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = found()
        if answer:
            return answer
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


def start(app: str, to: str, release: str, archive: str) -> dict[str, Any]:
    """Start a release in a slot and prove it."""
    return dict(Slots(HOST, HOST.app(app)).start(Start(to, Artifact(release, None, archive, None), force=True)))


def ready(app: str) -> dict[str, Any]:
    """The idle slot and the release in it, once all slots are well."""
    described = HOST.app(app)

    def well() -> bool:
        slots = described.slots.values()
        return all(
            moves.well_now(HOST.sensors.members(slot, HOST.records(app).slot(slot.name).release)) is None for slot in slots
        )

    until(well, "both slots well")
    target = next(name for name in described.slot_order if name != HOST.flags(described).active())
    return {"target": target, "release": HOST.records(app).slot(target).release}


def begin(app: str, to: str, release: str, txn: str, hooks: Any = None, migrated: str = "none") -> dict[str, Any]:
    """Ask for a move, with hooks of its own; it runs in a unit of its own."""
    if hooks is not None:
        _describe(app, {"hooks": hooks})
    try:
        Detached(HOST, HOST.app(app)).start(Request(to, release, txn, "matrix", True, migrated))
    except (SlipwayError, OSError) as error:
        return {"refused": str(error), "kind": type(error).__name__}
    return {"refused": ""}


def migrate(app: str, to: str, release: str, txn: str) -> dict[str, Any]:
    """Apply the migrations of a release, which take 2 s and leave a line each time they run."""
    line = f"/var/lib/{app}/migrated"
    check, apply = f"test -s {line} && exit 0; exit 10", f"sleep 2; echo once >>{line}"
    # The host command has no use for it: module `migrations` brings it along, and the lane has left it there.
    slipway.traffic.__path__.append("/var/tmp")
    from slipway.traffic import migrations

    commands = {"check": f"/bin/sh -c '{check}'", "apply": f"/bin/sh -c '{apply}'"}
    _describe(app, {"migrations": {"host": HOST.app(app).host, "backup": {}, **commands}})
    try:
        done = migrations.Migrator(HOST, HOST.app(app)).apply(migrations.Request(to, release, txn))
    except (SlipwayError, OSError) as error:
        return {"refused": str(error), "kind": type(error).__name__}
    return {"refused": "", "pending": done["pending"]}


def drain(app: str, slot: str) -> dict[str, Any]:
    """Have a slot drained, as a playbook does once all edges have left it."""
    slots, described = Slots(HOST, HOST.app(app)), HOST.app(app)
    slots.settle(Start(str(slots.active())), slot)
    return slots.drain(Start(slot), described.drain)


def attend(app: str, slot: str) -> dict[str, Any]:
    """Stay until a drain has ended."""
    return retire.attend(HOST, HOST.app(app), slot)


def retiring(app: str, slot: str) -> dict[str, Any]:
    """How far the end of a slot is, and whether somebody is at it."""
    shown = status.report(HOST, HOST.app(app))["slots"][slot]
    return {"state": shown["state"], "busy": HOST.retire_timer(app, slot).armed()}


def reached(app: str, txn: str, state: str, seconds: float = PATIENCE) -> dict[str, Any]:
    """Wait until the run told of `state`, or ended."""
    progress = HOST.progress(HOST.app(app), txn)

    def look() -> str:
        if HOST.disk.document(progress.outcome) is not None:
            return "ended"
        lines, _next = progress.lines()
        return state if any(line.get("state") == state for line in lines) else ""

    return {"reached": until(look, f"{txn} in {state}", seconds)}


def follow(app: str, txn: str) -> dict[str, Any]:
    """What a task of the playbook does all the time: stay until the run ends."""
    run, offset = Detached(HOST, HOST.app(app)), 0
    while True:
        news = run.follow(txn, offset)
        offset = news.offset
        if news.ended:
            return dict(news.facts)


def confirm(app: str, txn: str, kill: bool = False, twice: bool = False) -> dict[str, Any]:
    """Confirm with the host's own command; with `kill` it dies as soon as its decision is on the disk."""
    argv = ["/usr/local/sbin/slipway", "confirm", app, f"--txn={txn}"]
    processes = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(1 + twice)]
    if kill:
        journal = HOST.journal(HOST.app(app))
        with contextlib.suppress(TimeoutError):
            until(lambda: journal.last().has("done confirm") or processes[0].poll() is not None, "a decision", 10)
        os.kill(processes[0].pid, signal.SIGKILL)
    said = [process.communicate(timeout=60)[0] for process in processes]
    return {"rc": [process.returncode for process in processes], "said": said}


def look(app: str) -> dict[str, Any]:
    """What is so now: a run, a transaction that waits, flags, the journal's last word, the dead man, the slots."""
    described = HOST.app(app)
    report = status.report(HOST, described)
    last = HOST.journal(described).last()
    flags = HOST.flags(described)
    return {
        "running": Detached(HOST, described).running(),
        "transaction": report["transaction"],
        "active": report["active"],
        "served": report["served"],
        "shares": flags.shares(),
        "unknown": report["unknown_flags"],
        "lease": report["lease"],
        "armed": HOST.deadman(app).armed(),
        "alive": {name: all(item["alive"] for item in slot["instances"]) for name, slot in report["slots"].items()},
        "journal": None if last is None else {"txn": last.txn, "outcome": last.outcome, "reason": last.reason, "to": last.target},
        "held": last is not None and last.open and last.has("done hold"),
        "previous": report["previous"],
    }


def _describe(app: str, changes: dict[str, Any]) -> None:
    path = Path(f"/etc/slipway/apps/{app}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=1))


def lease(app: str, txn: str, ttl: float) -> dict[str, Any]:
    """Take the lease for somebody."""
    HOST.leases(app).acquire(txn, "somebody", ttl)
    return {}


def tune(app: str, **changes: Any) -> dict[str, Any]:
    """Change the description of `app` on this host, key by key; a mapping changes what is in it."""
    document = json.loads(Path(f"/etc/slipway/apps/{app}.json").read_text())
    _describe(
        app, {key: {**document.get(key, {}), **value} if isinstance(value, dict) else value for key, value in changes.items()}
    )
    return {"bake": HOST.app(app).bake}


VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    each.__name__: each
    for each in (start, ready, begin, migrate, reached, follow, confirm, drain, attend, retiring, look, lease, tune)
}

print(json.dumps(VERBS[sys.argv[1]](**json.loads(sys.argv[2])), default=str))
