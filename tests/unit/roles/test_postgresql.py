# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[3] / "roles" / "postgresql"


def rendered(text, **variables):
    return Templar(loader=DataLoader(), variables=variables).template(trust_as_template(text))


def test_a_repository_is_trusted_for_its_own_key_only():
    text = (ROLE / "templates/etc/apt/sources.list.d/slipway-postgresql.sources.j2").read_text()
    repository = {"uri": "https://packages.test/apt", "suite": "trixie-pgdg", "key": "-----BEGIN"}
    said = rendered(text, postgresql_repository=repository, ansible_managed="managed")
    fields = dict(line.split(": ", 1) for line in said.splitlines() if not line.startswith("#"))
    files = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__postgresql_repository_files"]
    assert fields == {
        "Types": "deb",
        "URIs": "https://packages.test/apt",
        "Suites": "trixie-pgdg",
        "Components": "main",
        "Signed-By": files[0]["path"],
    }
    assert files[1]["path"] == "/etc/apt/sources.list.d/slipway-postgresql.sources"


def test_the_chosen_version_is_installed_and_used():
    names = yaml.safe_load((ROLE / "tasks/install.yml").read_text())[1]["slipway.server.packages"]["names"]
    version = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__postgresql_version"]
    archive = {"versions": {"postgresql": "17"}}
    for chosen, package, used in (("", "postgresql", "17"), ("18", "postgresql-18", "18")):
        variables = {"postgresql_version": chosen, "postgresql_packages": ["x"], "__postgresql_installed": archive}
        assert rendered(names, **variables) == [package, "x"]
        assert rendered(version, **variables) == used


def test_a_certificate_of_its_own_is_set_unless_the_settings_say_otherwise():
    text = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__postgresql_settings"]
    assert rendered(text, postgresql_certificate={}, postgresql_settings={"jit": False}) == {"jit": False}
    own = rendered(text, postgresql_certificate={"domains": ["db1.test"]}, postgresql_settings={"ssl_key_file": "/else"})
    assert own == {"ssl": True, "ssl_cert_file": "/etc/slipway/tls-postgresql/postgresql/fullchain.pem", "ssl_key_file": "/else"}


def test_what_comes_before_the_package_is_written_once_where_the_package_is_known():
    text = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__postgresql_unprepared"]
    known = {"slipway_packages": {"asked": ["nginx", "postgresql"]}}
    assert rendered(text, postgresql_version="", **known) is False
    assert rendered(text, postgresql_version="")
    assert rendered(text, postgresql_version="", slipway_packages={"asked": ["nginx"]})
    assert rendered(text, postgresql_version="18", **known)
