# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the server of bench-cutover and moves traffic in each of the ways, as fast as that way goes.

Reads one JSON object a line, {"way": …, "to": SLOT}, and answers with one: `at` and `done`, seconds since 1970, of the
moving itself, `total_ms` of everything around it, `cpu` seconds that a command took. Standard library and the host's slipway.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time

sys.path.insert(0, "/usr/lib/slipway")

from slipway.traffic.cutover import Cutover
from slipway.traffic.disk import Disk
from slipway.traffic.host import Host
from slipway.traffic.run import Request

APP = "shop"
ADMIN = "/run/haproxy/admin.sock"
NGINX = "/etc/nginx/bench"


class Watched(Disk):
    """Remembers when the flags of slots moved; those of failover, which go along, move no traffic."""

    def __init__(self):
        super().__init__()
        self.slots, self.moved = (), []

    def create_flag(self, *arguments):
        self.timed(super().create_flag, arguments)

    def remove_flag(self, *arguments):
        self.timed(super().remove_flag, arguments)

    def timed(self, action, arguments):
        begun = time.time()
        action(*arguments)
        if arguments[0].name in self.slots:
            self.moved.append((begun, time.time()))


def flag(to):
    """A whole cutover: gate, dead man, flag, proof through nginx, confirmation."""
    disk = Watched()
    host = Host(disk=disk)
    app = host.app(APP)
    disk.slots = app.slot_order
    release = host.records(APP).traffic().releases.get(to)
    cutover = Cutover(host, app)
    done = cutover.switch(Request(to=to, release=release))
    cutover.confirm(done["txn"])
    return disk.moved[0][0], disk.moved[-1][1]


def rollback(_to):
    """The command on the host, as somebody types it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.time()
    done = subprocess.run(["slipway", "rollback", APP, "--json"], capture_output=True, text=True, check=False)
    ended = time.time()
    if done.returncode:
        raise RuntimeError(done.stderr)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return begun, ended, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def write(name, to):
    """The include of nginx that names the slot's servers, replaced by rename."""
    temporary = f"{NGINX}/{name}.new"
    with open(f"{NGINX}/{name}.{to}", encoding="ascii") as source, open(temporary, "w", encoding="ascii") as target:
        target.write(source.read())
    os.rename(temporary, f"{NGINX}/{name}.conf")


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True)


def reload(to):
    """Another include, tested, and a reload: what tools that are built on nginx do."""
    begun = time.time()
    write("reload", to)
    run("nginx", "-t", "-q")
    run("nginx", "-s", "reload")
    return begun, time.time()


def restart(to):
    """The guides' way: stop what runs, start the new one, change nginx, reload."""
    begun = time.time()
    run("systemctl", "stop", f"bench@{'blue' if to == 'green' else 'green'}")
    run("systemctl", "start", f"bench@{to}")
    write("restart", to)
    run("nginx", "-t", "-q")
    run("nginx", "-s", "reload")
    return begun, time.time()


def haproxy(to):
    """HAProxy's runtime interface: the new servers in, the old ones drained, in one line."""
    other = "blue" if to == "green" else "green"
    words = [f"set server bench/{to}{number} state ready" for number in (1, 2)]
    words += [f"set server bench/{other}{number} state drain" for number in (1, 2)]
    begun = time.time()
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(ADMIN)
        admin.sendall(("; ".join(words) + "\n").encode())
        said = b""
        while piece := admin.recv(4096):
            said += piece
    ended = time.time()
    if said.strip():
        raise RuntimeError(said.decode())
    return begun, ended


WAYS = {"flag": flag, "rollback": rollback, "reload": reload, "restart": restart, "haproxy": haproxy}

for line in sys.stdin:
    order = json.loads(line)
    start = time.time()
    try:
        at, moved, *cpu = WAYS[order["way"]](order["to"])
        answer = {"at": at, "done": moved, "total_ms": (time.time() - start) * 1000, "cpu": cpu[0] if cpu else 0.0}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
