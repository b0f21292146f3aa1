# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of the distribution's archive: what is there, what is missing, one apt-get run for the difference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..host.runner import Result, Runner

APT = (
    "apt-get",
    "--yes",
    "--quiet",
    "--no-install-recommends",
    "--option=DPkg::Lock::Timeout=600",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
)
APT_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "UCF_FORCE_CONFFOLD": "1"}


class PackageError(Exception):
    """The archive could not give what was asked; the message says which package and what to do."""


@dataclass(frozen=True)
class Packages:
    """Versions of the asked packages (installed, or candidate while not installed) and the names that changed."""

    versions: dict[str, str]
    changed: tuple[str, ...]


def upstream_version(version: str) -> str:
    """The upstream part of a Debian version: no epoch, no Debian revision, no repack suffix.

    >>> upstream_version("1:26.1.5+dfsg1-9+b1")
    '26.1.5'
    """
    without_epoch = version.split(":", 1)[-1]
    without_revision = without_epoch.rsplit("-", 1)[0]
    return re.split(r"[+~]", without_revision, maxsplit=1)[0]


def parse_installed(listing: str) -> dict[str, str]:
    """Name to version of the installed packages in the output of `dpkg-query`."""
    rows = (line.split("\t") for line in listing.splitlines())
    return {row[0]: row[2] for row in rows if len(row) == 3 and row[1] == "installed"}


def parse_candidates(policy: str) -> dict[str, str]:
    """Name to candidate version in the output of `apt-cache policy`; packages without candidate are left out."""
    found: dict[str, str] = {}
    name = ""
    for line in policy.splitlines():
        if line and not line.startswith(" "):
            name = line.rstrip(":")
        elif line.startswith("  Candidate: ") and not line.endswith("(none)"):
            found[name] = line.split(": ", 1)[1]
    return found


def _installed(runner: Runner, names: Sequence[str]) -> dict[str, str]:
    form = "${Package}\\t${db:Status-Status}\\t${Version}\\n"
    return parse_installed(runner.run(["dpkg-query", "--show", f"--showformat={form}", *names]).out)


def _candidates(runner: Runner, names: Sequence[str]) -> dict[str, str]:
    return parse_candidates(runner.run(["apt-cache", "policy", *names]).out)


def _apt(runner: Runner, *arguments: str) -> Result:
    return runner.run([*APT, *arguments], timeout=1800, env=APT_ENVIRONMENT)


def _refresh(runner: Runner, sources: Sequence[str]) -> None:
    """Fetch the index of those `sources`, and of no others; raises PackageError."""
    for source in sources:
        alone = [f"--option=Dir::Etc::SourceList={source}", "--option=Dir::Etc::SourceParts=-", "--no-list-cleanup"]
        result = _apt(runner, "update", "--error-on=any", *alone)
        if not result.ok:
            raise PackageError(
                f"apt-get update for {source} failed: {result.text()[-1000:]}\nNothing was installed."
                " Check its address, suite and the key that signs it"
            )


def ensure_present(
    runner: Runner,
    names: Sequence[str],
    check_mode: bool,
    optional: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> Packages:
    """Install those of `names` that are missing, and those of `optional` that this release of the archive has.

    The archive's index is fetched only when a package has no candidate in the index at hand or a download fails; that of the
    files `sources` whenever something is missing, or else the archive's version would be taken for the only one.
    Raises PackageError when the archive does not have a package of `names` or the installation fails.
    """
    installed = _installed(runner, [*names, *optional])
    absent = [name for name in optional if name not in installed]
    if absent:
        existing = _candidates(runner, [*names, *absent])
        if not existing and not check_mode:  # an index that knows nothing says nothing about optional packages
            _apt(runner, "update")
            existing = _candidates(runner, absent)
        absent = [name for name in absent if name in existing]
    names = [*names, *(name for name in optional if name in installed or name in absent)]
    missing = [name for name in names if name not in installed]
    candidates: dict[str, str] = {}
    if missing:
        if not check_mode:
            _refresh(runner, sources)
        candidates = _candidates(runner, missing)
        unknown = [name for name in missing if name not in candidates]
        if unknown and not check_mode:
            update = _apt(runner, "update")
            candidates = _candidates(runner, missing)
            unknown = [name for name in missing if name not in candidates]
            if unknown:
                raise PackageError(
                    f"no package {', '.join(unknown)} in the archives of this host; check the names and"
                    f" /etc/apt/sources.list.d (apt-get update said: {update.text()[-300:] or 'nothing'})"
                )
        if not check_mode:
            _install(runner, missing)
            installed = _installed(runner, names)
    known = {**candidates, **installed}
    versions = {name: upstream_version(known[name]) for name in names if name in known}
    return Packages(versions, tuple(missing))


def _install(runner: Runner, missing: Sequence[str]) -> None:
    result = _apt(runner, "install", *missing)
    if not result.ok and "--fix-missing" in result.text():
        _apt(runner, "update")
        result = _apt(runner, "install", *missing)
    if not result.ok:
        raise PackageError(f"apt-get install {' '.join(missing)} failed with status {result.rc}: {result.text()[-2000:]}")


def ensure_absent(runner: Runner, names: Sequence[str], check_mode: bool) -> Packages:
    """Remove those of `names` that are installed; their configuration stays. Raises PackageError."""
    installed = _installed(runner, names)
    present = [name for name in names if name in installed]
    if present and not check_mode:
        result = _apt(runner, "remove", *present)
        if not result.ok:
            raise PackageError(f"apt-get remove {' '.join(present)} failed: {result.text()[-2000:]}")
    return Packages({}, tuple(present))
