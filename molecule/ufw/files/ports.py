# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ports answer: ports.py HOST,HOST PORT … prints one JSON list, a mapping of port to true or false for each host."""

from __future__ import annotations

import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def answers(target: tuple[str, str]) -> bool:
    """Whether a connection is taken; a second try, because a container may still be starting."""
    for _attempt in range(2):
        try:
            socket.create_connection((target[0], int(target[1])), timeout=1.5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return True
    return False


hosts, ports = sys.argv[1].split(","), sys.argv[2:]
with ThreadPoolExecutor(max_workers=32) as pool:
    found = list(pool.map(answers, [(host, port) for host in hosts for port in ports]))
print(json.dumps([dict(zip(ports, found[n * len(ports) :])) for n in range(len(hosts))]))
