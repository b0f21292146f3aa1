# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import grp
import os
import stat
import subprocess
import time

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.clock import Clock
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import certificates as c

DAY = 86400


class At(Clock):
    """A clock that is some days from now."""

    def __init__(self, days=0):
        self.days = days

    def now(self):
        return time.time() + self.days * DAY


def openssl(*argv, data=""):
    return subprocess.run(["openssl", *argv], input=data, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """Root, intermediate and a leaf for shop.test, *.shop.test; keys and certificates as PEM texts by name."""
    folder = tmp_path_factory.mktemp("authority")

    def issue(name, extensions, issuer=None, key=("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")):
        openssl("genpkey", *key, "-out", f"{folder}/{name}.key")
        openssl("req", "-new", "-key", f"{folder}/{name}.key", "-subj", f"/CN={name}", "-out", f"{folder}/{name}.csr")
        (folder / "ext").write_text(extensions)
        signer = ["-CA", f"{folder}/{issuer}.pem", "-CAkey", f"{folder}/{issuer}.key", "-CAcreateserial"] if issuer else []
        signer = signer or ["-signkey", f"{folder}/{name}.key"]
        argv = ["x509", "-req", "-in", f"{folder}/{name}.csr", "-days", "100", "-extfile", f"{folder}/ext", *signer]
        openssl(*argv, "-out", f"{folder}/{name}.pem")

    issue("root", "basicConstraints=critical,CA:TRUE")
    issue("middle", "basicConstraints=critical,CA:TRUE", "root")
    issue("leaf", "subjectAltName=DNS:shop.test,DNS:*.shop.test", "middle")
    issue("weak", "subjectAltName=DNS:shop.test", "middle", ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"))
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".pem", ".key")}


def given(authority, leaf="leaf", key=None, chain=("middle",), domains=("shop.test",), name="shop"):
    certificate = authority[f"{leaf}.pem"] + "".join(authority[f"{each}.pem"] for each in chain)
    return c.Entry(name, domains, "files", certificate, authority[f"{key or leaf}.key"])


@pytest.fixture
def keep(tmp_path):
    def go(*entries, days=0, min_days=30, check_mode=False, runner=None):
        store = c.Store(runner or Runner(), tmp_path / "tls", At(days))
        return store.converge(entries, min_days, 90, check_mode)

    return go


