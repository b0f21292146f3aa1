# SPDX-License-Identifier: GPL-3.0-or-later
"""sshd: what is written, what of it wins, who still gets in, what a server offers."""

from __future__ import annotations

import base64
import socket
import struct
import threading
from pathlib import Path
from typing import Optional

import pytest
from ansible_collections.slipway.server.plugins.filter.accounts import hashed, slipway_sshd_users
from ansible_collections.slipway.server.plugins.module_utils.host.session import Login, login
from ansible_collections.slipway.server.plugins.module_utils.settings import sshd, sshd_access, sshd_accounts, sshd_policy
from ansible_collections.slipway.server.plugins.module_utils.settings import sshd_stage as stage
from ansible_collections.slipway.server.plugins.module_utils.settings import sshd_wire as wire
from ansible_collections.slipway.server.plugins.module_utils.settings.sshd_access import Account, KeyFile
from ansible_collections.slipway.server.plugins.module_utils.settings.sshd_accounts import Found, User
from ansible_collections.slipway.server.plugins.module_utils.settings.sshd_policy import Known, Policy, SshdError
from hypothesis import given
from hypothesis import strategies as st

ED = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHOfaA8xu5ZsF0vW4mJwTn5Cuz3LUgzQa5e+2d7Vx1yN ann@laptop"


