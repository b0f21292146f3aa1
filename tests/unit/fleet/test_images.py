# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses

import pytest

from tests.fleet import images
from tests.fleet.packages import FLEET, PREFETCHED
from tests.fleet.shell import FleetError


@pytest.mark.parametrize(
    ("name", "host", "upstream"),
    [
        ("12", "slipway-host:12", "debian:12"),
        ("debian13", "slipway-host:13", "debian:13"),
        ("ubuntu24.04", "slipway-host:ubuntu24.04", "ubuntu:24.04"),
        ("22.04", "slipway-host:ubuntu22.04", "ubuntu:22.04"),
    ],
)
def test_names_of_images(name: str, host: str, upstream: str) -> None:
    image = images.resolve(name)
    assert (image.host, image.upstream) == (host, upstream)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(FleetError, match=r"'alpine'.*debian12.*ubuntu24.04"):
        images.resolve("alpine")


def test_the_hash_follows_release_and_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.resolve("13")
    before = images.recipe_hash(image)
    assert before == images.recipe_hash(dataclasses.replace(image))
    assert before != images.recipe_hash(images.resolve("12"))
    monkeypatch.setattr(images, "PREFETCHED", (*PREFETCHED, "cowsay"))
    assert before != images.recipe_hash(image)


def test_package_lists_name_nothing_twice() -> None:
    names = [*FLEET, *PREFETCHED]
    assert len(names) == len(set(names))
