# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates on disk: made here or given, proven before they replace anything, and left alone while they fit.

Everything is read with the `openssl` command. Private keys reach it through its standard input and are in no argument.
"""

from __future__ import annotations

import errno
import grp
import os
import re
import shutil
import ssl
import stat
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from ..host import files as disk
from ..host.clock import Clock
from ..host.runner import Runner

DAY = 86400
CERTIFICATE, KEY = "fullchain.pem", "privkey.pem"
ISSUER = "slipway self-signed"
BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\n[\x20-\x7e\n]+?\n-----END \1-----")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
DOMAIN = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
MINIMUM_BITS = {"rsa": 2048, "ec": 256}
REQUEST = """[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
O = {issuer}
CN = {common_name}
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = {names}
"""


class CertificateError(Exception):
    """Certificates that cannot be used; the message names each entry, what is wrong and what to do. Nothing was replaced."""


@dataclass(frozen=True)
class Entry:
    """One certificate that has to be there. `certificate` (leaf first) and `key` are PEM texts of the source `files`.

    `group` may read the pair, so that a server can do so for each handshake; without one, root alone.
    """

    name: str
    domains: tuple[str, ...]
    source: str = "selfsigned"
    certificate: str = ""
    key: str = field(default="", repr=False)
    group: str = ""


@dataclass(frozen=True)
class Facts:
    """What a certificate says of itself. Times are seconds since the epoch."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    begins: float
    ends: float
    serial: str
    fingerprint: str
    public_key: str

    def days_left(self, now: float) -> int:
        """Whole days until it expires; negative afterwards."""
        return int((self.ends - now) // DAY)

    def shown(self) -> str:
        """The facts as lines for a person and for a diff."""
        rows = {"subject": self.subject, "issuer": self.issuer, "names": ", ".join(self.names)}
        rows.update({"ends": utc(self.ends), "sha256": self.fingerprint})
        return "".join(f"{name}: {value}\n" for name, value in rows.items())


@dataclass(frozen=True)
class Pair:
    """A certificate chain with its key, as it stands or will stand on disk."""

    chain: str
    key: str = field(repr=False)


@dataclass
class Outcome:
    """What was (or would be) written; `replaced` are the entries that had a certificate before."""

    written: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)
    facts: dict[str, Facts] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """True when a file or its permissions differ."""
        return bool(self.written or self.repaired)


def utc(seconds: float) -> str:
    """A time to the minute, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def blocks(text: str, kind: str) -> list[str]:
    """The PEM blocks of `text` whose label ends with `kind`, without anything around them."""
    return [found.group(0) + "\n" for found in BLOCK.finditer(text.replace("\r\n", "\n")) if found.group(1).endswith(kind)]


def covers(names: Iterable[str], domain: str) -> bool:
    """Whether one of the subject alternative `names` stands for `domain`; a wildcard stands for one label (RFC 6125, 6.4.3)."""
    wanted = domain.lower()
    parent = "*." + wanted.partition(".")[2]
    return any(name.lower() in (wanted, parent) for name in names)


def parse_facts(text: str) -> Facts:
    """The facts in the output of `openssl x509 -subject -issuer -dates -serial -fingerprint -ext subjectAltName -pubkey`.

    Raises KeyError or ValueError when it is something else.
    """
    values = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Za-z0-9 ]+=", line))
    fingerprint = next(value for name, value in values.items() if name.lower().endswith("fingerprint"))
    return Facts(
        subject=values["subject"].strip(),
        issuer=values["issuer"].strip(),
        names=tuple(re.findall(r"DNS:([^,\s]+)", text)),
        begins=ssl.cert_time_to_seconds(values["notBefore"]),
        ends=ssl.cert_time_to_seconds(values["notAfter"]),
        serial=values["serial"],
        fingerprint=fingerprint.replace(":", "").lower(),
        public_key="".join(blocks(text, "PUBLIC KEY")),
    )


def shape_problems(entries: Sequence[Entry]) -> list[str]:
    """Names that cannot be those of a directory or of a host, and names that are used twice."""
    found = []
    names = [entry.name for entry in entries]
    for entry in entries:
        where = f"certificate {entry.name}"
        if not NAME.fullmatch(entry.name):
            found.append(f"{where}: its name is a directory; use lower-case letters, digits, dots and dashes")
        if not entry.domains:
            found.append(f"{where}: it has no domains; name at least one")
        bad = [repr(domain) for domain in entry.domains if not DOMAIN.fullmatch(domain)]
        if bad:
            found.append(f"{where}: {', '.join(bad)} cannot be a host name; write names like shop.example.com")
    found += [f"certificate {name}: it is declared twice; keep one" for name in sorted(set(names)) if names.count(name) > 1]
    return found


class OpenSsl:
    """The questions that are put to the openssl command."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def available(self) -> bool:
        """Whether the command is there."""
        return self.runner.run(["openssl", "version"]).ok

    def facts(self, certificate: str) -> Optional[Facts]:
        """Facts of the first certificate of a PEM text, or None when it is not one."""
        argv = ["openssl", "x509", "-noout", "-subject", "-issuer", "-dates", "-serial", "-fingerprint", "-sha256"]
        result = self.runner.run([*argv, "-ext", "subjectAltName", "-nameopt", "RFC2253", "-pubkey"], data=certificate)
        try:
            return parse_facts(result.out) if result.ok else None
        except (KeyError, ValueError, StopIteration):
            return None

    def public_key(self, key: str) -> str:
        """The public half of a private key; empty when the key cannot be read without a passphrase."""
        result = self.runner.run(["openssl", "pkey", "-pubout", "-passin", "pass:"], data=key)
        return "".join(blocks(result.out, "PUBLIC KEY")) if result.ok else ""

    def strength(self, public_key: str) -> tuple[str, int]:
        """Kind (`rsa`, `ec` or `other`) and size in bits of a public key."""
        text = self.runner.run(["openssl", "pkey", "-pubin", "-noout", "-text"], data=public_key).out
        found = re.search(r"Public-Key: \((\d+) bit", text)
        kind = "rsa" if "Modulus:" in text else "ec" if "ASN1 OID:" in text else "other"
        return kind, int(found.group(1)) if found else 0

    def signed_by(self, certificate: str, issuer: str) -> bool:
        """Whether the key of `issuer` signed `certificate`; validity periods are not looked at."""
        with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="ascii") as trusted:
            trusted.write(issuer)
            trusted.flush()
            argv = ["openssl", "verify", "-partial_chain", "-no_check_time", "-trusted", trusted.name]
            return self.runner.run(argv, data=certificate).ok

    def self_signed(self, domains: Sequence[str], days: int) -> Pair:
        """A new ECDSA P-256 key with a certificate for `domains`, valid for `days`; raises CommandFailed."""
        key = self.runner.must(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]).out
        names = ", ".join(f"DNS:{domain}" for domain in domains)
        with tempfile.NamedTemporaryFile("w", suffix=".cnf", encoding="ascii") as request:
            request.write(REQUEST.format(issuer=ISSUER, common_name=domains[0][:64], names=names))
            request.flush()
            argv = ["openssl", "req", "-new", "-x509", "-sha256", "-days", str(days), "-config", request.name]
            chain = self.runner.must([*argv, "-key", "/dev/stdin"], data=key).out
        return Pair("".join(blocks(chain, "CERTIFICATE")), "".join(blocks(key, "PRIVATE KEY")))


