# SPDX-License-Identifier: GPL-3.0-or-later
"""A small application: says which slot it is, what reached it, and answers as the path asks. Usage: backend.py SLOT PORT."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOT, PORT = sys.argv[1], int(sys.argv[2])
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Server(ThreadingHTTPServer):
    connections = 0
    daemon_threads = True
    request_queue_size = 512

    def get_request(self):
        Server.connections += 1
        return super().get_request()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind, _slash, rest = self.path.partition("?")[0].strip("/").partition("/")
        if kind == "ws" and self.headers.get("Upgrade") == "websocket":
            self.websocket()
            return
        if kind == "slow":
            time.sleep(float(rest))
        if kind == "drop":
            self.close_connection = True
            return
        headers = {"X-Powered-By": "backend", "Server": "backend", "Content-Type": "application/json"}
        if kind == "own":
            headers.update({"X-Frame-Options": "DENY", "X-Request-ID": "mine", "X-Slipway-Slot": "mine", "Retry-After": "77"})
            headers.update({"Content-Security-Policy": "default-src 'none'", "Strict-Transport-Security": "max-age=1"})
        answer = {
            "slot": SLOT,
            "method": self.command,
            "size": len(body),
            "connections": Server.connections,
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }
        text = json.dumps(answer).encode()
        self.send_response(int(rest) if kind in ("status", "own") and rest.isdigit() else 200)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def websocket(self):
        digest = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + GUID).encode()).digest()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade")):
            self.send_header(name, value)
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(digest).decode())
        self.end_headers()
        self.close_connection = True
        while data := self.rfile.read1(4096):
            self.wfile.write(data)

    def log_message(self, *_):
        pass


Server(("127.0.0.1", PORT), Handler).serve_forever()
