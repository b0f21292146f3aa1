# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole inventory: untyped variables to Inventory, with all problems at once and none of the secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from . import parse_pairs, poolers, redis
from . import reader as shape
from .model import GROUPS, POSTGRESQL_PORT, App, Facts, Host, Inventory, Problem
from .parse_app import absent, parse_app
from .parse_workers import Hosts
from .placeholders import Undefined, is_documentation_address, is_placeholder_secret, leaves
from .reader import Reader, closest, ip_address, kind

PROMISES = ("slipway_rpo", "slipway_pitr_days", "slipway_backup_days")
COLLECTION_VARIABLES = ("slipway_apps", "slipway_registries", "slipway_address", "slipway_primary", *PROMISES)
PLAYBOOK_VARIABLES = ("slipway_all_apps",)
"""What playbooks tell each other, and what is like a variable of the collection."""
DICT_OVERRIDES = ("kernel_sysctl", "postgresql_settings", "postgresql_standby_of", "pgbouncer_settings")
LIST_OVERRIDES = (
    "ufw_rules",
    "ufw_container_rules",
    "postgresql_databases",
    "postgresql_roles",
    "postgresql_hba",
    "postgresql_listen",
    "pgbouncer_databases",
    "pgbouncer_listen",
    "nginx_sites",
    "redis_instances",
    "certificates_entries",
    "systemd_units_units",
    "systemd_units_packages",
    "unattended_upgrades_hold",
)
NUMBER_OVERRIDES = (
    "kernel_nofile",
    "docker_nofile",
    "pgbouncer_nofile",
    "pgbouncer_port",
    "nginx_worker_connections",
    "nginx_nofile",
    "unattended_upgrades_turn",
)
OTHER_OVERRIDES = ("docker_bip", "docker_address_pool", "ufw_ssh_ports", "postgresql_version")
OVERRIDES = DICT_OVERRIDES + LIST_OVERRIDES + NUMBER_OVERRIDES + OTHER_OVERRIDES
# Not planned, but other values depend on them.
CHECKED_ONLY = ("nginx_listen_backlog", "nginx_upstream_keepalive_timeout", "redis_maxmemory_mb", "redis_max_clients", *PROMISES)
# The packages of a host depend on them.
INSTALLS: Mapping[str, type] = {"base_auditd": bool, "base_fail2ban": bool, "base_hostname": str, "base_packages": list}
HOST_VARIABLES = (
    *("slipway_address", "slipway_primary", "ansible_host", "ansible_port", "ansible_user", "sshd_ports", parse_pairs.VARIABLE),
    *OVERRIDES,
    *CHECKED_ONLY,
    *INSTALLS,
)


@dataclass(frozen=True)
class Raw:
    """What Ansible knows, templated: the two collection variables, groups, and per host the HOST_VARIABLES it sets.

    `all_apps`: whether there may be no others on the hosts.
    """

    apps: Any
    groups: Mapping[str, Sequence[str]]
    hostvars: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    registries: Any = None
    unknown: Mapping[str, str] = field(default_factory=dict)
    all_apps: bool = False


def parse(raw: Raw, facts: Optional[Mapping[str, Facts]] = None) -> tuple[Inventory, list[Problem]]:
    """Typed inventory and every problem. Without `facts` nothing is known of hosts yet, so no address can be missed."""
    hosts = Hosts(raw.groups)
    problems: list[Problem] = list(_collection_variables(raw))
    apps: list[App] = []
    read = Reader("inventory")
    entries = read.mapping(raw.apps, "slipway_apps") if raw.apps is not None else {}
    removed = []
    for name, entry in entries.items():
        gone = absent(name, entry)
        if gone is not None:
            problems += gone
            removed.append(str(name))
            continue
        app, found = parse_app(name, entry, hosts)
        problems += found
        if app:
            apps.append(app)
    if apps and not hosts.group("edge"):
        read.fail("groups.edge", "there is no host in the group `edge`", hosts.missing_group("edge"))
    problems += read.problems
    problems += _registries(raw.registries)
    found_hosts = []
    for name in hosts.all:
        host, found = _host(name, raw, facts)
        found_hosts.append(host)
        problems += found
    named = {name: raw.hostvars.get(name, {}).get("slipway_primary") for name in hosts.all}
    pairs = parse_pairs.pairs(raw.groups, named)
    inventory = replace(parse_pairs.settled(found_hosts, apps, pairs), absent=tuple(sorted(removed)))
    problems += [*pairs.problems, *parse_pairs.needs(inventory, raw.hostvars), *parse_pairs.names(inventory)]
    problems += _domains(inventory)
    problems += _units(inventory)
    problems += _ports(inventory)
    problems += _databases(inventory, raw.apps)
    problems += redis.problems(inventory)
    if facts is not None:
        problems += _addresses(inventory)
        problems += _undeclared(inventory, facts) if raw.all_apps else []
        problems += _homeless(inventory, facts) if raw.all_apps else []
    return inventory, problems