def rsa_key(bits: int) -> str:
    def part(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    modulus = b"\0" + (1 << (bits - 1)).to_bytes(bits // 8, "big")
    return "ssh-rsa " + base64.b64encode(part(b"ssh-rsa") + part(b"\1\0\1") + part(modulus)).decode() + " bob"


ALGORITHMS = {
    "kex": ["curve25519-sha256", "sntrup761x25519-sha512@openssh.com", "diffie-hellman-group14-sha1"],
    "cipher": ["3des-cbc", *sshd_policy.CIPHERS, *sshd_policy.COUNTERS],
    "mac": ["hmac-sha1", *sshd_policy.MACS],
    "HostKeyAlgorithms": [*sshd_policy.ED25519, *sshd_policy.RSA, "ssh-dss"],
    "PubkeyAcceptedAlgorithms": [*sshd_policy.ED25519, *sshd_policy.RSA, *sshd_policy.ECDSA],
    "key-sig": ["ssh-ed25519", "rsa-sha2-512"],
}
KEYWORDS = frozenset(
    name.lower() for name in [*sshd_policy.FIXED, *sshd_policy.QUERIES, "Port", "HostKey", "PermitRootLogin", "Banner"]
)
KNOWN = Known(KEYWORDS, ALGORITHMS)


def written(policy: Policy, known: Known = KNOWN) -> str:
    return sshd_policy.render(sshd_policy.keywords(policy, known, ["/k"], "/banner", "/moduli"))


def test_only_what_this_server_knows_is_written() -> None:
    text = written(Policy())
    assert "KexAlgorithms sntrup761x25519-sha512@openssh.com\n" in text
    assert "curve25519" not in text
    assert "ModuliFile" not in text  # a keyword that this one does not know
    assert "Port" not in text
    assert "Banner none\n" in text
    assert "curve25519-sha256" in written(Policy("compatible"))


def test_settings_take_the_place_of_the_profile_s() -> None:
    text = written(Policy(ports=(22, 2222), allow_users=("ann", "bob"), settings={"maxsessions": ["4"], "AcceptEnv": ["A", "B"]}))
    assert "Port 22\nPort 2222\n" in text
    assert text.count("MaxSessions") == 1
    assert "MaxSessions 4\n" in text
    assert "AcceptEnv A\nAcceptEnv B\n" in text
    assert "AllowUsers ann bob\n" in text


@pytest.mark.parametrize("keyword", ["Port", "match", "Include"])
def test_settings_that_belong_elsewhere_are_refused(keyword: str) -> None:
    with pytest.raises(SshdError, match="does not belong there"):
        written(Policy(settings={keyword: ["x"]}))


def test_a_profile_that_leaves_no_algorithm_is_refused() -> None:
    with pytest.raises(SshdError, match=r"none of the KexAlgorithms of profile strict; use sshd_profile: compatible"):
        written(Policy(), Known(KEYWORDS, {**ALGORITHMS, "kex": ["curve25519-sha256"]}))


def test_values_that_others_win_or_add_to_are_found() -> None:
    alone = sshd_policy.parse_effective("port 22\npasswordauthentication no\nloglevel VERBOSE\n")
    together = sshd_policy.parse_effective("port 22\nport 2200\npasswordauthentication yes\nloglevel VERBOSE\n")
    assert sshd_policy.differing(["Port", "PasswordAuthentication", "LogLevel"], alone, together) == [
        "passwordauthentication",
        "port",
    ]


def test_short_moduli_go() -> None:
    lines = ["# comment", "20230301 2 6 100 2047 2 F0", "20230301 2 6 100 3071 5 F1", "20230301 2 6 100 8191 2 F2", "broken"]
    assert sshd_policy.moduli("\n".join(lines)) == "\n".join([lines[0], *lines[2:4], ""])


@pytest.mark.parametrize(
    ("main", "first"),
    [
        ("# comment\n\nInclude /etc/ssh/sshd_config.d/*.conf\nPort 22\n", True),
        ('include "sshd_config.d/*.conf"\n', True),
        ("Port 22\nInclude /etc/ssh/sshd_config.d/*.conf\n", False),
        ("Include /etc/ssh/other.d/*.conf\n", False),
        ("#Include /etc/ssh/sshd_config.d/*.conf\n", False),
        ("", False),
    ],
)
def test_whether_the_drop_in_comes_before_everything(main: str, first: bool) -> None:
    assert stage.includes_first(main, sshd.DROPIN) is first


def test_the_staged_copy_reads_nothing_of_the_real_one(tmp_path: Path) -> None:
    text = "Include /etc/ssh/sshd_config.d/*.conf own.conf /opt/x.conf\nMatch user a\n  include /etc/ssh/b\nPort 22\n"
    led = f"Include {tmp_path}/etc/ssh/sshd_config.d/*.conf {tmp_path}/etc/ssh/own.conf /opt/x.conf\n"
    assert stage.redirected(text, tmp_path) == f"{led}Match user a\n  include {tmp_path}/etc/ssh/b\nPort 22\n"


def test_the_staged_copy_has_what_is_wanted_and_not_what_goes(tmp_path: Path) -> None:
    folder, copy = tmp_path / "etc/ssh", tmp_path / "stage"
    (folder / "sshd_config.d").mkdir(parents=True)
    for name in ("sshd_config", "sshd_config.d/a.conf", "sshd_config.d/b.conf", "ssh_host_rsa_key"):
        (folder / name).write_text(name)
    wanted = {folder / "sshd_config.d/a.conf": "new", folder / "sshd_config.d/b.conf": None, Path("/etc/sudoers.d/x"): "no"}
    main = stage.build(copy, wanted, folder)
    assert main.read_text() == "sshd_config"
    assert {str(path.relative_to(main.parent)): path.read_text() for path in main.parent.rglob("*.conf")} == {
        "sshd_config.d/a.conf": "new"
    }
    assert [path.name for path in copy.rglob("*key*")] == []


def test_tells_where_another_file_sets_a_keyword(tmp_path: Path) -> None:
    (tmp_path / "sshd_config.d").mkdir()
    (tmp_path / "sshd_config.d/00-early.conf").write_text("# PasswordAuthentication no\nPasswordAuthentication yes\n")
    own = tmp_path / "sshd_config.d/00-slipway.conf"
    own.write_text("PasswordAuthentication no\n")
    (tmp_path / "sshd_config").write_text("passwordauthentication=no\n")
    assert stage.places("passwordauthentication", {own: ""}, tmp_path) == [
        f"{tmp_path}/sshd_config.d/00-early.conf line 2: PasswordAuthentication yes"
    ]


# Who gets in

ANN = Account("ann", 1000, "/home/ann", ("ann", "operators"), "10.0.0.9")
EFFECTIVE = {
    "authorizedkeysfile": [".ssh/authorized_keys /etc/keys/%u"],
    "pubkeyacceptedalgorithms": [",".join(sshd_policy.PROFILES["strict"]["PubkeyAcceptedAlgorithms"])],
    "requiredrsasize": ["3072"],
    "permitrootlogin": ["without-password"],
}


def with_keys(text: Optional[str], fault: str = "") -> sshd_access.Look:
    return lambda path, _account: KeyFile(text, fault) if text is not None and path == Path("/etc/keys/ann") else None


def said(text: Optional[str] = ED, fault: str = "", account: Account = ANN, **more: list[str]) -> str:
    return "\n".join(sshd_access.problems(account, {**EFFECTIVE, **more}, with_keys(text, fault)))


def test_a_key_in_one_of_the_files_is_enough() -> None:
    assert said() == ""
    assert said(f'# {ED}\n\nfrom="10.0.0.0/8",no-pty {ED}\n') == ""
    assert said(rsa_key(4096)) == ""


@pytest.mark.parametrize(
    ("text", "fault", "why"),
    [
        (None, "", "/home/ann/.ssh/authorized_keys does not exist, /etc/keys/ann does not exist"),
        ("", "", "/etc/keys/ann has no key that would be accepted"),
        (f"# {ED}\n", "", "has no key"),
        (f'command="echo no" {ED}', "", "is for a command or for certificates only"),
        (rsa_key(2048), "", "an RSA key has 2048 bits, at least 3072 are needed"),
        ("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY= x", "", "type ecdsa-sha2-nistp256 are not accepted"),
        (ED, "/etc/keys can be written by others", "/etc/keys can be written by others"),
    ],
)
def test_no_usable_key_is_a_reason_with_its_place(text: Optional[str], fault: str, why: str) -> None:
    assert why in said(text, fault)
    assert "user ann would have no key to log in with" in said(text, fault)


def test_keys_from_elsewhere_are_for_the_login_to_judge() -> None:
    assert said(None, authorizedkeyscommand=["/usr/bin/keys"]) == ""
    assert said(None, trustedusercakeys=["/etc/ssh/ca"]) == ""


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"allowusers": ["bob", "carol"]}, "user ann is not in AllowUsers (bob carol)"),
        ({"allowusers": ["ann@192.0.2.*"]}, "not in AllowUsers"),
        ({"allowusers": ["ann@192.0.2.0/24"]}, "not in AllowUsers"),
        ({"allowusers": ["*", "!ann"]}, "not in AllowUsers"),
        ({"allowgroups": ["wheel"]}, "no group of user ann is in AllowGroups (wheel); ann is in ann operators"),
        ({"denyusers": ["a*"]}, "denyusers keeps ann out"),
        ({"denygroups": ["operators"]}, "denygroups keeps ann out"),
        ({"pubkeyauthentication": ["no"]}, "PubkeyAuthentication would be off"),
    ],
)
def test_lists_that_leave_the_user_out(more: dict[str, list[str]], why: str) -> None:
    assert why in said(**more)


