# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands at the states of a transaction. Before it is confirmed one may abort it; after that, and on the way back, none can."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..health import secrets
from . import transient
from .config import ABORTABLE, App, Hook
from .errors import SlipwayError
from .host import Host
from .journal import Transaction


@dataclass(frozen=True)
class HookResult:
    """How one hook went: `detail` is empty when well, `output` its last lines without secrets, `seconds` how long it took."""

    state: str
    command: str
    ok: bool
    detail: str
    seconds: float
    output: tuple[str, ...] = ()


def facts_of(tx: Transaction, reason: str = "") -> dict[str, object]:
    """What hooks and notifications are told of `tx`."""
    told = {"txn": tx.txn, "kind": tx.kind, "release": tx.release, "from": tx.source, "to": tx.target, "owner": tx.owner}
    return {**told, "reason": reason or tx.reason}


def run(host: Host, app: App, state: str, facts: Mapping[str, object]) -> list[HookResult]:
    """Run the hooks of `app` at `state`, one after the other; `facts` as `facts_of` gives them.

    Raises SlipwayError when one fails that aborts; its facts hold `hooks`. At a state from which nothing can be aborted it
    never raises. On the way back call it after the flags moved: hooks take their time, traffic has none.
    """
    results: list[HookResult] = []
    for hook in app.hooks.get(state, ()):
        result = _one(host, app, state, hook, facts)
        results.append(result)
        _tell(host, app, result, facts)
        if not result.ok and hook.on_failure == "abort" and state in ABORTABLE:
            said = "".join(f"\n  {line}" for line in result.output)
            raise SlipwayError(
                f"{app.name} goes no further than {state} on {app.host}: the hook `{result.command}` {result.detail}."
                + (f" Its last lines:{said}" if said else ""),
                {"hook": state, "hooks": [asdict(item) for item in results]},
            )
    return results


def environment(app: App, state: str, facts: Mapping[str, object]) -> dict[str, str]:
    """What a hook finds in its environment."""
    told = {"TXN": "txn", "RELEASE": "release", "FROM": "from", "TO": "to", "REASON": "reason"}
    values = {f"SLIPWAY_{name}": _line(facts.get(key)) for name, key in told.items()}
    return {"SLIPWAY_APP": app.name, "SLIPWAY_STATE": state, "SLIPWAY_HOST": app.host, **values}


def hidden(host: Host, app: App) -> set[str]:
    """Strings of this application's environment on this host that must not be shown."""
    path = app.runtime.env_file if app.runtime is not None else None
    with contextlib.suppress(OSError):
        return secrets.values((host.disk.read(host.layout.path(path)) if path else None) or "")
    return set()


def _one(host: Host, app: App, state: str, hook: Hook, facts: Mapping[str, object]) -> HookResult:
    begun = host.clock.monotonic()
    ended = transient.run(
        host.runner,
        f"slipway-{app.name}-hook-{state}-{uuid.uuid4().hex[:8]}",
        transient.shell(hook.command),
        hook.timeout,
        environment(app, state, facts),
        properties=[f"User={hook.user}"],
    )
    known = hidden(host, app)
    return HookResult(
        state,
        secrets.mask(hook.command, known)[: transient.WIDTH],
        ended.ok,
        "" if ended.ok else ended.why(hook.timeout),
        round(host.clock.monotonic() - begun, 2),
        tuple(ended.last(known)),
    )


def _tell(host: Host, app: App, result: HookResult, facts: Mapping[str, object]) -> None:
    """To the system log; a failure to the history, too. A full disk stops nothing."""
    told = {"txn": facts.get("txn"), "state": result.state, "hook": result.command, "seconds": result.seconds}
    records = host.records(app.name)
    if result.ok:
        records.log("hook", **told, output=list(result.output))
        return
    with contextlib.suppress(OSError):
        records.remember("hook_failed", **told, reason=result.detail, output=list(result.output[-5:]))


def _line(value: object) -> str:
    return " ".join(str(value or "").split())[: transient.WIDTH]
