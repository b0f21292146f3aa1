# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.mirrors import Mirrors, choose, of_this_machine, parse_deb822, parse_lines

DEB822 = """\
Types: deb deb-src
# snapshot
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites:
 bookworm-security
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
"""


def write(apt: Path, name: str, text: str) -> None:
    (apt / name).parent.mkdir(exist_ok=True)
    (apt / name).write_text(text)


def test_deb822_sources(tmp_path: Path) -> None:
    write(tmp_path, "sources.list.d/debian.sources", DEB822)
    write(tmp_path, "sources.list.d/node.list", "deb [signed-by=/k.gpg arch=amd64] https://deb.example/node nodistro main\n")
    assert of_this_machine(tmp_path) == Mirrors("http://mirror.example/debian", "http://mirror.example/debian-security")


def test_disabled_and_source_only_stanzas_do_not_count() -> None:
    assert {uri for uri, _ in parse_deb822(DEB822)} == {
        "http://mirror.example/debian/",
        "http://mirror.example/debian-security",
    }


@pytest.mark.parametrize("suite", ["bookworm-security", "buster/updates"])
def test_one_line_sources(tmp_path: Path, suite: str) -> None:
    text = "# deb http://no.example/debian bookworm main\ndeb http://m.example/debian trixie main\n"
    write(tmp_path, "sources.list", text + f"deb [trusted=yes] http://s.example/sec {suite} main\n")
    assert of_this_machine(tmp_path) == Mirrors("http://m.example/debian", "http://s.example/sec")


def test_machines_without_a_debian_archive(tmp_path: Path) -> None:
    assert of_this_machine(tmp_path) is None
    assert choose(list(parse_lines("deb http://archive.ubuntu.example/ubuntu noble main universe\n"))) is None


def test_sources_of_another_release() -> None:
    text = Mirrors("http://m.example/debian", "http://m.example/security").sources("trixie")
    assert list(parse_deb822(text)) == [
        ("http://m.example/debian", "trixie"),
        ("http://m.example/debian", "trixie-updates"),
        ("http://m.example/security", "trixie-security"),
    ]
    assert "security" not in Mirrors("http://m.example/debian").sources("trixie")