def _undeclared(inventory: Inventory, facts: Mapping[str, Facts]) -> list[Problem]:
    """What hosts run and nobody declares: whether it was forgotten or is to go, an inventory has to say."""
    known = {*(app.name for app in inventory.apps), *inventory.absent}
    return [
        Problem(
            host,
            f"slipway_apps.{name}",
            "is not declared, but this host has it",
            "Declare it again, or have it removed from all hosts: `state: absent` in its entry",
            late=True,
        )
        for host, seen in sorted(facts.items())
        for name in seen.apps
        if name not in known
    ]


def _homeless(inventory: Inventory, facts: Mapping[str, Facts]) -> list[Problem]:
    """Requests need a host with a release: an app does not leave the last one in the run that places it on others."""
    found = []
    for app in inventory.apps:
        there = [name for name, seen in sorted(facts.items()) if app.name in seen.ran]
        placed = [name for name in app.hosts() if name in facts]
        if there and len(placed) == len(app.hosts()) > 0 and not set(placed) & set(there):
            what = f"would leave {', '.join(there)}, but {', '.join(placed)} has no release of {app.name} yet"
            remedy = "Place it on both, run site.yml and deploy.yml, then take the former hosts away"
            found.append(Problem("app " + app.name, f"slipway_apps.{app.name}.backends", what, remedy, late=True))
    return found


def _collection_variables(raw: Raw) -> list[Problem]:
    found = []
    for name, where in raw.unknown.items():
        guess = closest(name, COLLECTION_VARIABLES, 0.85)
        if guess and name not in (*COLLECTION_VARIABLES, *PLAYBOOK_VARIABLES):
            found.append(Problem(where, name, "is not a variable of this collection", f"Did you mean `{guess}`?"))
    if raw.apps is None:
        found.append(Problem("inventory", "slipway_apps", "is not set", "Declare at least one app in group_vars/all/apps.yml"))
    return found


def _registries(raw: Any) -> list[Problem]:
    read = Reader("inventory")
    if raw is None:
        return []
    if not isinstance(raw, list):
        read.fail("slipway_registries", f"must be a list, but is {kind(raw)}", "Write - host: registry:5000")
        return read.problems
    read.scan(raw, "slipway_registries")
    for index, entry in enumerate(raw):
        key = f"slipway_registries[{index}]"
        data = read.mapping(entry, key, ("host", "username", "password", "ca"))
        host = data.get("host")
        if not isinstance(host, str) or "/" in host or not host:
            read.fail(
                key + ".host",
                "must be a host name, with a port when it is not 443",
                "Write registry.acme.org:5000 without https://",
            )
        read.text(data, "username", key, shape.LINE, "a user name", required=data.get("password") is not None)
        password = data.get("password")
        useless = not isinstance(password, str) or is_placeholder_secret(password)
        if data.get("username") is not None and useless and not isinstance(password, Undefined):
            read.fail(key + ".password", "is missing, empty or still a placeholder", "Take it from a vault")
        read.text(data, "ca", key, shape.FILE_PATH, "the path of a CA certificate on the controller")
    return read.problems


