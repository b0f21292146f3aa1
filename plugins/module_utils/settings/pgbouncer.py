# SPDX-License-Identifier: GPL-3.0-or-later
"""pgbouncer's configuration as data: what a version accepts, what fits together, and the files that say it. No I/O."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

HEADER = "; Written by slipway.server; changes made here are replaced.\n"
FOLDER = "/etc/pgbouncer"
SOCKET_DIRECTORY = "/var/run/postgresql"
LOOKUP = "SELECT uname, phash FROM pgbouncer.user_lookup($1)"
PREPARED_SINCE = (1, 21)
POOL_MODES = ("session", "transaction", "statement")
TLS_REQUIRED = ("remote", "all", "none")
COUNTED = re.compile(r".*_(?:backlog|conn|connections|delay|lifetime|retry|size|statements|timeout)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KNOWN = _words(
    "admin_users application_name_add_host auth_hba_file autodb_idle_timeout client_idle_timeout client_login_timeout"
    " client_tls_ca_file client_tls_cert_file client_tls_ciphers client_tls_dheparams client_tls_ecdhcurve"
    " client_tls_key_file client_tls_protocols client_tls_sslmode default_pool_size disable_pqexec dns_max_ttl"
    " dns_nxdomain_ttl dns_zone_check_period idle_transaction_timeout ignore_startup_parameters job_name listen_addr"
    " listen_backlog listen_port log_connections log_disconnections log_pooler_errors log_stats logfile max_client_conn"
    " max_db_connections max_packet_size max_user_connections min_pool_size pidfile pkt_buf pool_mode query_timeout"
    " query_wait_timeout reserve_pool_size reserve_pool_timeout resolv_conf sbuf_loopcnt server_check_delay"
    " server_check_query server_connect_timeout server_fast_close server_idle_timeout server_lifetime server_login_retry"
    " server_reset_query server_reset_query_always server_round_robin server_tls_ca_file server_tls_cert_file"
    " server_tls_ciphers server_tls_key_file server_tls_protocols server_tls_sslmode service_name so_reuseport stats_period"
    " stats_users suspend_timeout syslog syslog_facility syslog_ident tcp_defer_accept tcp_keepalive tcp_keepcnt"
    " tcp_keepidle tcp_keepintvl tcp_socket_buffer tcp_user_timeout unix_socket_dir unix_socket_group"
    " unix_socket_mode user verbose"
)
"""Settings of 1.18. What newer versions have on top is below; a running pooler is asked for its own."""
# First version with a setting, with a key of a database, with a key of a user (changelog and src/loader.c of pgbouncer).
SINCE = {
    "auth_dbname": (1, 19),
    "peer_id": (1, 19),
    "track_extra_parameters": (1, 20),
    "max_prepared_statements": PREPARED_SINCE,
    "cancel_wait_timeout": (1, 22),
    "auth_ident_file": (1, 23),
    "max_db_client_connections": (1, 24),
    "max_user_client_connections": (1, 24),
    "client_tls13_ciphers": (1, 25),
    "query_wait_notify": (1, 25),
    "scram_iterations": (1, 25),
    "server_tls13_ciphers": (1, 25),
    "transaction_timeout": (1, 25),
}
DATABASE_SINCE = {
    **dict.fromkeys(
        _words(
            "host port dbname user auth_user pool_size min_pool_size reserve_pool connect_query pool_mode max_db_connections"
            " client_encoding datestyle timezone application_name"
        ),
        (1, 0),
    ),
    "auth_dbname": (1, 19),
    "auth_query": (1, 22),
    "server_lifetime": (1, 23),
    "load_balance_hosts": (1, 24),
    "max_db_client_connections": (1, 24),
}
USER_SINCE = {
    "pool_mode": (1, 0),
    "max_user_connections": (1, 0),
    "pool_size": (1, 23),
    "client_idle_timeout": (1, 24),
    "idle_transaction_timeout": (1, 24),
    "max_user_client_connections": (1, 24),
    "query_timeout": (1, 24),
    "reserve_pool_size": (1, 24),
    "transaction_timeout": (1, 25),
}
REMEDIES = {
    "max_prepared_statements": "turn prepared statements off in the application (Rails: prepared_statements: false)",
    "client_tls13_ciphers": "leave it to OpenSSL's own choice",
}
MANAGED = {
    "listen_addr": "set `pgbouncer_listen` instead",
    "listen_port": "set `pgbouncer_port` instead",
    "auth_type": "it is scram-sha-256, and hba with it where TLS is required of other hosts; md5 and plain are refused",
    "auth_file": "the role owns the file; `pgbouncer_users` and `pgbouncer_auth_password` go there",
    "auth_hba_file": "the role owns the file; set `pgbouncer_tls` instead",
    "auth_user": "set `pgbouncer_auth_user` instead",
    "auth_query": "set `pgbouncer_auth_query` instead",
    "unix_socket_dir": f"the admin console is reached in {SOCKET_DIRECTORY}",
    "pidfile": "the unit owns it",
    "user": "the unit sets it",
}
BASE = {
    "unix_socket_dir": SOCKET_DIRECTORY,
    "auth_type": "scram-sha-256",
    "pool_mode": "transaction",
    # Drivers of Java and .NET send it in every login.
    "ignore_startup_parameters": "extra_float_digits",
}
DESCRIPTORS_OF_ITS_OWN = 10  # pgbouncer src/main.c, check_limits
EVERY_HOST = ("*", "0.0.0.0", "::")


@dataclass(frozen=True)
class Tls:
    """Certificate for clients (paths), and who has to use TLS: clients on other hosts (`remote`), `all` over TCP, or `none`."""

    certificate: str
    key: str
    required: str = "remote"


@dataclass(frozen=True)
class Wanted:
    """What the pooler has to be. `nofile` descriptors; `databases` are mappings with `name` and keys of a connection string.

    `users` are mappings with `name`, keys of [users] and `password`; `instance` names a further pooler of the host.
    """

    version: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    databases: Sequence[Mapping[str, Any]] = ()
    listen: Sequence[str] = ("127.0.0.1",)
    port: int = 6432
    nofile: int = 4096
    auth_user: str = "pgbouncer_auth"
    auth_query: str = LOOKUP
    auth_password: str = field(default="", repr=False)
    users: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    tls: Optional[Tls] = None
    instance: str = ""

    @property
    def unit(self) -> str:
        """Its systemd unit."""
        return f"pgbouncer@{self.instance}.service" if self.instance else "pgbouncer.service"

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return f"{FOLDER}/{self.instance}" if self.instance else FOLDER

    @property
    def remote_only(self) -> bool:
        """Whether other hosts must use TLS while this one need not, which only rules for addresses can say."""
        return self.tls is not None and self.tls.required == "remote"


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
    name = f"pgbouncer-{wanted.instance}" if wanted.instance else "pgbouncer"
    found = {
        **BASE,
        "pidfile": f"{SOCKET_DIRECTORY}/{name}.pid",
        # Debian's logrotate knows the one file; others go to the journal.
        "logfile": "" if wanted.instance else "/var/log/postgresql/pgbouncer.log",
        "auth_file": f"{wanted.folder}/userlist.txt",
        "listen_addr": ",".join(wanted.listen),
        "listen_port": str(wanted.port),
    }
    if version(wanted.version) >= PREPARED_SINCE:
        found["max_prepared_statements"] = "200"
    if wanted.auth_user:
        found.update(auth_user=wanted.auth_user, auth_query=wanted.auth_query)
    if any(_remote(entry) for entry in wanted.databases):
        # pgbouncer's own default is no TLS, or TLS when the server happens to offer it.
        found["server_tls_sslmode"] = "require"
    if wanted.tls:
        found.update(client_tls_cert_file=wanted.tls.certificate, client_tls_key_file=wanted.tls.key)
        found["client_tls_sslmode"] = "require" if wanted.tls.required == "all" else "allow"
    if wanted.remote_only:
        found.update(auth_type="hba", auth_hba_file=f"{wanted.folder}/slipway-hba.conf")
    found.update({name.lower(): text(value) for name, value in wanted.settings.items() if value is not None})
    return found


def _remote(entry: Mapping[str, Any]) -> bool:
    """Whether the server of a database is reached over a network."""
    return any(not _on_this_host(host.strip()) for host in str(entry.get("host") or "").split(",") if host.strip())


def _on_this_host(host: str) -> bool:
    if host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def problems(wanted: Wanted, live: frozenset[str] = frozenset(), ceiling: int = 0) -> list[str]:
    """Every reason why a pgbouncer of this version cannot be what is declared, each with its remedy.

    `live`: the settings that a running one names itself, when there is one. `ceiling`: descriptors that this host grants
    to a service at most, 0 when unknown.
    """
    found = [f"pgbouncer_settings.{name}: {what}" for name, what in setting_problems(wanted.settings, wanted.version, live)]
    found += _mode_problems(wanted) + _tls_problems(wanted)
    found += _entry_problems("pgbouncer_databases", wanted.databases, DATABASE_SINCE, wanted)
    found += _entry_problems("pgbouncer_users", wanted.users, {**USER_SINCE, "password": (1, 0)}, wanted)
    return found + _descriptor_problems(wanted, ceiling)


def setting_problems(
    declared: Mapping[str, Any], installed: str, live: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str]]:
    """Each of the `declared` settings that this version does not have or cannot read, or that is set elsewhere, and why."""
    wanted = Wanted(installed)
    known = KNOWN | frozenset(SINCE) | frozenset(MANAGED) | live
    for given, value in declared.items():
        name = given.lower()
        if name in MANAGED:
            yield given, f"is not set here; {MANAGED[name]}"
        elif name not in known:
            yield given, f"pgbouncer has no such setting; {_closest(name, known)}"
        elif value not in (None, 0, "0") and not _has(wanted, name, SINCE, live):
            yield given, _too_old(wanted, name, SINCE)
        if "\n" in text(value):
            yield given, "holds a line break; write it in one line"
        elif name == "pool_mode" and text(value) not in POOL_MODES:
            yield given, f"is no way to pool; choose from {', '.join(POOL_MODES)}"
        elif (
            name in known
            and COUNTED.fullmatch(name)
            and not re.fullmatch(r"\d+(?:\.\d+)?|", "" if value is None else text(value))
        ):
            yield given, "is not a number; write a plain one, times in seconds"


def _has(wanted: Wanted, name: str, since: Mapping[str, tuple[int, ...]], live: frozenset[str] = frozenset()) -> bool:
    if live:
        return name in live
    return not wanted.version or version(wanted.version) >= since.get(name, ())


def _too_old(wanted: Wanted, name: str, since: Mapping[str, tuple[int, ...]]) -> str:
    needed = ".".join(map(str, since.get(name, ()))) or "another build"
    return f"needs pgbouncer {needed}, this host has {wanted.version}; {REMEDIES.get(name, 'leave it out')}"


def _closest(name: str, known: Union[Sequence[str], frozenset[str]]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f"did you mean `{close[0]}`?" if close else "see pgbouncer.org/config.html"


def _mode_problems(wanted: Wanted) -> list[str]:
    declared = settings(wanted)
    mode = declared["pool_mode"]
    places = [(f"pgbouncer_databases[{index}]", dict(entry)) for index, entry in enumerate(wanted.databases)]
    places += [(f"pgbouncer_users[{index}]", dict(entry)) for index, entry in enumerate(wanted.users)]
    found = [
        f"{where}.pool_mode: `{text(entry['pool_mode'])}` is none of {', '.join(POOL_MODES)}"
        for where, entry in places
        if entry.get("pool_mode") and text(entry["pool_mode"]) not in POOL_MODES
    ]
    session = mode == "session" or any(text(entry.get("pool_mode")) == "session" for _where, entry in places)
    always = declared.get("server_reset_query_always", "0") not in ("0", "off", "no", "false")
    if declared.get("server_reset_query") and not session and not always:
        found.append(
            f"pgbouncer_settings.server_reset_query: is not used in {mode} mode; leave it out (sessions that keep state"
            " need a database with pool_mode session)"
        )
    return found


def _tls_problems(wanted: Wanted) -> list[str]:
    found, declared = [], settings(wanted)
    client, server = declared.get("client_tls_sslmode", "disable"), declared.get("server_tls_sslmode", "disable")
    if wanted.tls and wanted.tls.required not in TLS_REQUIRED:
        found.append(f"pgbouncer_tls.required: `{wanted.tls.required}` is none of {', '.join(TLS_REQUIRED)}")
    needed = [name for name in ("client_tls_cert_file", "client_tls_key_file") if client != "disable" and not declared.get(name)]
    if client.startswith("verify") and not declared.get("client_tls_ca_file"):
        needed.append("client_tls_ca_file")
    if needed:
        found.append(f"pgbouncer_settings.client_tls_sslmode: {client} needs {' and '.join(needed)} (see `pgbouncer_tls`)")
    if server.startswith("verify") and not declared.get("server_tls_ca_file"):
        found.append(f"pgbouncer_settings.server_tls_sslmode: {server} needs server_tls_ca_file, the authority of the servers")
    return found


def _entry_problems(
    variable: str, entries: Sequence[Mapping[str, Any]], since: Mapping[str, tuple[int, ...]], wanted: Wanted
) -> list[str]:
    found, names = [], [str(entry.get("name") or "") for entry in entries]
    # The newer name of the same key; `render` writes the one that all versions know.
    since = {**since, "reserve_pool_size": since.get("reserve_pool_size", (1, 0))}
    for index, entry in enumerate(entries):
        where = f"{variable}[{index}]"
        if not names[index] or names[index] == "pgbouncer" or names.count(names[index]) > 1:
            found.append(f"{where}: needs a name of its own that is not `pgbouncer` (the admin console)")
        for key, value in entry.items():
            if key != "name" and key not in since:
                found.append(f"{where}: has no key `{key}`; {_closest(key, list(since))}")
            elif key != "name" and value not in (None, "") and not _has(wanted, key, since):
                found.append(f"{where}.{key}: {_too_old(wanted, key, since)}")
            if "\n" in text(value):
                found.append(f"{where}.{key}: holds a line break")
    return found


def _descriptor_problems(wanted: Wanted, ceiling: int) -> list[str]:
    need, clients = descriptors(wanted), settings(wanted).get("max_client_conn", "100")
    found = []
    if 0 < ceiling < wanted.nofile:
        found.append(
            f"pgbouncer_nofile: {wanted.nofile} descriptors are declared, this host grants a service {ceiling} at most and would"
            f" cut the rest silently; declare at most that ({need} are needed), or raise it where this host is started"
        )
    if need > wanted.nofile:
        found.append(
            f"pgbouncer_nofile: {wanted.nofile} descriptors are fewer than the {need} that max_client_conn {clients} and the"
            " pools need; raise it, lower max_client_conn, or bound the pools with max_db_connections"
        )
    return found


def descriptors(wanted: Wanted) -> int:
    """Descriptors that pgbouncer may need: clients, its own, and one for each server session.

    A pool belongs to a pair of database and user (src/main.c, check_limits), and the user that looks others up has one, too,
    so without `max_db_connections` or a forced user each database counts once for each user known here.
    """
    declared = settings(wanted)

    def number(entry: Mapping[str, Any], *names: str) -> int:
        found = next((entry[name] for name in names if entry.get(name) not in (None, "")), "0")
        return int(text(found)) if text(found).isdigit() else 0

    size = number(declared, "default_pool_size") or 20
    spare = number(declared, "reserve_pool_size")
    most = number(declared, "max_db_connections")
    pairs = max(1, len(wanted.users)) + (1 if wanted.auth_user and not declared.get("auth_dbname") else 0)
    sessions = 0
    for entry in wanted.databases:
        pool = (number(entry, "pool_size") or size) + (number(entry, "reserve_pool", "reserve_pool_size") or spare)
        sessions += number(entry, "max_db_connections") or most or pool * (1 if entry.get("user") else pairs)
    return (number(declared, "max_client_conn") or 100) + DESCRIPTORS_OF_ITS_OWN + sessions


def _connection(entry: Mapping[str, Any]) -> str:
    def quoted(value: str) -> str:
        return value if re.fullmatch(r"[A-Za-z0-9_./:,+-]+", value) else "'" + value.replace("'", "''") + "'"

    return " ".join(
        f"{key}={quoted(text(value))}"
        for key, value in entry.items()
        if key not in ("name", "password") and value not in (None, "")
    )


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_.-]+|\*", name) else '"' + name.replace('"', '""') + '"'


def _line(user: str, password: str) -> str:
    """A line of the file of users; a verifier stands there as it is."""
    return " ".join('"' + part.replace('"', '""') + '"' for part in (user, password)) + "\n"


def render(wanted: Wanted) -> dict[str, str]:
    """Texts of the files: `main`, `users` (secret) and `hba` (empty when there are no rules for addresses)."""
    values = settings(wanted)
    lines = "".join(f"{name} = {value}\n" for name, value in sorted(values.items()))
    databases = "".join(f"{_key(str(entry['name']))} = {_connection(_older(entry))}\n" for entry in wanted.databases)
    keys = [(str(entry["name"]), _connection(entry)) for entry in wanted.users]
    users = "".join(f"{_key(name)} = {given}\n" for name, given in keys if given)
    main = f"{HEADER}[databases]\n{databases}\n" + (f"[users]\n{users}\n" if users else "") + f"[pgbouncer]\n{lines}"
    secrets = [(str(entry["name"]), text(entry["password"])) for entry in wanted.users if entry.get("password")]
    if wanted.auth_user and wanted.auth_password:
        secrets.append((wanted.auth_user, wanted.auth_password))
    return {"main": main, "users": "".join(_line(*pair) for pair in secrets), "hba": _rules() if wanted.remote_only else ""}


def trial(wanted: Wanted, folder: str) -> dict[str, str]:
    """File names and texts with which a second process in `folder` can show whether it takes the configuration.

    It listens nowhere but there, and knows no password.
    """
    texts = render(wanted)
    own = {
        "listen_addr": "",
        "unix_socket_dir": folder,
        "pidfile": f"{folder}/pid",
        "logfile": "",
        "auth_file": f"{folder}/users",
    }
    own["auth_hba_file"] = f"{folder}/hba"
    main = texts["main"]
    for name, value in own.items():
        main = re.sub(rf"^{name} = .*$", lambda _match, line=f"{name} = {value}": line, main, flags=re.MULTILINE)  # type: ignore[misc]
    return {"pgbouncer.ini": main, "users": "", "hba": texts["hba"]}


def _older(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a database by the names that all versions know."""
    return {("reserve_pool" if key == "reserve_pool_size" else key): value for key, value in entry.items()}


