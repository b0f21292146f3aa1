# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL as the operating system's user postgres over the unix socket: one psql process for a whole script."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Optional

from ..host.files import read_text
from ..host.runner import Result, Runner

PROGRAMS = Path("/usr/lib/postgresql")
SOCKET_DIRECTORY = "/var/run/postgresql"
# Statements with verifiers must reach neither the server's log nor pg_stat_statements, also when they fail.
QUIET = (
    "-c log_statement=none -c log_min_error_statement=panic -c log_min_duration_statement=-1 -c log_min_duration_sample=-1"
    " -c log_duration=off -c log_transaction_sample_rate=0 -c pg_stat_statements.track_utility=off -c client_min_messages=warning"
    " -c standard_conforming_strings=on"
)
VERIFIER = re.compile(r"SCRAM-SHA-256\$[^\s']*")


def environment(programs: Path = PROGRAMS) -> dict[str, str]:
    """Where `psql` is found first: in Debian's path it is a script in Perl, which takes longer to start than a question takes."""
    found = sorted(programs.glob("*/bin/psql"), key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])])
    return {"PATH": f"{found[-1].parent}:{os.environ.get('PATH', os.defpath)}"} if found else {}


class SqlError(Exception):
    """The script failed; the message holds no secret."""


def literal(text: str) -> str:
    """`text` as an SQL string (sessions run with standard_conforming_strings)."""
    return "'" + text.replace("'", "''") + "'"


def variable(text: str) -> str:
    """`text` as the value of a variable of psql, which reads escapes in quotes."""
    return literal(text.replace("\\", "\\\\"))


def identifier(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Psql:
    """Sessions to one cluster as its superuser postgres (peer authentication)."""

    def __init__(self, runner: Runner, version: str, port: int = 5432) -> None:
        self.runner = runner
        self.program = f"/usr/lib/postgresql/{version}/bin/psql"
        self.port = port

    def run(self, script: str, timeout: float = 60.0) -> Result:
        """Run `script` from standard input; it stops at the first error."""
        argv = ["runuser", "-u", "postgres", "--", self.program, "-X", "-A", "-t", "-q"]
        argv += ["-v", "ON_ERROR_STOP=1", "-h", SOCKET_DIRECTORY, "-p", str(self.port), "-U", "postgres", "-d", "postgres"]
        environment = {"PGOPTIONS": QUIET, "PGAPPNAME": "slipway", "PGCONNECT_TIMEOUT": "10"}
        return self.runner.run(argv, data=script, timeout=timeout, env=environment)

    def must(self, script: str, timeout: float = 60.0) -> list[str]:
        """The lines that `script` prints; raises SqlError."""
        result = self.run("\\set VERBOSITY terse\n" + script, timeout)
        if not result.ok:
            raise SqlError(hide(result.err.strip() or f"psql ended with status {result.rc}"))
        return [line for line in result.out.splitlines() if line.strip()]


def hide(text: str) -> str:
    """`text` without verifiers."""
    return VERIFIER.sub("SCRAM-SHA-256$(hidden)", text)


def running_port(data_directory: Path) -> Optional[int]:
    """The port of the server that runs on `data_directory`, from its postmaster.pid; None when there is none."""
    lines = (read_text(data_directory / "postmaster.pid") or "").splitlines()
    return int(lines[3]) if len(lines) > 3 and lines[3].isdigit() else None
