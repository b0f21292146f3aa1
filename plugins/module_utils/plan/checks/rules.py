# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of cross-checks: what no single role can see. docs/plan.md is made from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One relation between values of several roles; `id` and `number` stay what they are, `breaks` says what happens else."""

    number: int
    id: str
    relation: str
    breaks: str


RULES = (
    Rule(1, "host-memory", "memory of all roles and the system <= memory of the host", "the kernel kills what is largest"),
    Rule(
        2,
        "postgresql-cache",
        "shared_buffers <= 40 % of PostgreSQL's memory; effective_cache_size <= memory without the other roles",
        "pages are kept twice, plans count on a cache that is not there",
    ),
    Rule(
        3,
        "postgresql-work",
        "shared_buffers + (active + parallel) x 3 x work_mem + autovacuum <= 90 % of PostgreSQL's memory",
        "a few sorts at once exhaust the host",
    ),
    Rule(
        4,
        "connections",
        "pools and reserve of all poolers + direct sessions <= max_connections without the reserved ones",
        "queries fail with `remaining connection slots are reserved`",
    ),
    Rule(5, "pool-share", "max_db_connections <= the share that direct sessions leave", "the pooler opens more than there is"),
    Rule(
        6,
        "client-sessions",
        "sessions of all apps, both slots at once <= max_client_conn of the pooler, maxclients of Redis",
        "a cutover is refused connections when old and new release run together",
    ),
    Rule(7, "app-pool", "pool of a process >= its threads", "threads wait for each other until they time out"),
    Rule(
        8,
        "descriptors",
        "descriptors of nginx, pgbouncer, Redis <= LimitNOFILE <= the host's hard limit, fs.nr_open; their sum <= fs.file-max",
        "accept() fails and clients hang without an error",
    ),
    Rule(9, "listen-backlog", "backlog that programs ask for <= net.core.somaxconn", "the kernel cuts it silently"),
    Rule(
        10,
        "pooler-wait",
        "query_wait_timeout > time of a guarded restart, and >= the apps' checkout timeout",
        "a restart that should be unnoticed ends queries",
    ),
    Rule(
        11,
        "timeouts",
        "lock_timeout < statement_timeout < read_timeout",
        "nginx answers 504 while the query goes on, a waiting lock looks like a slow query",
    ),
    Rule(
        12,
        "wal-disk",
        "max_wal_size + what slots may keep <= 50 % of free disk",
        "a standby that is away fills the disk and stops the primary",
    ),
    Rule(
        13,
        "backup-promise",
        "archive_timeout <= slipway_rpo; kept backups >= slipway_pitr_days",
        "a point in time is promised that no backup reaches",
    ),
    Rule(
        14,
        "overcommit",
        "vm.overcommit_memory 2 on dedicated database hosts only; 1 where Redis forks to save",
        "PostgreSQL or Redis cannot fork",
    ),
    Rule(15, "huge-pages", "huge pages + other memory <= memory of the host", "memory lies idle that other roles need"),
    Rule(
        16,
        "versions",
        "prepared statements need pgbouncer >= 1.21 and max_prepared_statements > 0; settings need a server that has them",
        "clients fail with `prepared statement does not exist`, the server does not start",
    ),
    Rule(17, "published-ports", "each published container port has a firewall rule of its own", "Docker goes around ufw"),
    Rule(
        18,
        "standby",
        "what a standby must have <= the same setting of the standby; senders and slots for all of them",
        "the standby stops at the first WAL record that needs more",
    ),
    Rule(19, "settings", "settings have a name and a value the server can read", "the server does not start"),
    Rule(20, "forwarding", "net.ipv4.ip_forward is 1 where containers run", "no request reaches a container, and none gets out"),
)
BY_ID = {rule.id: rule for rule in RULES}
