# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles, databases, extensions and the pooler's lookup function: what is there, what is declared, the SQL between them. No I/O.

Passwords go to the server as SCRAM verifiers only, and only when the stored verifier does not belong to the password.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from . import scram
from .postgresql import Parameter, canonical, parse_parameters
from .psql import Psql, SqlError, hide, identifier, literal, variable

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")
RESERVED = ("postgres", "template0", "template1")
LOOKUP_BODY = """
  SELECT a.rolname::text, a.rolpassword FROM pg_catalog.pg_authid a
  WHERE a.rolname = i_username AND a.rolcanlogin AND NOT a.rolsuper AND NOT a.rolreplication AND a.rolpassword IS NOT NULL
    AND (a.rolvaliduntil IS NULL OR a.rolvaliduntil > pg_catalog.now())
"""
# psql fills in what begins with a colon, quoted.
OBSERVE_CLUSTER = """
SELECT jsonb_build_object(
  'known', (SELECT jsonb_agg(rolname) FROM pg_authid),
  'available', (SELECT jsonb_agg(name) FROM pg_available_extensions),
  'roles', (SELECT jsonb_object_agg(rolname, jsonb_build_object(
      'login', rolcanlogin, 'connection_limit', rolconnlimit, 'replication', rolreplication, 'secret', rolpassword,
      'settings', (SELECT setconfig FROM pg_db_role_setting WHERE setrole = a.oid AND setdatabase = 0),
      'member_of', (SELECT jsonb_agg(roleid::regrole::text) FROM pg_auth_members WHERE member = a.oid)))
    FROM pg_authid a WHERE rolname IN (SELECT jsonb_array_elements_text(:'roles'))),
  'databases', (SELECT jsonb_object_agg(datname, jsonb_build_object(
      'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding), 'locale', datcollate,
      'public', has_database_privilege('public', d.oid, 'CONNECT'),
      'allowed', (SELECT jsonb_agg(r.rolname) FROM pg_roles r WHERE has_database_privilege(r.oid, d.oid, 'CONNECT'))))
    FROM pg_database d WHERE datname IN (SELECT jsonb_array_elements_text(:'databases'))),
  'parameters', (SELECT jsonb_agg(jsonb_build_array(name, vartype, context, unit, min_val, max_val, enumvals))
    FROM pg_settings WHERE name IN (SELECT jsonb_array_elements_text(:'settings'))));
"""
OBSERVE_DATABASE = """
SELECT EXISTS (SELECT FROM pg_database WHERE datname = :'database') AS found \\gset
\\if :found
\\connect :"database"
SELECT jsonb_build_object('database', current_database(),
  'extensions', (SELECT jsonb_agg(extname) FROM pg_extension),
  'schema_owner', (SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'pgbouncer'),
  'usage', (SELECT jsonb_agg(grantee::regrole::text) FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'pgbouncer'),
  'lookup', (SELECT jsonb_build_object('source', prosrc, 'definer', prosecdef, 'config', proconfig,
      'owner', proowner::regrole::text,
      'granted', (SELECT jsonb_agg(grantee::regrole::text) FROM aclexplode(coalesce(proacl, acldefault('f', proowner)))))
    FROM pg_proc WHERE oid = to_regprocedure('pgbouncer.user_lookup(text)')));
\\connect postgres
\\endif
"""


@dataclass(frozen=True)
class Role:
    """A role that has to be there; None leaves an attribute as it is. `settings` are per-role parameters."""

    name: str
    login: bool = True
    connection_limit: Optional[int] = None
    replication: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    member_of: tuple[str, ...] = ()
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Database:
    """A database that has to be there. `pooled`: the pooler may look up its users in it."""

    name: str
    owner: str = "postgres"
    encoding: str = "UTF8"
    locale: str = "C.UTF-8"
    extensions: tuple[str, ...] = ()
    pooled: bool = True


