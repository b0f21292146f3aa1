# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's configuration as data: units, what a server of this version accepts, and the files that say it. No I/O."""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

DROP_IN = "60-slipway.conf"
HEADER = "# Written by slipway.server; changes made here are replaced.\n"
MEMORY = {"B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
TIME = {"us": 1, "ms": 10**3, "s": 10**6, "min": 6 * 10**7, "h": 36 * 10**8, "d": 864 * 10**8}
QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)")
TRUE, FALSE = ("on", "true", "yes", "1"), ("off", "false", "no", "0")
SHARED_BUFFERS_CEILING = 0.8  # of the memory; beyond it the host swaps or the kernel kills (own bound; docs advise 0.25 to 0.4)
MANAGED = {
    "listen_addresses": "set `postgresql_listen` instead",
    "port": "set `postgresql_port` instead",
    "data_directory": "Debian's cluster tools own it",
    "config_file": "Debian's cluster tools own it",
    "hba_file": "set `postgresql_hba` instead",
    "ident_file": "Debian's cluster tools own it",
    "external_pid_file": "Debian's cluster tools own it",
}
# Names that guides still carry, and what replaced them (release notes of 9.5 to 17).
REMOVED = {
    "checkpoint_segments": "`max_wal_size` and `min_wal_size` replaced it in 9.5",
    "wal_keep_segments": "`wal_keep_size` (16MB for each segment) replaced it in 13",
    "max_fsm_pages": "it has had no use since 8.4; leave it out",
    "default_with_oids": "it has had no use since 12; leave it out",
    "replacement_sort_tuples": "removed in 11; leave it out",
    "operator_precedence_warning": "removed in 14; leave it out",
    "vacuum_cleanup_index_scale_factor": "removed in 14; leave it out",
    "stats_temp_directory": "removed in 15, statistics live in shared memory; leave it out",
    "promote_trigger_file": "removed in 16; use `pg_ctl promote`",
    "force_parallel_mode": "`debug_parallel_query` replaced it in 16",
    "vacuum_defer_cleanup_age": "removed in 16; use `hot_standby_feedback` or replication slots",
    "old_snapshot_threshold": "removed in 17; leave it out",
    "db_user_namespace": "removed in 17; leave it out",
    "unix_socket_directory": "`unix_socket_directories` replaced it in 9.3",
    "standby_mode": "create the file standby.signal instead (since 12)",
    "trigger_file": "removed; use `pg_ctl promote`",
    "timeout": "it is the lock wait of SQLite's adapter; use `statement_timeout` or `lock_timeout`",
    "pool": "it belongs to the application's connection pool, not to the server",
    "prepared_statements": "it belongs to the application's connection, not to the server",
}


@dataclass(frozen=True)
class Parameter:
    """A row of pg_settings: numbers as text in `unit`, `enumvals` only for enumerations."""

    name: str
    vartype: str
    context: str
    unit: str = ""
    minimum: str = ""
    maximum: str = ""
    enumvals: tuple[str, ...] = ()


def parse_parameters(rows: Sequence[Sequence[Any]]) -> dict[str, Parameter]:
    """Parameters by lower-case name from rows (name, vartype, context, unit, min_val, max_val, enumvals) of pg_settings."""
    found = {}
    for row in rows:
        name, vartype, context, unit, low, high = (cell or "" for cell in row[:6])
        found[name.lower()] = Parameter(name, vartype, context, unit, low, high, tuple(row[6] or ()))
    return found


@dataclass(frozen=True)
class Server:
    """What limits a configuration: the parameters of the server, memory in bytes, and the libraries it can load."""

    major: str
    parameters: Mapping[str, Parameter]
    memory: int = 0
    libraries: Optional[frozenset[str]] = None


def text(value: Any) -> str:
    """A value of the inventory as PostgreSQL writes it; lists become comma-separated."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value)
    return str(value)


def texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Declared settings by lower-case name; those that are null are left out."""
    return {name.strip().lower(): text(value) for name, value in settings.items() if value is not None}


def number(value: str, unit: str) -> float:
    """`value` in multiples of `unit` (such as 8kB, ms; empty: a plain number); raises ValueError with the reason."""
    found = QUANTITY.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"`{value}` is not a number{_with_unit(unit)}")
    amount, suffix = float(found.group(1)), found.group(2)
    if not suffix:
        return amount
    factor, base = _base(unit)
    scale = MEMORY if base in MEMORY else TIME if base in TIME else {}
    if suffix not in scale:
        raise ValueError(f"`{value}` has no unit this setting knows{_with_unit(unit)}")
    return amount * scale[suffix] / (factor * scale[base])


def _base(unit: str) -> tuple[int, str]:
    found = re.fullmatch(r"(\d*)([A-Za-z]*)", unit)
    return (int(found.group(1) or 1), found.group(2)) if found else (1, "")


def _with_unit(unit: str) -> str:
    base = _base(unit)[1]
    scale = MEMORY if base in MEMORY else TIME if base in TIME else {}
    return f" (units: {', '.join(scale)})" if scale else ""


