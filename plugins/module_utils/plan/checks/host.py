# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of every host: memory, kernel, descriptors, published ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..model import Check
from ..sizing import RUBY_PROCESS_MB, backlogs, huge_pages, nginx_descriptors
from .subject import Subject, size_mb, whole

NR_OPEN = 1048576  # the kernel's default


def rules(subject: Subject) -> Iterator[Check]:
    """All of them."""
    yield from _memory(subject)
    yield from _kernel(subject)
    yield from _descriptors(subject)
    yield from _published(subject)


def _memory(subject: Subject) -> Iterator[Check]:
    size = subject.size
    parts = [f"system {size.system_mb}", *(f"{name} {mb}" for name, mb in size.roles.items())]
    if size.postgresql_mb:
        parts.append(f"PostgreSQL {size.postgresql_mb}")
    largest = max(size.roles, key=lambda name: size.roles[name], default="")
    app = largest[4:] if largest.startswith("app ") else ""
    yield subject.check(
        "host-memory",
        "memory of all roles <= memory",
        size.total_mb() <= size.memory_mb,
        f"{size.total_mb()} MB ({', '.join(parts)})",
        f"{size.memory_mb} MB",
        f"slipway_apps.{app}.processes, replicas or memory" if app else "the host's memory",
        "run fewer processes, declare what an instance needs (slipway_apps memory) where it is less than assumed,"
        " move a role to another host, or give the host more memory"
        + (f" ({RUBY_PROCESS_MB} MB are assumed for a process, and both slots run during a cutover)" if app else ""),
    )
    pages = subject.kernel("vm.nr_hugepages", 0)
    if pages:
        used = 0
        if subject.host.serves_postgresql():
            shared = int(size_mb(subject.setting("shared_buffers", "128MB"), 8))
            used = min(pages, huge_pages(shared, whole(subject.setting("max_connections", "100"))), size.postgresql_mb // 2)
        rest = size.total_mb() - 2 * used
        yield subject.check(
            "huge-pages",
            "huge pages + other memory <= memory",
            pages * 2 + rest <= size.memory_mb,
            f"{pages * 2} + {rest} MB",
            f"{size.memory_mb} MB",
            "kernel_sysctl vm.nr_hugepages",
            f"set at most {used}, which is what shared_buffers can use" if used else "set 0: nothing here uses them",
        )


def _kernel(subject: Subject) -> Iterator[Check]:
    somaxconn = subject.kernel("net.core.somaxconn", 4096)
    asked = backlogs(subject.host, bool(subject.apps))
    if "pgbouncer_nofile" in subject.variables:
        asked["pgbouncer"] = whole(subject.pooler("listen_backlog", "128"))
    for program in sorted(asked, key=lambda name: asked[name])[-1:]:
        yield subject.check(
            "listen-backlog",
            "listen backlog <= somaxconn",
            asked[program] <= somaxconn,
            f"{asked[program]} asked by {program}",
            str(somaxconn),
            "kernel_sysctl net.core.somaxconn",
            f"set at least {asked[program]}",
        )
    if subject.containers:
        forward = subject.kernel("net.ipv4.ip_forward", 1)
        yield subject.check(
            "forwarding",
            "net.ipv4.ip_forward = 1 where containers run",
            forward == 1,
            str(forward),
            "1",
            "kernel_sysctl net.ipv4.ip_forward",
            "leave it out: containers of this host need it",
        )
    overcommit = subject.kernel("vm.overcommit_memory", 0)
    others = [group for group in ("edge", "app", "worker", "redis") if subject.host.has(group)]
    if "vm.overcommit_memory" in subject.variables.get("kernel_sysctl", {}):
        yield subject.check(
            "overcommit",
            "vm.overcommit_memory 2 only on a dedicated database host",
            overcommit != 2 or not others,
            str(overcommit),
            "0 or 1 beside " + ", ".join(others) if others else "any",
            "kernel_sysctl vm.overcommit_memory",
            "set 1 where Redis runs, else 0",
        )
        if subject.size.redis and subject.size.redis.forks:
            yield subject.check(
                "overcommit",
                "vm.overcommit_memory 1 where Redis forks to save",
                overcommit == 1,
                str(overcommit),
                "1",
                "kernel_sysctl vm.overcommit_memory",
                "set 1, or move Redis away from PostgreSQL",
            )


def _descriptors(subject: Subject) -> Iterator[Check]:
    connections = subject.variables.get("nginx_worker_connections")
    if connections is not None:
        need = nginx_descriptors(whole(connections))
        yield subject.check(
            "descriptors",
            "nginx descriptors <= nginx_nofile",
            need <= whole(subject.variables["nginx_nofile"]),
            f"{need} (2 x {connections} + 64)",
            str(subject.variables["nginx_nofile"]),
            "nginx_nofile or nginx_worker_connections",
            f"set nginx_nofile to at least {need}",
        )
    most = subject.kernel("fs.nr_open", NR_OPEN)
    hard = min(subject.facts.nofile_hard, most) if subject.facts.nofile_hard else most
    for name, limit in subject.limits():
        yield subject.check(
            "descriptors",
            f"{name} <= hard limit of the host",
            limit <= hard,
            str(limit),
            str(hard),
            name,
            "set it lower, or raise the host's hard limit" if hard < most else "set it lower, or raise fs.nr_open",
        )
    if "fs.file-max" in subject.variables.get("kernel_sysctl", {}):
        total = sum(limit for name, limit in subject.limits() if name not in ("docker_nofile", "kernel_nofile"))
        yield subject.check(
            "descriptors",
            "limits of all services <= fs.file-max",
            total <= subject.kernel("fs.file-max", 0),
            str(total),
            str(subject.kernel("fs.file-max", 0)),
            "kernel_sysctl fs.file-max",
            "leave it to the kernel, whose default is far above",
        )


def _published(subject: Subject) -> Iterator[Check]:
    if not subject.published:
        return
    declared = subject.variables.get("ufw_container_rules", [])
    published = set(subject.published)
    wide = [rule for rule in declared if _any(rule) and published.intersection(_ports(rule))]
    covered = published.intersection(port for rule in declared for port in _ports(rule))
    yield subject.check(
        "published-ports",
        "published container ports have a firewall rule of their own",
        not wide and covered == published,
        f"{len(covered)} restricted" + (", some open to any" if wide else ""),
        f"{len(published)} published",
        "ufw_container_rules",
        "name the edges' addresses in `from`",
    )


def _any(rule: Mapping[str, Any]) -> bool:
    sources = rule.get("from") or ["any"]
    return any(str(source) in ("any", "0.0.0.0/0", "::/0") for source in ([sources] if isinstance(sources, str) else sources))


def _ports(rule: Mapping[str, Any]) -> range:
    low, _colon, high = str(rule.get("port", "")).partition(":")
    return range(whole(low), whole(high or low) + 1)
