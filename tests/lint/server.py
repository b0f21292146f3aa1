# SPDX-License-Identifier: GPL-3.0-or-later
"""Run as `server.py SOCKET`: loads ansible-playbook once and forks for each call. Ends when nobody has called for a while."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import sys
from pathlib import Path

IDLE_SECONDS = 20


def load():
    """ansible-playbook, with what each call would load anew: where builtin names lead, and which settings plugins have."""
    import ansible
    from ansible.cli.playbook import main
    from ansible.plugins.loader import become_loader, connection_loader, inventory_loader, shell_loader
    from ansible.utils.collection_loader import _collection_finder as finder

    # Meant to be replaced by one that remembers, says its docstring.
    finder._meta_yml_to_dict = functools.cache(finder._meta_yml_to_dict)
    routing = Path(ansible.__file__).with_name("config") / "ansible_builtin_runtime.yml"
    finder._meta_yml_to_dict(routing.read_bytes(), ("ansible.builtin", "runtime.yml"))
    for loader in (become_loader, connection_loader, inventory_loader, shell_loader):
        list(loader.all(class_only=True))
    return main


def serve(address: str) -> None:
    """Answer calls, each in a process of its own."""
    main = load()

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
