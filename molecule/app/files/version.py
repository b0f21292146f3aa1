# SPDX-License-Identifier: GPL-3.0-or-later
"""Print what shop.test at the address argv[1] answers to /version, over TLS and by its name."""

from __future__ import annotations

import http.client
import socket
import ssl
import sys

context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
connection = http.client.HTTPSConnection("shop.test", context=context)
plain = socket.create_connection((sys.argv[1], 443), timeout=5)
connection.sock = context.wrap_socket(plain, server_hostname="shop.test")
connection.request("GET", "/version")
answer = connection.getresponse()
print(answer.read().decode())
sys.exit(0 if answer.status == 200 else 1)
