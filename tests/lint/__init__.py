# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-lint as it is, with an `ansible-playbook` that need not start from nothing for each file.

ansible-lint runs `ansible-playbook --syntax-check` once for every playbook and role, and three quarters of its time is Python
loading Ansible. The command that is put before it in PATH hands its arguments, directory and open files to a process that has
Ansible loaded already and forks for each call. What runs in the fork is ansible-playbook itself.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

CLIENT = Path(__file__).with_name("client.py")


def environment(directory: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The environment `given` with an `ansible-playbook` in `directory` found first."""
    command = directory / "ansible-playbook"
    command.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {shlex.quote(str(CLIENT))} {shlex.quote(str(directory))} "$@"\n'
    )
    command.chmod(0o755)
    return {**given, "PATH": f"{directory}{os.pathsep}{given.get('PATH', os.defpath)}"}
