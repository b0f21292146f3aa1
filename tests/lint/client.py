# SPDX-License-Identifier: GPL-3.0-or-later
"""Run as `client.py DIRECTORY ARGUMENT…`: one call of ansible-playbook through the server in that directory, which it starts."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 60


def connect(address: Path) -> socket.socket | None:
    """A connection to the server, or None when there is none yet."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(address))
    except OSError:
        connection.close()
        return None
    return connection


def reach(directory: Path) -> socket.socket:
    """A connection to the server, which the first caller starts with its own environment: Ansible reads it when it is loaded."""
    address = directory / "socket"
    found = connect(address)
    if found:
        return found
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = connect(address)
        if not found:
            nothing = subprocess.DEVNULL
            argv = [sys.executable, str(Path(__file__).with_name("server.py")), str(address)]
            subprocess.Popen(argv, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while not found and time.monotonic() < deadline:
            time.sleep(0.02)
            found = connect(address)
    if not found:
        sys.exit(f"ansible-playbook: its server in {directory} did not start within {START_SECONDS} s")
    return found


def main() -> None:
    with reach(Path(sys.argv[1])) as connection:
        call = json.dumps({"argv": ["ansible-playbook", *sys.argv[2:]], "directory": os.getcwd()}).encode() + b"\n"
        socket.send_fds(connection, [call], [0, 1, 2])
        answer = connection.recv(16)
    sys.exit(int(answer) if answer else "ansible-playbook: it ended without a status")


if __name__ == "__main__":
    main()
