# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the inventory name the server as primary that is one? A promotion changes the servers first, and the inventory later."""

from __future__ import annotations

from collections.abc import Mapping

from .model import Cluster, Facts, Host, Inventory, Problem

PROMOTE = "playbooks/promote.yml -e standby={} -e old_primary={}"
REJOIN = "playbooks/rejoin.yml -e host={} -e primary={}"


def disagreements(inventory: Inventory, facts: Mapping[str, Facts]) -> list[Problem]:
    """Every primary and standby whose server is not what the inventory says, with both facts and what to do."""
    found = []
    for primary in inventory.group("database"):
        replicas = inventory.replicas(primary)
        clusters = {host.name: facts[host.name].cluster for host in (primary, *replicas) if host.name in facts}
        found += _of_primary(primary, replicas, clusters) or [
            problem for host in replicas for problem in _of_standby(primary, host, clusters)
        ]
    return found


def _of_primary(primary: Host, replicas: tuple[Host, ...], clusters: Mapping[str, Cluster | None]) -> list[Problem]:
    own, name = clusters.get(primary.name), primary.name
    copies = {host.name: one for host in replicas for one in [clusters.get(host.name)] if one}
    writes = [host for host, one in copies.items() if not one.standby and _newer(one, own)]
    said = f"is {name} in the inventory"
    if writes:
        instead = "is a standby" if own and own.standby else "is left behind" if own else "is not seen"
        what = f"{said}, but {writes[0]} was promoted and takes writes, and {name} {instead}"
        return [Problem(name, "slipway_primary", what, _agree(writes[0], name))]
    if own and own.standby:
        return [Problem(name, "slipway_primary", f"{said}, but its server there is a standby", _name_another(name, copies))]
    following = [host for host, one in copies.items() if one.standby]
    if name in clusters and own is None and following:
        what = f"{said}, but it has no database, and {following[0]} has a copy of one"
        return [Problem(name, "slipway_primary", what, f"Promote it: {PROMOTE.format(following[0], name)} -e fence=done")]
    return []


def _of_standby(primary: Host, host: Host, clusters: Mapping[str, Cluster | None]) -> list[Problem]:
    """A former primary that has not come back: to take it back is for somebody to decide, since it may have rows of its own."""
    own, leading = clusters.get(host.name), clusters.get(primary.name)
    if not own or own.standby or not leading or own.system != leading.system:
        return []
    what = f"is {primary.name}, but {host.name} was the primary before and has not come back as its standby"
    remedy = f"Bring it back: {REJOIN.format(host.name, primary.name)}; or leave it out: --limit 'all:!{host.name}'"
    return [Problem(host.name, "slipway_primary", what, remedy)]


def _newer(one: Cluster, own: Cluster | None) -> bool:
    """Whether a server that takes writes did so after `own`. A fresh cluster of a package is another system."""
    if own is None:
        return one.timeline > 1
    return one.system == own.system and (own.standby or one.timeline > own.timeline)


def _agree(leader: str, former: str) -> str:
    again = PROMOTE.format(former, leader)
    return (
        f"Set slipway_primary: {leader} for both, best in a group of theirs; or, once it follows, make {former} primary: {again}"
    )


def _name_another(name: str, copies: Mapping[str, Cluster]) -> str:
    others = " or ".join(copies) or "the other server"
    return f"Set slipway_primary to the server that takes writes ({others}), or promote this one: {PROMOTE.format(name, others)}"