class Store:
    """The certificates under one directory, each in a directory of its own name."""

    def __init__(self, runner: Runner, directory: Path, clock: Optional[Clock] = None) -> None:
        self.openssl = OpenSsl(runner)
        self.directory = directory
        self.clock = clock or Clock()

    def converge(self, entries: Sequence[Entry], min_days: int, lifetime: int, check_mode: bool = False) -> Outcome:
        """Bring all `entries` to disk; raises CertificateError, before anything is written, with all that is wrong.

        `min_days` have to be left of a certificate; a self-signed one is made for `lifetime` days.
        """
        outcome = Outcome()
        if problems := shape_problems(entries):
            raise CertificateError("\n".join(f"- {problem}" for problem in problems))
        if not self.openssl.available():
            if not check_mode:
                raise CertificateError("the command openssl is missing: install the package openssl first")
            outcome.warnings.append("openssl is not installed yet: given certificates are checked when it is")
            for entry in entries:
                self._note(outcome, entry, None, None)
            return outcome
        problems = [problem for entry in entries for problem in self.problems(entry, min_days)]
        if problems:
            raise CertificateError("\n".join(f"- {problem}" for problem in problems))
        for entry in entries:
            self._one(entry, min_days, lifetime, check_mode, outcome)
        return outcome

    def present(self, name: str) -> tuple[Pair, Optional[Facts]]:
        """The pair that stands on disk under `name`, and what it says of itself."""
        folder = self.directory / name
        pair = Pair(disk.read_text(folder / CERTIFICATE) or "", disk.read_text(folder / KEY) or "")
        return pair, self.openssl.facts("".join(blocks(pair.chain, "CERTIFICATE")))

    def fits(self, entry: Entry, pair: Pair, facts: Optional[Facts], min_days: int) -> bool:
        """Whether the pair covers the entry's domains, is valid for `min_days` more, and belongs together."""
        return (
            facts is not None
            and all(covers(facts.names, domain) for domain in entry.domains)
            and facts.begins <= self.clock.now()
            and facts.days_left(self.clock.now()) >= min_days
            and self._belongs(pair, facts)
        )

    def _belongs(self, pair: Pair, facts: Facts) -> bool:
        return self.openssl.public_key("".join(blocks(pair.key, "PRIVATE KEY"))) == facts.public_key

    def problems(self, entry: Entry, min_days: int) -> list[str]:
        """Why the given files of `entry` cannot be used; nothing for a self-signed entry."""
        if entry.source != "files":
            return []
        chain, keys = blocks(entry.certificate, "CERTIFICATE"), blocks(entry.key, "PRIVATE KEY")
        facts = [self.openssl.facts(certificate) for certificate in chain]
        found = []
        if not chain or None in facts:
            found.append("its certificate is not PEM text; give the certificate first, then the intermediate ones")
        else:
            known = [each for each in facts if each is not None]
            found += self._leaf_problems(entry, known[0], min_days) + self._chain_problems(chain, known)
        if len(keys) != 1:
            found.append(f"its key holds {len(keys)} private keys in PEM form; give exactly one")
        elif not (public := self.openssl.public_key(keys[0])):
            found.append("its key cannot be read; give it unencrypted (protect it with ansible-vault instead)")
        elif facts and facts[0] is not None and public != facts[0].public_key:
            found.append("its key does not belong to its certificate; give the key with which the certificate was requested")
        return [f"certificate {entry.name}: {problem}" for problem in found]

    def _leaf_problems(self, entry: Entry, leaf: Facts, min_days: int) -> list[str]:
        found = []
        missing = [domain for domain in entry.domains if not covers(leaf.names, domain)]
        if missing:
            named = ", ".join(leaf.names) or "no name"
            found.append(f"it does not cover {', '.join(missing)} (it names {named}); have it issued for every domain")
        now = self.clock.now()
        if leaf.begins > now:
            found.append(f"it is not valid before {utc(leaf.begins)}; check the host's clock or wait")
        if leaf.ends <= now:
            found.append(f"it expired at {utc(leaf.ends)}; renew it")
        elif leaf.days_left(now) < min_days:
            found.append(f"it expires at {utc(leaf.ends)}, less than {min_days} days from now; renew it")
        kind, bits = self.openssl.strength(leaf.public_key)
        if bits < MINIMUM_BITS.get(kind, 0):
            found.append(f"its {kind.upper()} key has {bits} bits; have it issued for one of at least {MINIMUM_BITS[kind]}")
        return found

    def _chain_problems(self, chain: Sequence[str], facts: Sequence[Facts]) -> list[str]:
        now = self.clock.now()
        expired = [each for each in facts[1:] if each.ends <= now]
        found = [f"{each.subject} in its chain expired at {utc(each.ends)}; renew the chain" for each in expired]
        for number in range(len(chain) - 1):
            if facts[number].issuer != facts[number + 1].subject or not self.openssl.signed_by(chain[number], chain[number + 1]):
                found.append(
                    f"{facts[number + 1].subject} follows {facts[number].subject} in its chain but did not sign it;"
                    " order it as certificate, its issuer, that one's issuer"
                )
        return found

    def _one(self, entry: Entry, min_days: int, lifetime: int, check_mode: bool, outcome: Outcome) -> None:
        present, before = self.present(entry.name)
        wanted = self._wanted(entry, present, before, min_days)
        if wanted == present:
            self._repair(entry, check_mode, outcome)
            if before:
                outcome.facts[entry.name] = before
            return
        if wanted is None and not check_mode:
            wanted = self.openssl.self_signed(entry.domains, lifetime)
        after = self.openssl.facts(wanted.chain) if wanted else None
        self._note(outcome, entry, before, after)
        if wanted and not check_mode:
            self._write(entry, wanted)

    def _wanted(self, entry: Entry, present: Pair, before: Optional[Facts], min_days: int) -> Optional[Pair]:
        """The pair that has to stand on disk; None when a self-signed one has to be made."""
        if entry.source == "files":
            return Pair("".join(blocks(entry.certificate, "CERTIFICATE")), "".join(blocks(entry.key, "PRIVATE KEY")))
        if entry.source == "acme":
            # Whatever a server can start with stays until the authority has given something better.
            return present if before and self._belongs(present, before) else None
        return present if before and ISSUER in before.issuer and self.fits(entry, present, before, min_days) else None

    def _note(self, outcome: Outcome, entry: Entry, before: Optional[Facts], after: Optional[Facts]) -> None:
        fresh = f"names: {', '.join(entry.domains)}\nsource: {entry.source}\n"
        shown = after.shown() if after else fresh
        same = bool(before and after and before.fingerprint == after.fingerprint)
        path = str(self.directory / entry.name)
        outcome.written.append(entry.name)
        if before:
            outcome.replaced.append(entry.name)
        if after:
            outcome.facts[entry.name] = after
        outcome.diff.append(
            {
                "before_header": path,
                "after_header": path,
                "before": before.shown() if before else "",
                "after": shown + ("(its key or the rest of its chain differs)\n" if same else ""),
            }
        )

    def _write(self, entry: Entry, wanted: Pair) -> None:
        """Both files at once where the file system can, so that a server which reads them meanwhile finds a pair that fits."""
        folder = self.directory / entry.name
        disk.make_directories(self.directory.parent)
        for path in (self.directory, folder):
            disk.make_directories(path, 0o750)
        modes = self._modes(entry)
        for path in (self.directory, folder):
            os.chown(path, -1, modes[path][1])
            path.chmod(modes[path][0])
        fresh = self.directory / f".{entry.name}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            disk.make_directories(fresh, 0o700)
            self._fill(fresh, wanted, modes[folder / KEY])
            os.chown(fresh, -1, modes[folder][1])
            fresh.chmod(modes[folder][0])
            try:
                disk.exchange(fresh, folder)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV):
                    raise
                self._fill(folder, wanted, modes[folder / KEY])
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _fill(self, folder: Path, pair: Pair, key: tuple[int, int]) -> None:
        disk.atomic_write(folder / KEY, pair.key, key[0], gid=key[1])
        disk.atomic_write(folder / CERTIFICATE, pair.chain, 0o644)

    def _modes(self, entry: Entry) -> dict[Path, tuple[int, int]]:
        """Permission bits and group of an entry's files. Raises CertificateError when its group does not exist."""
        folder = self.directory / entry.name
        own, gid = os.getegid(), os.getegid()
        if entry.group:
            try:
                gid = grp.getgrnam(entry.group).gr_gid
            except KeyError:
                raise CertificateError(f"certificate {entry.name}: there is no group {entry.group} on this host") from None
        # Others walk through it and list nothing; what is below is closed but for the group of each entry, which may be many.
        above = self.directory.stat().st_mode & 0o001 if self.directory.is_dir() else 0
        return {
            self.directory: (0o751 if entry.group else 0o750 | above, own),
            folder: (0o750, gid),
            folder / CERTIFICATE: (0o644, own),
            folder / KEY: (0o640 if entry.group else 0o600, gid),
        }

    def _repair(self, entry: Entry, check_mode: bool, outcome: Outcome) -> None:
        for path, (mode, gid) in self._modes(entry).items():
            status = path.stat()
            found, wanted = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid), (mode, os.geteuid(), gid)
            if found != wanted and str(path) not in outcome.repaired:
                outcome.repaired.append(str(path))
                header = {"before_header": str(path), "after_header": str(path)}
                before, after = (f"mode {bits:04o}, owner {uid}, group {group}\n" for bits, uid, group in (found, wanted))
                outcome.diff.append({**header, "before": before, "after": after})
                if not check_mode:
                    os.chown(path, os.geteuid(), gid)
                    path.chmod(mode)
