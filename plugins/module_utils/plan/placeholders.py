# SPDX-License-Identifier: GPL-3.0-or-later
"""Values nobody replaced yet: found by shape, reported by key, never shown."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

# Whole words, and brackets only where they stand for a part: texts and commands of a user hold `your order` or `<h1>`, too.
_SHAPE = re.compile(
    r"(?<![a-z])(change[-_ ]?me|replace[-_ ]?(me|this))(?![a-z])|(?<![a-z])your[-_]|^your( [a-z]+){1,2}$|[-_]here$"
    r"|^<[^<>]*>$|(?<=[/:@=])<[a-z _-]+>|<[a-z _-]+>(?=[/:@]|\.[a-z])|^(x{3,}|todo|tbd|dummy|placeholder)$",
    re.IGNORECASE,
)
_WELL_KNOWN = {"password", "passw0rd", "admin", "admin123", "secret", "123456", "12345678", "example", "test"}
_DOCUMENTATION = tuple(
    ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
)
_EXAMPLE_DOMAIN = re.compile(r"(^|\.)(example(\.(com|net|org))?|invalid|test)\.?$", re.IGNORECASE)


class Undefined(str):
    """Stands for a value whose template fails; its text says why, its remedy what to do."""

    remedy = "Define that variable, for example in group_vars/all/vault.yml"


class Unreadable(Undefined):
    """A template that fails for another reason, whose message is not shown because it could hold a secret."""

    remedy = "See why: ansible HOST -i INVENTORY -m ansible.builtin.debug -a var=KEY; a vault needs its password"


def is_placeholder(text: str) -> bool:
    """True for text that only marks a place: changeme, your-…, …_here, <…>, replace-me."""
    return bool(_SHAPE.search(text))


def is_placeholder_secret(text: str) -> bool:
    """True for a placeholder, an empty value, or one of the best known passwords."""
    return not text.strip() or is_placeholder(text) or text.strip().lower() in _WELL_KNOWN


def is_example_domain(name: str) -> bool:
    """True for names that RFC 2606 and RFC 6761 set aside; nobody can get a certificate for them."""
    return bool(_EXAMPLE_DOMAIN.search(name))


def is_documentation_address(text: str) -> bool:
    """True for addresses of RFC 5737 and RFC 3849, which no host has."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in net for net in _DOCUMENTATION)


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every scalar below `value` with its key path, in declared order."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, below in enumerate(value):
            yield from leaves(below, f"{path}[{index}]")
    else:
        yield path, value
