# SPDX-License-Identifier: GPL-3.0-or-later
"""What sshd is to do: profiles by what this sshd knows, the drop-in as text, and what of it did not become effective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

PQ = ("mlkem768x25519-sha256", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com")
CURVE = ("curve25519-sha256", "curve25519-sha256@libssh.org")
CIPHERS = ("chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com")
COUNTERS = ("aes256-ctr", "aes192-ctr", "aes128-ctr")
MACS = ("hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "umac-128-etm@openssh.com")
ED25519 = ("ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519")
RSA = ("rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-512", "rsa-sha2-256")
TOKENS = ("sk-ssh-ed25519-cert-v01@openssh.com", "sk-ssh-ed25519@openssh.com")
ECDSA = ("sk-ecdsa-sha2-nistp256@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")

PROFILES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "strict": {
        "KexAlgorithms": PQ,
        "Ciphers": (*CIPHERS, *COUNTERS),
        "MACs": MACS,
        "HostKeyAlgorithms": (*ED25519, *RSA),
        "PubkeyAcceptedAlgorithms": (*TOKENS, *ED25519, *RSA),
        "CASignatureAlgorithms": ("sk-ssh-ed25519@openssh.com", "ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"),
    },
    "compatible": {
        "KexAlgorithms": (*PQ, *CURVE),
        "Ciphers": (*CIPHERS, *COUNTERS),
        "MACs": MACS,
        "HostKeyAlgorithms": (*ED25519, *RSA),
        "PubkeyAcceptedAlgorithms": (*TOKENS, *ED25519, *RSA, *ECDSA),
        "CASignatureAlgorithms": ("sk-ssh-ed25519@openssh.com", "ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"),
    },
}
"""strict: nothing that ssh-audit warns of. compatible: clients without post-quantum exchange, and ECDSA keys of users."""
QUERIES = {
    "KexAlgorithms": "kex",
    "Ciphers": "cipher",
    "MACs": "mac",
    "HostKeyAlgorithms": "HostKeyAlgorithms",
    "PubkeyAcceptedAlgorithms": "PubkeyAcceptedAlgorithms",
    "CASignatureAlgorithms": "key-sig",
}
"""How `ssh -Q` calls what a keyword takes."""
SMALLEST_RSA = {"strict": 3072, "compatible": 2048}
LEAST_MODULUS = 3071
"""Bits, as moduli(5) counts them: one less than the modulus has."""

FIXED: Mapping[str, str] = {
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "PermitEmptyPasswords": "no",
    "PubkeyAuthentication": "yes",
    "AuthenticationMethods": "publickey",
    "HostbasedAuthentication": "no",
    "GSSAPIAuthentication": "no",
    "IgnoreRhosts": "yes",
    "StrictModes": "yes",
    "PermitUserEnvironment": "no",
    "MaxAuthTries": "3",
    "MaxSessions": "10",  # Ansible sends many through one connection
    "MaxStartups": "10:30:60",
    "LoginGraceTime": "30",
    "ClientAliveInterval": "300",
    "ClientAliveCountMax": "2",
    "TCPKeepAlive": "no",
    "Compression": "no",
    "UseDNS": "no",
    "LogLevel": "VERBOSE",
    "DebianBanner": "no",
}
FORWARDING = ("AllowTcpForwarding", "AllowAgentForwarding", "AllowStreamLocalForwarding", "X11Forwarding", "PermitTunnel")
SILENT = {"allowusers", "allowgroups", "debianbanner", "denyusers", "denygroups", "setenv"}
"""Keywords of which `sshd -T` says nothing while they are not set."""


class SshdError(Exception):
    """Refused or not effective; the message says what, where and what to do."""


@dataclass(frozen=True)
class Policy:
    """What is declared. No `ports`: those that sshd has. `settings`: further keywords, or other values of those that are here."""

    profile: str = "strict"
    ports: tuple[int, ...] = ()
    root_login: str = "prohibit-password"
    allow_users: tuple[str, ...] = ()
    allow_groups: tuple[str, ...] = ()
    forwarding: bool = False
    banner: str = ""
    settings: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """What this sshd understands: lower-case keywords of `sshd -T`, and algorithms by the name of their query."""

    keywords: frozenset[str]
    algorithms: Mapping[str, Sequence[str]]


def parse_effective(text: str) -> dict[str, list[str]]:
    """Values by lower-case keyword from the output of `sshd -T`."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _space, value = line.strip().partition(" ")
        if keyword:
            found.setdefault(keyword.lower(), []).append(value.strip())
    return found


def algorithms(profile: str, known: Known) -> dict[str, str]:
    """The profile's algorithms that this sshd has, by keyword; raises SshdError when one list would be empty."""
    found = {}
    for keyword, wanted in PROFILES[profile].items():
        have = [name for name in wanted if name in known.algorithms.get(QUERIES[keyword], ())]
        if not have:
            raise SshdError(
                f"this sshd has none of the {keyword} of profile {profile}; use sshd_profile: compatible or upgrade it"
            )
        found[keyword] = ",".join(have)
    return found


def keywords(policy: Policy, known: Known, host_keys: Sequence[str], banner: str, moduli: str) -> dict[str, list[str]]:
    """Every keyword of the drop-in with its values; those that this sshd does not know are left out."""
    values: dict[str, list[str]] = {
        "Port": [str(port) for port in policy.ports],
        "HostKey": list(host_keys),
        **{keyword: [value] for keyword, value in algorithms(policy.profile, known).items()},
        "RequiredRSASize": [str(SMALLEST_RSA[policy.profile])],
        "ModuliFile": [moduli],
        "PermitRootLogin": [policy.root_login],
        **{keyword: [value] for keyword, value in FIXED.items()},
        **{keyword: ["yes" if policy.forwarding else "no"] for keyword in FORWARDING if keyword != "PermitTunnel"},
        "PermitTunnel": ["no"],
        "Banner": [banner if policy.banner else "none"],
        "AllowUsers": [" ".join(policy.allow_users)] if policy.allow_users else [],
        "AllowGroups": [" ".join(policy.allow_groups)] if policy.allow_groups else [],
    }
    values = {key: value for key, value in values.items() if value and key.lower() in known.keywords | SILENT}
    names = {key.lower(): key for key in values}
    for key, given in policy.settings.items():
        if key.lower() in ("port", "include", "match"):
            what = "sshd_ports" if key.lower() == "port" else "a drop-in of your own"
            raise SshdError(f"sshd_settings: {key} does not belong there; use {what}")
        values[names.get(key.lower(), key)] = list(given)
    return values


def render(values: Mapping[str, Sequence[str]]) -> str:
    """The drop-in."""
    lines = [f"{key} {value}" for key, given in values.items() for value in given]
    return "\n".join(["# Managed by Ansible: slipway.server.sshd", *lines, ""])


def moduli(text: str) -> str:
    """Those lines of the file of moduli that have at least LEAST_MODULUS bits."""
    kept = []
    for line in text.splitlines():
        fields = line.split()
        if line.startswith("#") or (len(fields) == 7 and fields[4].isdigit() and int(fields[4]) >= LEAST_MODULUS):
            kept.append(line)
    return "\n".join([*kept, ""])


def differing(declared: Iterable[str], alone: Mapping[str, list[str]], together: Mapping[str, list[str]]) -> list[str]:
    """Lower-case keywords among `declared` whose effective values are others than those of the drop-in `alone`."""
    names = sorted({name.lower() for name in declared})
    return [name for name in names if sorted(alone.get(name, [])) != sorted(together.get(name, []))]
