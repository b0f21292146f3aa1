# SPDX-License-Identifier: GPL-3.0-or-later
"""pgbouncer's configuration as data: what a version accepts, what a reload can change, and the files that say it. No I/O."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HEADER = "; Written by slipway.server; changes made here are replaced.\n"
FOLDER = "/etc/pgbouncer"
SOCKET_DIRECTORY = "/var/run/postgresql"
LOOKUP = "SELECT uname, phash FROM pgbouncer.user_lookup($1)"
PREPARED_SINCE = (1, 21)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What SHOW CONFIG of 1.18 and 1.24 calls not changeable.
FIXED = _words(
    "disable_pqexec job_name listen_addr listen_backlog listen_port pidfile pkt_buf resolv_conf service_name so_reuseport"
    " track_extra_parameters unix_socket_dir unix_socket_group unix_socket_mode user"
)
CHANGEABLE = _words(
    "admin_users application_name_add_host auth_hba_file autodb_idle_timeout client_idle_timeout client_login_timeout"
    " client_tls_ca_file client_tls_cert_file client_tls_ciphers client_tls_dheparams client_tls_ecdhcurve client_tls_key_file"
    " client_tls_protocols client_tls_sslmode default_pool_size dns_max_ttl dns_nxdomain_ttl dns_zone_check_period"
    " idle_transaction_timeout ignore_startup_parameters log_connections log_disconnections log_pooler_errors log_stats logfile"
    " max_client_conn max_db_connections max_packet_size max_user_connections min_pool_size pool_mode query_timeout"
    " query_wait_timeout reserve_pool_size reserve_pool_timeout sbuf_loopcnt server_check_delay server_check_query"
    " server_connect_timeout server_fast_close server_idle_timeout server_lifetime server_login_retry server_reset_query"
    " server_reset_query_always server_round_robin server_tls_ca_file server_tls_cert_file server_tls_ciphers"
    " server_tls_key_file server_tls_protocols server_tls_sslmode stats_period stats_users suspend_timeout syslog"
    " syslog_facility syslog_ident tcp_defer_accept tcp_keepalive tcp_keepcnt tcp_keepidle tcp_keepintvl tcp_socket_buffer"
    " tcp_user_timeout verbose"
)
# First version with a setting (changelog of pgbouncer).
SINCE = {
    "auth_dbname": (1, 19),
    "peer_id": (1, 19),
    "track_extra_parameters": (1, 20),
    "max_prepared_statements": PREPARED_SINCE,
    "cancel_wait_timeout": (1, 22),
    "max_db_client_connections": (1, 24),
    "max_user_client_connections": (1, 24),
}
MANAGED = {
    "listen_addr": "set `pgbouncer_listen` instead",
    "listen_port": "set `pgbouncer_port` instead",
    "auth_type": "it is scram-sha-256",
    "auth_file": "the role owns the file; it holds the password of `pgbouncer_auth_user` only",
    "auth_user": "set `pgbouncer_auth_user` instead",
    "auth_query": "set `pgbouncer_auth_query` instead",
    "unix_socket_dir": f"the admin console is reached in {SOCKET_DIRECTORY}",
    "pidfile": "Debian's unit owns it",
    "user": "Debian's unit sets it",
}
DATABASE_KEYS = _words(
    "host port dbname user auth_user auth_query pool_size min_pool_size reserve_pool connect_query pool_mode max_db_connections"
    " client_encoding datestyle timezone application_name"
)
BASE = {
    "logfile": "/var/log/postgresql/pgbouncer.log",
    "pidfile": "/var/run/postgresql/pgbouncer.pid",
    "unix_socket_dir": SOCKET_DIRECTORY,
    "auth_type": "scram-sha-256",
    "auth_file": f"{FOLDER}/userlist.txt",
    "pool_mode": "transaction",
    # Drivers of Java and .NET send it in every login.
    "ignore_startup_parameters": "extra_float_digits",
}
DESCRIPTORS_OF_ITS_OWN = 10  # pgbouncer src/main.c, check_limits


@dataclass(frozen=True)
class Wanted:
    """What the pooler has to be. `nofile` descriptors; `databases` are mappings with `name` and keys of a connection string."""

    version: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    databases: Sequence[Mapping[str, Any]] = ()
    listen: Sequence[str] = ("127.0.0.1",)
    port: int = 6432
    nofile: int = 4096
    auth_user: str = "pgbouncer_auth"
    auth_query: str = LOOKUP
    auth_password: str = field(default="", repr=False)


def version(text: str) -> tuple[int, ...]:
    """`1.24.1` as numbers that compare."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def text(value: Any) -> str:
    """A value of the inventory as pgbouncer writes it."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value)
    return str(value)


def settings(wanted: Wanted) -> dict[str, str]:
    """All settings by name, the role's own and the declared ones; null leaves one out."""
    found = {**BASE, "listen_addr": ",".join(wanted.listen), "listen_port": str(wanted.port)}
    if version(wanted.version) >= PREPARED_SINCE:
        found["max_prepared_statements"] = "200"
    if wanted.auth_user:
        found.update(auth_user=wanted.auth_user, auth_query=wanted.auth_query)
    found.update({name.lower(): text(value) for name, value in wanted.settings.items() if value is not None})
    return found


