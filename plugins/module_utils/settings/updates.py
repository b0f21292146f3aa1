# SPDX-License-Identifier: GPL-3.0-or-later
"""Security updates by themselves: what they take, what they leave alone, and when each host of a group has its turn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ..host.clock import Clock
from ..host.files import read_text
from ..host.preflight import os_release
from ..host.runner import Runner
from . import manifest
from .converge import MARKERS, UNIT_FOLDER, Converger, FileSpec, LinkSpec, Outcome, Transaction, UnitSpec
from .originals import Originals
from .readback import Seen, look

CONF = Path("/etc/apt/apt.conf.d/52-slipway-unattended-upgrades.conf")
DROP_IN = UNIT_FOLDER / "apt-daily-upgrade.timer.d/52-slipway.conf"
WANTS = "timers.target.wants"
"""Its links are what enables a timer."""
ORIGINALS = "var/lib/slipway/unattended_upgrades"
STAMP = "/var/lib/systemd/timers/stamp-apt-daily-upgrade.timer"
"""Its time is what systemd takes for the timer's last run (systemd.timer(5), Persistent)."""
TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")
SERVICES = ("apt-daily.service", "apt-daily-upgrade.service")
HEAD = "Managed by slipway.server.unattended_upgrades; changes by hand are taken back."
# For a host whose index was never fetched, so that its own archives cannot tell. What they tell later is written the same way.
UNSEEN = {
    "debian": "origin=Debian,codename=${distro_codename}-security,label=Debian-Security",
    "ubuntu": "origin=Ubuntu,archive=${distro_codename}-security,label=Ubuntu",
}
SWITCHES = ("Enable", "Update-Package-Lists", "Unattended-Upgrade")
DAY = 24 * 60
TIME = re.compile(r"(?P<before>(?:.*\s)?)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?P<after>(?::\d\d)?(?:\s+\S+)?)")
SPAN = re.compile(r"(\d+)\s*(h|hr|hours?|m|min|minutes?|s|sec|seconds?)\b")
REMEDY = f"A file in /etc/apt/apt.conf.d that is read after {CONF.name} sets it."
# A run that reads the configuration of the host and no package: with the whole index it takes seconds.
BARE = """
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT || exit 1
mkdir "$scratch/lists" "$scratch/updates" && : >"$scratch/status" || exit 1
printf 'Dir::State::%s "%s";\\n' Lists "$scratch/lists" status "$scratch/status" >"$scratch/apt.conf"
export APT_CONFIG="$scratch/apt.conf"
"""
# One run: it has to end well, and to allow what was declared and nothing else.
TRIAL = """
said=$(unattended-upgrade --dry-run --debug 2>&1) || { printf '%s\\n' "$said" | tail -n 30; exit 1; }
printf '%s\\n' "$said" | grep --quiet --line-regexp --fixed-strings -- "$1" && exit 0
printf 'wanted %s, but it says: %s\\n' "$1" "$(printf '%s\\n' "$said" | grep 'Allowed origins')"
exit 1
"""


class UpdatesError(Exception):
    """What is declared cannot be done; nothing was changed."""


class Release(NamedTuple):
    """An archive as apt knows it: who publishes it, and under which names."""

    origin: str
    archive: str
    codename: str
    label: str


@dataclass(frozen=True)
class Wanted:
    """What is declared. `turn`: this host's place in the order of its group; each turn is `gap` minutes after the one before."""

    origins: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    window: str = "*-*-* 04:00"
    spread: str = "20min"
    turn: int = 0
    gap: int = 30
    reboot: bool = False
    reboot_time: str = "05:30"
    mail: str = ""
    remove_unused: bool = True


@dataclass(frozen=True)
class Platform:
    """The distribution by its own words, and the archives that apt uses."""

    names: tuple[str, ...]
    title: str
    codename: str
    releases: tuple[Release, ...] = ()


def releases(policy: str) -> tuple[Release, ...]:
    """The archives in the output of `apt-cache policy`, without that of the installed packages."""
    found: dict[Release, None] = {}
    for line in re.findall(r"^\s+release (.*)$", policy, re.MULTILINE):
        values = dict(part.split("=", 1) for part in line.split(",") if "=" in part)
        if "o" in values:
            found[Release(values["o"], values.get("a", ""), values.get("n", ""), values.get("l", ""))] = None
    return tuple(found)


def platform(release: Mapping[str, str], policy: str) -> Platform:
    """What a host is, from os-release and from apt's policy."""
    names = (release.get("ID", ""), *release.get("ID_LIKE", "").split())
    words = release.get("NAME", "").split()
    return Platform(tuple(filter(None, names)), words[0] if words else "", release.get("VERSION_CODENAME", ""), releases(policy))


