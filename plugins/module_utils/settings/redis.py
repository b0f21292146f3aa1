# SPDX-License-Identifier: GPL-3.0-or-later
"""Redis as data: what each purpose asks of an instance, its files, its users, and what has to be read back. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HEADER = "# Written by slipway.server; changes made here are replaced.\n"
FOLDER = "/etc/redis"
DATA = "/var/lib/redis"
ADMIN = "slipway"
ADMIN_FILE = "/var/lib/slipway/redis/admin.password"
OLDEST = (7, 0)
RESERVED_DESCRIPTORS = 32  # redis server.c, CONFIG_MIN_RESERVED_FDS
COMMANDS = "+@all -@admin -@dangerous +info"
LOOPBACK = ("127.0.0.1", "::1", "localhost")

PURPOSES: Mapping[str, Mapping[str, str]] = {
    # What is lost can be made again: the most useful keys stay, nothing is written to disk.
    "cache": {"maxmemory-policy": "allkeys-lfu", "appendonly": "no", "save": ""},
    # A job that was taken must neither be evicted nor be lost: writes fail when memory is full, at most one second is at stake.
    "queue": {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""},
    # Counters carry a time to live: those that end soonest go first. A snapshot, so that a restart does not open all limits.
    "limits": {"maxmemory-policy": "volatile-ttl", "appendonly": "no", "save": "300 1"},
}
MANAGED = {
    **dict.fromkeys(
        ("port", "bind", "tls-port", "protected-mode", "unixsocket", "unixsocketperm"), "it follows from the instance"
    ),
    **dict.fromkeys(("maxmemory", "maxclients", "maxmemory-policy", "appendonly"), "set maxmemory_mb, max_clients or purpose"),
    **dict.fromkeys(("aclfile", "user", "requirepass", "masterauth"), "set redis_users instead"),
    **dict.fromkeys(("tls-cert-file", "tls-key-file"), "set certificate and key of the instance"),
    **dict.fromkeys(("dir", "pidfile", "logfile", "daemonize", "supervised"), "the unit owns it"),
    **dict.fromkeys(("include", "loadmodule", "rename-command"), "not offered: users have rules instead"),
}
TRIAL: tuple[str, ...] = ("port", "bind", "tls-port", "tls-cert-file", "tls-key-file", "unixsocket", "unixsocketperm", "dir")
TRIAL += ("logfile", "pidfile", "aclfile", "supervised", "daemonize", "maxclients")
"""What a trial run cannot have as declared: the network, the data, the files and the descriptors of the real instance."""


@dataclass(frozen=True)
class User:
    """One login of one instance. `keys` and `channels` are patterns, `commands` rules of ACL SETUSER."""

    name: str
    instance: str
    password: str = field(repr=False)
    keys: Sequence[str] = ("*",)
    channels: Sequence[str] = ()
    commands: str = COMMANDS


@dataclass(frozen=True)
class Instance:
    """One server. Memory in MiB; `certificate` and `key` are files on the host, and then only TLS is spoken."""

    name: str
    purpose: str
    port: int
    maxmemory_mb: int
    listen: Sequence[str] = ("127.0.0.1",)
    max_clients: int = 1000
    certificate: str = ""
    key: str = ""
    plaintext: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """The instance of the package's template unit."""
        return f"redis-server@{self.name}.service"

    @property
    def config(self) -> str:
        """Where the package's unit expects its configuration."""
        return f"{FOLDER}/redis-{self.name}.conf"

    @property
    def acl(self) -> str:
        """Its users."""
        return f"{FOLDER}/users-{self.name}.acl"

    @property
    def socket(self) -> str:
        """For the group redis and root."""
        return f"/run/redis-{self.name}/redis.sock"

    @property
    def drop_in(self) -> str:
        """What it adds to the package's unit."""
        return f"/etc/systemd/system/{self.unit}.d/60-slipway.conf"

    @property
    def tls(self) -> tuple[str, str]:
        """Copies of certificate and key that the service can read."""
        return f"{FOLDER}/tls-{self.name}.crt", f"{FOLDER}/tls-{self.name}.key"

    @property
    def nofile(self) -> int:
        """Descriptors: one for each client and the server's own."""
        return max(1024, self.max_clients + RESERVED_DESCRIPTORS)


def instances(entries: Iterable[Mapping[str, Any]]) -> list[Instance]:
    """Typed instances; keys that are None count as absent."""
    return [Instance(**{key: value for key, value in entry.items() if value is not None}) for entry in entries]