def problems(wanted: Wanted) -> list[str]:
    """Every reason why a pgbouncer of this version cannot be what is declared, each with its remedy."""
    found = []
    known = FIXED | CHANGEABLE | frozenset(SINCE) | frozenset(MANAGED)
    for name, value in wanted.settings.items():
        if name in MANAGED:
            found.append(f"pgbouncer_settings.{name}: is not set here; {MANAGED[name]}")
        elif name not in known:
            found.append(f"pgbouncer_settings.{name}: pgbouncer has no such setting; {_closest(name, known)}")
        elif value not in (None, 0, "0") and version(wanted.version) < SINCE.get(name, ()):
            since = ".".join(map(str, SINCE[name]))
            remedy = "turn prepared statements off in the application" if name == "max_prepared_statements" else "leave it out"
            found.append(f"pgbouncer_settings.{name}: needs pgbouncer {since}, this host has {wanted.version}; {remedy}")
        if "\n" in text(value):
            found.append(f"pgbouncer_settings.{name}: holds a line break")
    found += _database_problems(wanted)
    need, declared = descriptors(wanted), settings(wanted)
    if need > wanted.nofile:
        found.append(
            f"pgbouncer_nofile: {wanted.nofile} descriptors are fewer than the {need} that max_client_conn"
            f" {declared.get('max_client_conn', '100')} and the pools need; raise it, or lower max_client_conn"
        )
    return found


