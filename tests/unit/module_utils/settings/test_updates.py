# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import updates as u

BOOKWORM = {"ID": "debian", "NAME": "Debian GNU/Linux", "VERSION_CODENAME": "bookworm"}
JAMMY = {"ID": "ubuntu", "ID_LIKE": "debian", "NAME": "Ubuntu", "VERSION_CODENAME": "jammy"}


def policy(*lines):
    return "Package files:\n 100 /var/lib/dpkg/status\n     release a=now\n" + "".join(
        f" 500 http://archive.example/x Packages\n     release {line}\n     origin archive.example\n" for line in lines
    )


DEBIAN = (
    "v=12,o=Debian,a=oldstable-security,n=bookworm-security,l=Debian-Security,c=main,b=amd64",
    "v=12-updates,o=Debian,a=oldstable-updates,n=bookworm-updates,l=Debian,c=main,b=amd64",
    "v=12.15,o=Debian,a=oldstable,n=bookworm,l=Debian,c=main,b=amd64",
)
UBUNTU = (
    "v=22.04,o=Ubuntu,a=jammy-security,n=jammy,l=Ubuntu,c=main,b=amd64",
    "v=22.04,o=Ubuntu,a=jammy,n=jammy,l=Ubuntu,c=main,b=amd64",
    "v=22.04,o=UbuntuESM,a=jammy-infra-security,n=jammy,l=UbuntuESM,c=main,b=amd64",
)


@pytest.mark.parametrize(
    ("release", "lines", "wanted"),
    [
        (BOOKWORM, DEBIAN, ("origin=Debian,codename=${distro_codename}-security,label=Debian-Security",)),
        (BOOKWORM, (), ("origin=Debian,codename=${distro_codename}-security,label=Debian-Security",)),
        (
            JAMMY,
            UBUNTU,
            (
                "origin=Ubuntu,archive=${distro_codename}-security,label=Ubuntu",
                "origin=UbuntuESM,archive=${distro_codename}-infra-security,label=UbuntuESM",
            ),
        ),
        (JAMMY, (), ("origin=Ubuntu,archive=${distro_codename}-security,label=Ubuntu",)),
        (BOOKWORM, (*DEBIAN, "o=Stranger,a=x,n=bookworm-security,l=Mine"), u.security(u.platform(BOOKWORM, policy(*DEBIAN)))),
    ],
)
def test_security_archives_by_what_the_host_says(release, lines, wanted):
    assert u.security(u.platform(release, policy(*lines))) == wanted


def test_an_unknown_distribution_has_to_declare():
    with pytest.raises(u.UpdatesError, match="declare unattended_upgrades_origins"):
        u.security(u.platform({"ID": "other", "VERSION_CODENAME": "one"}, policy("o=Other,a=one,n=one,l=Other")))


def test_a_host_without_security_archives_is_told_so_but_not_before_its_index_is_there():
    assert "no archive of this host carries the security updates of bookworm" in u.lacking(
        u.platform(BOOKWORM, policy(*DEBIAN[1:]))
    )
    assert u.lacking(u.platform(BOOKWORM, policy(*DEBIAN))) == ""
    assert u.lacking(u.platform(BOOKWORM, policy())) == ""
    assert u.lacking(u.platform(JAMMY, policy(*UBUNTU))) == ""


@pytest.mark.parametrize(
    ("window", "later", "wanted"),
    [
        ("*-*-* 04:00", 0, "*-*-* 04:00"),
        ("*-*-* 04:00", 90, "*-*-* 05:30"),
        ("*-*-* 23:30", 60, "*-*-* 00:30"),
        ("Mon..Thu 03:00", 30, "Mon..Thu 03:30"),
        ("Sun *-*-* 03:00:00 UTC", 30, "Sun *-*-* 03:30:00 UTC"),
        ("4:05", 5, "04:10"),
    ],
)
def test_the_window_of_a_turn(window, later, wanted):
    assert u.in_turn(window, later) == wanted


@pytest.mark.parametrize(("window", "words"), [("Sun 23:30", "begin earlier"), ("weekly", "no time"), ("*-*-* 25:00", "25:00")])
def test_a_window_that_cannot_be_moved_is_refused(window, words):
    with pytest.raises(ValueError, match=words):
        u.in_turn(window, 60)