@dataclass(frozen=True)
class Wanted:
    """All objects; `pooler_user` is empty when there is no pooler."""

    roles: tuple[Role, ...] = ()
    databases: tuple[Database, ...] = ()
    pooler_user: str = ""
    pooler_password: str = field(default="", repr=False)

    def all_roles(self) -> tuple[Role, ...]:
        """The declared roles and the pooler's."""
        if not self.pooler_user or any(role.name == self.pooler_user for role in self.roles):
            return self.roles
        return (*self.roles, Role(self.pooler_user, password=self.pooler_password))


@dataclass(frozen=True)
class Step:
    """One change: where, the SQL, and what a person sees of it (`before` empty for something new)."""

    database: str
    sql: str
    before: str
    after: str


Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class State:
    """What the server has: roles and databases by name, and per database its extensions and the lookup function."""

    roles: Rows = field(default_factory=dict)
    databases: Rows = field(default_factory=dict)
    inside: Rows = field(default_factory=dict)
    known_roles: frozenset[str] = frozenset()
    available: frozenset[str] = frozenset()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def problems(wanted: Wanted) -> list[str]:
    """Every reason why `wanted` cannot be, found without a server."""
    found = []
    for kind, names in (("role", [r.name for r in wanted.all_roles()]), ("database", [d.name for d in wanted.databases])):
        for name in names:
            if NAME.fullmatch(name) is None:
                found.append(f"{kind} `{name}`: use letters, digits, `_`, `$` and `-`, at most 63, beginning with a letter")
            elif name in RESERVED or name.startswith("pg_"):
                found.append(f"{kind} `{name}`: belongs to the server itself; choose another name")
        found += [f"{kind} `{name}`: is declared twice" for name in sorted({n for n in names if names.count(n) > 1})]
    return found


def observation(wanted: Wanted) -> str:
    """The script that reads the State: one line for the cluster, then one for each database that exists."""
    roles = wanted.all_roles()
    settings = sorted({name for role in roles for name in role.settings})
    lists = {"roles": [r.name for r in roles], "databases": [d.name for d in wanted.databases], "settings": settings}
    script = "".join(f"\\set {name} {variable(json.dumps(value))}\n" for name, value in lists.items()) + OBSERVE_CLUSTER
    for database in wanted.databases:
        script += f"\\set database {variable(database.name)}\n" + OBSERVE_DATABASE
    return script


def parse_state(lines: Sequence[str]) -> State:
    """The answer to `observation`."""
    first = json.loads(lines[0])
    inside = {row["database"]: row for row in map(json.loads, lines[1:])}
    parameters = parse_parameters(first["parameters"] or ())
    known, available = frozenset(first["known"] or ()), frozenset(first["available"] or ())
    return State(first["roles"] or {}, first["databases"] or {}, inside, known, available, parameters)


def apply(psql: Psql, steps: Sequence[Step]) -> None:
    """Run `steps`; raises SqlError that names the one that failed and holds no secret."""
    result = psql.run("\\set VERBOSITY terse\n" + script(steps), timeout=600)
    if result.ok:
        return
    numbers = [int(line) for line in result.out.splitlines() if line.isdigit()]
    where = steps[numbers[-1]].after if numbers else "the session"
    done = f"{numbers[-1]} of {len(steps)} changes before it are made" if numbers else "nothing was changed"
    raise SqlError(f"{where}: {hide(result.err.strip() or str(result.rc))} ({done}; run again after the cause is mended)")


def conflicts(wanted: Wanted, state: State) -> list[str]:
    """What cannot be brought about on this server, with the remedy."""
    found = []
    known = state.known_roles | {role.name for role in wanted.all_roles()} | {"postgres"}
    for database in wanted.databases:
        have = state.databases.get(database.name, {})
        found += [
            f"database {database.name}: the server has no extension `{name}`; install its package (postgresql_packages)"
            for name in database.extensions
            if state.available and name not in state.available
        ]
        for key, declared in (("encoding", database.encoding), ("locale", database.locale)):
            if have and _folded(have[key]) != _folded(declared):
                found.append(
                    f"database {database.name}: its {key} is {have[key]}, declared {declared}; it cannot be changed in place:"
                    " declare what it has, or dump, drop and restore it"
                )
        if database.owner not in known:
            found.append(f"database {database.name}: there is no role `{database.owner}` to own it; add it to postgresql_roles")
    for role in wanted.roles:
        for key, value in role.settings.items():
            parameter = state.parameters.get(key)
            try:
                if value != "default" and parameter is not None:
                    canonical(value, parameter)
                elif parameter is None and state.parameters and "." not in key:
                    found.append(f"role {role.name}: this server has no setting `{key}`")
            except ValueError as error:
                found.append(f"role {role.name}: {key}: {error}")
        found += [
            f"role {role.name}: there is no role `{group}` to be a member of"
            for group in role.member_of
            if group not in known and not group.startswith("pg_")
        ]
    return found


