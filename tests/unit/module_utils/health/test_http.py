# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.slipway.server.plugins.module_utils.health import jsonpath, probes
from ansible_collections.slipway.server.plugins.module_utils.health.http import Expectation, HttpProbe, HttpTarget
from ansible_collections.slipway.server.plugins.module_utils.health.probes import BadTarget, ConnectProbe, ProbeOptions
from ansible_collections.slipway.server.plugins.module_utils.health.wire import Place

Talk = Callable[[socket.socket, bytes], None]


def answer(status: str = "200 OK", body: str = "", headers: str = "") -> Talk:
    def talk(client: socket.socket, _request: bytes) -> None:
        raw = body.encode()
        client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\n{headers}\r\n".encode() + raw)

    return talk


class Server:
    """Reads one request and lets `talk` answer it."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.talk: Talk = answer()
        self.requests: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self.listener.accept()
            except OSError:
                return
            with client:
                request = client.recv(65536)
                if request:
                    self.requests.append(request)
                    try:
                        self.talk(client, request)
                    except OSError:
                        continue


@pytest.fixture
def server() -> Iterator[Server]:
    listener = socket.create_server(("127.0.0.1", 0))
    yield Server(listener)
    listener.close()


def probe(server: Server, timeout: float = 20.0, **expected: object) -> HttpProbe:
    return HttpProbe(HttpTarget("127.0.0.1", server.port, "/health"), Expectation(**expected), timeout)  # type: ignore[arg-type]


def test_status_is_exact(server: Server) -> None:
    assert probe(server).look().ok
    server.talk = answer("204 No Content")
    result = probe(server).look()
    assert (result.ok, result.status) == (False, 204)
    assert result.detail.startswith("status 204, not 200")
    assert probe(server, status=(200, 204)).look().ok


def test_redirects_are_not_followed(server: Server) -> None:
    server.talk = answer("302 Found", headers="Location: /login\r\n")
    assert "status 302" in probe(server).look().detail
    assert len(server.requests) == 1


def test_json_body_and_headers(server: Server) -> None:
    server.talk = answer(
        body=json.dumps({"checks": {"db": {"status": "ok"}, "redis": {"status": "down"}}}), headers="X-Slot: blue\r\n"
    )
    result = probe(server, json={"checks.*.status": "ok"}).look()
    assert "JSON checks.redis.status is 'down', not 'ok'" in result.detail
    assert probe(server, body="redis", headers={"x-slot": "^blue$"}).look().ok
    assert "header X-Slot is 'blue'" in probe(server, headers={"X-Slot": "green"}).look().detail
    assert probe(server, headers={"X-Other": "."}).look().detail == "header X-Other is missing"
    server.talk = answer(body="<html>")
    assert "body is not JSON: <html>" in probe(server, json={"a": 1}).look().detail
    assert "does not match" in probe(server, body="all fine").look().detail


def test_latency_limit(server: Server) -> None:
    def slow(client: socket.socket, request: bytes) -> None:
        time.sleep(0.1)
        answer()(client, request)

    server.talk = slow
    assert "more than 50 ms" in probe(server, max_latency_ms=50).look().detail


def test_timeout_is_for_the_whole_answer(server: Server) -> None:
    def trickle(client: socket.socket, _request: bytes) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _byte in range(100):
            client.sendall(b"x")
            time.sleep(0.05)

    server.talk = trickle
    begun = time.monotonic()
    result = probe(server, timeout=0.4).look()
    assert result.detail == "no complete answer within 0.4 s"
    assert time.monotonic() - begun < 4.0


def test_huge_body_is_cut(server: Server) -> None:
    server.talk = answer(body="x" * 2_000_000)
    _result, got = probe(server).ask()
    assert got is not None
    assert len(got.body) == 256 * 1024


def test_a_body_that_ends_early_is_no_answer(server: Server) -> None:
    server.talk = lambda client, request: client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")
    assert probe(server).look().detail == "no HTTP answer: closed after 2 of 100 bytes"
    server.talk = lambda client, request: client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
    assert probe(server).look().detail == "no HTTP answer: closed after 2 of 5 bytes"


def test_json_that_cannot_be_judged(server: Server) -> None:
    server.talk = answer(body="[" * 100_000)
    assert "body is not JSON: [[[" in probe(server, json={"a": 1}).look().detail
    server.talk = answer(body='{"a": "' + "x" * 300_000 + '"}')
    assert "body is not JSON within 262144 bytes" in probe(server, json={"a": 1}).look().detail


def test_tls_that_never_comes(server: Server) -> None:
    server.talk = lambda client, request: time.sleep(3)
    begun = time.monotonic()
    slow = HttpProbe(HttpTarget("127.0.0.1", server.port, tls=True), timeout=0.3)
    assert slow.look().detail == "no complete answer within 0.3 s"
    assert time.monotonic() - begun < 2.5


def test_tls_that_is_none(server: Server) -> None:
    assert "no HTTP answer" in HttpProbe(HttpTarget("127.0.0.1", server.port, tls=True)).look().detail


def redirecting(server: Server, *places: str, status: str = "302 Found") -> HttpProbe:
    waiting = list(places)

    def talk(client: socket.socket, request: bytes) -> None:
        head = f"Location: {waiting.pop(0)}\r\n" if waiting else ""
        answer(status if head else "200 OK", body="here", headers=head)(client, request)

    server.talk = talk
    asked = {"Host": "api.example", "Authorization": "Basic c2VjcmV0", "X-Own": "1"}
    return HttpProbe(HttpTarget("127.0.0.1", server.port, "/a/b", asked, "POST"), redirects=2)


def test_redirects_on_the_same_site_stay_on_the_same_address(server: Server) -> None:
    assert redirecting(server, "c?d=1", "http://api.example/e").look().ok
    assert [request.split(b"\r\n")[0] for request in server.requests] == [
        b"POST /a/b HTTP/1.1",
        b"GET /a/c?d=1 HTTP/1.1",
        b"GET /e HTTP/1.1",
    ]
    assert b"Authorization: Basic c2VjcmV0\r\n" in server.requests[2]


def test_redirects_elsewhere_take_no_secrets_along(server: Server) -> None:
    assert redirecting(server, f"http://127.0.0.1:{server.port}/there", status="307 Temporary Redirect").look().ok
    assert server.requests[1].startswith(f"POST /there HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n".encode())
    assert b"Authorization" not in server.requests[1]
    assert b"X-Own: 1" in server.requests[1]


def test_redirects_that_cannot_be_followed(server: Server) -> None:
    assert redirecting(server, "/1", "/2", "/3").look().detail == "more than 2 redirects, the last to /3"
    assert redirecting(server, "file:///etc/passwd").look().detail.startswith("redirected to file:///etc/passwd")


def test_what_is_no_http(server: Server) -> None:
    server.talk = lambda client, request: client.sendall(b"SSH-2.0-OpenSSH\r\n")
    assert "no HTTP answer" in probe(server).look().detail
    server.talk = lambda client, request: None
    assert "no HTTP answer" in probe(server).look().detail


def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = HttpProbe(HttpTarget("127.0.0.1", port)).look()
    assert (result.ok, result.refused) == (False, True)
    assert ConnectProbe(Place("127.0.0.1", port)).look().refused


def test_host_header_and_connect_address(server: Server) -> None:
    options = ProbeOptions(Expectation(), {"host": "api.example"}, connect=f"127.0.0.1:{server.port}")
    made = probes.make("http", "http://elsewhere.example/up?x=1", options)
    assert made.look().ok
    request = server.requests[0].decode()
    assert request.startswith("GET /up?x=1 HTTP/1.1\r\nHost: api.example\r\n")
    assert "Connection: close" in request


def test_header_injection_is_no_request(server: Server) -> None:
    target = HttpTarget("127.0.0.1", server.port, headers={"X": "a\r\nHost: evil"})
    assert "line break" in HttpProbe(target).look().detail
    assert server.requests == []


def test_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    server = Server(listener)
    options = ProbeOptions(Expectation(), {}, path="/up")
    assert probes.make("unix_http", path, options).look().ok
    assert server.requests[0].startswith(b"GET /up HTTP/1.1\r\nHost: localhost")
    assert ConnectProbe(Place(path, unix=True)).look().ok
    listener.close()
    assert not ConnectProbe(Place(str(tmp_path / "none.sock"), unix=True)).look().ok


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("http", "localhost"),
        ("http", "ftp://x"),
        ("http", "http://user:pass@x/"),
        ("websocket", "http://x/"),
        ("tcp", "1.2.3.4"),
        ("tcp", "host:99999"),
        ("smtp", "x"),
    ],
)
def test_bad_targets(kind: str, target: str) -> None:
    with pytest.raises(BadTarget):
        probes.make(kind, target, ProbeOptions(Expectation(), {}))


def test_tcp(server: Server) -> None:
    assert probes.make("tcp", f"127.0.0.1:{server.port}", ProbeOptions(Expectation(), {})).look().ok
    assert probes.split_address("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", [("a", {"b": [1, {"c": True}]})]),
        ("a.b.0", [("a.b.0", 1)]),
        ("a.b.*", [("a.b.0", 1), ("a.b.1", {"c": True})]),
        ("*.b.1.c", [("a.b.1.c", True)]),
        ("a.b.7", []),
        ("a.x.y", []),
    ],
)
def test_json_paths(path: str, found: list[tuple[str, object]]) -> None:
    assert jsonpath.select({"a": {"b": [1, {"c": True}]}}, path) == found


def test_json_mismatch() -> None:
    assert jsonpath.mismatch({"checks": {}}, {"checks.*.status": "ok"}) == "JSON has nothing at checks.*.status"
    assert jsonpath.mismatch({"up": 1}, {"up": True}) == "JSON up is 1, not True"
    assert jsonpath.mismatch({"up": True}, {"up": True}) is None
