# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import base_texts as t
from hypothesis import given
from hypothesis import strategies as st

LOGIN_DEFS = "# PASS_MAX_DAYS is the most\nPASS_MAX_DAYS\t99999\n\nUMASK\t\t022\nUSERGROUPS_ENAB yes"


def test_lines_change_in_place_and_new_ones_come_last():
    after = t.with_keys(LOGIN_DEFS, {"PASS_MAX_DAYS": "365", "UMASK": "022", "HOME_MODE": "0700"})
    assert after == "# PASS_MAX_DAYS is the most\nPASS_MAX_DAYS\t365\n\nUMASK\t\t022\nUSERGROUPS_ENAB yes\nHOME_MODE\t0700\n"
    assert t.with_keys(after, {"PASS_MAX_DAYS": "365", "HOME_MODE": "0700"}) == after


KEYS = st.sampled_from(["UMASK", "PASS_MAX_DAYS", "HOME_MODE", "LOGIN_RETRIES"])
LINES = st.lists(st.one_of(st.just(""), st.just("# UMASK is"), st.builds("{}\t{}".format, KEYS, st.integers(0, 99))), max_size=9)


@given(LINES, st.dictionaries(KEYS, st.integers(0, 99).map(str)))
def test_what_was_changed_can_be_changed_back(lines, settings):
    before = "".join(f"{line}\n" for line in lines)
    after = t.with_keys(before, settings)
    assert t.with_keys(after, settings) == after
    assert t.without_keys(after, before, settings) == before


def test_lines_of_others_stay_when_ours_go():
    now = t.with_keys(LOGIN_DEFS, {"UMASK": "027"}) + "\nMAIL_DIR /elsewhere\n"
    assert t.without_keys(now, LOGIN_DEFS, ["UMASK"]) == LOGIN_DEFS + "\nMAIL_DIR /elsewhere\n"


def test_assignments_of_shells():
    assert t.with_keys("CRON_CHECK=never\nX=1\n", {"CRON_CHECK": "weekly"}, "=") == "CRON_CHECK=weekly\nX=1\n"
    assert t.without_keys("CRON_CHECK=weekly\n", "CRON_CHECK=never\n", ["CRON_CHECK"], "=") == "CRON_CHECK=never\n"


def test_switches_of_pwquality_have_no_value():
    text = t.quality({"minlen": 14, "dictcheck": True, "enforce_for_root": True, "local_users_only": False})
    assert text == t.HEADER + "dictcheck = 1\nenforce_for_root\nminlen = 14\n"


def test_modules_are_read_as_they_were_written():
    assert t.blocked(t.modprobe(["dccp", "usb-storage"])) == ["dccp", "usb-storage"]


@pytest.mark.parametrize("word", ["requiretty", " noexec "])
def test_what_keeps_ansible_out_of_sudo_is_refused(word):
    assert t.sudo_faults(["use_pty", word])[0].startswith(f"sudo: {word.strip()}: it keeps")
    assert t.sudo_faults(["use_pty", "!requiretty"]) == []


def test_the_log_of_sudo_is_rotated():
    assert t.sudo_log(["use_pty", 'logfile="/var/log/sudo.log"']) == "/var/log/sudo.log"
    assert t.sudo_log(["use_pty"]) == ""
    assert t.rotation("/var/log/sudo.log").splitlines()[1] == "/var/log/sudo.log {"


def test_only_interactive_shells_have_a_time_limit(tmp_path):
    path = tmp_path / "profile.sh"
    path.write_text(t.profile("027", 600))
    script = f'. {path}; echo "$(umask) ${{TMOUT-none}}"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "0027 none\n"
    again = f'. {path}; . {path}; echo "$TMOUT"; TMOUT=0'
    done = subprocess.run(["bash", "--norc", "-i", "-c", again], capture_output=True, text=True, check=False)
    assert done.stdout == "600\n"
    assert "TMOUT: readonly variable" in done.stderr


def test_nothing_is_said_where_nothing_is_asked():
    assert t.profile("", 0) == t.HEADER
    assert t.profile("", 0, core_dumps=False) == f"{t.HEADER}ulimit -c 0\n"
    assert "MaxRetentionSec" not in t.journald("1G", "1G", "")