def _host(name: str, raw: Raw, facts: Optional[Mapping[str, Facts]]) -> tuple[Host, list[Problem]]:
    variables = raw.hostvars.get(name, {})
    read = Reader(name)
    for key in ("ansible_host", "slipway_address", "ansible_user"):
        value = variables.get(key)
        read.scan(value, key)
        if isinstance(value, str) and is_documentation_address(value):
            read.fail(key, "is an address that exists only in documentation", "Put the host's real address there")
    for key in OVERRIDES:
        read.scan(variables.get(key), key)
        for path, leaf in leaves(variables.get(key), key):
            if path.rpartition(".")[2] in ("password", "secret"):
                read.fail(path, "would be shown by the plan", "Put it into postgresql_passwords, from a vault")
            elif isinstance(leaf, str) and "PRIVATE KEY-----" in leaf:
                read.fail(path, "is a private key, which the plan would show", "Write the path of its file on the controller")
    given = variables.get("slipway_address")
    if given is not None and not ip_address(given):
        read.fail("slipway_address", "is not an IP address", "Write the host's private address, e.g. 10.0.0.5")
    seen = (facts or {}).get(name)
    address = ip_address(given) or ip_address(variables.get("ansible_host")) or ip_address(name) or (seen.address if seen else "")
    port = variables.get("ansible_port")
    ports: tuple[int, ...] = (22,)
    if port is not None:
        if str(port).isdigit() and 0 < int(port) < 65536:
            ports = (int(port),) if not address.startswith("127.") else (22, int(port))
        else:
            read.fail("ansible_port", "is not a port number", "Write a number from 1 to 65535")
    declared = variables.get("sshd_ports") or []
    if isinstance(declared, list) and all(str(item).isdigit() and 0 < int(item) < 65536 for item in declared):
        # Both: a port in use is open until the run that comes over the new one.
        ports = tuple(dict.fromkeys((*ports, *map(int, declared))))
    else:
        read.fail("sshd_ports", "is not a list of port numbers", "Write numbers from 1 to 65535, e.g. [22]")
    overrides: dict[str, Any] = {}
    for key in (*OVERRIDES, *CHECKED_ONLY, *INSTALLS):
        value = variables.get(key)
        if value is None:
            continue
        wanted: Any = (
            INSTALLS[key]
            if key in INSTALLS
            else dict
            if key in DICT_OVERRIDES
            else list
            if key in LIST_OVERRIDES
            else int
            if key in NUMBER_OVERRIDES + CHECKED_ONLY
            else object
        )
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            read.fail(key, f"must be {shape.kind(wanted())}, but is {kind(value)}", "Correct its type")
        else:
            overrides[key] = value
    member = tuple(group for group in GROUPS if name in raw.groups.get(group, ()))
    return Host(name=name, groups=member, address=address, ssh_ports=ports, overrides=overrides), read.problems


def _domains(inventory: Inventory) -> list[Problem]:
    found: list[Problem] = []
    owner: dict[str, str] = {}
    for app in inventory.apps:
        for index, name in enumerate((app.domain, *app.aliases)):
            key = "slipway_apps.{}.{}".format(app.name, "aliases[%s]" % (index - 1) if index else "domain")
            if name and name in owner:
                found.append(Problem("app " + app.name, key, f"is also a domain of {owner[name]}", "Give each name to one app"))
            elif name:
                owner[name] = "app " + app.name
    return found


def _units(inventory: Inventory) -> list[Problem]:
    """The unit of worker w of app a is called a-w, which must be no other app; a unit of somebody else has one owner."""
    names = {app.name for app in inventory.apps}
    found = [
        Problem(
            "app " + app.name,
            f"slipway_apps.{app.name}.workers.{worker.name}",
            f"would be called {name}, as an app is",
            "Rename it",
        )
        for app in inventory.apps
        for worker in app.workers
        for name in [f"{app.name}-{worker.name}"]
        if name in names
    ]
    owner: dict[tuple[str, str], str] = {}
    for app in inventory.apps:
        for backend in app.backends:
            key = f"slipway_apps.{app.name}.backends.{backend.name}"
            units = [(key, backend.unit, backend.hosts)]
            units += [(f"{key}.workers.{one.name}", one.unit, one.hosts) for one in backend.workers or ()]
            for where, unit, hosts in units:
                taken = [owner[host, unit] for host in hosts if unit and (host, unit) in owner]
                if taken:
                    what = f"names {unit}, which is {taken[0]} already"
                    found.append(Problem("app " + app.name, where + ".unit", what, "Give each unit one owner"))
                owner.update({(host, unit): where for host in hosts if not taken})
    return found


