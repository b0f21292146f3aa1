# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64

import pytest
from ansible_collections.slipway.server.plugins.module_utils.settings import scram
from hypothesis import given, settings
from hypothesis import strategies as st

# The exchange of RFC 7677, section 3: user `user`, password `pencil`.
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")


def test_the_exchange_of_the_standard():
    import hashlib
    import hmac

    text = scram.verifier("pencil", SALT, 4096)
    head, keys = text.split("$", 2)[1:]
    assert head == "4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    server_key = base64.b64decode(keys.split(":")[1])
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}"
    signature = base64.b64encode(hmac.new(server_key, message.encode(), hashlib.sha256).digest()).decode()
    assert signature == "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("user", "user"),
        ("I\u00adX", "IX"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        # Refused by the profile, so taken as they are.
        ("\u00e9\u0007", "\u00e9\u0007"),
        ("\u0627\u0031", "\u0627\u0031"),
        ("\u00ad", "\u00ad"),
    ],
)
def test_saslprep(password, prepared):
    assert scram.saslprep(password) == prepared


@settings(max_examples=25)
@given(st.text(min_size=1), st.text(min_size=1))
def test_a_verifier_belongs_to_its_password_only(password, other):
    stored = scram.verifier(password, iterations=2)
    assert scram.is_verifier(stored)
    assert scram.matches(password, stored)
    assert scram.matches(other, stored) == (scram.saslprep(other) == scram.saslprep(password))


def test_a_given_verifier_is_compared_as_it_is():
    one, two = scram.verifier("x", iterations=2), scram.verifier("x", iterations=2)
    assert one != two
    assert scram.matches(one, one)
    assert not scram.matches(one, two)


@pytest.mark.parametrize("stored", ["", "md5abc", "SCRAM-SHA-256$4096:a$b:c"])
def test_other_secrets_match_nothing(stored):
    assert not scram.matches("x", stored)
