# SPDX-License-Identifier: GPL-3.0-or-later
"""Which server of a pair is the primary: the one in the group `database`, or its replica once `slipway_primary` names that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .model import App, Host, Inventory, Problem
from .placeholders import Undefined, is_placeholder_secret
from .reader import ip_address

VARIABLE = "postgresql_replication_password"


@dataclass(frozen=True)
class Pairs:
    """Who follows whom. `moved`: hosts of the group `database` whose replica leads; `follows`: each standby's primary."""

    moved: Mapping[str, str]
    follows: Mapping[str, str]
    problems: Sequence[Problem] = ()


def pairs(groups: Mapping[str, Sequence[str]], named: Mapping[str, Any]) -> Pairs:
    """Read the groups and what each host has as `slipway_primary`."""
    servers, replicas = groups.get("database", ()), groups.get("replica", ())
    moved = {one: named[one] for one in servers if named.get(one) in replicas}
    former = {leader: one for one, leader in moved.items()}
    follows: dict[str, str] = {}
    problems: list[Problem] = []
    for name in replicas:
        declared = named.get(name)
        others = [server for server in servers if server != name]
        home = declared if declared in others else former.get(str(declared or name))
        if home is None and declared is None and len(others) == 1:
            home = others[0]
        if name in servers:
            what = "is in the group `database`, too"
            problems.append(Problem(name, "groups.replica", what, "Keep a host in one of the two groups"))
        elif not others:
            what = "there is no host in the group `database` to follow"
            problems.append(Problem(name, "groups.replica", what, "Put the primary into it"))
        elif declared is None and home is None:
            what = "is missing, and there are several databases"
            problems.append(Problem(name, "slipway_primary", what, "Name one of: " + ", ".join(others)))
        elif home is None:
            problems.append(Problem(name, "slipway_primary", *_lost(name, declared, others)))
        elif home in moved and declared not in (None, moved[home]):
            what = f"names {declared}, but {home} itself names {moved[home]}"
            problems.append(Problem(name, "slipway_primary", what, f"Set slipway_primary: {moved[home]} for all of them"))
        elif moved.get(home) != name:
            follows[name] = moved.get(home, home)
    follows.update(moved)
    return Pairs(moved, follows, problems)


def _lost(name: str, declared: Any, others: Sequence[str]) -> tuple[str, str]:
    if declared == name:
        return "names this host itself, but no host of the group `database` follows it", (
            f"Set slipway_primary: {name} for the former primary, too, best in a group of both"
        )
    return "names no host of the group `database`", "Name one of: " + ", ".join(others)


def settled(hosts: Sequence[Host], apps: Sequence[App], found: Pairs) -> Inventory:
    """The inventory with every server in the group of what it is."""
    leaders = {leader: one for one, leader in found.moved.items()}
    swapped = []
    for host in hosts:
        if host.name in found.moved or host.name in leaders:
            other = {"database": "replica", "replica": "database"}
            host = replace(host, groups=tuple(other.get(group, group) for group in host.groups))
        kept = {key: value for key, value in host.overrides.items() if key != "slipway_primary"}
        if host.name in found.follows:
            kept["slipway_primary"] = found.follows[host.name]
        swapped.append(replace(host, overrides=kept))
    moved = [
        replace(app, database=replace(app.database, host=found.moved.get(app.database.host, app.database.host)))
        if app.database
        else app
        for app in apps
    ]
    return Inventory(apps=tuple(moved), hosts=tuple(swapped))


def needs(inventory: Inventory, hostvars: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """What a primary and its standbys must have: one password, and addresses that are known when they are down."""
    found: list[Problem] = []
    for primary in inventory.group("database"):
        members = (primary, *inventory.replicas(primary))
        if len(members) == 1:
            continue
        passwords = {host.name: hostvars.get(host.name, {}).get(VARIABLE) for host in members}
        for host in members:
            found += _secret(host.name, passwords[host.name])
            variables = hostvars.get(host.name, {})
            if not any(ip_address(text) for text in (variables.get("slipway_address"), variables.get("ansible_host"), host.name)):
                what = "is not set, and whoever promotes a standby must know it although the host is down"
                found.append(Problem(host.name, "slipway_address", what, "Write the host's private address, e.g. 10.0.0.5"))
        if not found and len(set(map(str, passwords.values()))) > 1:
            names = " and ".join(host.name for host in members)
            found.append(Problem(primary.name, VARIABLE, f"differs between {names}", "Set it once, in a group of both"))
    return found


def names(inventory: Inventory) -> list[Problem]:
    """A pooler beside an app knows databases by their names: two servers cannot have the same one there."""
    found = []
    for host in inventory.hosts:
        seen: dict[str, str] = {}
        for app in inventory.apps:
            if not app.database or not app.database.pooled or host.name not in app.everywhere():
                continue
            server = seen.setdefault(app.database.name, app.database.host)
            followed = any(
                one.name in (server, app.database.host) for one in map(inventory.primary, inventory.group("replica")) if one
            )
            if server != app.database.host and followed:
                what = f"is on {server} and on {app.database.host}, and the pooler of {host.name} cannot tell them apart"
                key = f"slipway_apps.{app.name}.database.name"
                found.append(
                    Problem("app " + app.name, key, what, "Give one of them another name, or run the apps on other hosts")
                )
    return found


def _secret(host: str, value: Any) -> list[Problem]:
    if isinstance(value, Undefined):
        return [Problem(host, VARIABLE, f"is undefined: {value}", value.remedy)]
    if not isinstance(value, str) or is_placeholder_secret(value):
        what = "is missing, empty or still a placeholder, and standbys need it"
        return [Problem(host, VARIABLE, what, 'Set it for primary and standbys, e.g. "{{ vault_replication_password }}"')]
    return []
