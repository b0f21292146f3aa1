# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `slipway` on a managed host: what must work without Ansible, without a network and at three at night.

What a rollback does not need is imported only by the commands that do: starting Python is most of its time.

Exit status: 0 done, or nothing to do; 1 refused or failed; 2 wrong usage or unknown application; 3 somebody else is at work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Callable, Optional

from . import rollback
from .config import App
from .errors import Busy, SlipwayError
from .host import Host

OK, FAILED, USAGE, BUSY = 0, 1, 2, 3
WAKE = 1.0
"""Seconds between two looks of a dead man who came too early."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="slipway", description="Traffic of the applications on this host.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, every: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("app", metavar="APP", nargs="?" if every else None)
        if every:
            sub.add_argument("--all", action="store_true", help="all applications of this host")
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    status = command("status", "Show slots, releases, what waits for confirmation, and the last event.", every=True)
    status.add_argument("--check", action="store_true", help="only tell where requests do not go as the flags say; 1 when so")
    back = command("rollback", "Move traffic back to the slot before, or take back what is not confirmed.")
    back.add_argument("--to", default=rollback.PREVIOUS, metavar="SLOT", help="another slot than the one before")
    back.add_argument("--reason", metavar="TEXT", help="why; marks the release as bad")
    back.add_argument("--force", action="store_true", help="even to a release that was taken back before")
    back.add_argument("--owner", metavar="NAME", help="who does this, instead of the user")
    back.add_argument("--dry-run", action="store_true", help="look and tell what would be done")
    recover = command("recover", "Finish or take back what a crash left behind.", every=True)
    recover.add_argument("--deadline", action="store_true", help="the time to confirm is over (the dead man calls this)")
    confirm = command("confirm", "Make the switch that waits for confirmation final.")
    confirm.add_argument("--txn", metavar="ID", help="only this transaction")
    move = command("move", "Do what a deployment asked for under a name (the unit that it starts calls this).")
    move.add_argument("--txn", metavar="ID", required=True, help="its name")
    retire = command("retire", "Drain a standby slot when its time is over, then stop it.")
    retire.add_argument("slot", metavar="SLOT")
    retire.add_argument("--now", action="store_true", help="its time on standby is over now")
    retire.add_argument(
        "--within", type=float, metavar="SECONDS", help="with --now: close what is open then, WebSockets included"
    )
    settle = command("settle", "After a rollback: mark the slot that has the traffic, keep the one that had it warm for a while.")
    settle.add_argument("--active", metavar="SLOT", required=True, help="the slot that has the traffic")
    settle.add_argument("--standby", metavar="SLOT", required=True, help="the slot that had it")
    settle.add_argument("--owner", metavar="NAME", help="who does this, instead of the user")
    workers = command("workers", "Finish a handover of workers that was interrupted, or hand them over to a slot.")
    workers.add_argument("--to", metavar="SLOT", help="the slot that gets the workers of this host")
    workers.add_argument("--alone", action="store_true", help="singletons of other hosts are known to have ended")
    history = command("history", "Show what happened.")
    history.add_argument("--limit", type=int, default=20, metavar="N", help="the last N entries")
    history.add_argument("--event", metavar="EVENT", help="only this, e.g. confirmed or stopped; moves: the ends of all moves")
    history.add_argument("--release", metavar="NAME", help="only of this release")
    history.add_argument("--txn", metavar="ID", help="only of this transaction")
    history.add_argument("--since", metavar="TIME", help="only from then on: 30m, 12h, 2d, or 2026-05-31T17:30 (UTC)")
    commands.add_parser("guard", help="Changes of this host that wait for a confirmation: status, confirm NAME, revert NAME.")
    command("unlock", "Release the lease of a run that is known to be dead.")
    return top


def main(arguments: Optional[Sequence[str]] = None, host: Optional[Host] = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["guard"]:
        from ..guard import cli as guard

        return guard.main(given)
    options = parser().parse_args(given)
    host = host or Host()
    try:
        return _dispatch(options, host)
    except Busy as error:
        return _failed(options, error, BUSY)
    except SlipwayError as error:
        unknown = options.app is not None and options.app not in host.apps()
        return _failed(options, error, USAGE if unknown else FAILED)
    except PermissionError as error:
        return _failed(options, SlipwayError(f"{error}. Run it as root: sudo slipway …"), FAILED)
    except OSError as error:
        return _failed(options, SlipwayError(f"this host failed: {error}"), FAILED)


def _failed(options: argparse.Namespace, error: SlipwayError, code: int) -> int:
    if options.json:
        print(json.dumps({**error.facts, "failed": True, "message": str(error)}))
    print(f"slipway: {error}", file=sys.stderr)
    return code


def _names(options: argparse.Namespace, host: Host) -> list[str]:
    if options.all or options.app is None:
        if options.app is None and not options.all and options.command != "status":
            raise SlipwayError(f"name an application or say --all. Known here: {', '.join(host.apps()) or 'none'}.")
        return host.apps()
    return [options.app]


def _owner() -> str:
    if os.environ.get("SUDO_USER"):
        return os.environ["SUDO_USER"]
    import getpass

    return getpass.getuser()


def _dispatch(options: argparse.Namespace, host: Host) -> int:
    commands: dict[str, Callable[[argparse.Namespace, Host], int]] = {
        "status": _status,
        "rollback": _rollback,
        "recover": _recover,
        "confirm": _confirm,
        "move": _move,
        "retire": _retire,
        "settle": _settle,
        "workers": _workers,
        "history": _history,
        "unlock": _unlock,
    }
    return commands[options.command](options, host)


def _say(options: argparse.Namespace, data: object, text: str) -> int:
    print(json.dumps(data, indent=1, sort_keys=True) if options.json else text)
    return OK


def _status(options: argparse.Namespace, host: Host) -> int:
    from . import status

    reports = [status.report(host, host.app(name)) for name in _names(options, host)]
    if not reports and not options.json:
        print("No application is described on this host.")
        return OK
    data = reports[0] if options.app is not None else reports
    if options.check:
        found = [f"{report['app']}: {report['trouble']}" for report in reports if report["trouble"]]
        _say(options, data, "\n".join(found) or "Requests go where the flags say.")
        return FAILED if found else OK
    return _say(options, data, "\n".join(line for report in reports for line in status.lines(report)))


def _rollback(options: argparse.Namespace, host: Host) -> int:
    # nginx tests the flag for each request: one look through it tells as much as several.
    request = rollback.Request(options.to, options.reason, None, options.owner or _owner(), options.force, looks=1)
    app = host.app(options.app)
    back = rollback.Rollback(host, app)
    done = back.preview(request) if options.dry_run else back.run(request)
    if done["outcome"] == "planned":
        steps = "; ".join(map(str, done["plan"])) if isinstance(done["plan"], list) else ""
        return _say(options, done, f"{options.app}: would go from {done['from']} to {done['to']} ({done['detail']}): {steps}.")
    if done["outcome"] == "unchanged":
        return _say(options, done, f"{options.app}: {done['reason']}.")
    text = f"{options.app}: traffic is on {done['to']}"
    if done.get("switch_ms") is not None:
        text += f" ({done.get('release') or 'release unknown'}), moved in {done['switch_ms']} ms, seen through nginx."
    if done.get("recorded") is False:
        text += " The disk is full, so nothing of it is recorded: make room. Until then, other moves need --to SLOT."
    if not options.owner:  # a playbook, which says who asks, settles and hands over on all hosts
        text += _follow(host, app, str(done["to"]), str(done["from"]))
    return _say(options, done, text)


def _follow(host: Host, app: App, to: str, left: str) -> str:
    """What comes after a rollback on this host, in units of their own: nobody waits for it. A word about it."""
    if to != left and app.slot(to).instances and app.slot(left).instances:
        from ..guard.deadman import ArmingFailed

        with contextlib.suppress(ArmingFailed):  # then the slot that was left stays until the next deployment
            host.arm_settle(app.name, to, left)
    if app.workers:
        from . import workers

        return " Its workers follow by themselves." if workers.hand_over(host, app, to) else ""
    return ""


def _recover(options: argparse.Namespace, host: Host) -> int:
    worst = OK
    for name in _names(options, host):
        try:
            _recover_one(options, host, name)
        except (SlipwayError, OSError) as error:
            if not options.all or isinstance(error, PermissionError):
                raise
            failed = error if isinstance(error, SlipwayError) else SlipwayError(f"{name} is not recovered: {error}.")
            worst = _failed(options, failed, FAILED)
    return worst


def _recover_one(options: argparse.Namespace, host: Host, name: str) -> None:
    from . import recovery

    app = host.app(name)
    host.is_deadman = bool(options.deadline)
    workers_to = None
    while True:
        # Past the deadline a hung run must not stop the dead man: it goes on without the lock.
        with host.lock(name).held(f"recovery of {name}", 2.0, insist=not options.deadline):
            if not app.edge:
                break
            found = recovery.recover(host, app, options.deadline)
        if not options.deadline or found.action != "waiting":
            data = {"app": name, "action": found.action, "message": found.message, "active": found.active, "txn": found.txn}
            _say(options, data, f"{name}: {found.message}. Traffic is on {found.active}.")
            workers_to = found.active if found.rollback else None
            break
        host.clock.sleep(min(found.left, WAKE))  # the next step may have a deadline that comes earlier
    if not options.deadline:
        _workers_again(host, app, workers_to)
        for slot in recovery.rearm_retirements(host, app):
            print(f"{name}: slot {slot} will be stopped when its time is over.", file=sys.stderr)
        _run_again(options, host, app)


def _run_again(options: argparse.Namespace, host: Host, app: App) -> None:
    """What has to run here and does not; all of it starts by itself after a restart, when all applications are recovered."""
    from . import upkeep

    with host.lock(app.name).held(f"recovery of {app.name}", 2.0):
        for name in [] if options.all else upkeep.revive_active(host, app):
            print(f"{app.name}: {name} did not run and was started.", file=sys.stderr)
        for slot in upkeep.adopt(host, app):
            print(f"{app.name}: slot {slot} ran without a record and is on standby now.", file=sys.stderr)


def _move(options: argparse.Namespace, host: Host) -> int:
    from .detached import Detached

    done = Detached(host, host.app(options.app)).run(options.txn)
    return _say(options, done, f"{options.app}: {done['outcome']}, traffic is on {done['to']}.")


def _workers_again(host: Host, app: App, to: Optional[str]) -> None:
    """Finish a handover that a restart interrupted, or begin the one `to` a slot, by itself and not within this lock."""
    from . import workers

    target = to or (workers.Workers(host, app).duty().target if workers.mine(app) else None)
    if target is not None and workers.hand_over(host, app, target):
        print(f"{app.name}: the workers of {app.host} go on moving to {target}.", file=sys.stderr)


def _confirm(options: argparse.Namespace, host: Host) -> int:
    from .cutover import Cutover

    done = Cutover(host, host.app(options.app)).confirm(options.txn, _owner())
    return _say(options, done, f"{options.app}: {done['to']} {'is' if done['changed'] else 'was'} confirmed.")


def _retire(options: argparse.Namespace, host: Host) -> int:
    from .retire import Retirement, limits
    from .slots import Request, Slots

    app = host.app(options.app)
    retirement = Retirement(host, app, options.slot)
    if options.now:
        most = dict.fromkeys(("http", "websockets", "pace"), options.within)
        Slots(host, app).drain(Request(options.slot, owner=_owner()), limits(app, most))
    said = ""
    while True:
        text, again = retirement.step()
        if again is None:
            break
        if text != said:
            print(f"{options.app}: {text}.", file=sys.stderr)
        said = text
        host.clock.sleep(again)
    return _say(options, {"app": options.app, "slot": options.slot, "message": text}, f"{options.app}: {text}.")


def _settle(options: argparse.Namespace, host: Host) -> int:
    from .slots import Request, Slots

    request = Request(options.active, active=options.active, owner=options.owner or _owner())
    there, left = Slots(host, host.app(options.app)).settle(request, options.standby)
    data = {"app": options.app, "changed": bool(there["changed"] or left["changed"]), "active": there, "standby": left}
    return _say(options, data, f"{options.app}: {options.active} is marked active, {options.standby} is {left['state']}.")


def _workers(options: argparse.Namespace, host: Host) -> int:
    from . import workers

    app = host.app(options.app)
    with host.lock(app.name).held(f"{_owner()} handing over workers of {app.name}", 2.0):
        if options.to is None:
            done = workers.resume(host, app)
        else:
            others = {name for worker in app.workers for name in worker.at} if options.alone else ()
            done = workers.Workers(host, app).move(workers.HANDED_OVER, options.to, others)
    if done is None:
        return _say(options, {"changed": False}, f"{app.name}: no handover of workers was interrupted.")
    held = done["held"]
    text = [f"{app.name}: the workers of {app.host} belong to {done['slot']}.", *(held if isinstance(held, list) else ())]
    return _say(options, done, "\n".join(text))


def _history(options: argparse.Namespace, host: Host) -> int:
    from . import history

    since = None if options.since is None else history.since(options.since, host.clock.now())
    wanted = history.Wanted(options.event, options.release, options.txn, since, options.limit)
    entries = history.select(host.records(host.app(options.app).name).history(wanted.depth), wanted)
    return _say(options, entries, "\n".join(history.table(entries)) or f"{options.app}: nothing of the kind happened.")


def _unlock(options: argparse.Namespace, host: Host) -> int:
    app = host.app(options.app)
    leases = host.leases(app.name)
    with host.lock(app.name).held(f"{_owner()} unlocking {app.name}"):
        lease = leases.read()
        if lease is None:
            return _say(options, {"app": app.name, "released": None}, f"{app.name}: no lease.")
        host.records(app.name).remember("unlocked", txn=lease.txn, owner=lease.owner, by=_owner())
        leases.release(lease.txn)
    return _say(options, {"app": app.name, "released": lease.txn}, f"{app.name}: released the lease of {lease.owner}.")