@pytest.mark.parametrize(
    "more",
    [
        {"allowusers": ["bob ann"]},
        {"allowusers": ["ann@10.0.0.0/8"]},
        {"allowusers": ["ann@10.0.0.?"]},
        {"allowusers": ["ann@gateway.example"]},
        {"allowgroups": ["op*"]},
        {"denyusers": ["ann@192.0.2.1"]},
    ],
)
def test_lists_that_let_the_user_in(more: dict[str, list[str]]) -> None:
    assert said(**more) == ""


def test_root_is_not_switched_off_by_root() -> None:
    root = Account("root", 0, "/root", ("root",))
    assert "connected as root, whose login would be off" in said(account=root, permitrootlogin=["no"], trustedusercakeys=["/ca"])
    assert said(account=root, trustedusercakeys=["/ca"]) == ""


def test_strict_modes(tmp_path: Path) -> None:
    me = Account("me", tmp_path.stat().st_uid, str(tmp_path))
    keys = tmp_path / ".ssh/authorized_keys"
    keys.parent.mkdir(mode=0o700)
    keys.write_text(ED)
    assert sshd.Looker({})(keys, me) == KeyFile(ED, "")
    keys.parent.chmod(0o770)
    found = sshd.Looker({})(keys, me)
    assert found
    assert f"{keys.parent} can be written by others" in found.fault
    assert sshd.Looker({keys: None})(keys, me) is None
    assert sshd.Looker({})(tmp_path / "none", me) is None
    if me.uid == 0:
        other = sshd.Looker({})(keys, Account("x", 0, str(tmp_path)))
        assert other is not None


@given(st.text(max_size=300))
def test_any_file_of_keys_can_be_read(text: str) -> None:
    usable, refused = sshd_access.usable_keys(text, {"ssh-ed25519"}, 3072)
    assert usable >= 0
    assert len(refused) <= len(text)


@given(st.text(max_size=60))
def test_any_blob_has_some_number_of_bits(text: str) -> None:
    assert sshd_access.rsa_bits(text) >= 0


# Accounts


def test_a_new_user() -> None:
    user = User("ann", keys=(ED,), groups=("operators",), password="$6$x$y")
    steps = sshd_accounts.steps(user, None, ["users"])
    assert [step.argv[0] for step in steps] == ["groupadd", "useradd", "usermod", "chpasswd"]
    assert all("$6$" not in " ".join(step.argv) + step.says for step in steps)
    assert steps[-1].data == "ann:$6$x$y\n"


