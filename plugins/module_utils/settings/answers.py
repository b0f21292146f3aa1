# SPDX-License-Identifier: GPL-3.0-or-later
"""What a web server answers, and the certificate it shows."""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class OtherCertificate(Exception):
    """A service shows another certificate than the declared one; both are SHA-256 fingerprints."""

    def __init__(self, path: Path, declared: str, served: str) -> None:
        self.declared, self.served = f"certificate {declared} ({path})", served
        super().__init__(f"{self.declared} is not served")


def compare_certificate(path: Path, served: bytes) -> None:
    """Raise OtherCertificate unless `served` (DER) is the first certificate in the PEM file `path`; OSError when unreadable."""
    text = path.read_text(encoding="ascii", errors="replace")
    footer = "-----END CERTIFICATE-----"
    declared = ssl.PEM_cert_to_DER_cert(text[text.find("-----BEGIN CERTIFICATE-----") : text.find(footer) + len(footer)])
    if declared != served:
        raise OtherCertificate(path, hashlib.sha256(declared).hexdigest()[:16], hashlib.sha256(served).hexdigest()[:16])


def fetch(check: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
    """Status and headers of one request; `connect` is the address to connect to, `host` the name asked for.

    Raises OSError when there is no answer, OtherCertificate when the one served is not the first one in the file `certificate`.
    """
    scheme, rest = str(check["url"]).split("://", 1)
    authority, _slash, path = rest.partition("/")
    name, _colon, port = authority.partition(":")
    address = str(check.get("connect") or name)
    number = int(port or (443 if scheme == "https" else 80))
    raw = socket.create_connection((address, number), timeout=float(check.get("timeout", 10)))
    try:
        stream: socket.socket = raw
        if scheme == "https":
            context = _context(check)
            stream = context.wrap_socket(raw, server_hostname=str(check.get("host") or name))
            if check.get("certificate"):
                compare_certificate(Path(str(check["certificate"])), stream.getpeercert(True) or b"")
        connection = http.client.HTTPConnection(name, number)
        connection.sock = stream
        connection.request("GET", "/" + path, headers={"Host": str(check.get("host") or name), "Connection": "close"})
        answer = connection.getresponse()
        headers = {key.lower(): value for key, value in answer.getheaders()}
        connection.close()
    except http.client.HTTPException as error:
        raise OSError(str(error) or type(error).__name__) from error
    else:
        return answer.status, headers
    finally:
        raw.close()


def _context(check: Mapping[str, Any]) -> ssl.SSLContext:
    if not check.get("insecure"):
        return ssl.create_default_context(cafile=check.get("ca"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
