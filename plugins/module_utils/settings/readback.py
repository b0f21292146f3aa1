# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading settings back from where they act: the kernel, the running process, systemd, the socket, the answer."""

from __future__ import annotations

import grp
import pwd
import re
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from ..host.runner import Result, Runner
from ..host.state import name_of
from . import psql, sandbox_seen

LIMIT_NAMES = {
    "nofile": "Max open files",
    "nproc": "Max processes",
    "core": "Max core file size",
    "memlock": "Max locked memory",
}


@dataclass(frozen=True)
class Mismatch:
    """One declared value that is not effective."""

    what: str
    declared: str
    effective: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: declared {self.declared}, effective {self.effective}. {self.remedy}"


@dataclass(frozen=True)
class Seen:
    """What a look found: what is not effective, and what running processes get at their next start only."""

    mismatches: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{len(self.mismatches)} setting(s) did not arrive:\n" + "\n".join(f"- {line}" for line in self.mismatches)


def look(runner: Runner, checks: Iterable[Mapping[str, Any]]) -> Seen:
    """Read all `checks` once."""
    reader = Reader(runner)
    return Seen(tuple(str(mismatch) for mismatch in reader.read(checks)), tuple(reader.pending))


class Reader:
    """Where effective values are read; `proc` is replaced by tests. `pending`: what running processes get at their next start."""

    def __init__(self, runner: Runner, proc: Path = Path("/proc")) -> None:
        self.runner = runner
        self.proc = proc
        self.container: Optional[bool] = None
        self.pending: list[str] = []
        self.units: dict[str, dict[str, str]] = {}
        self.said: dict[tuple[str, ...], Result] = {}
        self.kinds: dict[str, Callable[[Mapping[str, Any]], Iterable[Mismatch]]] = {
            "sysctl": self._sysctl,
            "limit": self._limit,
            "unit": self._unit,
            "listen": self._listen,
            "command": self._command,
            "file": self._file,
            "http": self._http,
            "reach": self._reach,
            "redis": self._redis,
            "sandbox": self._sandbox,
        }

    def read(self, checks: Iterable[Mapping[str, Any]]) -> list[Mismatch]:
        """All mismatches of `checks`; a check is a mapping with `kind` and what that kind needs.

        What several of them ask for is asked once: systemd for its units, and a command for its output.
        """
        checks = list(checks)
        self.said = {}
        self.units = self._shown(checks)
        return [mismatch for check in checks for mismatch in self.kinds[check["kind"]](check)]

    def _shown(self, checks: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
        """What systemd says of the units of `checks`, by the name under which they are asked for; templates have none."""
        names: dict[str, None] = {}
        properties = {"Id": None}
        for check in checks:
            asked = {"unit": check.get("properties") or (), "limit": ("MainPID",), "sandbox": sandbox_seen.PROPERTIES.split(",")}
            if "unit" in check and "@." not in str(check["unit"]) and check["kind"] in asked:
                names[str(check["unit"])] = None
                properties.update(dict.fromkeys(asked[check["kind"]]))
        if not names:
            return {}
        argv = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(properties)}", "--", *names]
        return dict(zip(names, sandbox_seen.blocks(self.runner.run(argv).out)))

    def _sysctl(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        # Not above, as others below: few roles need it, and each module of each task would read it.
        from . import sysctl

        key = sysctl.normal_key(str(check["key"]))
        wanted = sysctl.normal(check["value"])
        live = str(check.get("live", "true"))
        if live == "auto" and self.container is None:
            self.container = sysctl.in_container(self.runner)
        if not sysctl.writes_live(key, live, bool(self.container)):
            return
        path = self.proc / "sys" / key.translate(str.maketrans("./", "/."))
        if live == "auto" and self.container and not sysctl.reachable(path):
            return
        if check.get("optional") and not path.exists():
            return
        try:
            effective = sysctl.normal(path.read_text(encoding="ascii"))
        except OSError as error:
            effective = f"unreadable ({error.strerror})"
        if effective != wanted and not sysctl.is_short(key, effective, wanted):
            yield Mismatch(
                f"sysctl {key}", wanted, effective, "Another file in /etc/sysctl.d may set it later, or this kernel refuses it."
            )

    def _main_pid(self, check: Mapping[str, Any]) -> Optional[str]:
        if "unit" in check:
            pid = self.units.get(str(check["unit"]), {}).get("MainPID", "")
            return pid if pid not in ("", "0") else None
        found = self.runner.run(["pgrep", "--oldest", "--exact", str(check["process"])]).out.split()
        return found[0] if found else None

    def _limit(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        if "unit" not in check and "process" not in check:
            yield from self._default_limit(check)
            return
        if "@." in str(check.get("unit", "")):
            yield from self._instance_limits(check)
            return
        subject = str(check.get("unit") or check.get("process"))
        pid = self._main_pid(check)
        if pid is None:
            yield Mismatch(f"{subject} {check['name']}", str(check["value"]), "not running", f"See `systemctl status {subject}`.")
            return
        pids = [pid]
        if "children" in check:
            pids = self.runner.run(["pgrep", "--parent", pid, "--full", str(check["children"])]).out.split()
            if not pids:
                yield Mismatch(
                    f"children of {subject}", str(check["children"]), "none runs", f"See `systemctl status {subject}`."
                )
        for each in pids:
            yield from self._process_limit(check, f"{subject} (process {each})", each)

    def _process_limit(self, check: Mapping[str, Any], subject: str, pid: str) -> Iterable[Mismatch]:
        name = str(check["name"])
        try:
            soft = parse_limit((self.proc / pid / "limits").read_text(encoding="ascii"), LIMIT_NAMES[name])
        except (FileNotFoundError, ProcessLookupError):
            return
        if not fits(soft, check):
            yield Mismatch(
                f"limit {name} of {subject}",
                str(check["value"]),
                soft,
                "A hard limit above the service cuts it, or the service was not restarted since the change.",
            )

    def _default_limit(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        name, wanted = str(check["name"]), str(check["value"])
        argv = ["systemd-run", "--wait", "--pipe", "--quiet", "--collect", "cat", "/proc/self/limits"]
        table = self.runner.run(argv, timeout=60)
        soft = parse_limit(table.out, LIMIT_NAMES[name])
        if not fits(soft, check):
            hard = parse_limit(table.out, LIMIT_NAMES[name], column=1)
            remedy = "systemd has not read its configuration again: run `systemctl daemon-reload`."
            if not soft:
                remedy = "Run it by hand: " + " ".join(argv)
            elif not at_least(hard, wanted):
                remedy = f"This host grants {hard} at most."
            yield Mismatch(f"limit {name} of a newly started service", wanted, soft or table.text() or "unknown", remedy)

    def _instance_limits(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        unit = str(check["unit"])
        names = "--property=Id,MainPID,ActiveState,ExecMainStartTimestamp,FragmentPath"
        out = self.runner.run(["systemctl", "show", "--timestamp=unix", names, "--", unit.replace("@.", "@*.")]).out
        for block in out.strip().split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            pid = values.get("MainPID", "0")
            if values.get("ActiveState") != "active" or pid == "0":
                continue
            for mismatch in self._process_limit(check, f"{values['Id']} (process {pid})", pid):
                if _started_before_its_file(values):
                    self.pending.append(f"{mismatch.what}: {mismatch.effective} until its next start, then {mismatch.declared}")
                else:
                    yield mismatch

    def _unit(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        unit, properties = str(check["unit"]), check["properties"]
        values = self.units.get(unit, {})
        for name, wanted in properties.items():
            effective = values.get(name, "")
            if effective != str(wanted):
                yield Mismatch(f"{unit} {name}", str(wanted), effective or "unset", f"See `systemctl status {unit}`.")

    def _listen(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        port, address = int(check["port"]), str(check.get("address", ""))
        listeners = listening(self.proc, port)
        if bool(check.get("closed")):
            if listeners:
                yield Mismatch(
                    f"port {port}", "closed", f"listening on {', '.join(sorted(listeners))}", "Stop what listens there."
                )
            return
        if not listeners or (address and not listeners & {address, "0.0.0.0", "::"}):
            yield Mismatch(
                f"port {port}",
                f"listening{' on ' + address if address else ''}",
                ", ".join(sorted(listeners)) or "nothing listens",
                "See the log of the service that owns this port.",
            )
        elif bool(check.get("only")) and listeners - {address}:
            extra = ", ".join(sorted(listeners - {address}))
            yield Mismatch(
                f"port {port}", f"listening on {address} only", extra, "The service listens on more addresses than declared."
            )

    def _command(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        argv = [str(part) for part in check["argv"]]
        what = str(check.get("what") or " ".join(argv))
        result = self._run(argv, check.get("input"))
        output = result.out if "lines" not in check else lines_of(result.out, str(check["lines"]))
        expected_rc = int(check.get("rc", 0))
        if result.rc != expected_rc:
            effective = f"{result.rc}: {result.text()[-500:]}"
            remedy = str(check.get("remedy", "Run it by hand on this host."))
            yield Mismatch(what, f"exit status {expected_rc}", effective, remedy)
        elif "equals" in check and output.strip() != str(check["equals"]).strip():
            yield Mismatch(
                what, str(check["equals"]), output.strip()[-500:], str(check.get("remedy", "Run it by hand on this host."))
            )
        elif "matches" in check and not re.search(str(check["matches"]), result.out, re.MULTILINE):
            effective = f"no match in {len(result.out.splitlines())} lines of output"
            yield Mismatch(what, str(check["matches"]), effective, str(check.get("remedy", "Run it by hand on this host.")))
        table = (check.get("table") or {}) if result.rc == expected_rc else {}
        for name, cells in table.items():
            row = parse_table(result.out).get(str(name), {})
            for column, wanted in cells.items():
                if not same_value(row.get(column, ""), str(wanted)):
                    effective = row.get(column) or ("empty" if row else "no such row")
                    remedy = str(check.get("remedy", "Run it by hand on this host."))
                    yield Mismatch(f"{what}: {name} {column}", str(wanted), effective, remedy)

    def _run(self, argv: Sequence[str], data: Optional[str]) -> Result:
        key = (*argv, data or "")
        if key not in self.said:
            self.said[key] = self.runner.run(argv, data=data, timeout=60, env=psql.environment())
        return self.said[key]

    def _file(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        path = Path(str(check["path"]))
        try:
            status = path.stat()
        except OSError as error:
            yield Mismatch(str(path), "present", str(error.strerror), "Run the role again.")
            return
        found = {
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "owner": name_of(pwd.getpwuid, status.st_uid),
            "group": name_of(grp.getgrgid, status.st_gid),
        }
        for name, effective in found.items():
            wanted = check.get(name)
            if wanted is not None and str(wanted) != effective:
                yield Mismatch(f"{path} {name}", str(wanted), effective, "Run the role again.")

    def _reach(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        address, port, closed = str(check["address"]), int(check["port"]), bool(check.get("closed"))
        try:
            socket.create_connection((address, port), timeout=float(check.get("timeout", 10))).close()
            reached, found = True, "open"
        except OSError as error:
            reached, found = False, f"closed ({error})"
        if reached is closed:
            remedy = "Something opened this port past the firewall." if closed else "See the firewall and the service there."
            yield Mismatch(f"port {port} of {address} from here", "closed" if closed else "open", found, remedy)

    def _redis(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        from . import redis_client

        return [Mismatch(*row) for row in redis_client.look(check)]

    def _sandbox(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        unit = str(check["unit"])
        known = unit in self.units
        found = sandbox_seen.judge([self.units[unit]], self.proc) if known else sandbox_seen.look(self.runner, unit, self.proc)
        self.pending += [
            f"{name}: its sandbox ({', '.join(keys)}) comes with its next start" for name, keys in found.later.items()
        ]
        for name, keys in found.missing.items():
            yield Mismatch(
                f"sandbox of {name}",
                ", ".join(keys),
                "not around its process",
                f"See `journalctl -u {name}`: this kernel refuses it.",
            )

    def _http(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        for _number in range(int(check.get("connections", 1))):
            mismatches = list(self._answer(check))
            if mismatches:
                yield from mismatches
                return

    def _answer(self, check: Mapping[str, Any]) -> Iterable[Mismatch]:
        from . import answers

        wanted, url = int(check.get("status", 200)), str(check["url"])
        try:
            status, headers = answers.fetch(check)
        except OSError as error:
            if not check.get("refused"):
                yield Mismatch(url, f"status {wanted}", f"no answer ({error})", "See the log of the service.")
            return
        except answers.OtherCertificate as error:
            yield Mismatch(url, str(error.declared), f"certificate {error.served}", "The service has not read the new file.")
            return
        if check.get("refused"):
            yield Mismatch(url, "no answer", f"status {status}", "Run the role again.")
            return
        if status != wanted:
            yield Mismatch(url, f"status {wanted}", f"status {status}", "See the log of the service.")
        for name, value in (check.get("headers") or {}).items():
            if not re.search(str(value), headers.get(str(name).lower(), "")):
                yield Mismatch(
                    f"{url} header {name}", str(value), headers.get(str(name).lower(), "absent"), "Run the role again."
                )


def parse_limit(table: str, title: str, column: int = 0) -> str:
    """The soft (0) or hard (1) value of row `title` of a /proc/PID/limits table; empty when there is no such row."""
    for line in table.splitlines():
        if line.startswith(title):
            return line[len(title) :].split()[column]
    return ""


def fits(soft: str, check: Mapping[str, Any]) -> bool:
    """Whether the effective value `soft` is the declared one or, unless the check is exact, allows more."""
    wanted = str(check["value"])
    return at_least(soft, wanted) if check.get("at_least", True) else soft == wanted


def _started_before_its_file(values: Mapping[str, str]) -> bool:
    started = values.get("ExecMainStartTimestamp", "").lstrip("@")
    try:
        return started.isdigit() and int(started) <= Path(values.get("FragmentPath", "")).stat().st_mtime
    except OSError:
        return False


def lines_of(output: str, start: str) -> str:
    """The lines of `output` that begin with `start`, without it."""
    return "\n".join(line[len(start) :] for line in output.splitlines() if line.startswith(start))


def parse_table(output: str) -> dict[str, dict[str, str]]:
    """Rows by their first cell from lines of cells with `|` between them, the first line being the header."""
    lines = [line.split("|") for line in output.splitlines() if line]
    return {line[0]: dict(zip(lines[0], line)) for line in lines[1:]}


def same_value(effective: str, wanted: str) -> bool:
    """Whether both are the same text or the same number."""
    try:
        return effective == wanted or float(effective) == float(wanted)
    except ValueError:
        return False


def at_least(effective: str, wanted: str) -> bool:
    """Whether limit `effective` allows as much as `wanted`; both a number or `unlimited`."""
    if effective == "unlimited":
        return True
    return effective.isdigit() and wanted.isdigit() and int(effective) >= int(wanted)


def listening(proc: Path, port: int) -> set[str]:
    """Addresses on which a TCP socket listens at `port`, from /proc/net/tcp and tcp6 (state 0A, addresses in host byte order)."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            rows = (proc / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            local, state = row.split()[1], row.split()[3]
            address, hex_port = local.split(":")
            if state == "0A" and int(hex_port, 16) == port:
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                found.add(socket.inet_ntop(family, b"".join(words)))
    return found
