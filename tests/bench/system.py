# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured: a fleet of a given size with the sample application on it."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
from pathlib import Path
from typing import Any

import yaml

from tests.app import image, releases
from tests.fleet import hosts
from tests.fleet.shell import ROOT, run
from tests.fleet.spec import Spec, parse

APP, DOMAIN, RELEASE = "hello", "hello.example", "v1"
CACHE = ROOT / ".cache" / "bench"
FIRST = "server1"


def fleet(count: int, host_image: str) -> Spec:
    """Start `count` fresh hosts: the first is edge, app and database, the others are app hosts behind it."""
    entries = {
        f"server{number}": {"image": host_image, "groups": ["edge", "app", "database"] if number == 1 else ["app"]}
        for number in range(1, count + 1)
    }
    name = f"bench-{count}"
    hosts.down(name)
    return hosts.up(parse({"name": name, "hosts": entries}))


def limit_fleet(host_image: str) -> Spec:
    """Two fresh hosts: `server1` for the script, under the name that its files know, and `scratch` for packages alone."""
    hosts.down("bench-limit")
    return hosts.up(parse({"name": "bench-limit", "hosts": {name: {"image": host_image} for name in (FIRST, "scratch")}}))


def warm(container: str) -> None:
    """Read the archives of all packages once, so that no measurement pays for a cold disk; all hosts share these pages."""
    run(["docker", "exec", container, "sh", "-c", "cat /var/cache/apt/archives/*.deb /usr/bin/* >/dev/null"], timeout=300)


def apps() -> dict[str, Any]:
    """slipway_apps: what the README shows as the smallest inventory, with a release made here."""
    archive = image.compress(image.tar(releases.content(RELEASE, {})))
    path = CACHE / f"{APP}-{RELEASE}.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive)
    digest = image.digest(archive).removeprefix("sha256:")
    return {
        APP: {
            "domain": DOMAIN,
            "release": RELEASE,
            "releases": {RELEASE: {"archive": str(path), "sha256": digest}},
            "backends": {"web": {"runtime": "systemd", "port": 3000, "command": "/usr/bin/puma -C config/puma.rb",
                                 "packages": ["puma", "ruby-pg"]}},
            "health": {"path": "/health", "json": {"checks.*.status": "ok"}, "version": {"path": "/version", "key": "release"},
                       "min_healthy": 2, "deadline": 60},
            "cutover": {"bake": 2, "standby": 60, "confirm_deadline": 60},
            "websockets": ["/ws"],
            "database": {"name": APP, "user": APP, "password": secrets.token_hex(16)},
            "secrets": {"JWT_SECRET": secrets.token_hex(32)},
        }
    }  # fmt: skip


def inventory(spec: Spec) -> Path:
    """An inventory of the fleet with the application."""
    described: dict[str, Any] = hosts.inventory(spec)
    path = CACHE / f"{spec.name}.yml"
    described["all"]["vars"]["slipway_apps"] = apps()
    path.write_text(yaml.safe_dump(described, sort_keys=False))
    return path


def served_release(address: str) -> str:
    """The release that answers over HTTPS at an address, asked for as clients do, by name. Raises OSError or ValueError."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=DOMAIN) as secure,
    ):
        secure.sendall(f"GET /version HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(secure)
        answer.begin()
        return str(json.loads(answer.read())["release"])
