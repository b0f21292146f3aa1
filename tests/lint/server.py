# SPDX-License-Identifier: GPL-3.0-or-later
"""Run as `server.py SOCKET`: loads ansible-playbook once and forks for each call. Ends when nobody has called for a while."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

IDLE_SECONDS = 20


def serve(address: str) -> None:
    """Answer calls, each in a process of its own."""
    from ansible.cli.playbook import main  # the loading that is done once

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(64)
        server.settimeout(IDLE_SECONDS)
        with contextlib.suppress(TimeoutError):
            while True:
                connection, _peer = server.accept()
                if os.fork() == 0:
                    server.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    connection.setblocking(True)
                    run(connection, main)
                connection.close()


def run(connection: socket.socket, main) -> None:
    """One call with the caller's files and directory; never returns."""
    data, files, _flags, _address = socket.recv_fds(connection, 65536, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(65536)
    call = json.loads(data)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(call["directory"])
    sys.argv = call["argv"]
    status = 1
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(status).encode())
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
