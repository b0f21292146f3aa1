# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's half of the guard: the program that the timer and the boot call. Whoever arms a change brings it along."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from ..host import files as disk
from ..host.payload import InstalledFile
from ..host.runner import Runner
from .armed import PROGRAM

ENTRY = "guard.cli"
LIBRARY = str(Path(PROGRAM).parent)
UNIT = "slipway-guard.service"
COMMAND = "/usr/local/sbin/slipway"

LAUNCHER = f"""#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-3.0-or-later
# Managed by Ansible: slipway.server
import sys

sys.dont_write_bytecode = True  # a compiled file could outlive its source
sys.path.insert(0, "{LIBRARY}")

from slipway.{ENTRY} import main as run

sys.exit(run())
"""
COMMAND_LAUNCHER = LAUNCHER.replace("import main as", "import command as")

# Before anything that reads what it puts back: it needs the file systems and nothing else.
SERVICE = f"""# Managed by Ansible: slipway.server
[Unit]
Description=Take changes back that were not confirmed before this host went down (slipway)
DefaultDependencies=no
RequiresMountsFor=/etc /usr /var/lib/slipway
After=local-fs.target
Before=sysinit.target shutdown.target ufw.service
Conflicts=shutdown.target
ConditionPathExistsGlob=/var/lib/slipway/guard/*/record.json

[Service]
Type=oneshot
ExecStart={PROGRAM} boot

[Install]
WantedBy=sysinit.target
"""


def files(sources: Mapping[str, str]) -> list[InstalledFile]:
    """All files of the program; `sources` are the modules it needs, by their path below the library's root."""
    library = [InstalledFile(f"{LIBRARY}/slipway/{path}", text, 0o644) for path, text in sources.items()]
    return [*library, InstalledFile(PROGRAM, LAUNCHER, 0o755), InstalledFile(f"/etc/systemd/system/{UNIT}", SERVICE, 0o644)]


def ensure(sources: Mapping[str, str], runner: Runner, root: Path = Path("/")) -> bool:
    """Install it where it is missing or different; raises OSError or CommandFailed. True when anything was written."""
    wanted = files(sources)
    if not (root / COMMAND.lstrip("/")).exists():  # hosts of applications have the whole command, which knows guards too
        wanted.append(InstalledFile(COMMAND, COMMAND_LAUNCHER, 0o755))
    written = False
    for item in wanted:
        path = root / item.path.lstrip("/")
        with contextlib.suppress(OSError):
            if disk.read_text(path) == item.text and path.stat().st_mode & 0o7777 == item.mode:
                continue
        disk.make_directories(path.parent)
        disk.atomic_write(path, item.text, item.mode)
        written = True
    link = root / f"etc/systemd/system/sysinit.target.wants/{UNIT}"
    if written or not link.is_symlink():
        disk.make_directories(link.parent)
        disk.atomic_symlink(link, f"/etc/systemd/system/{UNIT}")
        runner.must(["systemctl", "daemon-reload"], timeout=60)
    return written
