# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on a host of the fleet: Debian's docker-registry with TLS and a login, and pushing to it.

The images are uploaded over the registry's own interface, so that no engine of this machine has to trust the authority.
"""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.app.certificates import authority, issue
from tests.app.image import MANIFEST_TYPE, Image, digest
from tests.fleet import hosts
from tests.fleet.shell import STATE, FleetError, lock, run, step

PORT = 5000
USER = "slipway"
PASSWORD = STATE / "registry" / "password"
REPOSITORY = "spotik"
START_TIMEOUT = 30.0

SETUP = """
set -eu
DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends docker-registry apache2-utils
cd /etc/docker/registry
umask 077
cat >key.pem <<'END'
{key}END
printf %s '{password}' | htpasswd -niB {user} >htpasswd
cat >certificate.pem <<'END'
{chain}END
cat >config.yml <<'END'
version: 0.1
storage:
  filesystem: {{rootdirectory: /var/lib/docker-registry}}
  delete: {{enabled: true}}
http:
  addr: :{port}
  relativeurls: true
  tls: {{certificate: /etc/docker/registry/certificate.pem, key: /etc/docker/registry/key.pem}}
auth:
  htpasswd: {{realm: fleet, path: /etc/docker/registry/htpasswd}}
END
chown docker-registry: key.pem htpasswd certificate.pem config.yml
systemctl enable docker-registry
systemctl restart docker-registry
"""


@dataclass(frozen=True)
class Registry:
    """Where it answers."""

    address: str
    port: int = PORT

    @property
    def name(self) -> str:
        return f"{self.address}:{self.port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One authenticated request: status, headers in lower case, body."""
        context = ssl.create_default_context(cafile=str(authority()))
        connection = http.client.HTTPSConnection(self.address, self.port, context=context, timeout=60)
        login = base64.b64encode(f"{USER}:{password()}".encode()).decode()
        try:
            connection.request(method, path, body, {"Authorization": f"Basic {login}", **(headers or {})})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/v2/")[0] == 200
        except OSError:
            return False


def password() -> str:
    """The password of the registry's user, made at the first call."""
    with lock("registry-password"):
        if not PASSWORD.exists():
            PASSWORD.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(PASSWORD, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
    return PASSWORD.read_text()


def ensure(fleet: str, host: str) -> Registry:
    """The registry on `host` of a running fleet, set up unless it answers to our login and authority already."""
    registry = Registry(_address(fleet, host))
    if registry.answers():
        return registry
    with step(f"setting up the registry {registry.name}"):
        chain, key = issue([registry.address, host])
        script = SETUP.format(chain=chain, key=key, password=password(), user=USER, port=PORT)
        run(["docker", "exec", "--interactive", hosts.container_name(fleet, host), "sh", "-s"], input=script, timeout=300)
        deadline = time.monotonic() + START_TIMEOUT
        while not registry.answers():
            if time.monotonic() > deadline:
                raise FleetError(
                    f"no registry answers at {registry.name}. See: python -m tests.fleet exec {fleet} {host} "
                    "journalctl -u docker-registry"
                )
            time.sleep(0.2)
    return registry


def push(registry: Registry, made: Image, tag: str) -> str:
    """Upload what the registry lacks; returns the reference by digest."""
    for layer in made.layers:
        if not _has(registry, layer.digest):
            with layer.open() as data:
                _upload(registry, layer.digest, layer.size, data)
    config = digest(made.config)
    if not _has(registry, config):
        _upload(registry, config, len(made.config), made.config)
    path = f"/v2/{REPOSITORY}/manifests/{tag}"
    status, headers, body = registry.ask("PUT", path, made.manifest, {"Content-Type": MANIFEST_TYPE})
    if status != 201 or headers.get("docker-content-digest") != made.digest:
        raise FleetError(f"{registry.name} did not take the manifest of {tag}: {status} {body[:300].decode(errors='replace')}")
    return f"{registry.name}/{REPOSITORY}@{made.digest}"


def _has(registry: Registry, blob: str) -> bool:
    return registry.ask("HEAD", f"/v2/{REPOSITORY}/blobs/{blob}")[0] == 200


def _upload(registry: Registry, blob: str, size: int, data: object) -> None:
    status, headers, body = registry.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
    if status == 202:
        place = urlsplit(headers["location"])
        path = f"{place.path}?{place.query}&digest={blob}" if place.query else f"{place.path}?digest={blob}"
        length = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        status, headers, body = registry.ask("PUT", path, data, length)
    if status != 201:
        raise FleetError(f"{registry.name} did not take {blob}: {status} {body[:300].decode(errors='replace')}")


def _address(fleet: str, host: str) -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = run(["docker", "inspect", "--format", form, hosts.container_name(fleet, host)])
    if not address:
        raise FleetError(f"host {host} of fleet {fleet} does not run: python -m tests.fleet up {fleet}")
    return address