@pytest.mark.parametrize(
    ("span", "wanted"), [("20min", 20), ("1h 30min", 90), ("90s", 1.5), ("soon", None), ("1 fortnight", None)]
)
def test_minutes(span, wanted):
    assert u.minutes(span) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"window": "weekly", "turn": 1}, "unattended_upgrades_window"),
        ({"reboot_time": "24:00"}, "unattended_upgrades_reboot_time"),
        ({"spread": "30min", "turn": 1}, "is not less than unattended_upgrades_gap"),
        ({"hold": ("nginx(",)}, "no regular expression"),
        ({"hold": ('a"; x',)}, "has a sign"),
        ({"mail": "a\nb"}, "unattended_upgrades_mail"),
    ],
)
def test_problems(given, words):
    assert any(words in line for line in u.problems(u.Wanted(**given)))
    assert u.problems(u.Wanted()) == []


def test_hosts_of_a_group_restart_in_their_turns():
    texts = [u.configuration(u.Wanted(turn=turn, reboot=True), ["origin=x"]) for turn in range(3)]
    times = [next(line for line in text.splitlines() if "Reboot-Time" in line) for text in texts]
    assert times == [f'Unattended-Upgrade::Automatic-Reboot-Time "{time}";' for time in ("05:30", "06:00", "06:30")]
    assert "OnCalendar=*-*-* 05:00\n" in u.timer(u.Wanted(turn=2))
    assert '"now"' in u.configuration(u.Wanted(turn=2, reboot_time="now"), [])


def test_the_text_for_apt_clears_what_others_wrote_and_restarts_nothing_by_itself():
    text = u.configuration(u.Wanted(hold=("postgresql", "docker")), ["origin=Debian"])
    assert text.index("#clear Unattended-Upgrade::Origins-Pattern;") < text.index('Origins-Pattern {\n  "origin=Debian";\n}')
    assert 'Package-Blacklist {\n  "postgresql";\n  "docker";\n}' in text
    assert 'Automatic-Reboot "false"' in text
    assert 'Mail ""' in text


class Host(Runner):
    """Answers as a converged host does; `trial` is the exit status of the dry run."""

    def __init__(self, wanted, origins, trial=0, last="success"):
        checks = [check for check in u.checks(wanted, origins) if "lines" in check]
        self.said = "".join(f"{check['lines']}{line}\n" for check in checks for line in check["equals"].splitlines())
        self.trial, self.last, self.asked = trial, last, []
        self.stopped: set[str] = set()

    def run(self, argv, data=None, timeout=600.0, env=None):
        self.asked.append(list(argv))
        if argv[0] == "apt-cache":
            return Result(0, policy(*DEBIAN), "")
        if argv[0] == "apt-config":
            return Result(0, self.said, "")
        if argv[0] == "sh":
            return Result(self.trial, "wanted this, but it says: that" if self.trial else "", "")
        if "--property=Result" in argv:
            return Result(0, self.last + "\n", "")
        if argv[:2] == ["systemctl", "show"] and argv[-1] in (*u.TIMERS, *u.SERVICES) and "--" in argv:
            return Result(0, "\n\n".join(self._unit(name) for name in argv[argv.index("--") + 1 :]), "")
        if argv[:2] == ["systemctl", "start"]:
            self.stopped.discard(argv[-1])
        if argv[:2] == ["systemctl", "stop"]:
            self.stopped.add(argv[-1])
        return Result(0, "ActiveState=active\nUnitFileState=enabled\nLoadState=loaded\nNextElapseUSecRealtime=Sat\n", "")

    def _unit(self, name):
        active = "inactive" if name in self.stopped else "active"
        return f"Id={name}\nLoadState=loaded\nActiveState={active}\nUnitFileState=enabled"


@pytest.mark.parametrize(
    ("said", "well"),
    [
        ("NextElapseUSecRealtime=Mon 2026-11-30 03:10:16 UTC\nSubState=waiting\n", True),
        ("NextElapseUSecRealtime=\nSubState=running\n", True),
        ("NextElapseUSecRealtime=\nSubState=elapsed\n", False),
        ("NextElapseUSecRealtime=\nSubState=dead\n", False),
    ],
)
def test_a_timer_whose_service_runs_has_no_next_time_and_is_well(said, well):
    check = next(each for each in u.checks(u.Wanted(), ()) if each.get("what") == "next run of the upgrades")
    assert (re.search(check["matches"], said) is not None) is well


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=debian\nNAME='Debian GNU/Linux'\nVERSION_CODENAME=bookworm\n")
    return tmp_path


