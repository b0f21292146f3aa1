# SPDX-License-Identifier: GPL-3.0-or-later
"""Host images: a fresh server of one release, with the archives of what tests install.

`slipway-base:<release>` is the bare system, `slipway-host:<release>` adds sshd and the archives. Both carry the
hash of their recipe as a label and are built again only when that changed.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fleet import engine, mirrors
from tests.fleet.packages import FLEET, PREFETCHED
from tests.fleet.shell import FleetError, attempt, lock, run, say, step

CODENAMES = {"12": "bookworm", "13": "trixie"}
UBUNTU = ("22.04", "24.04")
RECIPE_LABEL = "slipway.recipe"
RECIPE = Path(__file__).with_name("recipe.sh")
BOOTSTRAP_PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-apt,sudo,ca-certificates,iproute2,procps"
PULL_TIMEOUT = 120.0
"""Seconds for a registry to deliver a base image; without a registry the answer comes much sooner."""


@dataclass(frozen=True)
class Image:
    """One release: `tag` as in slipway-host:<tag>, `upstream` the image of a public registry."""

    tag: str
    upstream: str
    codename: str | None

    @property
    def base(self) -> str:
        return f"slipway-base:{self.tag}"

    @property
    def host(self) -> str:
        return f"slipway-host:{self.tag}"


def resolve(name: str) -> Image:
    """The image meant by "12", "debian12" or "ubuntu24.04". Raises FleetError for anything else."""
    plain = name.removeprefix("debian")
    if plain in CODENAMES:
        return Image(plain, f"debian:{plain}", CODENAMES[plain])
    if name.removeprefix("ubuntu") in UBUNTU:
        version = name.removeprefix("ubuntu")
        return Image(f"ubuntu{version}", f"ubuntu:{version}", None)
    known = [f"debian{key}" for key in CODENAMES] + [f"ubuntu{version}" for version in UBUNTU]
    raise FleetError(f"unknown image {name!r}: use one of {', '.join(known)}")


def ensure(names: Iterable[str]) -> None:
    """Build what is missing or out of date, in parallel. The engine must be up."""
    images = sorted({resolve(name) for name in names}, key=lambda image: image.tag)
    with ThreadPoolExecutor(max_workers=len(images) or 1) as pool:
        list(pool.map(_ensure, images))


def image_id(name: str) -> str:
    """The engine's id of the built host image."""
    return run(["docker", "image", "inspect", "--format", "{{.Id}}", resolve(name).host])


def recipe_hash(image: Image) -> str:
    """Changes whenever a rebuilt image would differ; mirrors are left out, they only deliver."""
    parts = (RECIPE.read_text(), base_hash(image), *FLEET, "|", *PREFETCHED)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def base_hash(image: Image) -> str:
    return hashlib.sha256(f"{image.upstream} {BOOTSTRAP_PACKAGES}".encode()).hexdigest()[:16]


def _label(reference: str) -> str:
    form = f'{{{{index .Config.Labels "{RECIPE_LABEL}"}}}}'
    return attempt(["docker", "image", "inspect", "--format", form, reference]).stdout.strip()


def _ensure(image: Image) -> None:
    if _label(image.host) == recipe_hash(image):
        return
    with lock(f"image-{image.tag}"):
        if _label(image.base) != base_hash(image):
            _make_base(image)
        if _label(image.host) != recipe_hash(image):
            with step(f"building {image.host}"):
                _make_host(image)


def _make_base(image: Image) -> None:
    """Take the base from a registry where one answers, else make it from the machine's own Debian mirror."""
    label = f"LABEL {RECIPE_LABEL}={base_hash(image)}"
    if attempt(["docker", "image", "inspect", image.upstream]).returncode:
        say(f"  → pulling {image.upstream}")
        pulled = attempt(["docker", "pull", "--quiet", image.upstream], timeout=PULL_TIMEOUT)
        if pulled.returncode:
            _bootstrap(image, label, pulled.stderr.strip())
            return
    container = run(["docker", "create", image.upstream, "true"])
    try:
        run(["docker", "commit", "--change", label, container, image.base])
    finally:
        attempt(["docker", "rm", container])


def _bootstrap(image: Image, label: str, registry_error: str) -> None:
    found = mirrors.of_this_machine()
    if image.codename is None or found is None or os.geteuid():
        raise FleetError(
            f"{image.upstream} cannot be pulled ({registry_error}), and making it here needs root on a Debian machine "
            "and works for Debian only. Pull the image on a machine with a registry, or use another image."
        )
    say(f"  → no registry delivers {image.upstream}: using this machine's Debian mirror")
    engine.install(mmdebstrap="mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="slipway-base-") as work, step(f"making {image.base} from the Debian archive"):
        sources, archive = Path(work) / "debian.sources", Path(work) / "base.tar"
        sources.write_text(found.sources(image.codename))
        # One pass of apt instead of debootstrap's two of dpkg: a third of the time, and security updates are in.
        make = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={BOOTSTRAP_PACKAGES}", image.codename]
        run(["env", f"TMPDIR={work}", *make, str(archive), str(sources)], timeout=1200)
        run(["docker", "import", "--change", label, "--change", 'CMD ["/bin/bash"]', str(archive), image.base], timeout=300)


def _make_host(image: Image) -> None:
    """Run the recipe in a container of the base and commit it: works alike with every builder and none."""
    builder = f"slipway-build-{image.tag}"
    attempt(["docker", "rm", "--force", builder])
    environment = {
        "FLEET": " ".join(FLEET),
        "PREFETCHED": " ".join(PREFETCHED),
        **{key: os.environ[key] for key in ("http_proxy", "https_proxy", "no_proxy") if key in os.environ},
    }
    flags = [item for key, value in environment.items() for item in ("--env", f"{key}={value}")]
    argv = ["docker", "run", "--interactive", "--network", "host", "--name", builder, "--label", "slipway.build=1"]
    try:
        output = run([*argv, *flags, image.base, "bash", "-s"], input=RECIPE.read_text(), timeout=2400)
        log = Path(tempfile.gettempdir()) / f"slipway-build-{image.tag}.log"
        log.write_text(output)
        changes = [f"LABEL {RECIPE_LABEL}={recipe_hash(image)}", 'CMD ["/lib/systemd/systemd"]']
        commit = [item for change in changes for item in ("--change", change)]
        run(["docker", "commit", *commit, builder, image.host], timeout=300)
        attempt(["docker", "image", "prune", "--force", "--filter", f"label={RECIPE_LABEL}"], timeout=120)
    finally:
        attempt(["docker", "rm", "--force", "--volumes", builder])
