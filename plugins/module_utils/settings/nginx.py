# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to hold of the sites before nginx sees them: everything that would be a wrong or a surprising configuration."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
DOMAIN = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
SIZE = re.compile(r"[0-9]+[kKmMgG]?")
COOKIE = re.compile(r"[A-Za-z0-9_]+")
HEADER = re.compile(r"[A-Za-z0-9-]+")
UNQUOTABLE = re.compile(r'["\\$\x00-\x1f\x7f]')
DESCRIPTORS_BESIDE = 64
"""Descriptors that a worker needs beside its connections: logs, listening sockets, epoll. Source: own."""


def site_problems(sites: Sequence[Mapping[str, Any]]) -> list[str]:
    """Everything that is wrong with `sites`, each with the site, what and what to do."""
    found = [problem for site in sites for problem in _one(site)]
    for what, values in (
        ("site name", [str(site["name"]) for site in sites]),
        ("domain", [domain for site in sites for domain in _domains(site)]),
        (
            "upstream",
            [
                f"{site['name']}_{slot['name']}_{spare['name']}"
                for site in sites
                for slot in site["slots"]
                for spare in site["slots"]
            ],
        ),
        ("variable", [f"$slipway_bucket_{str(site['name']).replace('-', '_')}" for site in sites]),
    ):
        found += [f"{what} {value} is declared twice; keep one" for value in _doubles(values)]
    return found


def limit_problems(worker_connections: int, nofile: int) -> list[str]:
    """Whether the descriptors of a worker are enough for its connections: two for each, since a proxied one has two ends."""
    needed = 2 * worker_connections + DESCRIPTORS_BESIDE
    if nofile >= needed:
        return []
    return [
        f"nginx_nofile is {nofile}, but {worker_connections} connections need {needed};"
        " raise it or lower nginx_worker_connections"
    ]


def header_problems(headers: Mapping[str, Any]) -> list[str]:
    """Header names and values that cannot stand between quotation marks in a configuration file."""
    found = [f"header name {name!r} is not one; use letters, digits and dashes" for name in headers if not HEADER.fullmatch(name)]
    bad = [name for name, value in headers.items() if UNQUOTABLE.search(str(value))]
    return found + [f"the value of header {name} has a quotation mark, backslash, $ or control character" for name in bad]


def proxy_problems(networks: Iterable[str]) -> list[str]:
    """Trusted proxies that are neither an address nor a network, and networks that would trust everybody."""
    found = []
    for network in networks:
        try:
            if ipaddress.ip_network(network, strict=False).prefixlen == 0:
                found.append(f"nginx_trusted_proxies: {network} trusts every client; name your load balancers")
        except ValueError:
            found.append(f"nginx_trusted_proxies: {network!r} is neither an address nor a network")
    return found


def exempt_problems(networks: Iterable[str]) -> list[str]:
    """Clients without rate limits that are neither an address nor a network."""
    return [
        f"nginx_rate_limit_exempt: {network!r} is neither an address nor a network"
        for network in networks
        if not is_network(str(network))
    ]


def below(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or stands below it, as the sites take it for limits and restrictions."""
    return prefix == "/" or path == prefix or path.startswith(prefix.rstrip("/") + "/")


def _access_problems(site: Mapping[str, Any]) -> list[str]:
    """Limits and restrictions that nginx would refuse, or that would lock out what the host itself asks for."""
    found = []
    for key in ("rate_limits", "restricted"):
        paths = [str(one["path"]) for one in site.get(key) or []]
        found += [f"{key}: {path!r} is not a plain absolute path" for path in paths if not PATH.fullmatch(path)]
        found += [f"{key}: {path} is named twice; keep one" for path in _doubles(paths)]
    for one in site.get("rate_limits") or []:
        if int(one["per_minute"]) < 0:
            found.append(f"rate_limits: {one['path']} has a negative per_minute; 0 means no limit")
    for one in site.get("restricted") or []:
        found += [
            f"restricted: {source!r} for {one['path']} is neither an address nor a network"
            for source in one.get("from") or []
            if not is_network(str(source))
        ]
    return found


def is_network(text: str) -> bool:
    """Whether `text` is an address or a network without host bits."""
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _domains(site: Mapping[str, Any]) -> list[str]:
    return [str(site["domain"]).lower(), *(str(alias).lower() for alias in site.get("aliases") or [])]


def _doubles(values: Sequence[str]) -> list[str]:
    return sorted({value for value in values if values.count(value) > 1})


def _one(site: Mapping[str, Any]) -> list[str]:
    name = str(site["name"])
    found = []
    if not NAME.fullmatch(name):
        found.append("its name is part of file and upstream names; use lower-case letters, digits, - and _")
    bad = [repr(domain) for domain in _domains(site) if not DOMAIN.fullmatch(domain)]
    if bad:
        found.append(f"{', '.join(bad)} cannot be a host name")
    found += _slots(site["slots"])
    paths = {"flags": site["flags"], "certificate": site["certificate"], "key": site["key"]}
    paths["health_path"] = site.get("health_path") or "/"
    paths.update({f"websockets {path}": path for path in site.get("websockets") or []})
    found += [f"{key}: {path!r} is not a plain absolute path" for key, path in paths.items() if not PATH.fullmatch(str(path))]
    cookie = (site.get("canary") or {}).get("cookie") or "slipway"
    if not COOKIE.fullmatch(str(cookie)):
        found.append(f"canary.cookie: {cookie!r} is not a name that nginx can read; use letters, digits and _")
    found += _access_problems(site)
    if not SIZE.fullmatch(str(site.get("max_body") or "10m")):
        found.append(f"max_body: {site['max_body']!r} is not a size such as 10m")
    return [f"site {name}: {problem}" for problem in found]


def _slots(slots: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    if not slots:
        found.append("it has no slots; name at least one with its members")
    for slot in slots:
        if not NAME.fullmatch(str(slot["name"])):
            found.append(f"slot {slot['name']!r}: use lower-case letters, digits, - and _")
        if not slot.get("members"):
            found.append(f"slot {slot['name']} has no members; name at least one address:port")
        found += [
            f"slot {slot['name']}: member {member!r} is not address:port;"
            " a name that cannot be resolved would keep nginx from starting"
            for member in slot.get("members") or []
            if not is_member(str(member))
        ]
    return found


def is_member(text: str) -> bool:
    """Whether `text` is an IPv4 address or an IPv6 one in brackets, with a port."""
    address, _colon, port = text.rpartition(":")
    try:
        parsed = ipaddress.ip_address(address[1:-1] if address.startswith("[") and address.endswith("]") else address)
    except ValueError:
        return False
    bracketed = address.startswith("[")
    return bracketed == (parsed.version == 6) and port.isdigit() and 0 < int(port) < 65536