@pytest.mark.parametrize(
    ("trial", "last", "found"),
    [
        (0, "success", []),
        (1, "success", ["unattended-upgrade --dry-run: wanted this"]),
        (0, "exit-code", ["the last run ended with"]),
    ],
)
def test_verify_lets_a_run_prove_the_origins(root, trial, last, found):
    wanted = u.Wanted()
    origins = ("origin=Debian,codename=${distro_codename}-security,label=Debian-Security",)
    host = Host(wanted, origins, trial, last)
    seen = u.Updates(host, root=root).verify(wanted)
    assert [line[: len(words)] for line, words in zip(seen.mismatches, found)] == found
    assert len(seen.mismatches) == len(found)
    trial_of = next(argv for argv in host.asked if argv[0] == "sh")
    assert trial_of[-1] == "Allowed origins are: origin=Debian,codename=bookworm-security,label=Debian-Security"


def test_masks_are_found_and_other_units_of_that_name_are_not(tmp_path):
    (tmp_path / "apt-daily-upgrade.timer").symlink_to("/dev/null")
    (tmp_path / "apt-daily.service").write_text("[Service]\n")
    assert u.masked(tmp_path) == [tmp_path / "apt-daily-upgrade.timer"]


def test_taken_away_only_the_own_files_go_and_the_timer_follows(root, tmp_path, monkeypatch):
    for name in ("CONF", "DROP_IN"):
        path = tmp_path / name
        path.write_text("ours")
        monkeypatch.setattr(u, name, path)
    other = tmp_path / "50unattended-upgrades"
    other.write_text("theirs")
    host = Host(u.Wanted(), u.security(u.Updates(Host(u.Wanted(), ()), root=root).platform))
    updates = u.Updates(host, root=root, markers=tmp_path / "markers")
    assert updates.remove(check_mode=True).changed
    assert u.CONF.exists()
    assert updates.remove(check_mode=False).changed
    assert (u.CONF.exists(), u.DROP_IN.exists(), other.exists()) == (False, False, True)
    assert ["touch", "--", u.STAMP] in host.asked
    assert updates.remove(check_mode=False).changes == []


def test_taken_away_what_was_masked_and_disabled_is_so_again(root, tmp_path, monkeypatch):
    for name in ("CONF", "DROP_IN"):
        monkeypatch.setattr(u, name, tmp_path / name)
    units = root / "etc/systemd/system"
    (units / "timers.target.wants").mkdir(parents=True)
    masked, wants = units / "apt-daily-upgrade.service", units / "timers.target.wants"
    masked.symlink_to("/dev/null")
    enabled = wants / "apt-daily-upgrade.timer"
    enabled.symlink_to("/lib/systemd/system/apt-daily-upgrade.timer")
    host = Host(u.Wanted(), u.security(u.Updates(Host(u.Wanted(), ()), root=root).platform))
    host.stopped = {"apt-daily.timer"}

    def updates():
        return u.Updates(host, root=root, markers=tmp_path / "markers")

    updates().ensure(u.Wanted(), check_mode=False)
    assert not masked.is_symlink()
    assert ["systemctl", "start", "--", "apt-daily.timer"] in host.asked
    (wants / "apt-daily.timer").symlink_to("/lib/systemd/system/apt-daily.timer")  # as `systemctl enable` does
    updates().ensure(u.Wanted(), check_mode=False)
    assert updates().remove(check_mode=True).changed
    updates().remove(check_mode=False)
    assert str(masked.readlink()) == "/dev/null"
    assert [path.name for path in wants.iterdir()] == ["apt-daily-upgrade.timer"]
    assert ["systemctl", "stop", "--", "apt-daily.timer"] in host.asked
    assert not (root / u.ORIGINALS).exists()
    host.stopped = set(u.TIMERS)
    assert not updates().remove(check_mode=False).changed
