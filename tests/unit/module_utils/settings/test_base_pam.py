# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import base_pam as p

PAM = p.Pam({"deny": 3, "unlock_time": 60, "even_deny_root": True}, 5, "027")
ACCOUNT = "account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so \naccount\trequisite\t\t\tpam_deny.so\n"


class Tool(Runner):
    """pam-auth-update in little: a line for each profile that is enabled, and what it remembers of it."""

    def __init__(self, silent=False):
        self.runs, self.silent = [], silent

    def run(self, argv, data=None, timeout=600.0, env=None):
        assert argv[:2] == ["pam-auth-update", "--root"]
        assert env["DEBCONF_DB_REPLACE"].startswith(f"File{{{argv[2]}/")
        self.runs.append(list(argv[3:]))
        stage = Path(argv[2])
        stack, record = stage / p.STACKS[0], stage / p.RECORDS[0]
        if "by hand" in stack.read_text():
            return Result(0, "", "pam-auth-update: Local modifications to /etc/pam.d/common-*, not updating.")
        names = sorted(path.name for path in (stage / p.PROFILES).iterdir())
        if not self.silent:
            stack.write_text("".join(f"auth required pam_{name.replace('-', '_')}.so\n" for name in names))
            record.write_text("".join(f"Module: {name}\nrequired\n" for name in names))
        return Result(0, "", "")


@pytest.fixture
def root(tmp_path):
    for name in (*p.STACKS, *p.RECORDS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ACCOUNT if name == p.STACKS[1] else "")
    (tmp_path / p.PROFILES).mkdir(parents=True)
    (tmp_path / p.PROFILES / "unix").write_text("Name: Unix\n")
    modules = tmp_path / "usr/lib/x/security"
    modules.mkdir(parents=True)
    for name in ("unix", "deny", "faillock", "pwhistory", "umask", *(profile.replace("-", "_") for profile in p.profiles(PAM))):
        (modules / f"pam_{name}.so").touch()
    return tmp_path


def wanted(root, pam=PAM, runner=None):
    return {str(spec.path.relative_to(root)): spec.content for spec in p.PamFiles(runner or Tool(), root).wanted(pam)}


def write(root, files):
    for name, text in files.items():
        if text is None:
            (root / name).unlink(missing_ok=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)


def test_profiles_hold_what_is_declared():
    found = p.profiles(PAM)
    assert set(found) == {f"slipway-{name}" for name in ("lockout-before", "lockout-after", "lockout-clear", "history", "umask")}
    assert "\trequisite\tpam_faillock.so preauth silent deny=3 unlock_time=60 even_deny_root\n" in found["slipway-lockout-before"]
    assert "Auth-Type: Additional\nAuth:\n\trequired\tpam_faillock.so authsucc" in found["slipway-lockout-clear"]
    assert "remember=5 enforce_for_root use_authtok\nPassword-Initial:\n" in found["slipway-history"]
    assert "umask=0027" in found["slipway-umask"]
    assert p.profiles(p.Pam()) == {}


def test_old_passwords_stop_no_login_by_key():
    there = p.tuned(ACCOUNT, 7)
    assert "pam_unix.so no_pass_expiry\n" in there
    assert p.tuned(there, 0) == there
    assert p.tuned(there, None).replace("pam_unix.so\n", "pam_unix.so \n") == ACCOUNT


def test_hashes_are_dear_where_they_are_yescrypt():
    line = "password\t[success=1 default=ignore]\tpam_unix.so obscure use_authtok try_first_pass {}\n"
    there = p.tuned(line.format("yescrypt"), 7)
    assert there == line.format("yescrypt rounds=7")
    assert p.tuned(there, 8) == line.format("yescrypt rounds=8")
    assert p.tuned(there, None) == line.format("yescrypt")
    assert p.tuned(line.format("sha512"), 7) == line.format("sha512")


def test_the_tool_works_in_a_folder_of_its_own(root):
    tool = Tool()
    files = wanted(root, runner=tool)
    assert tool.runs == [["--package", "--enable", *p.profiles(PAM)]]
    assert "pam_slipway_history.so" in files[p.STACKS[0]]
    assert "pam_slipway_history.so" not in (root / p.STACKS[0]).read_text()
    assert "no_pass_expiry" in files[p.STACKS[1]]


def test_nothing_is_asked_again_when_everything_is_as_it_was_left(root):
    write(root, wanted(root))
    tool = Tool()
    files = wanted(root, runner=tool)
    assert tool.runs == []
    assert all((root / name).read_text() == text for name, text in files.items())


def test_lines_by_hand_go(root):
    write(root, wanted(root))
    left = (root / p.STACKS[0]).read_text()
    (root / p.STACKS[0]).write_text(f"{left}auth sufficient pam_permit.so # by hand\n")
    assert wanted(root)[p.STACKS[0]] == left


def test_what_the_tool_did_meanwhile_stays(root):
    write(root, wanted(root))
    (root / p.PROFILES / "ldap").write_text("Name: LDAP\n")
    (root / "usr/lib/x/security/pam_ldap.so").touch()
    assert "pam_ldap.so" in wanted(root)[p.STACKS[0]]


def test_a_stack_that_was_never_ours_is_not_overwritten(root):
    (root / p.STACKS[0]).write_text("auth sufficient pam_special.so # by hand\n")
    with pytest.raises(p.PamError, match="lines that pam-auth-update did not write"):
        wanted(root)


def test_a_module_that_is_not_there_is_found_before_it_keeps_everybody_out(root):
    (root / "usr/lib/x/security/pam_slipway_history.so").unlink()
    with pytest.raises(p.PamError, match=r"/etc/pam.d/common-auth uses pam_slipway_history.so, which is not installed"):
        wanted(root)


def test_a_profile_that_is_not_enabled_is_an_error(root):
    with pytest.raises(p.PamError, match="did not enable slipway-lockout-before"):
        wanted(root, runner=Tool(silent=True))


def test_a_missing_stack_is_an_error(root):
    (root / p.STACKS[2]).unlink()
    with pytest.raises(p.PamError, match="libpam-runtime` brings it back"):
        wanted(root)


def test_all_of_it_goes_again(root):
    write(root, wanted(root))
    tool = Tool()
    files = wanted(root, None, tool)
    assert tool.runs == [["--package"]]
    assert "slipway" not in files[p.STACKS[0]]
    assert "no_pass_expiry" not in files[p.STACKS[1]]
    assert {name: text for name, text in files.items() if text is None} == dict.fromkeys(
        [*(f"{p.PROFILES}/{name}" for name in p.profiles(PAM)), p.MEMORY]
    )
    write(root, files)
    assert wanted(root, None) == {}


def test_an_unreadable_memory_is_none(root):
    write(root, wanted(root))
    (root / p.MEMORY).write_text("{")
    assert json.loads(wanted(root)[p.MEMORY])["print"]
