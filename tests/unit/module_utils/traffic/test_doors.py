# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import CommandFailed, Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.traffic import doors as d
from ansible_collections.slipway.server.plugins.module_utils.traffic.errors import SlipwayError


class Kernel(Runner):
    """iptables of a host; `refuses` are words of rules that it does not take."""

    def __init__(self, chains=("INPUT", "OUTPUT", "DOCKER-USER"), refuses=()):
        self.chains, self.refuses = chains, refuses
        self.rules: dict[str, list[str]] = {"iptables": ["-A INPUT -p tcp -j ACCEPT"], "ip6tables": []}
        self.armed: list[str] = []

    def run(self, argv, data=None, timeout=600.0, env=None):
        if argv[0] == "systemd-run":
            self.armed.append(argv[1])
            return Result(0, "", "")
        if argv[0] == "systemctl":
            self.armed = [name for name in self.armed if not any(name.endswith(word.rsplit(".", 1)[0]) for word in argv[2:])]
            return Result(0, "", "")
        if argv[0] == "/bin/sh":
            return self._script(argv[2])
        program, verb, rest = argv[0], argv[3], list(argv[4:])
        if verb == "-S":
            return Result(0 if not rest or rest[0] in self.chains else 1, "\n".join(self.rules[program]) + "\n", "")
        chain = rest.pop(0)
        if verb == "-I":
            rest.pop(0)
        line = " ".join(["-A", chain, *rest])
        if verb == "-C":
            return Result(0 if line in self.rules[program] else 1, "", "")
        if any(word in line for word in self.refuses):
            return Result(2, "", "no such match")
        self.rules[program].insert(0, line)
        return Result(0, "", "")

    def _script(self, text):
        for program, lines in self.rules.items():
            tool = f'{program}() {{ [ "$3" = -S ] && printf \'%s\\n\' "$LINES" || {{ shift 2; echo "$*" >&3; }}; }}'
            done = subprocess.run(
                ["/bin/sh", "-c", f"exec 3>&1; ip6tables() {{ :; }}; iptables() {{ :; }}; {tool}; {text}"],
                env={"LINES": "\n".join(lines), "PATH": "/usr/bin:/bin"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            gone = {line.replace("-D", "-A", 1) for line in done.stdout.splitlines()}
            self.rules[program] = [line for line in lines if line not in gone]
        return Result(0, "", "")


PLACES = [d.Place("10.0.0.5", 3000), d.Place("10.0.0.5", 3010)]


def test_new_requests_are_refused_and_a_timer_is_armed():
    kernel = Kernel()
    doors = d.Doors(kernel, Clock())
    assert doors.shut(d.rules(PLACES, "refused"), 900) is True
    assert doors.are_shut()
    assert kernel.armed == ["--unit=slipway-doors"]
    text = "\n".join(kernel.rules["iptables"])
    assert text.count("--ctstate NEW") == 6
    assert "-A DOCKER-USER -p tcp -m conntrack --ctstate NEW --ctorigdst 10.0.0.5 --ctorigdstport 3010" in text
    assert "--uid-owner www-data" in text
    assert not any("10.0.0.5" in rule for rule in kernel.rules["ip6tables"])
    assert doors.shut(d.rules(PLACES, "refused"), 900) is False


def test_opening_takes_our_rules_away_and_no_other():
    kernel = Kernel()
    doors = d.Doors(kernel, Clock())
    doors.shut(d.rules(PLACES, "refused"), 900)
    d.Doors(kernel, Clock(), d.WEB_COMMENT).shut(d.web([443]), 30)
    assert doors.open() is True
    assert not doors.are_shut()
    assert [rule for rule in kernel.rules["iptables"] if d.WEB_COMMENT not in rule] == ["-A INPUT -p tcp -j ACCEPT"]
    assert d.Doors(kernel, Clock(), d.WEB_COMMENT).are_shut()
    assert doors.open() is False


def test_without_docker_there_is_no_rule_for_its_chain():
    kernel = Kernel(chains=("INPUT", "OUTPUT"))
    d.Doors(kernel, Clock()).shut(d.rules(PLACES, "refused"), 900)
    assert not any("DOCKER-USER" in rule for rule in kernel.rules["iptables"])


def test_a_rule_that_the_kernel_does_not_take_leaves_the_doors_open():
    kernel = Kernel(refuses=("--uid-owner",))
    doors = d.Doors(kernel, Clock())
    with pytest.raises(CommandFailed):
        doors.shut(d.rules(PLACES, "refused"), 900)
    assert not doors.are_shut()


def test_kept_doors_have_no_timer_any_more():
    kernel = Kernel()
    doors = d.Doors(kernel, Clock())
    doors.shut(d.rules(PLACES, "refused"), 900)
    doors.keep()
    assert doors.are_shut()
    assert kernel.armed == []
    assert "slipway-doors" in doors.by_hand()


def test_the_door_of_a_web_server_lets_clients_wait():
    assert [rule[-2:] for rule in d.web([80, 443])] == [("-j", "DROP")] * 2


def test_without_iptables_nothing_is_said_to_be_shut():
    kernel = Kernel(chains=())
    with pytest.raises(SlipwayError, match="there is no iptables"):
        d.Doors(kernel, Clock()).shut(d.rules(PLACES, "refused"), 900)
    assert kernel.armed == []
