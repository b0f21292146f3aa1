# SPDX-License-Identifier: GPL-3.0-or-later
"""Loses the primary of each pair, promotes its standby, brings it back: python -m tests.path.lose INVENTORY"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.fleet.molecule import fleet_name

INVENTORY = sys.argv[1]
FAILED: list[str] = []


def run(*argv, code=0, words=()):
    """Run a command, expect success or a failure, and `words` in what it says."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    said = done.stdout + done.stderr
    missing = [word for word in words if word not in " ".join(said.split())]
    if (done.returncode == 0) != (code == 0) or missing:
        FAILED.append(f"{' '.join(map(str, argv))}: status {done.returncode}, missing {missing}\n{said[-3000:]}")
    return done.stdout


def playbook(name, *more, code=0, words=()):
    """Run a playbook of the collection with the scenario's variables."""
    return run("ansible-playbook", f"playbooks/{name}.yml", "-i", INVENTORY, *more, code=code, words=words)


def on(host, command, code=0, words=()):
    """Run a command of a host's shell."""
    return run("ansible", host, "-i", INVENTORY, "-m", "ansible.builtin.shell", "-a", command, code=code, words=words)


def through_pooler(pair, line):
    """Write a row as the application does."""
    sql = f"INSERT INTO log VALUES ('{line}')"
    on(f"pool-{pair}", f'PGPASSWORD=only-for-this-test-shop psql -Atqh 127.0.0.1 -p 6432 -U shop shop -c "{sql}"')


def come_back(old, new):
    """The former primary follows the new one, and gets what was written meanwhile."""
    playbook("rejoin", "-e", f"host={old}", "-e", f"primary={new}")
    select = "runuser -u postgres -- psql -Atqd shop -c \"SELECT 'rows: ' || count(*) FROM log WHERE line = 'second'\""
    for _try in range(20):
        if "rows: 1" in on(old, select):
            break
        time.sleep(0.5)
    else:
        FAILED.append(f"{old} does not have what was written on {new}")
    playbook("rejoin", "-e", f"host={old}", "-e", f"primary={new}", words=("changed=0",))


def without_its_host(old, new):
    """The server dies, its host stays: the promotion masks it."""
    on(old, "systemctl kill --signal=KILL 'postgresql@*'")
    playbook("promote", "-e", f"standby={new}", "-e", f"old_primary={old}", "-e", "fence=stop")
    through_pooler("older", "second")
    on(old, "systemctl start 'postgresql@15-main'; runuser -u postgres -- psql -c 'SELECT 1'", code=1)


def with_its_host(old, new):
    """The host is gone, and somebody has to say so. It comes back, and its server does not start."""
    playbook("promote", "-e", f"standby={new}", "-e", f"old_primary={old}", "-e", "fence=done", code=1, words=("still answers",))
    on(old, "systemctl kill --signal=KILL 'postgresql@*'; systemd-run --on-active=1 systemctl stop ssh.socket ssh.service")
    time.sleep(3)
    playbook("promote", "-e", f"standby={new}", "-e", f"old_primary={old}", "-e", "fence=done")
    through_pooler("newer", "second")
    fleet = fleet_name("replication", os.environ["MOLECULE_PROJECT_DIRECTORY"])
    run(sys.executable, "-m", "tests.fleet", "restart", fleet, old, code=1, words=("postgresql@",))
    on(old, "runuser -u postgres -- psql -c 'SELECT 1'", code=1)
    on(old, "journalctl --unit='postgresql@*' --boot", words=("is the primary; this server does not start",))


def hosts(pair):
    """Primary and standby of a pair."""
    return [run("ansible", f"{group}:&{pair}", "-i", INVENTORY, "--list-hosts").split()[-1] for group in ("database", "replica")]


for pair, lose in (("older", without_its_host), ("newer", with_its_host)):
    former, standby = hosts(pair)
    lose(former, standby)
    come_back(former, standby)
print("\n".join(FAILED) or "every row is where it belongs")
sys.exit(1 if FAILED else 0)
