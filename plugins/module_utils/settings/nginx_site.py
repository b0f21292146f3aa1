# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sites of nginx come to: directories, files, and what has to be seen of each over new connections."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

FOLDER = "/etc/nginx/slipway.d"
CUT = "### slipway site "
"""Begins the line before each site in the text that has all of them; a site itself has no such line."""


def directories(sites: Sequence[Mapping[str, Any]], acme_root: str) -> list[dict[str, str]]:
    """Directories for converge, parents first. Those of state may be read by everyone: workers test the flags in them."""
    flags = [str(site["flags"]) for site in sites]
    above = [str(PurePosixPath(path).parent) for path in flags]
    paths = [FOLDER, "/etc/nginx/slipway", "/var/lib/slipway", acme_root, *above, *flags]
    return [{"path": path} for path in dict.fromkeys(paths)]


def files(text: str) -> list[dict[str, str]]:
    """Files for converge, from the text in which a line `### slipway site NAME` stands before each."""
    parts = re.split(rf"^{CUT}(.*)\n", text, flags=re.MULTILINE)[1:]
    return [{"path": f"{FOLDER}/site-{name}.conf", "content": content} for name, content in zip(parts[::2], parts[1::2])]


def checks(sites: Sequence[Mapping[str, Any]], http_port: int, https_port: int) -> list[dict[str, Any]]:
    """Checks for readback: each domain is answered by its site with its certificate, and plain HTTP leads to HTTPS."""
    found: list[dict[str, Any]] = []
    for site in sites:
        slots = "|".join(str(slot["name"]) for slot in site["slots"])
        for domain in (site["domain"], *(site.get("aliases") or [])):
            if domain.startswith("*"):
                continue
            here = {"kind": "http", "host": domain, "connect": "127.0.0.1"}
            found.append(
                {
                    **here,
                    "url": f"https://{domain}:{https_port}/.slipway/edge",
                    "insecure": True,
                    "certificate": site["certificate"],
                    "status": 204,
                    "headers": {"X-Slipway-Slot": f"^({slots})$"},
                }
            )
            location = {"Location": f"^https://{re.escape(domain)}[:/]"}
            found.append({**here, "url": f"http://{domain}:{http_port}/", "status": 308, "headers": location})
    return found