def _rules() -> str:
    """Who may log in how: this host with or without TLS, others with it. 1.18 has no word for every address."""
    rules = [
        "local all all",
        "host all all 127.0.0.0/8",
        "host all all ::1/128",
        "hostssl all all 0.0.0.0/0",
        "hostssl all all ::/0",
    ]
    return HEADER.replace(";", "#") + "".join(f"{rule} scram-sha-256\n" for rule in rules)


def drop_in(wanted: Wanted, ceiling: int = 0) -> str:
    """What its unit gets besides what the package says.

    The hard limit stays as high as the host allows, up to systemd's own default: so a running process can be given more.
    """
    hard = max(wanted.nofile, min(ceiling, 524288))
    waits = "".join(
        "# Without this pgbouncer would run on without an address that is not there yet.\n"
        f"ExecStartPre=/bin/sh -c 'ip -oneline address show to {address} | grep -q . ||"
        f""" {{ echo "no address {address} on this host yet"; exit 1; }}'\n"""
        for address in addresses(wanted.listen)
    )
    return (
        "# Managed by slipway.server.pgbouncer_settings; changes made here are replaced.\n"
        "[Unit]\nWants=network-online.target\nAfter=network-online.target postgresql.service\n"
        "# However long an address takes to come, it is tried again.\nStartLimitIntervalSec=0\n\n"
        f"[Service]\nLimitNOFILE={wanted.nofile}:{hard}\n{waits}Restart=on-failure\nRestartSec=2\n"
    )


