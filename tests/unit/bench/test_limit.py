# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.bench import limit

FILE = ("0o100644", "root", "root", "aa")
FRESH = limit.Seen(frozenset({"dpkg"}), frozenset({"systemd-journald.service"}), {"/etc": FILE})
PACKAGED = limit.Seen(
    frozenset({"dpkg", "nginx", "postgresql-15"}),
    frozenset({"systemd-journald.service", "cron.service", "nginx.service", "postgresql@15-main.service"}),
    {"/etc": FILE, "/etc/nginx/nginx.conf": FILE, "/etc/nginx/sites-enabled/default": FILE, "/etc/kept": FILE},
)
CONVERGED = limit.Seen(
    PACKAGED.packages,
    PACKAGED.units | {"hello@blue-1.service"},
    {
        "/etc": FILE,
        "/etc/kept": FILE,
        "/etc/nginx/nginx.conf": ("0o100644", "root", "root", "bb"),
        "/etc/postgresql/15/main/conf.d/60.conf": FILE,
        "/etc/systemd/journald.conf.d/60.conf": FILE,
        "/etc/sysusers.d/hello.conf": FILE,
        "/opt/hello": ("link", "root", "root", "/srv"),
    },
)


def test_the_difference_is_what_the_converge_did() -> None:
    found = limit.compare(FRESH, PACKAGED, CONVERGED)
    assert found.packages == ("nginx", "postgresql-15")
    assert "/etc/kept" not in found.files
    assert "/etc/nginx/nginx.conf" in found.files
    assert found.early == ("/etc/sysusers.d/hello.conf",)
    assert set(found.early) | set(found.late) == set(found.files)
    assert found.removed == ("/etc/nginx/sites-enabled/default",)
    assert found.restart == ("nginx.service", "postgresql@15-main.service", "systemd-journald.service")
    assert found.start == ("hello@blue-1.service",)


def test_the_script_is_in_an_order_that_works() -> None:
    text = limit.script(limit.compare(FRESH, PACKAGED, CONVERGED), "hello.example")
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    steps = ["early.tar", "apt-get", "systemd-sysusers", "pg_createcluster 15 main", "late.tar", "rm -fd", "daemon-reload",
             "restart postgresql", "psql", "ufw", "restart nginx", "enable --now hello", "until"]  # fmt: skip
    places = [text.index(each) for each in steps]
    assert places == sorted(places)


def test_the_manifest_knows_modes_links_and_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "own").write_text("identity")
    arguments = json.dumps([[str(tmp_path)], [str(tmp_path / "own")]])
    done = subprocess.run([sys.executable, "-c", limit.MANIFEST, arguments], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found) == {str(tmp_path), str(tmp_path / "file"), str(tmp_path / "link")}
    assert found[str(tmp_path / "file")][0] == "0o100640"
    assert found[str(tmp_path / "link")][::3] == ["link", "nowhere"]
