# SPDX-License-Identifier: GPL-3.0-or-later
"""The hook that installs a renewed certificate, killed at each of its commands, and on a disk that is full."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import certificates as c

HOOK = Path(__file__).resolve().parents[3] / "roles/certificates/templates/usr/local/sbin/slipway-certificate.j2"
COMMANDS = ("install", "sync", "mkdir", "chown", "chmod", "python3", "cp", "mv", "rm")
SHIM = """#!/bin/sh
echo {name} >> {log}
[ "$(wc -l < {log})" -ne "${{DIES:-0}}" ] || kill -KILL $PPID
[ "{name}" != "${{FAILS:-}}" ] || {{ echo "{name}: No space left on device" >&2; exit 1; }}
exec {real} "$@"
"""


class Place:
    """A directory of certificates with one of them, and another that certbot got."""

    def __init__(self, root: Path) -> None:
        self.root, self.log = root, root / "calls"
        self.store = c.Store(Runner(), root / "tls")
        entry = c.Entry("shop", ("shop.test",))
        self.store.converge([entry], 30, 90)
        self.old = self.store.present("shop")[0]
        lineage = root / "live" / "shop"
        c.Store(Runner(), root / "live").converge([entry], 30, 90)
        self.new = c.Store(Runner(), root / "live").present("shop")[0]
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        variables = {
            "certificates_directory": str(root / "tls"),
            "certificates_acme_group": group,
            "certificates_acme_https_port": 0,
            "certificates_reload_units": [],
        }
        text = Templar(loader=DataLoader(), variables=variables).template(trust_as_template(HOOK.read_text()))
        text = text.replace("-o root", f"-o {user}").replace("0644 root", f"0644 {group}")
        (root / "hook").write_text(text)
        (root / "bin").mkdir()
        for name in COMMANDS:
            shim = root / "bin" / name
            shim.write_text(SHIM.format(name=name, log=self.log, real=shutil.which(name)))
            shim.chmod(0o755)
        self.environment = {
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "RENEWED_LINEAGE": str(lineage),
            "RENEWED_DOMAINS": "shop.test",
        }

    def run(self, **more: str) -> int:
        self.log.write_text("")
        done = subprocess.run(
            ["sh", str(self.root / "hook")], env={**self.environment, **more}, capture_output=True, text=True, check=False
        )
        return done.returncode

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()

    def pair(self) -> c.Pair:
        return self.store.present("shop")[0]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_installs_what_came(place: Place) -> None:
    before = (place.root / "tls" / "shop").stat().st_mode
    assert place.run() == 0
    assert place.pair() == place.new
    assert (place.root / "tls" / "shop").stat().st_mode == before
    assert ((place.root / "tls/shop" / c.KEY).stat().st_mode & 0o777, c.KEY) == (0o640, c.KEY)
    assert [path.name for path in (place.root / "tls").iterdir()] == ["shop"]


@pytest.mark.slow
def test_killed_at_any_command_there_is_one_whole_pair_and_the_next_run_finishes(place: Place) -> None:
    place.run()
    last = len(place.calls())
    assert last >= 10
    for number in range(1, last + 1):
        shutil.rmtree(place.root / "tls")
        place.store._write(c.Entry("shop", ("shop.test",)), place.old)
        assert place.run(DIES=str(number)) == -9, number
        assert place.pair() in (place.old, place.new), place.calls()[-1]
        assert place.run() == 0
        assert place.pair() == place.new
        assert [path.name for path in (place.root / "tls").iterdir()] == ["shop"]


@pytest.mark.parametrize("command", ["install", "sync", "mkdir"])
def test_a_full_disk_leaves_the_old_pair(place: Place, command: str) -> None:
    assert place.run(FAILS=command) == 1
    assert place.pair() == place.old
    assert place.run() == 0
    assert place.pair() == place.new


def test_a_file_system_that_cannot_exchange_gets_both_one_after_the_other(place: Place) -> None:
    assert place.run(FAILS="python3") == 0
    assert place.pair() == place.new