def canonical(value: str, parameter: Parameter) -> Union[bool, float, str]:
    """`value` in a form that is equal for equal settings; raises ValueError when the server would refuse it."""
    lowered = value.strip().lower()
    if parameter.vartype == "bool":
        if lowered not in TRUE + FALSE:
            raise ValueError(f"`{value}` is not a boolean; write on or off")
        return lowered in TRUE
    if parameter.vartype == "enum":
        if lowered not in parameter.enumvals and lowered not in TRUE + FALSE:
            raise ValueError(f"`{value}` is not offered by this server; choose from {', '.join(parameter.enumvals)}")
        return lowered
    if parameter.vartype not in ("integer", "real"):
        return value
    amount = number(value, parameter.unit)
    amount = float(round(amount)) if parameter.vartype == "integer" else amount
    low, high = float(parameter.minimum or -math.inf), float(parameter.maximum or math.inf)
    if not low <= amount <= high:
        unit = f" {parameter.unit}" if parameter.unit else ""
        raise ValueError(f"`{value}` is {amount:g}{unit}, outside {parameter.minimum} to {parameter.maximum}{unit}")
    return amount


def problems(settings: Mapping[str, str], server: Server) -> list[str]:
    """Every reason why `server` cannot take `settings`, each with its remedy."""
    found = []
    for name, value in sorted(settings.items()):
        parameter = server.parameters.get(name)
        if name in MANAGED:
            found.append(f"{name}: is not set here; {MANAGED[name]}")
        elif parameter is None and "." not in name:
            found.append(f"{name}: PostgreSQL {server.major} has no such setting; {_advice(name, server)}")
        elif parameter is not None and parameter.context == "internal":
            found.append(f"{name}: is fixed when the server is built or the cluster is made; leave it out")
        elif parameter is not None:
            try:
                canonical(value, parameter)
            except ValueError as error:
                found.append(f"{name}: {error}")
    return found + _memory(settings, server) + _libraries(settings, server)


def _advice(name: str, server: Server) -> str:
    return REMOVED.get(name) or closest(name, server.parameters)


def closest(name: str, parameters: Mapping[str, Parameter]) -> str:
    """What somebody may have meant who wrote `name`."""
    close = difflib.get_close_matches(name, parameters, n=1, cutoff=0.75)
    return f"did you mean `{close[0]}`?" if close else "see the manual's list of settings"


def _memory(settings: Mapping[str, str], server: Server) -> list[str]:
    parameter, value = server.parameters.get("shared_buffers"), settings.get("shared_buffers")
    if parameter is None or value is None or not server.memory:
        return []
    try:
        wanted = number(value, parameter.unit) * number(parameter.unit, "B")
    except ValueError:
        return []
    ceiling = SHARED_BUFFERS_CEILING * server.memory
    if wanted <= ceiling:
        return []
    return [
        f"shared_buffers: {value} is more than {SHARED_BUFFERS_CEILING:.0%} of this host's {server.memory / 2**20:.0f} MB;"
        f" set at most {ceiling / 2**20:.0f}MB (a quarter of the memory is usual)"
    ]


def _libraries(settings: Mapping[str, str], server: Server) -> list[str]:
    if server.libraries is None:
        return []
    names = [name.strip().strip('"') for name in settings.get("shared_preload_libraries", "").split(",")]
    missing = [name for name in names if name and "/" not in name and name not in server.libraries]
    return [
        f"shared_preload_libraries: there is no library `{name}` for PostgreSQL {server.major};"
        " install its package (`postgresql_packages`) or leave it out"
        for name in missing
    ]


