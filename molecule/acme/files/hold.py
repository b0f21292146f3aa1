# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds a WebSocket and keep-alive clients over a renewal. Usage: hold.py DOMAIN CA SECONDS; prints JSON, status 1 on a loss."""

from __future__ import annotations

import http.client
import json
import random
import socket
import ssl
import sys
import threading
import time

DOMAIN, CA, UNTIL = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
TRUST = ssl.create_default_context(cafile=CA)
FAILURES: list[str] = []
SEEN: dict[str, int] = {}
COUNTS = {"requests": 0, "echoes": 0, "handshakes": 0}


def connect():
    made = TRUST.wrap_socket(socket.create_connection((DOMAIN, 443), timeout=10), server_hostname=DOMAIN)
    serial = made.getpeercert()["serialNumber"]
    SEEN[serial] = SEEN.get(serial, 0) + 1
    COUNTS["handshakes"] += 1
    return made


def websocket():
    held = connect()
    held.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {DOMAIN}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    answer = held.recv(1000)
    if b" 101 " not in answer:
        FAILURES.append(f"websocket: {answer[:40]!r}")
    while time.monotonic() < UNTIL:
        held.sendall(b"\x81\x85\x00\x00\x00\x00hello")
        if held.recv(100) != b"\x81\x85\x00\x00\x00\x00hello":
            FAILURES.append("websocket was cut")
            return
        COUNTS["echoes"] += 1
        time.sleep(0.2)


def client(keep):
    link = None
    while time.monotonic() < UNTIL:
        if link is None:
            link = http.client.HTTPConnection(DOMAIN, timeout=10)
            link.sock = connect()
        link.request("GET", "/", headers={"Host": DOMAIN})
        status = link.getresponse()
        status.read()
        COUNTS["requests"] += 1
        if status.status != 200:
            FAILURES.append(f"status {status.status}")
        if not keep:
            link.close()
            link = None
        time.sleep(random.uniform(0.01, 0.1))


def guarded(work, *arguments):
    try:
        work(*arguments)
    except (OSError, http.client.HTTPException) as error:
        FAILURES.append(f"{work.__name__}{arguments}: {error!r}")


threads = [
    threading.Thread(target=guarded, args=arguments)
    for arguments in [(websocket,), *((client, number % 2 == 0) for number in range(8))]
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({**COUNTS, "certificates": SEEN, "failures": FAILURES}))
sys.exit(1 if FAILURES else 0)
