# SPDX-License-Identifier: GPL-3.0-or-later
"""What scanners of both releases printed, read."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.audit import lynis, services, ssh_audit
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner

RECORDED = Path(__file__).resolve().parents[2] / "fixtures" / "audit"


def recorded(name):
    return (RECORDED / name).read_text()


class Said(Runner):
    """Answers by the first word of the command, and keeps what was asked."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.asked.append(list(argv))
        answer = self.answers.get(argv[0].replace("-", "_"), Result(127, "", "command not found"))
        return answer(argv) if callable(answer) else answer


@pytest.mark.parametrize(("release", "tests", "number"), [("12", 251, 42), ("13", 256, 46)])
def test_a_lynis_report_gives_index_and_findings(release, tests, number):
    found = lynis.parse(recorded(f"lynis-{release}.dat"))
    assert (found["index"], found["tests"], len(found["findings"])) == (69, tests, number)
    by_id = {row["id"]: row for row in found["findings"]}
    assert by_id["PKGS-7388"]["kind"] == "warning"
    assert by_id["AUTH-9230"] == {
        "id": "AUTH-9230",
        "kind": "suggestion",
        "text": "Configure password hashing rounds in /etc/login.defs",
        "detail": "",
    }
    assert by_id["SSH-7408"]["detail"] == "Port (set 22 to )"


def test_lynis_fetches_nothing_and_leaves_nothing_behind():
    places = []

    def run(argv):
        if "--version" in argv:
            return Result(0, "3.1.4\n", "")
        own, report = (Path(argv[argv.index(option) + 1]) for option in ("--profile", "--report-file"))
        assert "refresh-repositories=no\n" in own.read_text()
        places.append(own)
        report.write_text("hardening_index=88\nlynis_tests_done=2\nsuggestion[]=A-1|text|what|fix|\n")
        return Result(0, "", "")

    found = lynis.scan(Said(lynis=run))
    assert found == {
        "version": "3.1.4",
        "index": 88,
        "tests": 2,
        "findings": [{"id": "A-1", "kind": "suggestion", "text": "text", "detail": "what"}],
    }
    assert not places[0].parent.exists()


def test_lynis_that_is_absent_or_ends_early():
    assert lynis.scan(Said()) == {"version": ""}
    found = lynis.scan(Said(lynis=lambda argv: Result(0, "3.0.8", "") if "--version" in argv else Result(1, "", "no disk")))
    assert (found["index"], found["problem"]) == (None, "no disk")


def test_ssh_audit_of_a_hardened_server():
    assert ssh_audit.parse(recorded("ssh-audit-13.txt")) == []
    old = ssh_audit.parse(recorded("ssh-audit-12.txt"))
    assert {row["kind"] for row in old} == {"warn"}
    assert {row["text"] for row in old} == {"unknown algorithm", "using experimental algorithm"}


@pytest.mark.parametrize(("release", "fail", "warn"), [("12", 4, 14), ("13", 6, 8)])
def test_ssh_audit_of_a_fresh_server(release, fail, warn):
    found = ssh_audit.parse(recorded(f"ssh-audit-{release}-fresh.txt"))
    kinds = [row["kind"] for row in found]
    assert (kinds.count("fail"), kinds.count("warn")) == (fail, warn)
    second = [row["text"] for row in found if row["id"] == "ecdsa-sha2-nistp256" and row["kind"] == "warn"]
    assert second == ["using weak random number generator could reveal the key"]


def test_ssh_audit_does_not_try_the_rate_where_it_can_leave_it_out():
    runner = Said(ssh_audit=Result(0, "(gen) banner: SSH-2.0\n", ""))
    assert ssh_audit.scan(runner, "192.0.2.1", 22, "3.3.0")["problem"] == ""
    ssh_audit.scan(runner, "192.0.2.1", 22, "2.5.0")
    assert ["--skip-rate-test" in argv for argv in runner.asked] == [True, False]
    away = Said(ssh_audit=Result(1, "[exception] cannot connect to 192.0.2.1 port 22\n", ""))
    assert "cannot connect" in ssh_audit.scan(away, "192.0.2.1", 22, "3.3.0")["problem"]


def test_version_of_ssh_audit():
    assert ssh_audit.version(Said(ssh_audit=Result(0, "\x1b[0;36m# ssh-audit v3.3.0, https://...\n", ""))) == "3.3.0"
    assert ssh_audit.version(Said()) == ""
    assert ssh_audit.number("3.10") > ssh_audit.number("3.3.0")


@pytest.mark.parametrize(("release", "version", "number"), [("12", 15, 19), ("13", 17, 20)])
def test_exposures(release, version, number):
    unit = f"postgresql@{version}-main.service"
    found = services.exposures(recorded(f"exposure-{release}.txt"))
    assert (len(found), found[unit], found["hello@blue-1.service"]) == (number, 9.6, 1.1)
    assert services.worst(found, ["postgresql@*.service", "nginx.service"]) == {"nginx.service": 9.6, unit: 9.6}


def test_services_that_do_not_run():
    shown = "\n\n".join(
        f"Id={name}\nType={kind}\nActiveState={state}\nConditionResult={condition}\nConditionTimestampMonotonic={tried}"
        for name, kind, state, condition, tried in (
            ("nginx.service", "forking", "active", "yes", 5),
            ("ssh.service", "notify", "inactive", "yes", 5),
            ("never.service", "simple", "inactive", "no", 0),
            ("unmet.service", "simple", "inactive", "no", 7),
            ("once.service", "oneshot", "inactive", "yes", 5),
            ("broken.service", "oneshot", "failed", "yes", 5),
        )
    )
    wanted = ["broken.service is failed", "never.service is inactive", "ssh.service is inactive"]
    assert services.off(shown) == wanted

    def systemctl(argv):
        listing = "nginx.service enabled enabled\ngetty@.service enabled enabled\n" if "list-unit-files" in argv else ""
        return Result(0, shown if "show" in argv else listing or "broken.service loaded failed failed X\n", "")

    runner = Said(systemctl=systemctl)
    assert services.look(runner) == wanted
    assert runner.asked[-1][-2:] == ["broken.service", "nginx.service"]
    assert services.look(Said()) == []