def _folded(name: str) -> str:
    return name.lower().replace("-", "")


def plan(wanted: Wanted, state: State) -> list[Step]:
    """The steps from `state` to `wanted`."""
    steps = [step for role in wanted.all_roles() for step in _role(role, state)]
    for database in wanted.databases:
        have = state.databases.get(database.name)
        steps += _database(database, have)
        if wanted.pooler_user and database.pooled and (have is None or wanted.pooler_user not in (have["allowed"] or ())):
            grant = f"GRANT CONNECT ON DATABASE {identifier(database.name)} TO {identifier(wanted.pooler_user)}"
            steps.append(Step("postgres", grant, "", f"database {database.name}: {wanted.pooler_user} may connect"))
    for database in wanted.databases:
        inside = state.inside.get(database.name, {})
        steps += _extensions(database, inside.get("extensions") or ())
        if wanted.pooler_user and database.pooled:
            steps += _lookup(database, wanted.pooler_user, inside)
    return steps


def _same(parameter: Optional[Parameter], one: str, other: str) -> bool:
    return one == other or (parameter is not None and canonical(one, parameter) == canonical(other, parameter))


def _role(role: Role, state: State) -> list[Step]:
    name, label = identifier(role.name), f"role {role.name}: "
    have = state.roles.get(role.name)
    steps = []
    new = have is None
    if have is None:
        steps.append(Step("postgres", f"CREATE ROLE {name}", "", f"{label}present"))
        have = {"login": False, "connection_limit": -1, "replication": False}

    def differs(key: str, sql: str, before: Any, after: Any) -> None:
        if before != after:
            shown = "" if new else f"{label}{key} {before}"
            steps.append(Step("postgres", f"ALTER ROLE {name} {sql}", shown, f"{label}{key} {after}"))

    # The password comes first: a role that may log in has one.
    secret = have.get("secret") or ""
    if role.password and not scram.matches(role.password, secret):
        fresh = role.password if scram.is_verifier(role.password) else scram.verifier(role.password)
        before = f"{label}password (hidden)" if secret else ""
        steps.append(Step("postgres", f"ALTER ROLE {name} PASSWORD {literal(fresh)}", before, f"{label}password (hidden, new)"))
    differs("login", "LOGIN" if role.login else "NOLOGIN", have["login"], role.login)
    differs("replication", "REPLICATION" if role.replication else "NOREPLICATION", have["replication"], role.replication)
    if role.connection_limit is not None:
        limit = role.connection_limit
        differs("connection_limit", f"CONNECTION LIMIT {limit}", have["connection_limit"], limit)
    current = dict(item.split("=", 1) for item in have.get("settings") or ())
    for key, value in sorted(role.settings.items()):
        if value == "default" and key in current:
            differs(key, f"RESET {identifier(key)}", current[key], "default")
        elif value != "default" and (key not in current or not _same(state.parameters.get(key), current[key], value)):
            differs(key, f"SET {identifier(key)} TO {literal(value)}", current.get(key, "default"), value)
    groups = [_unquoted(group) for group in have.get("member_of") or ()]
    for group in role.member_of:
        if group not in groups:
            steps.append(Step("postgres", f"GRANT {identifier(group)} TO {name}", "", f"{label}member of {group}"))
    return steps


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _database(database: Database, have: Optional[Mapping[str, Any]]) -> list[Step]:
    name, label, owner = identifier(database.name), f"database {database.name}: ", identifier(database.owner)
    steps = []
    if have is None:
        create = f"CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING {literal(database.encoding)}"
        create += f" LC_COLLATE {literal(database.locale)} LC_CTYPE {literal(database.locale)}"
        steps.append(Step("postgres", create, "", f"{label}owner {database.owner}, {database.encoding}, {database.locale}"))
    elif have["owner"] != database.owner:
        sql = f"ALTER DATABASE {name} OWNER TO {owner}"
        steps.append(Step("postgres", sql, f"{label}owner {have['owner']}", f"{label}owner {database.owner}"))
    if have is None or have["public"]:
        before = f"{label}any role may connect" if have else ""
        sql = f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"
        steps.append(Step("postgres", sql, before, f"{label}only its owner and granted roles may connect"))
    return steps


