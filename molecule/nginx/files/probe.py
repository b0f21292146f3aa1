# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at one server from another host. Usage: probe.py behaviour|load|legacy ADDRESS; prints JSON, status 1 on a failure."""

from __future__ import annotations

import collections
import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time

ADDRESS = sys.argv[2]
FAILURES: list[str] = []
ONCE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "strict-origin-when-cross-origin",
    "x-permitted-cross-domain-policies": "none",
    "strict-transport-security": "max-age=31536000",
}


def expect(what, found, wanted):
    if found != wanted:
        FAILURES.append(f"{what}: expected {wanted!r}, found {found!r}")


def context(low=None, high=None, ciphers=None, alpn=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if low:
        made.set_ciphers(ciphers or "ALL:@SECLEVEL=0")
        made.minimum_version, made.maximum_version = low, high or low
    elif ciphers:
        made.set_ciphers(ciphers)
    if alpn:
        made.set_alpn_protocols(alpn)
    return made


def connect(name, made=None):
    raw = socket.create_connection((ADDRESS, 443), timeout=10)
    return (made or context()).wrap_socket(raw, server_hostname=name)


def refusal(action):
    """What an attempt ends with: the reason of the refusal, or `accepted`."""
    try:
        action()
    except ssl.SSLError as error:
        return error.reason or str(error)
    except (ConnectionResetError, http.client.RemoteDisconnected):
        return "closed without an answer"
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    return "accepted"


class Client:
    """One connection on which requests are made one after another."""

    def __init__(self, name, plain=False):
        self.name = name
        self.http = http.client.HTTPConnection(ADDRESS, 80 if plain else 443, timeout=10)
        if not plain:
            self.http.sock = connect(name)

    def ask(self, path="/", method="GET", headers=None, body=None):
        self.http.request(method, path, body=body, headers={"Host": self.name, **(headers or {})})
        answer = self.http.getresponse()
        text = answer.read()
        self.headers = collections.defaultdict(list)
        for key, value in answer.getheaders():
            self.headers[key.lower()].append(value)
        self.body = json.loads(text) if self.headers["content-type"] == ["application/json"] else text.decode()
        return answer.status


def tls():
    for name, kind in (("shop.test", "ECDSA"), ("legacy.test", "RSA")):
        with connect(name) as found:
            expect(f"{name} best protocol", found.version(), "TLSv1.3")
        with connect(name, context(ssl.TLSVersion.TLSv1_2)) as found:
            expect(f"{name} TLS 1.2 key exchange", found.cipher()[0].split("-")[:2], ["ECDHE", kind])
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            old = context(version)
            reason = refusal(lambda name=name, old=old: connect(name, old).close())
            expect(f"{name} {version.name}", reason, "TLSV1_ALERT_PROTOCOL_VERSION")
        weak = context(ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA:AES128-GCM-SHA256:ECDHE-RSA-AES128-SHA:@SECLEVEL=0")
        expect(
            f"{name} weak ciphers", "HANDSHAKE_FAILURE" in refusal(lambda name=name, weak=weak: connect(name, weak).close()), True
        )
    with connect("shop.test", context(alpn=["h2", "http/1.1"])) as found:
        expect("HTTP/2", found.selected_alpn_protocol(), "h2")


def names():
    for name in ("unknown.test", None):
        expect(f"TLS name {name}", "UNRECOGNIZED_NAME" in refusal(lambda name=name: connect(name).close()), True)
    expect(
        "known TLS name, unknown Host",
        refusal(lambda: Client("shop.test").ask(headers={"Host": "other.test"})),
        "closed without an answer",
    )
    expect("port 80, unknown Host", refusal(lambda: Client("other.test", plain=True).ask()), "closed without an answer")
    expect(
        "port 80, internal path",
        refusal(lambda: Client("other.test", plain=True).ask("/.slipway/edge")),
        "closed without an answer",
    )
    for name in ("shop.test", "www.shop.test"):
        client = Client(name, plain=True)
        expect(f"{name} redirect", client.ask("/a/b?c=d", "POST", body="x"), 308)
        expect(f"{name} redirect goes to", client.headers["location"], [f"https://{name}/a/b?c=d"])
    expect("challenge that does not exist", Client("shop.test", plain=True).ask("/.well-known/acme-challenge/x"), 404)
    expect("alias is served", Client("www.shop.test").ask(), 200)
    expect("internal path from outside", Client("shop.test").ask("/.slipway/edge"), 404)


def headers():
    client = Client("shop.test")
    cases = {
        "/": 200, "/status/404": 404, "/status/500": 500, "/status/503": 503, "/own/200": 200, "/own/503": 503, "/slow/7": 504,
        "/drop": 502,
    }  # fmt: skip
    for path, status in cases.items():
        expect(path, client.ask(path), status)
        for name, value in ONCE.items():
            expect(f"{path} {name}", client.headers[name], [value])
        own = path.startswith("/own")
        policy = "default-src 'none'" if own else "frame-ancestors 'self'; object-src 'none'; base-uri 'self'"
        expect(f"{path} content-security-policy", client.headers["content-security-policy"], [policy])
        retry = ["77"] if own else ["5"] if status in (502, 503, 504) else []
        expect(f"{path} retry-after", client.headers["retry-after"], retry)
        expect(f"{path} request id", [len(value) for value in client.headers["x-request-id"]], [32])
        for name in ("x-slipway-slot", "x-slipway-generation", "x-powered-by"):
            expect(f"{path} {name}", client.headers[name], [])
        expect(f"{path} server", client.headers["server"], ["nginx"])
        if status in (502, 504):
            expect(f"{path} page", "try again" in client.body, True)
    expect("post to a dead application", client.ask("/drop", "POST", body="x"), 502)
    big = Client("shop.test")
    expect("body over the limit", big.ask("/", "POST", body="x" * 1_100_000), 413)
    expect("headers of 413", big.headers["x-content-type-options"], ["nosniff"])
    expect("body within the limit", Client("shop.test").ask("/", "POST", body="x" * 1_000_000), 200)


def forwarded():
    client = Client("shop.test")
    lies = {name: "6.6.6.6" for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto")}
    lies.update({"Proxy": "http://6.6.6.6", "X-Request-ID": "mine", "X-Slipway-Slot": "green"})
    client.ask("/", headers=lies)
    reached = client.body["headers"]
    for name in ("x-forwarded-for", "x-real-ip"):
        expect(f"{name} at the application", reached.get(name), os.environ["OWN_ADDRESS"])
    for name, value in (("x-forwarded-proto", "https"), ("x-forwarded-host", "shop.test"), ("host", "shop.test")):
        expect(f"{name} at the application", reached.get(name), value)
    for name in ("forwarded", "proxy"):
        expect(f"{name} at the application", reached.get(name), None)
    expect("request id at the application", [reached.get("x-request-id")], client.headers["x-request-id"])


def upgrades():
    ask = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    client = Client("shop.test")
    client.http.request("GET", "/ws", headers={"Host": "shop.test", **ask})
    answer = client.http.getresponse()
    expect("websocket", (answer.status, answer.getheader("Sec-WebSocket-Accept")), (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    client.http.sock.sendall(b"\x81\x85\x00\x00\x00\x00hello")
    expect("websocket echo", client.http.sock.recv(100), b"\x81\x85\x00\x00\x00\x00hello")
    for path, token in (("/ws", "h2c"), ("/", "h2c"), ("/", "websocket"), ("/ws", "websocket, h2c")):
        client = Client("shop.test")
        client.ask(
            path,
            headers={"Upgrade": token, "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"},
        )
        reached = client.body["headers"]
        expect(f"upgrade of {path} to {token}", (reached.get("upgrade"), reached.get("connection")), (None, None))


def reuse():
    client = Client("shop.test")
    client.ask()
    before = client.body["connections"]
    for _number in range(200):
        client.ask()
    expect("connections to the application for 200 requests", client.body["connections"] - before <= 4, True)


def limits():
    """Rate limits by the longest path, and paths that are not for this host."""
    client = Client("shop.test")
    # A burst must not begin in one minute and end in the next one of the clock, or it is two bursts.
    if time.time() % 60 > 50:
        time.sleep(61 - time.time() % 60)
    answers = [client.ask("/search?q=1") for _ in range(61)]
    expect("61 searches at once", answers, [200] * 60 + [429])
    expect("seconds to wait after 429", 1 <= int(client.headers["retry-after"][0]) <= 60, True)
    expect("security header on 429", client.headers["x-content-type-options"], ["nosniff"])
    expect("below the limited path", client.ask("/search/slow"), 429)
    expect("a longer path without limit", client.ask("/search/fast"), 200)
    expect("a name that only begins like it", client.ask("/searches"), 200)
    expect("the first comparison", client.ask("/compare"), 200)
    expect("the second comparison", client.ask("/compare"), 429)
    expect("health checks", {client.ask("/health") for _ in range(130)}, {200})
    expect("another site", Client("legacy.test").ask("/search") != 429, True)
    expect("restricted", client.ask("/metrics"), 403)
    expect("restricted, below", client.ask("/metrics/app"), 403)
    expect("restricted, written otherwise", {client.ask(path) for path in ("//metrics", "/x/../metrics", "/%6detrics")}, {403})
    expect("security header on 403", client.headers["x-content-type-options"], ["nosniff"])
    expect("allowed here", client.ask("/inside/x"), 200)


def load(seconds=12.0, clients=8):
    """Keep-alive clients that send GET and POST until the time is over; every answer counts."""
    total, slots, until = collections.Counter(), collections.Counter(), time.monotonic() + seconds

    def run(number):
        client = Client("shop.test")
        count = 0
        while time.monotonic() < until:
            count += 1
            method = ("GET", "POST")[(count + number) % 2]
            try:
                status = client.ask("/load", method, body="x" * 100 if method == "POST" else None)
            except (OSError, http.client.HTTPException) as error:
                FAILURES.append(f"{method}: {error!r}")
                client = Client("shop.test")
                continue
            total[method] += 1
            if status != 200:
                FAILURES.append(f"{method}: {status}")
            else:
                slots[client.body["slot"]] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"requests": sum(total.values()), "methods": dict(total), "slots": dict(slots)}


def down():
    client = Client("legacy.test")
    expect("no application behind the slot", client.ask("/x", "POST", body="x"), 502)
    expect("retry", client.headers["retry-after"], ["5"])
    expect("security headers", client.headers["x-frame-options"], ["SAMEORIGIN"])


report = {}
if sys.argv[1] == "load":
    report = load()
else:
    for part in (tls, names, headers, forwarded, upgrades, reuse, limits, down):
        part()
print(json.dumps({**report, "failed": len(FAILURES), "failures": FAILURES[:40]}))
sys.exit(1 if FAILURES else 0)
