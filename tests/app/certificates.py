# SPDX-License-Identifier: GPL-3.0-or-later
"""A throw-away certificate authority in .fleet/ca and the certificates it signs."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.fleet.shell import STATE, lock

DIRECTORY = STATE / "ca"
CA = DIRECTORY / "ca.pem"
CA_KEY = DIRECTORY / "ca.key"
CA_DAYS, DAYS = 3650, 398


def authority() -> Path:
    """The certificate of the authority, made at the first call."""
    with lock("ca"):
        if not CA.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "slipway test authority")])
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = _builder(name, name, key.public_key(), CA_DAYS)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            builder = builder.add_extension(usage, critical=True)
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            _write(CA_KEY, _pem(key))
            _write(CA, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return CA


def issue(names: list[str]) -> tuple[str, str]:
    """A certificate chain and its key, in PEM, for DNS names and IP addresses."""
    authority()
    issuer = x509.load_pem_x509_certificate(CA.read_bytes())
    signer = serialization.load_pem_private_key(CA_KEY.read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{CA_KEY} holds another kind of key: remove {DIRECTORY} and start again")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    builder = _builder(subject, issuer.subject, key.public_key(), DAYS)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    # Python 3.13 refuses a certificate that does not name its authority's key (VERIFY_X509_STRICT).
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(authority_key, critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    chain = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + CA.read_bytes()
    return chain.decode(), _pem(key).decode()


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.timezone.utc)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=days))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