def security(host: Platform) -> tuple[str, ...]:
    """Patterns of the security archives of this distribution, as its own archives call them; raises UpdatesError."""
    found: dict[str, None] = {}
    for release in host.releases:
        if not release.origin.lower().startswith(host.names):
            continue
        suite = "${distro_codename}"
        if release.codename == f"{host.codename}-security":
            found[f"origin={release.origin},codename={suite}-security,label={release.label}"] = None
        elif re.fullmatch(re.escape(host.codename) + r"(-infra|-apps)?-security", release.archive):
            end = release.archive[len(host.codename) :]
            found[f"origin={release.origin},archive={suite}{end},label={release.label}"] = None
    known = [UNSEEN[name] for name in host.names if name in UNSEEN]
    if not found and not known:
        raise UpdatesError(
            f"unattended_upgrades: which archives carry security updates of {' '.join(host.names) or 'this distribution'} is not"
            " known, and `apt-cache policy` names none; declare unattended_upgrades_origins"
        )
    return tuple(sorted(found)) or tuple(known[:1])


def lacking(host: Platform) -> str:
    """Why no security update will ever come; empty when one may, or when the index was not fetched yet."""
    theirs = [release for release in host.releases if release.origin.lower().startswith(host.names)]
    suites = {name for release in theirs for name in (release.archive, release.codename)}
    if not theirs or any(name.endswith("-security") for name in suites):
        return ""
    return (
        f"no archive of this host carries the security updates of {host.codename} (there are {', '.join(sorted(suites))});"
        " add it to /etc/apt/sources.list.d, or declare unattended_upgrades_origins"
    )


def expanded(patterns: Iterable[str], host: Platform) -> list[str]:
    """Patterns as unattended-upgrade understands them on this host."""
    return [text.replace("${distro_codename}", host.codename).replace("${distro_id}", host.title) for text in patterns]


def minutes(span: str) -> Optional[float]:
    """Minutes of a plain time span such as `1h 30min`; None where it is written in another way."""
    parts = SPAN.findall(span)
    if not parts or SPAN.sub("", span).strip():
        return None
    return sum(int(number) * {"h": 60, "m": 1, "s": 1 / 60}[unit[0]] for number, unit in parts)


def time_of_day(time: str, later: int) -> str:
    """The time of the day `later` minutes after `HH:MM`; raises ValueError."""
    hour, minute = (int(part) for part in time.split(":"))
    if not (0 <= hour < 24 and 0 <= minute < 60):
        raise ValueError(time)
    total = (hour * 60 + minute + later) % DAY
    return f"{total // 60:02d}:{total % 60:02d}"


def in_turn(window: str, later: int) -> str:
    """The calendar expression `window`, `later` minutes later; raises ValueError where it cannot be moved so."""
    if not later:
        return window
    found = TIME.fullmatch(window.strip())
    if found is None:
        raise ValueError(f"`{window}` has no time such as 04:00 that could be moved by {later} minutes")
    start = int(found["hour"]) * 60 + int(found["minute"])
    every_day = found["before"].strip() in ("", "*-*-*")
    if start + later >= DAY and not every_day:
        raise ValueError(f"`{window}` and {later} minutes more is another day; let the window begin earlier")
    return found["before"] + time_of_day(f"{found['hour']}:{found['minute']}", later) + found["after"]


def problems(wanted: Wanted) -> list[str]:
    """Everything that is wrong with what is declared, one line each."""
    found = []
    try:
        in_turn(wanted.window, wanted.turn * wanted.gap)
    except ValueError as error:
        found.append(f"unattended_upgrades_window: {error}")
    if not re.fullmatch(r"now|([01]?\d|2[0-3]):[0-5]\d", wanted.reboot_time):
        found.append(f"unattended_upgrades_reboot_time: `{wanted.reboot_time}` is neither HH:MM nor now")
    length = minutes(wanted.spread)
    if wanted.turn and length is not None and length >= wanted.gap:
        found.append(
            f"unattended_upgrades_spread: {wanted.spread} is not less than unattended_upgrades_gap ({wanted.gap} minutes),"
            " so that two hosts of a group could have the same moment"
        )
    for name, values in (("hold", wanted.hold), ("origins", wanted.origins), ("mail", (wanted.mail,))):
        found += [
            f"unattended_upgrades_{name}: `{value}` has a sign that apt's files do not take" for value in values if _odd(value)
        ]
    for pattern in wanted.hold:
        try:
            re.compile(pattern)
        except re.error as error:
            found.append(f"unattended_upgrades_hold: `{pattern}` is no regular expression: {error}")
    return found


def _odd(text: str) -> bool:
    return any(sign in text for sign in '";\n')


