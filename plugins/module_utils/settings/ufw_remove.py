# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking the firewall away: ufw's files as they were before the first change, and the kernel as those files say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Optional

from ..guard.armed import Arming
from . import manifest
from . import ufw_compile as compiler
from . import ufw_kernel as kernel
from .converge import FileSpec, Transaction, plan, put
from .ufw import INIT, MANIFEST, UNIT, WANTS, Outcome, Ufw, UfwError, active

CONF = "etc/ufw/ufw.conf"


def remove(host: Ufw, ssh_ports: Sequence[int], check_mode: bool = False, arming: Optional[Arming] = None) -> Outcome:
    """Bring everything back; raises UfwError before anything is changed, TakenBack and what arming does.

    With `arming` the change is not confirmed when this returns.
    """
    live = host.observe()
    kept = host.originals
    if not kept.files and not kept.units:
        if any(compiler.BLOCK_BEGIN in text for text in live.files.values()):
            raise UfwError(
                "nothing is kept of what stood in ufw's files before they were changed."
                " `ufw --force reset` brings the distribution's own back"
            )
        return Outcome()
    specs = [spec for spec in kept.back((), {}) if isinstance(spec, FileSpec)]
    changes = plan(Transaction("ufw", files=tuple(specs)))
    outcome = Outcome({str(change.path.relative_to(host.root)): change.after.content for change in changes})
    outcome.faults = ["the firewall of this collection is in force"]
    outcome.before = _text(active(live.tables), {str(each.path): each.before.content for each in changes})
    outcome.after = _text(_starts(specs, live.files), {str(each.path): each.after.content for each in changes})
    outcome.words = _opened(live.tables)
    if check_mode:
        return outcome

    def change() -> None:
        host.guard(list(ssh_ports))
        for each in changes:
            put(each.path, each.after)
        host.runner.must([INIT, "force-reload" if _starts(specs, live.files) else "force-stop"])
        _open_containers(host)
        if UNIT in kept.units:
            host.runner.must(["systemctl", "disable", UNIT])
        host.unguard()
        if not _starts(specs, live.files) and _closed(host.observe().tables):
            raise UfwError("the kernel still has rules of ufw")

    if arming is None:
        change()
        kept.forget_all()
    else:
        paths = [*(each.path for each in changes), host.root / WANTS, manifest.place("ufw", host.root / MANIFEST)]
        arming.carry(change, paths, [[INIT, "force-reload"]], [["rm", "--recursive", "--force", str(kept.folder)]])
    manifest.record("ufw", [], host.root / MANIFEST)
    return outcome


def _starts(specs: Sequence[FileSpec], live: Mapping[str, str]) -> bool:
    """Whether ufw is on by its original file, which is the one that stands there when it never had to be changed."""
    texts = [spec.content or "" for spec in specs if spec.path.name == "ufw.conf"] or [live.get(CONF, "")]
    return "ENABLED=yes" in texts[0]


def _closed(tables: Mapping[int, kernel.Table]) -> bool:
    """Whether ufw still decides about packets; the chains that it leaves behind are empty."""
    for family, table in tables.items():
        chains = [table.get(name, kernel.Chain()) for name in ("INPUT", f"{compiler.prefix(family)}-before-input")]
        if chains[0].policy in ("DROP", "REJECT") or chains[1].rules:
            return True
    return False


def _opened(tables: Mapping[int, kernel.Table]) -> list[str]:
    """What anybody reaches once Docker's own chain is as Docker makes it."""
    rules = [
        rule for table in tables.values() for rule in table.get("DOCKER", kernel.Chain()).rules if rule.endswith("-j ACCEPT")
    ]
    ports = sorted({int(found.group(1)) for rule in rules for found in [re.search(r"--dport (\d+)", rule)] if found})
    if not ports:
        return []
    text = f"containers that publish their port {', '.join(map(str, ports))} are reached from everywhere without it"
    return [f"{text}; publish on 127.0.0.1 what is for this host"]


def _open_containers(host: Ufw) -> None:
    """Docker's own chain is as Docker makes it; where there is no Docker, it goes."""
    chain = compiler.DOCKER_CHAIN
    for family, table in sorted(host.observe().tables.items()):
        if chain not in table:
            continue
        program = compiler.executable(family)
        host.runner.must([program, "-F", chain])
        if any(name.startswith("DOCKER") and name != chain for name in table):
            host.runner.must([program, "-A", chain, "-j", "RETURN"])
            continue
        for _rule in [rule for rule in table["FORWARD"].rules if rule == f"-j {chain}"]:
            host.runner.must([program, "-D", "FORWARD", "-j", chain])
        host.runner.must([program, "-X", chain])


def _text(on: bool, files: Mapping[str, str]) -> str:
    parts = [f"{path}:\n{content}" for path, content in files.items()]
    return "\n".join([f"firewall: {'active' if on else 'inactive'}", *parts, ""])
