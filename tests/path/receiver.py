# SPDX-License-Identifier: GPL-3.0-or-later
"""A receiver of notifications on a host of a scenario: HTTPS with a certificate of the tests' authority; it keeps what comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.app import certificates
from tests.fleet import hosts
from tests.fleet.shell import run
from tests.path.system import System

PORT = 8443
TOLD = "/run/told.jsonl"
SERVER = f"""
import http.server, json, ssl

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("{TOLD}", "a") as file:
            file.write(json.dumps({{"path": self.path, "told": json.loads(body)}}) + "\\n")
        self.send_response(204)
        self.end_headers()

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/run/told.pem")
server = http.server.HTTPServer(("", {PORT}), Receiver)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
# The port is open as soon as this returns.
START = f"""
set -eu
systemd-run --quiet --collect --unit=told python3 /run/told.py
for try in $(seq 100); do
    python3 -c "import socket; socket.create_connection(('127.0.0.1', {PORT}), 1)" 2>/dev/null && exit 0
    sleep 0.1
done
systemctl status told; exit 1
"""


@contextmanager
def receiver(system: System, host: str) -> Iterator[None]:
    """It runs on `host` while the block does; the edge trusts its authority from then on."""
    chain, key = certificates.issue([system.address(host)])
    _write(system, host, "/run/told.pem", key + chain)
    _write(system, host, "/run/told.py", SERVER)
    _write(system, system.edge, "/usr/local/share/ca-certificates/tests.crt", certificates.authority().read_text())
    system.on(system.edge, "update-ca-certificates")
    system.on(host, "sh", "-c", START)
    try:
        yield
    finally:
        system.on(host, "systemctl", "stop", "told")


def told(system: System, host: str) -> list[dict[str, Any]]:
    """What came so far: `path` and, as `told`, the JSON."""
    return [json.loads(line) for line in system.on(host, "cat", TOLD).splitlines()]


def _write(system: System, host: str, path: str, text: str) -> None:
    container = hosts.container_name(system.fleet, host)
    run(["docker", "exec", "--interactive", container, "sh", "-c", f"umask 077; cat >{path}; chmod go+r {path}"], input=text)
