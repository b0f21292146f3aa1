# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling somebody how a transaction ended. It never fails a transaction; that it failed is remembered."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Mapping
from typing import Optional

from ..health import secrets
from . import hooks, transient
from .config import App, Notify
from .host import Host
from .records import stamp

OUTCOMES = ("confirmed", "rolled_back", "aborted", "kept", "failed")


def send(host: Host, app: App, facts: Mapping[str, object]) -> list[str]:
    """Tell of an end: `facts` with outcome, txn, release, from, to, reason and more; what went wrong, without secrets.

    Takes at most twice the timeout of the entry, so on the way back call it after the flags moved. Never raises.
    """
    if app.notify is None:
        return []
    told = {"app": app.name, "host": app.host, "domain": app.domain, "at": stamp(host.clock.now()), **facts}
    text = json.dumps(told, sort_keys=True, default=str)
    known = hooks.hidden(host, app)
    try:
        failures = [*_command(host, app, app.notify, text, known), *_post(host, app.notify, text)]
    except Exception as error:  # whatever it is, the transaction has ended well or badly without it
        failures = [f"{type(error).__name__}"]
    failures = [secrets.mask(failure, known)[: transient.WIDTH] for failure in failures]
    with contextlib.suppress(OSError):
        for failure in failures:
            host.records(app.name).remember("notify_failed", txn=facts.get("txn"), reason=failure)
    return failures


def _command(host: Host, app: App, notify: Notify, text: str, known: set[str]) -> list[str]:
    if not notify.command:
        return []
    name = f"slipway-{app.name}-notify-{uuid.uuid4().hex[:8]}"
    argv = transient.shell(notify.command)
    ended = transient.run(host.runner, name, argv, notify.timeout, {"SLIPWAY_APP": app.name}, data=text + "\n")
    last = " ".join(ended.last(known, 3))
    return [] if ended.ok else [f"the command {ended.why(notify.timeout)}" + (f": {last}" if last else "")]


def _post(host: Host, notify: Notify, text: str) -> list[str]:
    if not notify.url_file:
        return []
    url = (host.disk.read(host.layout.path(notify.url_file)) or "").strip()
    if not url:
        return [f"{notify.url_file} is missing or empty. Run site.yml: the role app writes it"]
    failure = ["no answer within the time"]
    # Resolving a name and a trickling answer know no timeout of their own.
    asking = threading.Thread(target=lambda: failure.__setitem__(0, post(url, text, notify.timeout) or ""), daemon=True)
    asking.start()
    asking.join(notify.timeout)
    return [f"the URL: {failure[0]}"] if failure[0] else []


def post(url: str, text: str, timeout: float) -> Optional[str]:
    """POST `text` as JSON; what went wrong, without the URL or any part of it that could be a secret.

    Certificates are verified against the system's authorities and redirects are not followed: the address is a secret.
    """
    import http.client
    import ssl
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            return "only https:// is accepted"
        line = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.hostname, parts.port or 443, timeout=timeout, context=context)
        with contextlib.closing(connection):
            connection.request("POST", line, text.encode(), {"Content-Type": "application/json", "User-Agent": "slipway"})
            status = connection.getresponse().status
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {error.verify_message}"
    except OSError as error:
        return f"no connection: {error.strerror or type(error).__name__}"
    except (ValueError, http.client.HTTPException) as error:
        return type(error).__name__
    return None if 200 <= status < 300 else f"answered with status {status}"
