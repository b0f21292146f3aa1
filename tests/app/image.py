# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives and container images as pure functions of their content: same content, same digest."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

EPOCH = 1_700_000_000
"""Modification time of every file, seconds since 1970."""
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """A compressed layer; `diff_id` is the digest of the uncompressed tar."""

    digest: str
    size: int
    diff_id: str
    data: bytes | Path

    def open(self) -> io.BufferedIOBase | io.BytesIO:
        return self.data.open("rb") if isinstance(self.data, Path) else io.BytesIO(self.data)


@dataclass(frozen=True)
class Image:
    """Everything a registry needs, as the bytes that the digests stand for."""

    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        return digest(self.manifest)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar(files: Mapping[str, bytes], prefix: str = "") -> bytes:
    """A tar of root-owned, world-readable files below `prefix`, with every directory before its content."""
    buffer = io.BytesIO()
    paths = {PurePosixPath(prefix, name): data for name, data in files.items()}
    directories = {parent for path in paths for parent in path.parents if str(parent) != "."}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted({*paths, *directories}):
            entry = tarfile.TarInfo(str(path))
            entry.mtime = EPOCH
            if path in directories:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size, entry.mode = len(paths[path]), 0o644
                archive.addfile(entry, io.BytesIO(paths[path]))
    return buffer.getvalue()


def compress(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def layer(data: bytes) -> Layer:
    """A layer from an uncompressed tar."""
    compressed = compress(data)
    return Layer(digest(compressed), len(compressed), digest(data), compressed)


def image(release: str, base: Layer, files: Mapping[str, bytes]) -> Image:
    """The image of a release: the base and one layer with its files in /app."""
    layers = (base, layer(tar(files, "app")))
    settings: dict[str, Any] = {
        "User": "1000:1000",
        "WorkingDir": "/app",
        "Cmd": ["puma", "-C", "config/puma.rb"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/tmp", "BIND=0.0.0.0"],
        "ExposedPorts": {"3000/tcp": {}},
        "Labels": {"org.opencontainers.image.title": "spotik", "org.opencontainers.image.version": release},
    }
    config = _json({
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": step} for step in ("base", f"release {release}")],
    })  # fmt: skip
    manifest = _json({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "size": len(config), "digest": digest(config)},
        "layers": [{"mediaType": LAYER_TYPE, "size": each.size, "digest": each.digest} for each in layers],
    })  # fmt: skip
    return Image(layers, config, manifest)


def save(made: Image, reference: str, target: Path) -> None:
    """Write the file that `docker load` reads."""
    names = [each.digest.removeprefix("sha256:") + ".tar.gz" for each in made.layers]
    name = digest(made.config).removeprefix("sha256:") + ".json"
    with tarfile.open(target, "w") as archive:
        for each, file in zip(made.layers, names, strict=True):
            _add(archive, file, each.size, each.open())
        _add(archive, name, len(made.config), io.BytesIO(made.config))
        listing = _json([{"Config": name, "RepoTags": [reference], "Layers": names}])
        _add(archive, "manifest.json", len(listing), io.BytesIO(listing))


def _add(archive: tarfile.TarFile, name: str, size: int, data: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    with data:
        archive.addfile(entry, data)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def chunks(source: Any, size: int = 1 << 20) -> Iterable[bytes]:
    while data := source.read(size):
        yield data
