# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates from an authority that speaks ACME: certbot asks and renews, a hook proves and installs what it got.

The challenge (http-01, RFC 8555 8.3) is served by the host's own web server. Whatever fails, the pair that is there stays.
"""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..host import files as disk
from ..host.runner import Result, Runner
from .certificates import ISSUER, CertificateError, Entry, Facts, Outcome, Store

MIN_DAYS = 10  # certbot renews with 30 days left: fewer than this means that it fails
HOOK = Path("/usr/local/sbin/slipway-certificate")
KEYS = {"ecdsa": ["--key-type", "ecdsa", "--elliptic-curve", "secp256r1"], "rsa": ["--key-type", "rsa", "--rsa-key-size", "3072"]}
TIMEOUT = 300.0  # seconds, for one certificate
CHALLENGE = "/.well-known/acme-challenge/"


@dataclass(frozen=True)
class Account:
    """Which authority is asked, as whom. `ca` is a file with its root when the host does not trust it; `webroot` is served."""

    server: str
    email: str = ""
    ca: str = ""
    webroot: Path = Path("/var/lib/slipway/acme")
    http_port: int = 80
    key_type: str = "ecdsa"

    def argv(self, entry: Entry) -> list[str]:
        """The command that asks for one certificate, or keeps it when it is fit."""
        contact = ["--email", self.email] if self.email else ["--register-unsafely-without-email"]
        names = [word for domain in entry.domains for word in ("--domain", domain)]
        # The key stays the same over renewals: a handshake between the two renames of a renewal then finds a pair that fits.
        policy = ["--keep-until-expiring", "--renew-with-new-domains", "--reuse-key", "--deploy-hook", str(HOOK)]
        ask = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--webroot", "--webroot-path", str(self.webroot)]
        return [*ask, "--server", self.server, *contact, *KEYS[self.key_type], *policy, "--cert-name", entry.name, *names]

    def environment(self) -> dict[str, str]:
        """What certbot needs to know of the authority's own certificate."""
        return {"REQUESTS_CA_BUNDLE": self.ca} if self.ca else {}


def reasons(result: Result) -> str:
    """What certbot says of a failure: the answer of the authority for each domain, else its last lines."""
    text = result.text()
    found: list[str] = []
    for line in text.splitlines():
        name, _colon, value = line.strip().partition(":")
        if name == "Domain":
            found.append(value.strip())
        elif name in ("Type", "Detail") and found:
            found[-1] += f": {value.strip()}"
    if found:
        return "; ".join(dict.fromkeys(found))
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not re.match(r"\s*(Saving debug log|Ask for help)", line)
    ]
    return " ".join(lines[-3:]) or f"certbot ended with status {result.rc}"


def ask(port: int, path: str, host: str) -> str:
    """What the web server of this machine answers for `host`; empty unless it says 200. Raises OSError, HTTPException."""
    server = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        server.request("GET", path, headers={"Host": host})
        answer = server.getresponse()
        return answer.read().decode("ascii", "replace") if answer.status == 200 else ""
    finally:
        server.close()


class Issuer:
    """Asks for what is missing and proves what came; `ask` is replaced by tests."""

    def __init__(self, runner: Runner, store: Store, account: Account, ask: Callable[[int, str, str], str] = ask) -> None:
        self.runner = runner
        self.store = store
        self.account = account
        self.ask = ask

    def missing(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries whose pair is not from an authority, does not cover its domains, or has not been renewed in time."""
        return [entry for entry in entries if entry.source == "acme" and not self._has(entry)]

    def issue(self, entries: Sequence[Entry], check_mode: bool = False) -> Outcome:
        """Get what is missing; raises CertificateError with the reasons of all entries that failed, when all were tried."""
        outcome, failed = Outcome(), []
        for entry in self.missing(entries):
            before = self.store.present(entry.name)[1]
            outcome.written.append(entry.name)
            after = None
            if not check_mode:
                try:
                    after = self._one(entry)
                except CertificateError as error:
                    failed.append(str(error))
                    continue
                outcome.facts[entry.name] = after
            wanted = after.shown() if after else f"names: {', '.join(entry.domains)}\nauthority: {self.account.server}\n"
            header = str(self.store.directory / entry.name)
            shown = before.shown() if before else ""
            outcome.diff.append({"before_header": header, "after_header": header, "before": shown, "after": wanted})
        if failed:
            raise CertificateError("\n".join(f"- {line}" for line in failed))
        return outcome

    def _has(self, entry: Entry) -> bool:
        pair, facts = self.store.present(entry.name)
        return bool(facts and ISSUER not in facts.issuer) and self.store.fits(entry, pair, facts, MIN_DAYS)

    def _one(self, entry: Entry) -> Facts:
        where = f"certificate {entry.name}"
        unserved = [line for domain in entry.domains for line in self._unserved(domain)]
        if unserved:
            raise CertificateError(f"{where}: the authority was not asked: " + "; ".join(unserved))
        result = self.runner.run(self.account.argv(entry), timeout=TIMEOUT, env=self.account.environment())
        if not result.ok:
            raise CertificateError(
                f"{where}: {self.account.server} did not issue it: {reasons(result)}."
                f" Every domain has to lead to this host on port {self.account.http_port}; the old certificate stays"
            )
        pair, facts = self.store.present(entry.name)
        if facts is None or ISSUER in facts.issuer or not self.store.fits(entry, pair, facts, MIN_DAYS):
            # certbot keeps what it has and is silent: its hook was killed when that came.
            names = {"RENEWED_LINEAGE": f"/etc/letsencrypt/live/{entry.name}", "RENEWED_DOMAINS": " ".join(entry.domains)}
            result = self.runner.run([str(HOOK)], timeout=60, env=names)
            pair, facts = self.store.present(entry.name)
        if facts is None or ISSUER in facts.issuer or not self.store.fits(entry, pair, facts, MIN_DAYS):
            raise CertificateError(f"{where}: it was issued but {HOOK} did not install it: {reasons(result)}; the old one stays")
        return facts

    def _unserved(self, domain: str) -> list[str]:
        """Whether this host itself serves challenges for `domain`: the authority counts failures against a limit."""
        name = f"slipway-{os.urandom(8).hex()}"
        path = self.account.webroot / CHALLENGE.strip("/") / name
        disk.make_directories(path.parent)
        disk.atomic_write(path, name)
        try:
            served = self.ask(self.account.http_port, CHALLENGE + name, domain) == name
        except (http.client.HTTPException, OSError) as error:
            return [f"http://{domain}{CHALLENGE} is not served by this host ({error}); is nginx up, with a site for it?"]
        finally:
            disk.remove(path)
        return [] if served else [f"http://{domain}{CHALLENGE} is answered with something else than the file under {path.parent}"]
