# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import packages as p


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("1.22.1-9+deb12u3", "1.22.1"),
        ("1:26.1.5+dfsg1-9+b1", "26.1.5"),
        ("17+278", "17"),
        ("2:12.4~rc1-1", "12.4"),
        ("1.24.1-1", "1.24.1"),
    ],
)
def test_upstream_version(version, upstream):
    assert p.upstream_version(version) == upstream


class Archive(Runner):
    """dpkg, apt-cache and apt-get of a host; `hidden` packages appear only after an update of the index."""

    def __init__(self, installed, candidates, hidden=None):
        self.installed, self.candidates, self.hidden = dict(installed), dict(candidates), dict(hidden or {})
        self.apt: list[str] = []

    def run(self, argv, data=None, timeout=600.0, env=None):
        if argv[0] == "dpkg-query":
            rows = [f"{n}\tinstalled\t{self.installed[n]}" for n in argv[3:] if n in self.installed]
            return Result(0 if len(rows) == len(argv) - 3 else 1, "\n".join(rows), "")
        if argv[0] == "apt-cache":
            rows = [f"{n}:\n  Installed: (none)\n  Candidate: {self.candidates[n]}" for n in argv[2:] if n in self.candidates]
            return Result(0, "\n".join(rows), "")
        verb, names = argv[len(p.APT)], argv[len(p.APT) + 1 :]
        self.apt.append(" ".join([verb, *names]))
        if verb == "update":
            self.candidates.update(self.hidden)
        if verb == "install":
            self.installed.update({n: self.candidates[n] for n in names})
        if verb == "remove":
            for name in names:
                del self.installed[name]
        return Result(0, "", "")


def test_only_what_is_missing_is_installed_and_the_index_is_left_alone():
    archive = Archive({"nginx": "1.22.1-9"}, {"jq": "1.6-2"})
    done = p.ensure_present(archive, ["nginx", "jq"], check_mode=False)
    assert archive.apt == ["install jq"]
    assert done == p.Packages({"nginx": "1.22.1", "jq": "1.6"}, ("jq",))
    assert p.ensure_present(archive, ["nginx", "jq"], check_mode=False).changed == ()


def test_check_mode_returns_candidates_and_runs_no_apt():
    archive = Archive({}, {"nginx": "1.26.3-3"})
    assert p.ensure_present(archive, ["nginx"], check_mode=True) == p.Packages({"nginx": "1.26.3"}, ("nginx",))
    assert archive.apt == []


def test_the_index_is_fetched_when_a_package_is_unknown():
    archive = Archive({}, {}, hidden={"nginx": "1.26.3-3"})
    p.ensure_present(archive, ["nginx"], check_mode=False)
    assert archive.apt == ["update", "install nginx"]


def test_a_package_that_no_archive_has_is_named():
    with pytest.raises(p.PackageError, match="no package nosuch in the archives"):
        p.ensure_present(Archive({}, {}), ["nosuch"], check_mode=False)


def test_absent():
    archive = Archive({"rpcbind": "1-1"}, {})
    assert p.ensure_absent(archive, ["rpcbind", "nis"], check_mode=False).changed == ("rpcbind",)
    assert p.ensure_absent(archive, ["rpcbind", "nis"], check_mode=False).changed == ()


def test_optional_packages_are_installed_where_the_archive_has_them():
    class Archive(Runner):
        def __init__(self, known):
            self.known, self.installed, self.calls = known, {"docker.io"}, []

        def run(self, argv, data=None, timeout=600.0, env=None):
            self.calls.append(list(argv))
            if argv[0] == "dpkg-query":
                return Result(0, "".join(f"{name}\tinstalled\t1.0-1\n" for name in argv[3:] if name in self.installed), "")
            if argv[0] == "apt-cache":
                return Result(0, "".join(f"{name}:\n  Candidate: 1.0-1\n" for name in argv[2:] if name in self.known), "")
            self.installed |= set(argv[argv.index("install") + 1 :])
            return Result(0, "", "")

    newer, older = Archive({"docker.io", "docker-cli"}), Archive({"docker.io"})
    assert p.ensure_present(newer, ["docker.io"], False, ["docker-cli"]).changed == ("docker-cli",)
    assert p.ensure_present(older, ["docker.io"], False, ["docker-cli"]).changed == ()
    assert not [call for call in older.calls if "apt-get" in call]


def test_a_source_is_fetched_alone_before_something_comes_from_it():
    source, wanted = "/etc/apt/sources.list.d/own.sources", ["postgresql-17"]
    archive = Archive({}, {"postgresql-17": "17.1-1"}, {"postgresql-17": "17.9-1"})
    assert p.ensure_present(archive, wanted, True, sources=[source]).versions["postgresql-17"] == "17.1"
    assert p.ensure_present(archive, wanted, False, sources=[source]).versions["postgresql-17"] == "17.9"
    update, install = archive.apt
    assert f"SourceList={source}" in update
    assert "SourceParts=-" in update
    assert install == "install postgresql-17"
    p.ensure_present(archive, wanted, False, sources=[source])
    assert len(archive.apt) == 2


def test_an_index_that_cannot_be_trusted_is_an_error():
    class Untrusted(Archive):
        def run(self, argv, data=None, timeout=600.0, env=None):
            return Result(100, "", "NO_PUBKEY 0123") if "update" in argv else super().run(argv)

    with pytest.raises(p.PackageError, match="NO_PUBKEY 0123\nNothing was installed"):
        p.ensure_present(Untrusted({}, {"x": "1"}), ["x"], False, sources=["/own.sources"])
