# SPDX-License-Identifier: GPL-3.0-or-later
"""Scores, what remains, the report and its page."""

from __future__ import annotations

import html.parser
import json

import pytest
from ansible_collections.slipway.server.plugins.module_utils.audit import accepted, judge, page, report

PLAN = {"ufw_rules": [{"port": 80, "from": ["any"]}], "systemd_units_units": [{"name": "shop@.service"}]}
GOOD = {
    "container": False,
    "lynis": {"version": "3.1.4", "index": 90, "tests": 250, "findings": []},
    "exposure": {"shop@blue-1.service": 1.1, "nginx.service": 2.4, "cron.service": 9.6},
    "off": [],
    "ports": [{"port": 80, "process": "nginx"}, {"port": 8081, "process": "python3"}],
    "drift": [],
}
LOOK = {
    "open": [{"address": "10.0.0.1", "port": 80, "source": "10.0.0.2"}],
    "ssh": {"22": {"version": "3.3.0", "problem": "", "findings": []}},
}
STRANGE = {"open": [{"address": "10.0.0.1", "port": 8081, "source": "10.0.0.2"}]}
LIMITS = judge.minimum({})


def seen(inside=None, look=None, settings=(), outside=None, own=()):
    outside = {"b": {**LOOK, **(look or {})}} if outside is None else outside
    return judge.judge(judge.Evidence("a", {**GOOD, **(inside or {})}, outside, settings, PLAN), LIMITS, own)


def test_a_good_host():
    verdict = seen()
    assert dict(verdict.scores) == {
        **{"lynis": 90, "ssh_fail": 0, "ssh_warn": 0, "app": 1.1, "nginx": 2.4, "postgresql": None},
        **{"services": 0, "settings": 0, "drift": 0, "ports": 0},
    }
    assert (verdict.below, verdict.findings, verdict.missing) == ((), (), ())


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"inside": {"lynis": {"version": "3", "index": 86, "findings": []}}}, "Lynis index: 86, at least 87"),
        ({"inside": {"exposure": {"shop@green-2.service": 1.6}}}, "exposure of applications: 1.6, at most 1.5"),
        ({"inside": {"exposure": {"postgresql@17-main.service": 9.6}}}, "exposure of PostgreSQL: 9.6, at most 2.5"),
        ({"inside": {"off": ["ssh.service is failed"]}}, "services that do not run: 1, at most 0"),
        ({"inside": {"drift": [{"path": "/etc/x", "owner": "base", "what": "is gone"}]}}, "files changed by hand: 1, at most 0"),
        ({"settings": [{"role": "kernel", "mismatches": ["one", "two"]}]}, "settings that are not effective: 2, at most 0"),
        ({"settings": [{"role": "ufw", "msg": "chain differs"}]}, "settings that are not effective: 1, at most 0"),
        ({"look": STRANGE}, "ports that nobody declared: 1, at most 0"),
        (
            {"look": {"ssh": {"22": {"version": "3.3.0", "findings": [{"id": "x", "kind": "fail", "text": "weak"}]}}}},
            "ssh-audit failures: 1, at most 0",
        ),
    ],
)
def test_what_is_below_the_minimum(more, text):
    verdict = seen(**more)
    assert verdict.below == (text,)
    assert not [finding for finding in verdict.findings if finding.reason]


def test_a_port_is_told_with_its_process_and_who_saw_it():
    (finding,) = seen(look=STRANGE).findings
    assert (finding.check, finding.id) == ("ports", "8081")
    assert finding.text == "port 8081 (python3) answers b (10.0.0.2) at 10.0.0.1"


def test_what_was_not_measured_is_told_and_is_no_failure():
    verdict = seen({"lynis": {"version": ""}, "exposure": {}}, outside={})
    assert verdict.below == ()
    assert verdict.missing == (
        "lynis: not installed (-e audit_install=true installs it)",
        "ssh-audit: no host has it (-e audit_install=true installs it)",
        "ports: nobody looked from elsewhere",
    )
    assert [verdict.scores[name] for name in ("lynis", "ssh_fail", "app", "ports")] == [None] * 4
    broken = seen({"lynis": {"version": "3", "index": None, "problem": "no disk"}}, {"ssh": {"22": {"problem": "no answer"}}})
    assert broken.missing == ("lynis: no index: no disk", "ssh-audit: no answer")


def test_an_accepted_finding_has_its_reason_and_does_not_count():
    rows = [{"id": "kex", "kind": "warn", "text": "unknown algorithm"}]
    old = seen(look={"ssh": {"22": {"version": "2.5.0", "findings": rows}}})
    assert (old.scores["ssh_warn"], old.findings[0].reason) == (0, "this ssh-audit is older than the algorithm")
    assert seen(look={"ssh": {"22": {"version": "3.3.0", "findings": rows}}}).scores["ssh_warn"] == 1
    audit = {"lynis": {"version": "3", "index": 90, "findings": [{"id": "ACCT-9628", "kind": "suggestion", "text": "auditd"}]}}
    assert seen(audit).findings[0].reason == ""
    assert "no audit netlink" in seen({**audit, "container": True}).findings[0].reason


def test_an_inventory_accepts_with_a_reason():
    own = accepted.declared([{"check": "ports", "id": "8081", "host": "a*", "reason": "exporter of the provider"}])
    verdict = seen(look=STRANGE, own=own)
    assert (verdict.scores["ports"], verdict.below, verdict.findings[0].reason) == (0, (), "exporter of the provider")
    for entry in ({"id": "x"}, {"reason": "y"}, {"id": "x", "reason": " "}, {"id": "x", "reason": "y", "cheks": "z"}):
        with pytest.raises(ValueError, match="audit_accepted"):
            accepted.declared([entry])


def test_limits():
    assert judge.minimum({"lynis": "70"})["lynis"] == 70
    with pytest.raises(ValueError, match="no score lynx"):
        judge.minimum({"lynx": 1})


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def made(before=(), silent=("c",), **more):
    return report.build(1_700_000_000.0, [seen(**more)], silent, LIMITS, before)


def test_the_report_names_hosts_that_could_not_be_asked():
    assert made().problems == ["c: could not be looked at"]
    text = "\n".join(report.lines(made()))
    assert "c: could not be looked at" in text
    head, row, wanted, *_rest = report.lines(made(silent=()))
    assert head.startswith("host    lynis  ssh fail  ssh warn  app")
    assert row.split() == ["a", "90", "0", "0", "1.1", "2.4", "-", "0", "0", "0", "0"]
    assert wanted.startswith("wanted  >= 87")


def test_scores_of_earlier_audits_are_kept():
    first = report.document(made())
    kept = report.earlier(json.dumps(first))
    second = made(before=kept)
    assert [entry["hosts"]["a"]["lynis"] for entry in second.history] == [90, 90]
    assert len(made(before=second.history * 200).history) == report.KEPT
    for odd in (None, "", "[]", "not json", '{"history": [1, {"at": 1}, {"hosts": {}}]}'):
        assert report.earlier(odd) == ()


def test_the_page_needs_nothing_else_and_escapes_what_hosts_say():
    bad = {"drift": [{"path": "/etc/<script>", "owner": "base", "what": "is gone"}]}
    text = page.page(made(inside=bad, before=report.earlier(json.dumps(report.document(made())))))
    tags = Tags(text).found
    assert "<script" not in text
    assert "/etc/&lt;script&gt;" in text
    assert not [attributes for _tag, attributes in tags if {"src", "href"} & set(attributes)]
    assert "svg" in {tag for tag, _attributes in tags}
    assert "svg" not in {tag for tag, _attributes in Tags(page.page(made())).found}
