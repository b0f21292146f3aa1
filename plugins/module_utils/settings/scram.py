# SPDX-License-Identifier: GPL-3.0-or-later
"""SCRAM-SHA-256 verifiers as PostgreSQL stores them (RFC 5802, RFC 7677), so that no password travels to the server."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import stringprep
import unicodedata
from typing import Callable

ITERATIONS = 4096  # PostgreSQL's own default (scram_iterations)
SALT_BYTES = 16
VERIFIER = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")
PROHIBITED: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def saslprep(password: str) -> str:
    """The password as both sides hash it (RFC 4013); unchanged where the profile refuses it, as PostgreSQL does."""
    if password.isascii():
        return password
    mapped = "".join(" " if stringprep.in_table_c12(char) else char for char in password if not stringprep.in_table_b1(char))
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(refuses(char) for refuses in PROHIBITED for char in prepared):
        return password
    if any(stringprep.in_table_d1(char) for char in prepared):
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(stringprep.in_table_d2(char) for char in prepared):
            return password
    return prepared


def _keys(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey."""
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
    client = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    server = hmac.new(salted, b"Server Key", hashlib.sha256).digest()
    return hashlib.sha256(client).digest(), server


def verifier(password: str, salt: bytes = b"", iterations: int = ITERATIONS) -> str:
    """What `pg_authid.rolpassword` holds for `password`; a random salt when none is given."""
    salt = salt or os.urandom(SALT_BYTES)
    stored, server = _keys(password, salt, iterations)

    def text(data: bytes) -> str:
        return base64.b64encode(data).decode("ascii")

    return f"SCRAM-SHA-256${iterations}:{text(salt)}${text(stored)}:{text(server)}"


def is_verifier(text: str) -> bool:
    """Whether `text` is already a verifier rather than a password."""
    return VERIFIER.fullmatch(text) is not None


def matches(password: str, stored: str) -> bool:
    """Whether the verifier `stored` belongs to `password`; a password that is itself a verifier has to be equal to it."""
    if is_verifier(password):
        return hmac.compare_digest(password, stored)
    found = VERIFIER.fullmatch(stored)
    if found is None:
        return False
    try:
        salt = base64.b64decode(found.group(2), validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(verifier(password, salt, int(found.group(1))), stored)
