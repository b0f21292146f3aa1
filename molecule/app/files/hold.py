# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold a WebSocket of shop.test at the address argv[1] until it is closed, and print how: seconds and close code."""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time

context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
connection = context.wrap_socket(socket.create_connection((sys.argv[1], 443), timeout=120), server_hostname="shop.test")
stream = connection.makefile("rb")
connection.sendall(
    b"GET /ws HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
status = stream.readline().split()[1].decode()
while stream.readline().strip():
    pass
begun, code = time.monotonic(), 0
while status == "101":
    head = stream.read(2)  # frames of a server are not masked; those of the sample application are short
    if len(head) < 2:
        break
    data = stream.read(head[1])
    if head[0] & 15 == 8:
        code = int.from_bytes(data[:2], "big")
        break
    if head[0] & 15 == 9:
        connection.sendall(bytes([0x8A, 0x80 | len(data)]) + b"\0\0\0\0" + data)
os.write(1, json.dumps({"status": status, "seconds": round(time.monotonic() - begun, 1), "code": code}).encode())