def _extensions(database: Database, have: Sequence[str]) -> list[Step]:
    return [
        Step(database.name, f"CREATE EXTENSION {identifier(name)}", "", f"database {database.name}: extension {name}")
        for name in database.extensions
        if name not in have
    ]


def _lookup(database: Database, pooler: str, inside: Mapping[str, Any]) -> list[Step]:
    """The schema and the function that gives the pooler the verifier of one user, and nothing else, to nobody else."""
    user, label = identifier(pooler), f"database {database.name}: "
    owner, function = inside.get("schema_owner"), inside.get("lookup") or {}
    steps = []
    if owner is None:
        steps.append(Step(database.name, "CREATE SCHEMA pgbouncer AUTHORIZATION postgres", "", f"{label}schema pgbouncer"))
    elif owner != "postgres":
        sql = "ALTER SCHEMA pgbouncer OWNER TO postgres"
        steps.append(Step(database.name, sql, f"{label}schema pgbouncer of {owner}", f"{label}schema pgbouncer of postgres"))
    shape = (function.get("source"), function.get("definer"), function.get("config"), function.get("owner"))
    if shape != (LOOKUP_BODY, True, ["search_path=pg_catalog, pg_temp"], "postgres"):
        sql = (
            "DROP FUNCTION IF EXISTS pgbouncer.user_lookup(text);\n"
            "CREATE FUNCTION pgbouncer.user_lookup(i_username text) RETURNS TABLE (uname text, phash text)\n"
            f"LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $lookup${LOOKUP_BODY}$lookup$"
        )
        before = f"{label}function pgbouncer.user_lookup (differs)" if function else ""
        steps.append(Step(database.name, sql, before, f"{label}function pgbouncer.user_lookup"))
        function = {}
    granted = {_unquoted(name) for name in function.get("granted") or ()}
    used = {_unquoted(name) for name in inside.get("usage") or ()}
    if granted != {"postgres", pooler} or pooler not in used or "-" in used:
        sql = (
            "REVOKE ALL ON SCHEMA pgbouncer FROM PUBLIC;\n"
            "REVOKE ALL ON FUNCTION pgbouncer.user_lookup(text) FROM PUBLIC;\n"
            f"GRANT USAGE ON SCHEMA pgbouncer TO {user};\n"
            f"GRANT EXECUTE ON FUNCTION pgbouncer.user_lookup(text) TO {user}"
        )
        others = sorted(granted - {"postgres", pooler, "-"})
        sql += "".join(f";\nREVOKE ALL ON FUNCTION pgbouncer.user_lookup(text) FROM {identifier(name)}" for name in others)
        steps.append(Step(database.name, sql, "", f"{label}only {pooler} may execute pgbouncer.user_lookup"))
    return steps


def script(steps: Sequence[Step]) -> str:
    """One psql script for all steps; it prints the number of each step before it, so that a failure can be named."""
    lines, current = [], "postgres"
    for index, step in enumerate(steps):
        if step.database != current:
            lines.append(f"\\connect {identifier(step.database)}")
            current = step.database
        lines += [f"\\echo {index}", f"{step.sql};"]
    return "\n".join(lines) + "\n"