def test_nothing_to_do_for_a_user_that_is_as_declared() -> None:
    found = Found("ann", "/home/ann", "/bin/bash", "ann", ("ann", "operators"), "$6$x$y")
    assert sshd_accounts.steps(User("ann", groups=("operators",), password="$6$x$y"), found, ["operators"]) == []
    assert sshd_accounts.removal(User("ann", False), found)[0].argv == ("userdel", "ann")
    assert sshd_accounts.removal(User("ann", False), None) == []


def test_keys_exclusive_or_beside_others() -> None:
    other = rsa_key(4096)
    user = User("ann", keys=(ED,))
    assert sshd_accounts.key_lines(user, other) == f"{ED}\n"
    beside = User("ann", keys=(ED,), exclusive=False)
    assert sshd_accounts.key_lines(beside, other) == f"{other}\n{ED}\n"
    assert sshd_accounts.key_lines(beside, f"no-pty {ED} old comment\n") == f"no-pty {ED} old comment\n"


def test_wrong_declarations_are_all_told() -> None:
    users = [User("ann", keys=("nonsense",)), User("ann", password="clear"), User("A b"), User("root", False)]
    faults = sshd_accounts.check(users)
    assert len(faults) == 5
    assert not any("clear" in fault for fault in faults)


def test_rights_with_sudo() -> None:
    users = [User("an.n", sudo="nopassword"), User("bob", sudo="password"), User("carol"), User("root", sudo="password")]
    _folders, files = sshd_accounts.files(users, "")
    rules = {spec.path.name: spec.content for spec in files if spec.path.parent == sshd_accounts.SUDOERS}
    assert rules["slipway-an_n"] == "# Managed by Ansible: slipway.server.sshd\nan.n ALL=(ALL:ALL) NOPASSWD: ALL\n"
    assert rules["slipway-bob"] == "# Managed by Ansible: slipway.server.sshd\nbob ALL=(ALL:ALL) ALL\n"
    assert rules["slipway-carol"] is None
    assert "slipway-root" not in rules


def test_passwords_become_the_same_hash_in_every_run() -> None:
    (user,) = slipway_sshd_users([{"name": "ann", "password": "secret", "keys": [ED]}], "web1")
    assert "password" not in user
    assert user["password_hash"] == hashed("secret", "web1:ann")
    assert user["password_hash"].startswith("$6$rounds=200000$")
    assert hashed("secret", "web2:ann") != hashed("secret", "web1:ann")
    assert hashed("other", "web1:ann").split("$")[3] == hashed("secret", "web1:ann").split("$")[3]  # the salt tells nothing
    assert slipway_sshd_users([{"name": "bob"}], "web1") == [{"name": "bob"}]


# The session and the wire


def test_the_outermost_session_is_the_operator_s() -> None:
    inner = {"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22", "USER": "root"}
    outer = {"SSH_CONNECTION": "10.0.0.9 5 10.0.0.2 2222", "USER": "ann"}
    assert login([{}, inner, {}, outer, {}]) == Login("ann", "10.0.0.9", 2222)
    assert login([{}, {"SSH_CONNECTION": "odd"}]) == Login()


def kexinit(*lists: str) -> bytes:
    names = b"".join(struct.pack(">I", len(item)) + item.encode() for item in lists)
    payload = bytes([wire.KEXINIT]) + bytes(16) + names
    return struct.pack(">IB", len(payload) + 1 + 4, 4) + payload + bytes(4)


def serve(answer: bytes) -> int:
    listener = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        connection, _address = listener.accept()
        with connection, listener:
            connection.sendall(answer)
            connection.recv(64)

    threading.Thread(target=once, daemon=True).start()
    return int(listener.getsockname()[1])


def test_reads_what_a_server_offers() -> None:
    lists = ("a,kex-strict-s-v00@openssh.com", "ssh-ed25519", "c1,c2", "c1,c2", "m1", "m1", "none", "none", "", "")
    offer = wire.ask("127.0.0.1", serve(b"hello\r\nSSH-2.0-Test\r\n" + kexinit(*lists)))
    assert offer == wire.Offer("SSH-2.0-Test", ("a",), ("ssh-ed25519",), ("c1", "c2"), ("m1",))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 no\r\n\r\n", b"SSH-2.0-Test\r\n", b"SSH-2.0-Test\r\n" + bytes(40)])
def test_says_when_it_is_no_ssh_server(answer: bytes) -> None:
    with pytest.raises(OSError, match=r"SSH|closed|reset|begin"):
        wire.ask("127.0.0.1", serve(answer))


def test_addresses_on_which_it_listens() -> None:
    assert sshd.listens({"listenaddress": ["0.0.0.0:22", "[::]:2222"]}) == [("0.0.0.0", 22), ("::", 2222)]
