# SPDX-License-Identifier: GPL-3.0-or-later
"""Follows the access log of shop while clients ask and logrotate moves the file. Usage: follow.py LIBRARY."""

from __future__ import annotations

import collections
import http.client
import pathlib
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, sys.argv[1])
from health.access_log import AccessLog

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE
FLAGS = pathlib.Path("/var/lib/slipway/shop/flags")
log = AccessLog(pathlib.Path("/var/log/nginx/slipway-shop.json.log"), {"127.0.0.1:3001": "blue", "127.0.0.1:3002": "green"})
at = log.position()


def connect():
    return CONTEXT.wrap_socket(socket.create_connection(("127.0.0.1", 443), timeout=10), server_hostname="shop.test")


def ask(path, agent="other", method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", 443)
    connection.sock = connect()
    connection.request(method, path, body=body, headers={"Host": "shop.test", "User-Agent": agent})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def raw(request):
    with connect() as connection:
        connection.sendall(request + b"Host: shop.test\r\nConnection: close\r\n\r\n")
        while connection.recv(65536):
            pass


def follow():
    global at
    found = []
    while True:
        samples, reached = log.read(at, 100)
        found += samples
        if reached == at:
            return found
        at = reached


def seen(action):
    """What the samples of one action say."""
    action()
    time.sleep(0.3)
    return [(sample.slot, sample.error, sample.ms is not None) for sample in follow()]


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: expected {wanted}, found {found}; {log.foreign} foreign, {log.lost} lost")


def abandon():
    with connect() as connection:
        connection.sendall(b"GET /slow/2 HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        time.sleep(0.5)


def upgrade():
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    key += b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    with connect() as connection:
        connection.sendall(b"GET /ws HTTP/1.1\r\nHost: shop.test\r\n" + key + b"\r\n")
        connection.recv(1000)
        time.sleep(0.3)


expect("an answer", seen(lambda: ask("/")), [("blue", False, True)])
expect("a probe", seen(lambda: (ask("/", "slipway-probe/1"), ask("/health"))), [])
expect("an error", seen(lambda: ask("/status/500")), [("blue", True, False)])
expect("a connection that the application closes", seen(lambda: ask("/drop", "x", "POST", "x")), [("blue", True, False)])
expect("nginx's own refusal", seen(lambda: ask("/", "x", "POST", "x" * 1_100_000)), [])
expect("a client that went away", seen(abandon), [("blue", False, True)])
expect("a WebSocket", seen(upgrade), [("blue", False, False)])
nasty = b'GET /"\\\x01\xff%00{"probe":1} HTTP/1.1\r\nUser-Agent: a"\\b\x07\xfe\xff{"slot":"x"}\r\n'
expect("a request that nginx cannot read", seen(lambda: raw(nasty)), [])
odd = b'GET /"\\\xc3\xa9\xff{"probe":1} HTTP/1.1\r\nUser-Agent: a"\\b\xfe\xff{"slot":"x"}\r\n'
expect("a request full of quotes", seen(lambda: raw(odd)), [("blue", False, True)])
expect("lines that clients spoiled", log.foreign, 0)

(FLAGS / "green").touch()
(FLAGS / "spare.blue").touch()
expect("the other slot", seen(lambda: ask("/")), [("green", False, True)])
subprocess.run(["systemctl", "stop", "backend-green"], check=True)
expect("the spare slot stands in", seen(lambda: ask("/")), [("green", True, False), ("blue", False, True)])
green = ["--unit=backend-green", "--property=Restart=always", "python3", "/usr/local/bin/backend.py", "green", "3002"]
subprocess.run(["systemd-run", "--quiet", *green], check=True)
(FLAGS / "green").unlink()
(FLAGS / "spare.blue").unlink()

sent, until = collections.Counter(), time.monotonic() + 5


def load(number):
    while time.monotonic() < until:
        sent[ask(f"/client-{'abcd'[number]}")] += 1


threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
samples, rotations = [], 0
while any(thread.is_alive() for thread in threads):
    samples += follow()
    if until - time.monotonic() < 4 - rotations and rotations < 3:
        subprocess.run(["logrotate", "--force", "/etc/logrotate.d/nginx"], check=True)
        rotations += 1
    time.sleep(0.05)
time.sleep(0.3)
samples += follow()
expect("samples over three rotations under load", (len(samples), rotations, log.foreign, log.lost), (sent[200], 3, 0, 0))
expect("enough of them", sent[200] > 200, True)
print(f"{len(samples)} requests over {rotations} rotations, none lost, none twice")