def configuration(wanted: Wanted, origins: Sequence[str]) -> str:
    """The text for apt. Lists of earlier files are cleared, since these would be added to them."""
    unused, again = str(wanted.remove_unused).lower(), str(wanted.reboot).lower()
    when = wanted.reboot_time if wanted.reboot_time == "now" else time_of_day(wanted.reboot_time, wanted.turn * wanted.gap)
    lines = [f"// {HEAD}"]
    lines += [f'APT::Periodic::{name} "1";' for name in SWITCHES]
    lines += ['APT::Periodic::AutocleanInterval "7";']
    lines += [f"#clear Unattended-Upgrade::{name};" for name in ("Allowed-Origins", "Origins-Pattern", "Package-Blacklist")]
    for name, values in (("Origins-Pattern", origins), ("Package-Blacklist", wanted.hold)):
        lines += [f"Unattended-Upgrade::{name} {{", *(f'  "{value}";' for value in values), "};"]
    settings = {
        "MinimalSteps": "true",
        "Mail": wanted.mail,
        "MailReport": "on-change",
        "Remove-Unused-Kernel-Packages": unused,
        "Remove-New-Unused-Dependencies": unused,
        "Automatic-Reboot": again,
        "Automatic-Reboot-WithUsers": again,
        "Automatic-Reboot-Time": when,
        "SyslogEnable": "true",
    }
    return "\n".join([*lines, *(f'Unattended-Upgrade::{name} "{value}";' for name, value in settings.items()), ""])


def timer(wanted: Wanted) -> str:
    """The timer's drop-in: this host's turn, and within it a fixed moment of its own."""
    return (
        f"# {HEAD}\n[Timer]\nOnCalendar=\nOnCalendar={in_turn(wanted.window, wanted.turn * wanted.gap)}\n"
        f"RandomizedDelaySec={wanted.spread}\nFixedRandomDelay=yes\n"
    )


def checks(wanted: Wanted, origins: Sequence[str]) -> list[dict[str, Any]]:
    """What apt makes of all its files, and the timers with their next run."""
    # Of a list, apt names each entry with two colons behind the list's own name.
    values = {f"APT::Periodic::{name}": (f"apt's own switch {name}", "1") for name in SWITCHES}
    values["Unattended-Upgrade::Automatic-Reboot"] = ("restart of the host", str(wanted.reboot).lower())
    values["Unattended-Upgrade::Origins-Pattern::"] = ("origins by pattern", "\n".join(origins))
    values["Unattended-Upgrade::Allowed-Origins::"] = ("origins by name", "")
    values["Unattended-Upgrade::Package-Blacklist::"] = ("packages that are held", "\n".join(wanted.hold))
    argv = ["apt-config", "dump", "--format", "%f %v%n", *(key.rstrip(":") for key in values)]
    found: list[dict[str, Any]] = [
        {"kind": "command", "what": what, "argv": argv, "lines": f"{key} ", "equals": text, "remedy": REMEDY}
        for key, (what, text) in values.items()
    ]
    running = {"ActiveState": "active", "UnitFileState": "enabled"}
    found += [{"kind": "unit", "unit": name, "properties": running} for name in TIMERS]
    found += [{"kind": "unit", "unit": name, "properties": {"LoadState": "loaded"}} for name in SERVICES]
    found.append(
        {
            "kind": "command",
            "what": "next run of the upgrades",
            "argv": ["systemctl", "show", "--property=NextElapseUSecRealtime,SubState", TIMERS[1]],
            # While what it started runs, a timer has no next time.
            "matches": r"NextElapseUSecRealtime=\S+|SubState=running",
            "remedy": "See `systemctl list-timers --all`.",
        }
    )
    return found


def masked(folder: Path = UNIT_FOLDER) -> list[Path]:
    """Links that keep a timer, or what it starts, from ever running."""
    paths = [folder / name for name in (*TIMERS, *SERVICES)]
    return [path for path in paths if path.is_symlink() and str(path.readlink()) == "/dev/null"]