def users(entries: Iterable[Mapping[str, Any]]) -> list[User]:
    """Typed users; keys that are None count as absent."""
    return [User(**{key: value for key, value in entry.items() if value is not None}) for entry in entries]


def problems(declared: Sequence[Instance], logins: Sequence[User]) -> list[str]:
    """Every reason why this cannot be, each with its remedy. Directives and their values are tried on the server itself."""
    found: list[str] = []
    names, ports = [one.name for one in declared], [one.port for one in declared]
    for one in declared:
        where = f"redis_instances {one.name}"
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", one.name) or names.count(one.name) > 1:
            found.append(f"{where}: needs a name of its own: at most 31 lower-case letters, digits and dashes")
        if one.purpose not in PURPOSES:
            found.append(f"{where}: purpose {one.purpose} is none of {', '.join(PURPOSES)}")
        if ports.count(one.port) > 1:
            found.append(f"{where}: port {one.port} is given twice; give each instance its own")
        if bool(one.certificate) != bool(one.key):
            found.append(f"{where}: certificate and key belong together; give both")
        outside = [address for address in one.listen if address not in LOOPBACK]
        if outside and not one.certificate and not one.plaintext:
            found.append(
                f"{where}: would show passwords and data on the network at {', '.join(outside)}; give it a certificate,"
                " or say plaintext: true for a network that nobody else can read"
            )
        for name, value in one.settings.items():
            if name.lower() in MANAGED:
                found.append(f"{where}: {name} is not set here; {MANAGED[name.lower()]}")
            if "\n" in str(value) or not re.fullmatch(r"[a-zA-Z-]+", name):
                found.append(f"{where}: {name!r} or its value is not one word and one line")
    seen: set[tuple[str, str]] = set()
    for user in logins:
        where = f"redis_users {user.name}"
        if user.instance not in names:
            found.append(f"{where}: there is no instance {user.instance}; declare it, or correct the name")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", user.name) or user.name in (ADMIN, "default"):
            found.append(f"{where}: is not a usable name; use letters, digits, _ . - and neither default nor {ADMIN}")
        if (user.instance, user.name) in seen:
            found.append(f"{where}: is given twice for {user.instance}")
        seen.add((user.instance, user.name))
        if not user.password:
            found.append(f"{where}: has no password; take one from a vault")
        rules = [*user.keys, *user.channels, *user.commands.split()]
        if any(re.search(r"[\s#<>]", rule) or not rule for rule in rules):
            found.append(f"{where}: patterns and commands hold no blanks and none of # < >")
    return found


def directives(one: Instance) -> dict[str, str]:
    """All directives of an instance by name, as CONFIG GET shows them."""
    secure = bool(one.certificate)
    found = {
        "bind": " ".join(one.listen),
        "protected-mode": "yes",
        "port": "0" if secure else str(one.port),
        "unixsocket": one.socket,
        "unixsocketperm": "770",
        "aclfile": one.acl,
        "dir": f"{DATA}/{one.name}",
        "logfile": "",
        "maxmemory": str(one.maxmemory_mb * 1048576),
        "maxclients": str(one.max_clients),
        **PURPOSES[one.purpose],
    }
    if secure:
        found.update(zip(("tls-cert-file", "tls-key-file"), one.tls))
        found.update({"tls-port": str(one.port), "tls-auth-clients": "no", "tls-protocols": "TLSv1.2 TLSv1.3"})
    found.update({name.lower(): text(value) for name, value in one.settings.items()})
    return found


def text(value: Any) -> str:
    """A value of the inventory as Redis writes it."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def quoted(value: str) -> str:
    """A value in redis.conf: in quotes where it is empty or has more than plain characters."""
    if re.fullmatch(r"[A-Za-z0-9_./:*@%+-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


SPREAD = ("bind", "save", "tls-protocols", "client-output-buffer-limit", "oom-score-adj-values")


def render(one: Instance, without: Sequence[str] = ()) -> str:
    """The configuration file; `without` are directives that it leaves out."""
    lines = []
    for name, value in sorted((name, value) for name, value in directives(one).items() if name not in without):
        shown = value if name in SPREAD and name != "tls-protocols" and value else quoted(value)
        lines.append(f"{name} {shown}\n")
    return HEADER + f"# Purpose: {one.purpose}\n" + "".join(lines)


def render_unit(one: Instance) -> str:
    """The drop-in: the limit of descriptors, and a configuration that the server cannot rewrite."""
    return f"{HEADER}[Service]\nLimitNOFILE={one.nofile}\nReadWritePaths=\nReadWritePaths=-{DATA} -/run/redis-%i\nRestartSec=2\n"


def hashed(password: str) -> str:
    """A password as ACL files hold it."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def rules(instance: str, logins: Sequence[User], admin_password: str) -> dict[str, list[str]]:
    """The rules of every user of an instance, in ACL syntax."""
    found = {"default": ["off", "-@all"], ADMIN: ["on", hashed(admin_password), "~*", "&*", "+@all"]}
    for user in logins:
        if user.instance == instance:
            keys = [f"~{pattern}" for pattern in user.keys]
            channels = [f"&{pattern}" for pattern in user.channels]
            found[user.name] = ["on", hashed(user.password), *keys, *channels, *user.commands.split()]
    return found


