# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox of a service as a part of the transaction that its role makes anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..host.runner import Runner
from . import sandbox, sandbox_seen
from .converge import ConvergeError, FileSpec, Transaction, plan

NAME = "65-slipway-sandbox.conf"


def path(unit: str, folder: Path = Path("/etc/systemd/system")) -> Path:
    """Where the drop-in of a unit lies."""
    return folder / f"{unit}.d" / NAME


def file(
    runner: Runner, service: str, unit: str, effect: str, enabled: bool = True, tried: bool = True
) -> tuple[FileSpec, list[str]]:
    """The drop-in, or that it is gone, and the keys that this kernel refuses; in check mode nothing is `tried`."""
    if not enabled:
        return FileSpec(path(unit), None, effect=effect), []
    text, refused = sandbox.drop_in(runner, service, path(unit), tried)
    return FileSpec(path(unit), text, effect=effect), refused


def add(transaction: Transaction, runner: Runner, entry: Mapping[str, Any], check_mode: bool) -> tuple[Transaction, list[str]]:
    """`transaction` with the sandbox that `entry` asks for, proven around the process, and the keys that are left out.

    A unit that serves is not restarted for it: only one whose package was installed just now (`fresh`).
    """
    unit, enabled = str(entry["unit"]), bool(entry.get("enabled", True))
    effect = "restart" if entry.get("fresh") else "daemon-reload"
    spec, refused = file(runner, str(entry["service"]), unit, effect, enabled, not check_mode)
    known = [each.name for each in transaction.units]
    verify = ("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit)
    return (
        replace(
            transaction,
            files=(*transaction.files, spec),
            validate=(*transaction.validate, *([verify] if unit in known else [])),
            readback=(*transaction.readback, *([{"kind": "sandbox", "unit": unit}] if unit in known else [])),
        ),
        refused,
    )


def refuse(transaction: Transaction, runner: Runner, trials: Sequence[Mapping[str, Any]]) -> None:
    """Before anything is written, start a service with each set of keys; raises ConvergeError naming those that cannot be had."""
    if not trials or not plan(transaction):
        return
    answers: dict[str, list[str]] = {}
    found = []
    for trial in trials:
        text = "\n".join(sandbox.lines(trial["keys"]))
        if text not in answers:
            answers[text] = sandbox.refusals(runner, trial["keys"], "nobody")
        if answers[text]:
            found.append(f"- {trial['unit']}: {', '.join(answers[text])}")
    if found:
        raise ConvergeError(
            f"{transaction.name}: nothing was changed; this kernel refuses keys of sandboxes, as in nested containers:\n"
            + "\n".join(found)
            + "\nTake them out: `extra` of the unit, or `loosen` of the backend, as false; or set hardening: compatible"
        )


def waits(runner: Runner, service: str, unit: str, spec: FileSpec, proc: Path = Path("/proc")) -> bool:
    """Whether the running process of `unit` gets its sandbox at its next start only: from the file, or once that is written."""
    if not spec.content:
        return False
    present = spec.path.read_text(encoding="utf-8") if spec.path.exists() else ""
    if present == spec.content:
        return bool(sandbox_seen.look(runner, unit, proc).later)
    pid = runner.run(["systemctl", "show", "--property=MainPID", "--value", "--", unit]).out.strip()
    declared = _shown(sandbox.SERVICES[service], spec.content)
    return bool(pid not in ("", "0") and sandbox_seen.missing(declared, proc, pid))


def _shown(values: Mapping[str, sandbox.Value], text: str) -> dict[str, str]:
    """The keys of a profile that are in `text`, as systemd shows them."""
    kept = {key: value for key, value in values.items() if f"\n{key}=" in text}
    found = {key: " ".join(value) if isinstance(value, Sequence) and not isinstance(value, str) else sandbox.scalar(value)
             for key, value in kept.items()}  # fmt: skip
    return {key: value.lower() if key == "CapabilityBoundingSet" else value for key, value in found.items()}