class Updates:
    """Unattended upgrades of this host; `root` and `markers` are replaced by tests."""

    def __init__(self, runner: Runner, clock: Optional[Clock] = None, root: Path = Path("/"), markers: Path = MARKERS) -> None:
        self.runner = runner
        self.clock = clock or Clock()
        self.root = root
        self.markers = markers
        self.originals = Originals(root / ORIGINALS).load()
        self.folder = root / str(UNIT_FOLDER).lstrip("/")
        release = os_release(read_text(root / "etc/os-release") or "")
        self.platform = platform(release, runner.run(["apt-cache", "policy"]).out)

    def origins(self, wanted: Wanted) -> tuple[str, ...]:
        """What is declared, or what this host's own archives say; raises UpdatesError."""
        found = problems(wanted)
        if found:
            raise UpdatesError("unattended_upgrades: nothing was changed\n" + "\n".join(f"- {line}" for line in found))
        return wanted.origins or security(self.platform)

    def ensure(self, wanted: Wanted, check_mode: bool) -> Outcome:
        """Bring apt and its timers to what is declared; raises UpdatesError, ConvergeError."""
        origins = self.origins(wanted)
        off = masked(self.folder)
        transaction = Transaction(
            name="unattended_upgrades",
            files=(
                FileSpec(CONF, configuration(wanted, origins), effect="none"),
                FileSpec(DROP_IN, timer(wanted), effect="restart"),
            ),
            links=tuple(LinkSpec(path, None, "daemon-reload") for path in off),
            units=(UnitSpec(TIMERS[0], on_change="none"), UnitSpec(TIMERS[1], follows=(DROP_IN,))),
            validate=(
                ("apt-config", "dump"),
                ("systemd-analyze", "calendar", wanted.window),
                ("systemd-analyze", "timespan", wanted.spread),
            ),
            # A timer that starts with another window takes the last one for missed, and would run at once.
            apply=(("touch", "--", STAMP),),
            check=(self.trial(origins, bare=True),),
            check_timeout=60.0,
            readback=tuple(checks(wanted, origins)),
        )
        if not check_mode:
            wants = (self.folder / f"{WANTS}/{name}" for name in TIMERS)
            self.originals.keep([*off, *(path for path in wants if not path.is_symlink())])
        outcome = Converger(self.runner, self.clock, self.markers).run(transaction, check_mode)
        self._remember_started(outcome, check_mode)
        outcome.seen = self._with_archives(wanted, outcome.seen)
        return outcome

    def remove(self, check_mode: bool) -> Outcome:
        """Take both files away, and have timers masked, disabled and stopped that were before; raises ConvergeError."""
        back = self.originals.back((), {})
        links = tuple(replace(spec, effect="daemon-reload") for spec in back if isinstance(spec, LinkSpec))
        gone = tuple(spec for spec in back if isinstance(spec, FileSpec))
        stopped = tuple(UnitSpec(name, None, "stopped", "none") for name in self.originals.units)
        # Where nothing was changed, or the timer did not run, it is left as it is.
        follows = DROP_IN.exists() and TIMERS[1] not in self.originals.units
        running = (UnitSpec(TIMERS[1], None, follows=(DROP_IN,)),) if follows else ()
        transaction = Transaction(
            name="unattended_upgrades",
            files=(FileSpec(CONF, None, effect="none"), FileSpec(DROP_IN, None, effect="restart"), *gone),
            links=links,
            units=(*running, *stopped),
            apply=(("touch", "--", STAMP),),
        )
        outcome = Converger(self.runner, self.clock, self.markers).run(transaction, check_mode)
        if not check_mode:
            self.originals.forget_all()
            # A link that is back belongs to whoever made it.
            manifest.record("unattended_upgrades", (), self.markers.parent / manifest.FOLDER.name)
        return outcome

    def _remember_started(self, outcome: Outcome, check_mode: bool) -> None:
        started = [name for name in TIMERS if f"start {name}" in outcome.actions]
        if started and not check_mode:
            self.originals.units.update({name: ["start"] for name in started})
            self.originals.store()

    def verify(self, wanted: Wanted) -> Seen:
        """Read everything back and let the upgrades run without installing anything; raises UpdatesError."""
        origins = self.origins(wanted)
        seen = self._with_archives(wanted, look(self.runner, checks(wanted, origins)))
        tried = self.runner.run(self.trial(origins), timeout=1800)
        said = [] if tried.ok else [f"unattended-upgrade --dry-run: {tried.text()[-1500:]}"]
        last = self.runner.run(["systemctl", "show", "--property=Result", "--value", SERVICES[1]]).out.strip()
        if last not in ("", "success"):
            said.append(f"the last run ended with `{last}`; see journalctl --unit {SERVICES[1]}")
        return Seen((*seen.mismatches, *said), seen.pending)

    def trial(self, origins: Sequence[str], bare: bool = False) -> tuple[str, ...]:
        """A command that fails unless a run allows these origins; a `bare` one looks at no package."""
        wanted = "Allowed origins are: " + ", ".join(expanded(origins, self.platform))
        return ("sh", "-c", BARE + TRIAL if bare else TRIAL, "sh", wanted)

    def _with_archives(self, wanted: Wanted, seen: Seen) -> Seen:
        missing = "" if wanted.origins else lacking(self.platform)
        return Seen((*seen.mismatches, missing), seen.pending) if missing else seen

    def next_run(self) -> str:
        """When the upgrades run next, as systemd says."""
        argv = ["systemctl", "show", "--property=NextElapseUSecRealtime", "--value", TIMERS[1]]
        return self.runner.run(argv).out.strip()
