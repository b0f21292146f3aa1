# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import grp
import os
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Result, Runner
from ansible_collections.slipway.server.plugins.module_utils.settings import acme
from ansible_collections.slipway.server.plugins.module_utils.settings import certificates as c

ENTRY = c.Entry("shop", ("shop.test", "www.shop.test"), "acme")
# What certbot 4.0 says when an authority refuses; 2.1 says the same.
REFUSED = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for shop.test and nowhere.test

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: nowhere.test
  Type:   dns
  Detail: DNS problem: NXDOMAIN looking up A for nowhere.test

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Ask for help or search for solutions at https://community.letsencrypt.org.
"""


class Certbot(Runner):
    """The host's openssl, and a certbot whose hook installs `pair` or which fails with `words`."""

    def __init__(self, folder, pair=None, words=""):
        self.folder, self.pair, self.words, self.asked = folder, pair, words, []

    def run(self, argv, data=None, timeout=600.0, env=None):
        if argv[0] != "certbot":
            return super().run(argv, data, timeout, env)
        self.asked.append((list(argv), dict(env or {})))
        if self.words:
            return Result(1, "", self.words)
        if self.pair:
            (self.folder / "shop").mkdir(parents=True, exist_ok=True)
            (self.folder / "shop" / c.CERTIFICATE).write_text(self.pair.chain)
            (self.folder / "shop" / c.KEY).write_text(self.pair.key)
        return Result(0, "", "")


@pytest.fixture(scope="session")
def issued():
    """A pair as an authority would have made it: it differs from ours by the issuer's name."""
    runner = Runner()
    key = runner.must(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]).out
    names = "subjectAltName=DNS:shop.test,DNS:www.shop.test"
    argv = ["openssl", "req", "-new", "-x509", "-key", "/dev/stdin", "-subj", "/CN=shop.test", "-days", "90", "-addext", names]
    return c.Pair("".join(c.blocks(runner.must(argv, data=key).out, "CERTIFICATE")), key)


@pytest.fixture
def web(tmp_path):
    """An account, and a web server below tmp_path/web that serves the names in the set."""
    return acme.Account("https://ca.test/dir", "a@shop.test", "/ca.pem", tmp_path / "web"), {"shop.test", "www.shop.test"}


def issuer(tmp_path, web, **certbot):
    def ask(_port, path, host):
        if host not in web[1]:
            raise OSError("refused")
        return (tmp_path / "web" / path.lstrip("/")).read_text()

    runner = Certbot(tmp_path / "tls", **certbot)
    return acme.Issuer(runner, c.Store(runner, tmp_path / "tls"), web[0], ask), runner


def test_a_server_can_start_before_anything_is_issued_and_what_is_there_stays(tmp_path):
    store = c.Store(Runner(), tmp_path / "tls")
    assert store.converge([ENTRY], 30, 90).written == ["shop"]
    assert not store.converge([ENTRY], 30, 90).changed
    assert not store.converge([c.Entry("shop", ("other.test",), "acme")], 30, 90).changed


def test_what_is_missing_is_asked_for_once(tmp_path, web, issued):
    maker, runner = issuer(tmp_path, web, pair=issued)
    maker.store.converge([ENTRY], 30, 90)
    assert maker.issue([ENTRY], check_mode=True).written == ["shop"]
    assert runner.asked == []
    done = maker.issue([ENTRY])
    assert (done.written, done.facts["shop"].names) == (["shop"], ("shop.test", "www.shop.test"))
    assert "slipway self-signed" in done.diff[0]["before"]
    (argv, env), *more = runner.asked
    assert not more
    assert argv[-6:] == ["--cert-name", "shop", "--domain", "shop.test", "--domain", "www.shop.test"]
    assert "--reuse-key" in argv
    assert env == {"REQUESTS_CA_BUNDLE": "/ca.pem"}
    assert not maker.issue([ENTRY]).changed
    assert not list((tmp_path / "web").rglob("slipway-*"))


def test_a_refusal_says_which_domain_and_why(tmp_path, web):
    maker, _runner = issuer(tmp_path, web, words=REFUSED)
    with pytest.raises(c.CertificateError) as error:
        maker.issue([ENTRY])
    assert "nowhere.test: dns: DNS problem: NXDOMAIN looking up A for nowhere.test." in str(error.value)
    assert "the old certificate stays" in str(error.value)


def test_an_authority_is_not_asked_about_a_name_that_this_host_does_not_serve(tmp_path, web, issued):
    maker, runner = issuer(tmp_path, web, pair=issued)
    web[1].discard("www.shop.test")
    with pytest.raises(c.CertificateError, match=r"the authority was not asked: http://www.shop.test.* is not served"):
        maker.issue([ENTRY])
    assert runner.asked == []


def test_a_hook_that_installed_nothing_is_found(tmp_path, web):
    maker, _runner = issuer(tmp_path, web)
    maker.store.converge([ENTRY], 30, 90)
    with pytest.raises(c.CertificateError, match=r"it was issued but .*slipway-certificate did not install it"):
        maker.issue([ENTRY])


def test_the_last_lines_are_the_reason_when_no_domain_is_named():
    assert acme.reasons(Result(1, "", "Saving debug log to /x\nAn unexpected error occurred:\nno route\n")) == (
        "An unexpected error occurred: no route"
    )
    assert acme.reasons(Result(3, "", "")) == "certbot ended with status 3"


def test_a_group_may_read_the_pair_and_nobody_else(tmp_path):
    name = grp.getgrgid(os.getegid()).gr_name
    store = c.Store(Runner(), tmp_path / "tls")
    store.converge([c.Entry("shop", ("shop.test",), "acme", group=name)], 30, 90)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [tmp_path / "tls", *Path(tmp_path / "tls").rglob("*")]}
    assert modes == {"tls": 0o751, "shop": 0o750, c.CERTIFICATE: 0o644, c.KEY: 0o640}
    with pytest.raises(c.CertificateError, match="there is no group nobodyhasit"):
        store.converge([c.Entry("shop", ("shop.test",), "acme", group="nobodyhasit")], 30, 90)
