# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives and images: the same content gives the same digest, and every digest is that of the bytes."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from tests.app import image, releases

BASE = image.layer(b"base")
FILES = {"config.ru": b"run 1", "lib/a.rb": b"a", "RELEASE": b"v1\n"}


def test_the_order_of_the_files_does_not_matter():
    assert image.tar(FILES) == image.tar(dict(reversed(FILES.items())))
    assert image.image("v1", BASE, FILES).digest == image.image("v1", BASE, dict(reversed(FILES.items()))).digest


def test_any_difference_gives_another_digest():
    other = {**FILES, "RELEASE": b"v2\n"}
    assert image.compress(image.tar(FILES)) != image.compress(image.tar(other))
    assert image.image("v1", BASE, FILES).digest != image.image("v1", BASE, other).digest


def test_the_tar_belongs_to_root_and_is_readable_by_all():
    with tarfile.open(fileobj=io.BytesIO(image.tar(FILES, "app"))) as archive:
        found = {entry.name: (entry.mode, entry.uid, entry.mtime) for entry in archive}
    assert found == {
        "app": (0o755, 0, image.EPOCH), "app/lib": (0o755, 0, image.EPOCH),
        **{f"app/{name}": (0o644, 0, image.EPOCH) for name in FILES},
    }  # fmt: skip
    assert next(iter(found)) == "app"


def test_the_manifest_describes_the_bytes():
    made = image.image("v1", BASE, FILES)
    manifest, config = json.loads(made.manifest), json.loads(made.config)
    assert manifest["config"] == {"mediaType": image.CONFIG_TYPE, "size": len(made.config), "digest": image.digest(made.config)}
    for entry, layer, diff_id in zip(manifest["layers"], made.layers, config["rootfs"]["diff_ids"], strict=True):
        with layer.open() as file:
            data = file.read()
        assert (entry["digest"], entry["size"]) == (image.digest(data), len(data))
        assert diff_id == image.digest(gzip.decompress(data))
    assert config["config"]["User"] == "1000:1000"
    assert config["config"]["ExposedPorts"] == {"3000/tcp": {}}


def test_a_saved_image_holds_what_its_listing_names(tmp_path):
    target = tmp_path / "image.tar"
    image.save(image.image("v1", BASE, FILES), "spotik:v1", target)
    with tarfile.open(target) as archive:
        listing = json.load(archive.extractfile("manifest.json"))[0]
        assert set(archive.getnames()) == {listing["Config"], *listing["Layers"], "manifest.json"}
    assert listing["RepoTags"] == ["spotik:v1"]


def test_the_content_of_a_release():
    files = releases.content("bad", {"FAULT_HEALTH": "slow:2", "CRASH_AFTER": "5"})
    assert files["RELEASE"] == b"bad\n"
    assert files["faults.env"] == b"CRASH_AFTER=5\nFAULT_HEALTH=slow:2\n"
    assert {"config.ru", "config/puma.rb", "lib/application.rb"} <= set(files)
    assert "faults.env" not in releases.content("v1", {})


@pytest.mark.parametrize(("name", "faults"), [("../v1", {}), ("", {}), ("v1", {"lower": "1"}), ("v1", {"FAULT": "a\nb"})])
def test_what_cannot_be_stored_is_refused(name, faults):
    with pytest.raises(ValueError, match="not"):
        releases.content(name, faults)


def test_the_record_keeps_other_releases(tmp_path, monkeypatch):
    monkeypatch.setattr(releases, "RECORD", tmp_path / "releases.json")
    releases.record("v1", {"sha256": "a"})
    releases.record("v2", {"sha256": "b"})
    releases.record("v1", {"sha256": "c"})
    assert releases.recorded() == {"v1": {"sha256": "c"}, "v2": {"sha256": "b"}}
