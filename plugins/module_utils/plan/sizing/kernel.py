# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel settings and descriptor limits."""

from __future__ import annotations

from typing import Any

from ..model import Facts, Host
from .memory import HostSize
from .nginx import NGINX_BACKLOG
from .redis_server import REDIS_BACKLOG

USUAL_NOFILE = 65536


def nofile(facts: Facts) -> int:
    """Descriptors for logins and containers: 65536, or what the host's hard limit allows; 16384 while that is unknown."""
    if not facts.nofile_hard:
        return USUAL_NOFILE // 4
    size = USUAL_NOFILE
    while size > facts.nofile_hard:
        size //= 2
    return size


def backlogs(host: Host, apps: bool) -> dict[str, int]:
    """What the programs of a host ask of listen(2). Sources: role nginx, Puma's default, the plan's pgbouncer, redis.conf."""
    asked = {}
    if host.has("edge"):
        asked["nginx"] = int(host.overrides.get("nginx_listen_backlog", NGINX_BACKLOG))
    if apps:
        asked["puma"] = 1024
    if host.serves_postgresql() or "pgbouncer_settings" in host.overrides:
        asked["pgbouncer"] = int(host.overrides.get("pgbouncer_settings", {}).get("listen_backlog", 4096))
    if host.has("redis"):
        asked["redis"] = REDIS_BACKLOG
    return asked


def kernel_sysctl(host: Host, facts: Facts, docker: bool, size: HostSize, pages: int = 0) -> dict[str, tuple[Any, str]]:
    """Kernel settings as key to (value, reason). A container can only set its own network's keys, so others are left out there.

    somaxconn = max(4096, all listen backlogs), tcp_max_syn_backlog not below it: kernel documentation. vm.*: PostgreSQL
    documentation on kernel resources and autobase, on dedicated database hosts only, where `pages` huge pages are kept, too.
    vm.overcommit_memory 1 where Redis runs (redis.io administration); never 2, with which a fork fails.
    """
    backlog = max([4096, *backlogs(host, docker).values()])
    found: dict[str, tuple[Any, str]] = {
        "net.core.somaxconn": (backlog, "listen backlogs of nginx, Puma, pgbouncer, Redis"),
        "net.ipv4.tcp_max_syn_backlog": (backlog, "not below somaxconn"),
        "net.ipv4.tcp_slow_start_after_idle": (0, "idle keep-alive connections stay fast"),
        "net.ipv4.tcp_keepalive_time": (600, "dead peers are noticed within minutes"),
        "net.ipv4.ip_local_port_range": ("16384 60999", "connections to backends and databases"),
    }
    if docker:
        found["net.ipv4.ip_forward"] = (1, "containers")
    if facts.container:
        return found
    if host.serves_postgresql() and not any(host.has(group) for group in ("edge", "app", "worker", "redis")):
        found["vm.swappiness"] = (10, "dedicated database host")
        found["vm.dirty_background_bytes"] = (64 << 20, "dedicated database host")
        found["vm.dirty_bytes"] = (512 << 20, "dedicated database host")
        if pages:
            found["vm.nr_hugepages"] = (pages, "shared_buffers and the rest of PostgreSQL's shared memory, 2 MB each")
    if size.redis:
        found["vm.overcommit_memory"] = (1, "Redis forks to save")
    return found