def render_settings(settings: Mapping[str, str]) -> str:
    """The drop-in: one line for each setting, sorted."""

    def quoted(value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"

    return HEADER + "".join(f"{name} = {quoted(value)}\n" for name, value in sorted(settings.items()))


@dataclass(frozen=True)
class HbaRule:
    """One line of pg_hba.conf; `address` is a network, an address, `samehost` or `samenet`, and empty for `local`."""

    type: str
    database: tuple[str, ...]
    user: tuple[str, ...]
    address: str
    method: str
    options: str = ""


def peer_rules(peers: Sequence[str], user: str) -> list[HbaRule]:
    """Rules of a primary and its standbys: any of them may follow, so that a promotion changes none."""
    return [HbaRule("hostssl", ("replication", "postgres"), (user,), peer, "scram-sha-256") for peer in sorted(set(peers))]


KEYWORDS = ("all", "sameuser", "samerole", "replication")


def _names(names: Sequence[str]) -> str:
    def shown(name: str) -> str:
        plain = name in KEYWORDS or re.fullmatch(r"\+?[a-z_][a-z0-9_]*", name)
        return name if plain else '"' + name.replace('"', '""') + '"'

    return ",".join(shown(name) for name in names)


def hba_address(address: str) -> str:
    """`address` as pg_hba.conf writes it, with its prefix; raises ValueError."""
    if address in ("samehost", "samenet", "all"):
        return address
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        raise ValueError(f"`{address}` is no address or network; write it like 10.0.0.5 or 10.0.0.0/24") from None


def hba_problems(rules: Sequence[HbaRule]) -> list[str]:
    """Every reason why `rules` cannot stand in pg_hba.conf."""
    found = []
    for index, rule in enumerate(rules):
        where = f"postgresql_hba[{index}]"
        if (rule.type == "local") == bool(rule.address):
            needs = "takes no address" if rule.type == "local" else "needs an address"
            found.append(f"{where}: type {rule.type} {needs}")
        elif rule.address:
            try:
                hba_address(rule.address)
            except ValueError as error:
                found.append(f"{where}: {error}")
        if rule.method == "peer" and rule.type != "local":
            found.append(f"{where}: method peer works on the unix socket only; use scram-sha-256 or type local")
    return found


def render_hba(rules: Sequence[HbaRule], pooler_user: str) -> str:
    """pg_hba.conf: postgres and a pooler on this host by peer, declared rules, passwords on this host; all else is refused."""
    fixed = [HbaRule("local", ("all", "replication"), ("postgres",), "", "peer")]
    if pooler_user:
        fixed.append(HbaRule("local", ("all",), (pooler_user,), "", "peer", "map=slipway"))
    last = [
        HbaRule("local", ("all",), ("all",), "", "scram-sha-256"),
        HbaRule("host", ("all",), ("all",), "127.0.0.1/32", "scram-sha-256"),
        HbaRule("host", ("all",), ("all",), "::1/128", "scram-sha-256"),
    ]
    lines = [HEADER, "# What matches no line is refused.\n"]
    for rule in (*fixed, *rules, *last):
        address = hba_address(rule.address) if rule.address else ""
        cells = (
            f"{rule.type:<8}",
            f"{_names(rule.database):<24}",
            f"{_names(rule.user):<20}",
            f"{address:<24}",
            rule.method,
            rule.options,
        )
        lines.append(" ".join(cells).rstrip() + "\n")
    return "".join(lines)


def render_ident(pooler_user: str, pooler_os_user: str) -> str:
    """pg_ident.conf: the pooler's operating system user may be the pooler's database user."""
    return HEADER + (f"slipway {pooler_os_user} {pooler_user}\n" if pooler_user else "")


VERIFY = """
WITH declared (name, value) AS (SELECT * FROM jsonb_each_text({settings})),
  ours AS (SELECT * FROM pg_file_settings WHERE sourcefile LIKE '%/conf.d/{drop_in}')
SELECT d.name || ': declared ' || d.value || ', ' || CASE
    WHEN f.name IS NULL THEN 'missing in the drop-in'
    WHEN f.setting IS DISTINCT FROM d.value THEN 'the drop-in says ' || f.setting
    WHEN f.error IS NOT NULL THEN f.error
    ELSE 'set again in a later file, effective ' || current_setting(d.name, true) END
  FROM declared d LEFT JOIN ours f USING (name)
  WHERE f.name IS NULL OR f.setting IS DISTINCT FROM d.value
    OR NOT (f.applied OR ({pending} AND f.error = 'setting could not be applied'))
UNION ALL SELECT name || ': waits for a restart' FROM pg_settings WHERE pending_restart AND NOT {pending}
UNION ALL SELECT 'pg_hba.conf line ' || line_number || ': ' || error FROM pg_hba_file_rules WHERE error IS NOT NULL
UNION ALL SELECT 'database ' || name || ': missing' FROM jsonb_array_elements_text({databases}) name
  WHERE name NOT IN (SELECT datname FROM pg_database)
UNION ALL SELECT 'role ' || name || ': missing' FROM jsonb_array_elements_text({roles}) name
  WHERE name NOT IN (SELECT rolname FROM pg_roles)
"""


def checks(
    settings: Mapping[str, Any], port: int, listen: Sequence[str], databases: Sequence[str], roles: Sequence[str], restart: str
) -> list[dict[str, Any]]:
    """What `readback` compares: the unit, the sockets, and every declared setting as the server itself took it."""
    declared = {**texts(settings), **texts({"listen_addresses": list(listen), "port": port})}
    sql = VERIFY.format(
        settings=_json(declared),
        databases=_json(list(databases)),
        roles=_json(list(roles)),
        drop_in=DROP_IN,
        pending="false" if restart == "now" else "true",
    )
    argv = [
        "runuser",
        "-u",
        "postgres",
        "--",
        "psql",
        "-XAtqw",
        "-h",
        "/var/run/postgresql",
        "-p",
        str(port),
        "-U",
        "postgres",
        "-d",
        "postgres",
        "-c",
        sql,
    ]
    bound = {"*": "0.0.0.0", "localhost": "127.0.0.1"}
    return [
        {"kind": "unit", "unit": "postgresql.service", "properties": {"ActiveState": "active", "UnitFileState": "enabled"}},
        {"kind": "command", "what": "PostgreSQL settings and objects", "argv": argv, "equals": ""},
        *({"kind": "listen", "port": port, "address": bound.get(address, address)} for address in listen),
    ]


def _json(data: Any) -> str:
    """`data` as an SQL value."""
    return "'" + json.dumps(data).replace("'", "''") + "'::jsonb"