def _ports(inventory: Inventory) -> list[Problem]:
    """Every listening port of a host has one owner: app slots (both of them), sshd, nginx, the database and its pooler."""
    found: list[Problem] = []
    for host in inventory.hosts:
        owner: dict[int, str] = dict.fromkeys(host.ssh_ports, "sshd")
        if host.has("edge"):
            owner.update(dict.fromkeys((80, 443), "nginx"))
        if host.serves_postgresql():
            owner[POSTGRESQL_PORT] = "PostgreSQL"
        if poolers.servers(host, inventory):
            owner[poolers.port(host)] = "pgbouncer"
        owner.update({redis.PORTS[purpose]: f"Redis {purpose}" for purpose in redis.purposes(host, inventory)})
        for app in inventory.apps:
            for backend in app.backends_on(host.name):
                name = f"app {app.name}, backend {backend.name}"
                taken = [port for port in backend.all_ports() if port in owner]
                if taken and backend.port:
                    found.append(
                        Problem(
                            host.name,
                            f"slipway_apps.{app.name}.backends.{backend.name}.port",
                            f"port {taken[0]} belongs to {owner[taken[0]]} already (here: {_ranges(backend.all_ports())})",
                            "Choose a port whose blue and green ranges are free, or another host",
                        )
                    )
                for port in backend.all_ports():
                    owner.setdefault(port, name)
    return found


def _ranges(ports: Sequence[int]) -> str:
    """Ports as `3000-3002, 3010-3012`."""
    parts: list[list[int]] = []
    for port in sorted(set(ports)):
        if parts and parts[-1][1] == port - 1:
            parts[-1][1] = port
        else:
            parts.append([port, port])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def _databases(inventory: Inventory, raw: Any) -> list[Problem]:
    """One database has one owner, one user has one password; passwords are compared here and go no further."""
    found: list[Problem] = []
    owners: dict[tuple[str, str], tuple[str, str]] = {}
    passwords: dict[tuple[str, str], tuple[str, Any]] = {}
    for app in inventory.apps:
        database = app.database
        if not database or not database.name or not database.user:
            continue
        key = f"slipway_apps.{app.name}.database"
        first, user = owners.setdefault((database.host, database.name), (app.name, database.user))
        if user != database.user:
            found.append(
                Problem(
                    "app " + app.name,
                    key + ".user",
                    f"differs from the user of app {first} for the same database",
                    "Use one user for a database, or another database",
                )
            )
        password = raw[app.name]["database"].get("password")
        other, known = passwords.setdefault((database.host, database.user), (app.name, password))
        if known != password:
            found.append(
                Problem(
                    "app " + app.name,
                    key + ".password",
                    f"differs from the one app {other} has for the same user",
                    "Use the same variable in both, or another user",
                )
            )
    return found


def _addresses(inventory: Inventory) -> list[Problem]:
    """Every host that another one must name in an upstream, a rule or a URL needs an address, all of them of one family."""
    needed = {host for app in inventory.apps for host in app.everywhere()}
    needed.update(host.name for host in inventory.hosts if host.has("edge") or host.serves_postgresql())
    needed.update(app.redis.host for app in inventory.apps if app.redis)
    known = [host for host in inventory.hosts if host.name in needed and host.address]
    first = known[0] if known else Host("")
    others = [host for host in known if (":" in host.address) is not (":" in first.address)]
    missing = [
        Problem(
            host.name,
            "slipway_address",
            "has no known address",
            "Set slipway_address, give ansible_host an IP address, or run without --limit so that facts tell it",
        )
        for host in inventory.hosts
        if host.name in needed and not host.address
    ]
    return missing + [
        Problem(
            host.name,
            "slipway_address",
            f"is {host.address}, but {first.name} has {first.address}: rules and connections between them need one family",
            "Set slipway_address of all hosts to IPv4, or of all to IPv6 addresses",
        )
        for host in others
    ]