def instance_unit(os_user: str) -> str:
    """The unit of further poolers on a host, as the package's unit is for the one."""
    return (
        "# Managed by slipway.server.pgbouncer_settings; changes made here are replaced.\n"
        "[Unit]\nDescription=connection pooler for PostgreSQL (%i)\nDocumentation=man:pgbouncer(1)\nAfter=network.target\n\n"
        f"[Service]\nType=notify\nUser={os_user}\nExecStart=/usr/sbin/pgbouncer {FOLDER}/%i/pgbouncer.ini\n"
        "ExecReload=/bin/kill -HUP $MAINPID\nKillSignal=SIGINT\n\n[Install]\nWantedBy=multi-user.target\n"
    )


def addresses(listen: Sequence[str]) -> list[str]:
    """The addresses that have to be on this host before pgbouncer can listen on them; `*` means none in particular."""
    return [address for address in listen if address not in (*EVERY_HOST, "localhost")]


def checks(
    wanted: Wanted, logins: Sequence[Mapping[str, str]] = (), pending: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """What `readback` compares: unit, limit, sockets, SHOW CONFIG and SHOW DATABASES, and a login for each of `logins`.

    `pending`: settings, or `nofile`, that wait for a restart and so are not looked at.
    """
    console = ["runuser", "-u", "postgres", "--", "psql", "-XAqw", "-P", "footer=off", "-h", SOCKET_DIRECTORY]
    console += ["-p", str(wanted.port), "-U", "pgbouncer", "-d", "pgbouncer", "-c"]
    # The mode of the socket is written in octal and shown in decimal.
    values = {name: value for name, value in settings(wanted).items() if name not in {"unix_socket_mode", *pending}}
    unit = wanted.unit
    found: list[dict[str, Any]] = [
        {"kind": "unit", "unit": unit, "properties": {"ActiveState": "active", "UnitFileState": "enabled"}},
        *([] if "nofile" in pending else [{"kind": "limit", "unit": unit, "name": "nofile", "value": str(wanted.nofile)}]),
        {
            "kind": "command",
            "what": "pgbouncer SHOW CONFIG",
            "argv": [*console, "SHOW CONFIG"],
            "table": {name: {"value": value} for name, value in values.items()},
            "remedy": f"See `journalctl -u {unit}` and /var/log/postgresql for what the reload refused.",
        },
    ]
    bound = {"*": "0.0.0.0", "localhost": "127.0.0.1"}
    for address in () if pending & {"listen_addr", "listen_port"} else wanted.listen:
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