def render_acl(wanted: Mapping[str, Sequence[str]]) -> str:
    """The ACL file. It takes no comments; who owns it is said in the configuration beside it."""
    return "".join(f"user {name} resetpass resetkeys resetchannels {' '.join(words)}\n" for name, words in sorted(wanted.items()))


def acl_mismatches(wanted: Mapping[str, Sequence[str]], listed: Iterable[str]) -> list[str]:
    """Users whose rules in ACL LIST are not the declared ones; passwords and hashes are not named."""
    shown = {words[1]: words[2:] for line in listed if len(words := line.split()) > 2}
    found = [f"user {name} is there, but not declared" for name in sorted(set(shown) - set(wanted))]
    for name, declared in sorted(wanted.items()):
        if name not in shown:
            found.append(f"user {name} is missing")
        elif _essential(declared) != _essential(shown[name]):
            found.append(f"user {name} has other rules than declared")
    return found


def _essential(words: Sequence[str]) -> tuple[list[str], list[str]]:
    expanded = {"allkeys": "~*", "allchannels": "&*", "allcommands": "+@all", "nocommands": "-@all"}
    named = [expanded.get(word, word) for word in words]
    commands = [word for word in named if word[0] in "+-"]
    others = [word[:1] if word[0] == "#" else word for word in named if word[0] not in "+-"]
    # A list of single commands starts from none, which the server writes out.
    commands = commands[1:] if commands[:1] == ["-@all"] and len(commands) > 1 else commands
    return sorted(word for word in others if word[0] in "#~&%" or word in ("on", "off", "nopass")), commands


_UNITS = {"k": 1000, "kb": 1024, "m": 10**6, "mb": 1 << 20, "g": 10**9, "gb": 1 << 30}


def canonical(value: str) -> str:
    """A value as it is compared: sizes in bytes, one blank between words, letters in lower case."""

    def word(part: str) -> str:
        match = re.fullmatch(r"(\d+)(kb?|mb?|gb?)", part)
        return str(int(match.group(1)) * _UNITS[match.group(2)]) if match else part

    return " ".join(word(part) for part in value.lower().split())


def config_mismatches(wanted: Mapping[str, str], effective: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Name, declared and effective value of every directive that is not in use."""
    found = []
    for name, value in sorted(wanted.items()):
        have = effective.get(name)
        if have is None or (
            canonical(value) != canonical(have) and not (name == SPREAD[3] and canonical(value) in canonical(have))
        ):
            found.append((name, value, "unknown to this server" if have is None else have))
    return found


def checks(declared: Sequence[Instance], logins: Sequence[User] = ()) -> list[dict[str, Any]]:
    """What has to be read back: unit, descriptors, sockets, CONFIG GET, ACL LIST, and a login of each user."""
    found: list[dict[str, Any]] = []
    for one in declared:
        properties = {"ActiveState": "active", "UnitFileState": "enabled"}
        found.append({"kind": "unit", "unit": one.unit, "properties": properties})
        found.append({"kind": "sandbox", "unit": one.unit})
        found.append({"kind": "limit", "unit": one.unit, "name": "nofile", "value": str(one.nofile)})
        found += [
            {"kind": "listen", "port": one.port, "address": address, "only": len(one.listen) == 1}
            for address in one.listen
            if address != "localhost"
        ]
        mine = [user for user in logins if user.instance == one.name]
        # Without the hashes: a login proves each of them, and the number of them shows one too many.
        acl = rules(one.name, mine, "").items()
        found.append(
            {
                "kind": "redis",
                "what": f"Redis {one.name}",
                "socket": one.socket,
                "user": ADMIN,
                "password_file": ADMIN_FILE,
                "config": directives(one),
                "acl": {name: [word[:1] if word[0] == "#" else word for word in words] for name, words in acl},
            }
        )
        found += [
            {
                "kind": "redis",
                "what": f"login of {user.name} to Redis {one.name}",
                "socket": one.socket,
                "user": user.name,
                "input": user.password,
            }
            for user in mine
        ]
    return found
