# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
from urllib.parse import unquote, urlsplit

import pytest
from ansible_collections.slipway.server.plugins.module_utils.plan import env
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.module_utils.plan.inventories import PASSWORD, fleet, planned, spotik

LINE = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=("Cs",)), max_size=40)


def systemd_reads(text: str) -> dict[str, str]:
    """What systemd's parser makes of our double-quoted lines (src/basic/env-file.c): four escapes, nothing else."""
    found = {}
    for line in text.split("\n")[:-1]:
        name, quoted = line.split("=", 1)
        assert quoted[0] == quoted[-1] == '"'
        value, rest = "", quoted[1:-1]
        while rest:
            if rest[0] == "\\" and rest[1] in '"\\`$':
                value, rest = value + rest[1], rest[2:]
            else:
                assert rest[0] != '"'
                value, rest = value + rest[0], rest[1:]
        found[name] = value
    return found


@given(LINE)
def test_docker_and_systemd_give_the_value_back(value: str) -> None:
    assert env.render({"A": value}, "docker") == f"A={value}\n"
    assert systemd_reads(env.render({"A": value}, "systemd")) == {"A": value}


@settings(max_examples=25)
@given(st.lists(LINE, min_size=5, max_size=20))
def test_a_shell_gives_the_values_back(values: list[str]) -> None:
    named = {f"V{index}": value for index, value in enumerate(values)}
    script = env.render(named, "shell") + "".join(f'printf "%s\\0" "$V{index}"\n' for index in range(len(values)))
    out = subprocess.run(["sh"], input=script.encode("utf-8", "surrogateescape"), stdout=subprocess.PIPE, check=True).stdout
    assert out.decode("utf-8", "surrogateescape").split("\0")[:-1] == values


@pytest.mark.parametrize("consumer", env.CONSUMERS)
def test_line_breaks_are_refused_by_name(consumer: str) -> None:
    with pytest.raises(env.BadValue, match=r"^MOTD has a line break") as caught:
        env.render({"MOTD": "secret\nEVIL=1"}, consumer)
    assert "secret" not in str(caught.value)


@given(LINE.filter(bool))
def test_database_url_survives_any_password(password: str) -> None:
    url = env.database_url({"user": "u", "name": "d", "host": "10.0.0.5", "port": 6432}, password)
    parts = urlsplit(url)
    assert (parts.hostname, parts.port, parts.path) == ("10.0.0.5", 6432, "/d")
    assert unquote(parts.password or "") == password


def test_variables_of_the_demo() -> None:
    hosts = planned(fleet()).hosts
    values = env.variables(spotik(), hosts["web1"]["app_apps"]["spotik"])
    assert values["DATABASE_URL"] == f"postgresql://spotik:{PASSWORD}@10.87.0.13:6432/spotik_production"
    assert (values["WEB_CONCURRENCY"], values["RAILS_MAX_THREADS"], values["DB_POOL"]) == ("2", "5", "6")
    assert values["APP_ENV"] == "production"
    assert list(values) == sorted(values)
