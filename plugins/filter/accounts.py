# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters for named users; their documentation lies beside them, one file for each."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

ROUNDS = 200_000
"""Of SHA-512 crypt; about a tenth of a second for each guess."""


def slipway_sshd_users(users: Sequence[Mapping[str, Any]], host: str) -> list[dict[str, Any]]:
    """`sshd_users` with hashes in place of passwords, the same in every run."""
    found = []
    for user in users:
        entry = {key: value for key, value in user.items() if key != "password"}
        if user.get("password"):
            entry["password_hash"] = hashed(str(user["password"]), f"{host}:{user.get('name')}")
        found.append(entry)
    return found


def hashed(password: str, place: str) -> str:
    """SHA-512 crypt with a salt of the place (host and user), which tells nothing of the password."""
    try:
        from passlib.hash import sha512_crypt
    except ImportError as error:
        wanted = "pip install passlib in the environment of ansible-playbook, or leave out password"
        raise AnsibleFilterError(
            f"sshd_users: passwords are hashed on the controller by passlib, which is missing; {wanted}"
        ) from error
    salt = base64.b64encode(hashlib.sha256(f"slipway:{place}".encode()).digest(), b"./").decode()[:16]
    return str(sha512_crypt.using(salt=salt, rounds=ROUNDS).hash(password))


class FilterModule:
    """Where Ansible finds the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"slipway_sshd_users": slipway_sshd_users}