def _closest(name: str, known: frozenset[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f"did you mean `{close[0]}`?" if close else "see pgbouncer.org/config.html"


def _database_problems(wanted: Wanted) -> list[str]:
    found, names = [], [str(entry.get("name", "")) for entry in wanted.databases]
    for index, entry in enumerate(wanted.databases):
        where = f"pgbouncer_databases[{index}]"
        if not names[index] or names[index] == "pgbouncer" or names.count(names[index]) > 1:
            found.append(f"{where}: needs a name of its own that is not `pgbouncer` (the admin console)")
        unknown = [key for key in entry if key not in DATABASE_KEYS | {"name"}]
        found += [f"{where}: has no key `{key}`; {_closest(key, DATABASE_KEYS)}" for key in unknown]
        found += [f"{where}.{key}: holds a line break" for key, value in entry.items() if "\n" in text(value)]
    return found


def descriptors(wanted: Wanted) -> int:
    """Descriptors that pgbouncer may need: clients, its own, and one for each server session (src/main.c, check_limits)."""
    declared = settings(wanted)
    default = int(declared.get("default_pool_size", "20"))
    pools = sum(int(entry.get("pool_size") or default) for entry in wanted.databases)
    return int(declared.get("max_client_conn", "100")) + DESCRIPTORS_OF_ITS_OWN + pools


def _connection(entry: Mapping[str, Any]) -> str:
    def quoted(value: str) -> str:
        return value if re.fullmatch(r"[A-Za-z0-9_./:,+-]+", value) else "'" + value.replace("'", "''") + "'"

    return " ".join(f"{key}={quoted(text(value))}" for key, value in entry.items() if key != "name" and value not in (None, ""))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_.-]+|\*", name) else '"' + name.replace('"', '""') + '"'


def render(wanted: Wanted) -> dict[str, str]:
    """Texts of the three files: `main` (a reload takes it), `fixed` (needs a restart) and `users` (secret)."""
    values = settings(wanted)

    def lines(fixed: bool) -> str:
        return "".join(f"{name} = {value}\n" for name, value in sorted(values.items()) if (name in FIXED) == fixed)

    databases = "".join(f"{_key(str(entry['name']))} = {_connection(entry)}\n" for entry in wanted.databases)
    main = f"{HEADER}[databases]\n{databases}\n[pgbouncer]\n{lines(False)}\n%include {FOLDER}/slipway-fixed.ini\n"
    password = wanted.auth_password.replace('"', '""')
    users = f'"{wanted.auth_user}" "{password}"\n' if wanted.auth_user and password else ""
    # Without a section of its own: the including one goes on, while a second [pgbouncer] would reset what came before.
    return {"main": main, "fixed": f"{HEADER}; Only a restart makes these effective.\n{lines(True)}", "users": users}


def addresses(listen: Sequence[str]) -> list[str]:
    """The addresses that have to be on this host before pgbouncer can listen on them; `*` means none in particular."""
    return [address for address in listen if address not in ("*", "0.0.0.0", "::", "localhost")]


def checks(wanted: Wanted, logins: Sequence[Mapping[str, str]] = ()) -> list[dict[str, Any]]:
    """What `readback` compares: unit, limit, sockets, SHOW CONFIG and SHOW DATABASES, and a login for each of `logins`."""
    console = ["runuser", "-u", "postgres", "--", "psql", "-XAqw", "-P", "footer=off", "-h", SOCKET_DIRECTORY]
    console += ["-p", str(wanted.port), "-U", "pgbouncer", "-d", "pgbouncer", "-c"]
    values = {name: value for name, value in settings(wanted).items() if name != "unix_socket_mode"}
    unit = "pgbouncer.service"
    found: list[dict[str, Any]] = [
        {"kind": "unit", "unit": unit, "properties": {"ActiveState": "active", "UnitFileState": "enabled"}},
        {"kind": "limit", "unit": unit, "name": "nofile", "value": str(wanted.nofile)},
        {
            "kind": "command",
            "what": "pgbouncer SHOW CONFIG",
            "argv": [*console, "SHOW CONFIG"],
            "table": {name: {"value": value} for name, value in values.items()},
            "remedy": "See /var/log/postgresql/pgbouncer.log for what the reload refused.",
        },
    ]
    bound = {"*": "0.0.0.0", "localhost": "127.0.0.1"}
    for address in wanted.listen:
        found.append(
            {"kind": "listen", "port": wanted.port, "address": bound.get(address, address), "only": len(wanted.listen) == 1}
        )
    shown = ("host", "pool_size", "pool_mode")
    table = {
        str(entry["name"]): {key: text(entry[key]) for key in shown if entry.get(key)}
        for entry in wanted.databases
        if entry["name"] != "*"
    }
    if table:
        argv = [*console, "SHOW DATABASES"]
        found.append({"kind": "command", "what": "pgbouncer SHOW DATABASES", "argv": argv, "table": table})
    host = bound.get(wanted.listen[0], wanted.listen[0]) if wanted.listen else SOCKET_DIRECTORY
    # The password comes by standard input: neither arguments nor output hold it.
    shell = 'IFS= read -r PGPASSWORD; export PGPASSWORD; exec psql -XAtqw -h "$1" -p "$2" -U "$3" -d "$4" -c "SELECT 1"'
    for login in logins:
        argv = ["sh", "-c", shell, "login", "127.0.0.1" if host == "0.0.0.0" else host, str(wanted.port)]
        what = f"login of {login['user']} to {login['database']} through pgbouncer"
        found.append(
            {
                "kind": "command",
                "what": what,
                "argv": [*argv, login["user"], login["database"]],
                "input": login["password"] + "\n",
                "equals": "1",
            }
        )
    return found