def test_self_signed_is_made_once_and_kept_while_it_fits(tmp_path, keep):
    entry = c.Entry("shop", ("shop.test", "www.shop.test"))
    done = keep(entry)
    assert (done.written, done.replaced) == (["shop"], [])
    folder = tmp_path / "tls" / "shop"
    assert stat.S_IMODE((folder / "privkey.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    before = (folder / "fullchain.pem").read_text()
    assert not keep(entry).changed
    assert not keep(c.Entry("shop", ("www.shop.test",)), days=59).changed
    assert (folder / "fullchain.pem").read_text() == before
    assert done.facts["shop"].names == ("shop.test", "www.shop.test")


@pytest.mark.parametrize(
    ("domains", "days"), [(("shop.test", "new.test"), 0), (("shop.test",), 61)], ids=["another domain", "too few days"]
)
def test_self_signed_is_made_anew_when_it_no_longer_fits(keep, domains, days):
    first = keep(c.Entry("shop", ("shop.test",)))
    second = keep(c.Entry("shop", domains), days=days)
    assert second.replaced == ["shop"]
    assert second.facts["shop"].fingerprint != first.facts["shop"].fingerprint


def test_self_signed_is_made_anew_when_its_key_is_another_one_or_garbage(tmp_path, keep):
    entry = c.Entry("shop", ("shop.test",))
    for content in (openssl("genpkey", "-algorithm", "ED25519").encode(), b"\xff\xfe", b""):
        keep(entry)
        (tmp_path / "tls/shop/privkey.pem").write_bytes(content)
        assert keep(entry).replaced == ["shop"]
        (tmp_path / "tls/shop/fullchain.pem").write_bytes(b"\xff not a certificate")
        assert keep(entry).written == ["shop"]


def test_given_files_are_written_as_they_are_and_then_left_alone(tmp_path, keep, authority):
    entry = given(authority, domains=("shop.test", "www.shop.test"))
    noisy = c.Entry("shop", entry.domains, "files", "Bag Attributes\r\n" + entry.certificate.replace("\n", "\r\n"), entry.key)
    assert keep(noisy).written == ["shop"]
    assert (tmp_path / "tls/shop/fullchain.pem").read_text() == authority["leaf.pem"] + authority["middle.pem"]
    assert not keep(entry).changed


def test_switching_to_self_signed_replaces_a_given_one(keep, authority):
    keep(given(authority))
    assert keep(c.Entry("shop", ("shop.test",))).replaced == ["shop"]


def test_all_that_is_wrong_is_reported_at_once_and_the_old_files_stay(tmp_path, keep, authority):
    keep(given(authority))
    before = (tmp_path / "tls/shop/fullchain.pem").read_text(), (tmp_path / "tls/shop/privkey.pem").read_text()
    wrong = [
        given(authority, key="root", domains=("shop.test", "other.test", "a.b.shop.test")),
        given(authority, chain=("root", "middle"), name="order"),
        given(authority, leaf="weak", name="weak"),
        c.Entry("text", ("shop.test",), "files", "hello", "world"),
    ]
    with pytest.raises(c.CertificateError) as error:
        keep(*wrong)
    text = str(error.value)
    for part in (
        "certificate shop: it does not cover other.test, a.b.shop.test (it names shop.test, *.shop.test)",
        "certificate shop: its key does not belong",
        "certificate order: CN=root follows CN=leaf in its chain but did not sign it",
        "certificate weak: its RSA key has 1024 bits",
        "certificate text: its certificate is not PEM text",
        "certificate text: its key holds 0 private keys",
    ):
        assert part in text
    assert "PRIVATE KEY" not in text
    assert before == ((tmp_path / "tls/shop/fullchain.pem").read_text(), (tmp_path / "tls/shop/privkey.pem").read_text())


@pytest.mark.parametrize(
    ("days", "words"),
    [(101, "expired at"), (80, "less than 30 days"), (-2, "not valid before")],
    ids=["expired", "soon", "early"],
)
def test_given_certificate_outside_its_period(keep, authority, days, words):
    with pytest.raises(c.CertificateError, match=words):
        keep(given(authority), days=days)


def test_encrypted_key_is_refused_without_asking(keep, authority):
    locked = openssl("pkey", "-aes256", "-passout", "pass:secret", data=authority["leaf.key"])
    with pytest.raises(c.CertificateError, match="give it unencrypted"):
        keep(c.Entry("shop", ("shop.test",), "files", authority["leaf.pem"] + authority["middle.pem"], locked))


def test_names_that_would_leave_the_directory_or_the_request_are_refused(keep):
    wrong = (c.Entry("../etc", ("a.test",)), c.Entry("x", ("a.test\nkeyUsage=x",)), c.Entry("y", ()), c.Entry("y", ("b.test",)))
    with pytest.raises(c.CertificateError) as error:
        keep(*wrong)
    for part in ("its name is a directory", "cannot be a host name", "it has no domains", "declared twice"):
        assert part in str(error.value)


def test_check_mode_says_what_would_be_written_and_writes_nothing(tmp_path, keep, authority):
    done = keep(given(authority), c.Entry("made", ("made.test",)), check_mode=True)
    assert done.written == ["shop", "made"]
    assert not (tmp_path / "tls").exists()
    assert "sha256: " in done.diff[0]["after"]
    assert "made.test" in done.diff[1]["after"]
    assert "PRIVATE" not in str(done.diff)


def test_check_mode_on_a_host_without_openssl(keep, authority):
    class Empty(Runner):
        def run(self, argv, data=None, timeout=600.0, env=None):
            return Result(127, "", "openssl: command not found")

    done = keep(given(authority), check_mode=True, runner=Empty())
    assert done.written == ["shop"]
    assert done.warnings
    with pytest.raises(c.CertificateError, match="install the package openssl"):
        keep(given(authority), runner=Empty())


def test_open_permissions_are_closed_again(tmp_path, keep):
    entry = c.Entry("shop", ("shop.test",))
    keep(entry)
    key = tmp_path / "tls/shop/privkey.pem"
    key.chmod(0o644)
    assert keep(entry, check_mode=True).repaired == [str(key)]
    assert stat.S_IMODE(key.stat().st_mode) == 0o644
    assert keep(entry).repaired == [str(key)]
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("names", "domain", "covered"),
    [
        (["a.test"], "A.test", True),
        (["*.a.test"], "b.a.test", True),
        (["*.a.test"], "a.test", False),
        (["*.a.test"], "c.b.a.test", False),
        (["*.a.test"], "*.a.test", True),
        (["b.a.test"], "a.test", False),
    ],
)
def test_names(names, domain, covered):
    assert c.covers(names, domain) is covered


def test_the_key_is_in_no_representation():
    assert "SECRET" not in repr(c.Entry("a", ("a.test",), "files", "x", "SECRET")) + repr(c.Pair("x", "SECRET"))


def test_a_service_that_reads_the_key_itself_gets_it_by_its_group(tmp_path):
    gid = next((group for group in os.getgroups() if group != os.getegid()), os.getegid())
    store = c.Store(Runner(), tmp_path / "tls", At(0))
    entry = c.Entry("database", ("db1.test",), group=grp.getgrgid(gid).gr_name)
    store.converge([entry], 30, 90)
    folder = tmp_path / "tls" / "database"
    found = {path.name: (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) for path in (folder, folder / "privkey.pem")}
    assert found == {"database": (0o750, gid), "privkey.pem": (0o640, gid)}
    assert not store.converge([entry], 30, 90).changed
    (folder / "privkey.pem").chmod(0o600)
    assert store.converge([entry], 30, 90).repaired == [str(folder / "privkey.pem")]
