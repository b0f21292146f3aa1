# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at a server from inside: what only connections from the host itself see, the access log, and its rotation."""

from __future__ import annotations

import http.client
import json
import pathlib
import socket
import ssl
import subprocess
import time

LOG = pathlib.Path("/var/log/nginx/slipway-shop.json.log")
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE


def ask(path, agent="other"):
    connection = http.client.HTTPConnection("127.0.0.1", 443)
    connection.sock = CONTEXT.wrap_socket(socket.create_connection(("127.0.0.1", 443)), server_hostname="shop.test")
    connection.request("GET", path, headers={"Host": "shop.test", "User-Agent": agent})
    answer = connection.getresponse()
    answer.read()
    return answer.getheader("X-Slipway-Slot")


def lines():
    time.sleep(0.2)
    return [json.loads(line) for line in LOG.read_text().splitlines()]


shown = [ask("/a?token=x", "slipway-probe"), ask("/health?token=x"), ask("/b?token=x")]
assert shown == ["blue"] * 3, shown
found = lines()
assert [line["probe"] for line in found[-3:]] == [1, 1, 0], found[-3:]
assert {line["app"] for line in found} == {"shop"}
assert {line["slot"] for line in found} == {"blue", "green"}
assert len({line["request_id"] for line in found}) == len(found)
assert not [line for line in found if "?" in line["path"] or "token" in json.dumps(line)]
assert all(isinstance(line[key], (int, float)) for line in found for key in ("status", "bytes", "request_time", "msec"))
assert {line["status"] for line in found} >= {200, 404, 413, 500, 502, 504}

# What the host asks itself of the location of its own proof is not logged, what others ask is.
ask("/.slipway/edge")
time.sleep(0.2)
asked = [line for line in LOG.with_name("access.log").read_text().splitlines() if "/.slipway/edge " in line]
assert asked
assert not [line for line in asked if line.startswith("127.")], asked

subprocess.run(["logrotate", "--force", "/etc/logrotate.d/nginx"], check=True)
time.sleep(1)
ask("/rotated")
assert [line["path"] for line in lines()] == ["/rotated"], lines()
assert oct(LOG.stat().st_mode & 0o777) == "0o640", LOG.stat()
assert LOG.owner() == "www-data", LOG.owner()
