# SPDX-License-Identifier: GPL-3.0-or-later
"""The base layer of the images: Ruby, Puma and the PostgreSQL client of Debian 13, made once."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from pathlib import Path

from tests.app.image import Layer, chunks
from tests.app.releases import ARTIFACTS
from tests.fleet import engine, images
from tests.fleet.packages import FLEET
from tests.fleet.shell import FleetError, attempt, lock, run, step

HOST_IMAGE = "debian13"
PACKAGES = ("ruby", "puma", "ruby-pg", "ca-certificates")
# What makes a server of the host image has no place in an image of one program.
RECIPE = f"""
set -eu
export DEBIAN_FRONTEND=noninteractive SUDO_FORCE_REMOVE=yes
apt-get -q -y install --no-install-recommends {" ".join(PACKAGES)}
apt-mark manual {" ".join(PACKAGES)}
apt-get -q -y purge --autoremove --allow-remove-essential {" ".join(name for name in FLEET if name not in PACKAGES)}
rm -rf /var/cache/* /var/lib/apt/lists/* /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /var/log/* /root/.ssh
mkdir -p /var/cache/apt/archives/partial
"""


def ensure() -> Layer:
    """The base layer, from .fleet/artifacts or new."""
    mark = hashlib.sha256(RECIPE.encode()).hexdigest()[:12]
    described, blob = ARTIFACTS / f"base-{mark}.json", ARTIFACTS / f"base-{mark}.layer"
    with lock("base"):
        if not described.exists():
            engine.ensure()
            images.ensure([HOST_IMAGE])
            ARTIFACTS.mkdir(parents=True, exist_ok=True)
            with step("making the base layer of the application's images"):
                described.write_text(json.dumps(_make(blob)))
    values = json.loads(described.read_text())
    return Layer(values["digest"], values["size"], values["diff_id"], blob)


def _make(blob: Path) -> dict[str, object]:
    container = "slipway-build-app-base"
    attempt(["docker", "rm", "--force", container])
    host_image = images.resolve(HOST_IMAGE).host
    try:
        run(["docker", "run", "--interactive", "--network", "none", "--name", container, "--label", "slipway.build=1",
             host_image, "sh", "-s"], input=RECIPE, timeout=600)  # fmt: skip
        return _export(container, blob)
    finally:
        attempt(["docker", "rm", "--force", "--volumes", container])


def _export(container: str, blob: Path) -> dict[str, object]:
    plain = hashlib.sha256()
    with (
        blob.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export,
    ):
        for chunk in chunks(export.stdout):
            plain.update(chunk)
            packed.write(chunk)
    if export.returncode:
        raise FleetError(f"docker export of {container} failed with {export.returncode}: is there space left on the disk?")
    with blob.open("rb") as made:
        packed_digest = hashlib.file_digest(made, "sha256").hexdigest()
    return {"digest": f"sha256:{packed_digest}", "size": blob.stat().st_size, "diff_id": f"sha256:{plain.hexdigest()}"}
