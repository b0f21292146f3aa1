# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the ports answer: ports.py HOST PORT … prints one JSON mapping of port to true or false."""

from __future__ import annotations

import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def answers(port: str) -> bool:
    """Whether a connection is taken; a few tries, because a container may still be starting."""
    for _attempt in range(3):
        try:
            socket.create_connection((sys.argv[1], int(port)), timeout=1.5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return True
    return False


with ThreadPoolExecutor(max_workers=16) as pool:
    print(json.dumps(dict(zip(sys.argv[2:], pool.map(answers, sys.argv[2:])))))
