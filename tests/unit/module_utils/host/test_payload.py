# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ansible_collections.slipway.server.plugins.module_utils.host import payload

LIBRARY = Path(payload.__file__).parents[1]


def parsed(name, is_package, source):
    """The same by Python's own parser."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = name.split(".") if name else []
            up = node.level - (1 if is_package else 0)
            base = [*parts[: len(parts) - up], *(node.module.split(".") if node.module else [])]
            yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)


def test_every_import_of_the_library_is_found():
    for path in sorted(LIBRARY.rglob("*.py")):
        name = ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        package = path.name == "__init__.py"
        text = path.read_text(encoding="utf-8")
        assert set(payload.imports(name, package, text)) == set(parsed(name, package, text)), path


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("from . import a, b as c", {"x", "x.a", "x.b"}),
        ("from .. import a", {"", "a"}),
        ("from .a.b import c  # why", {"x.a.b", "x.a.b.c"}),
        ("if True:\n    from .a import (\n    b,\n    c as d,\n)", {"x.a", "x.a.b", "x.a.c"}),
        ("from __future__ import annotations\nimport os\nfrom os import path", set()),
    ],
)
def test_forms_of_an_import(line, names):
    assert set(payload.imports("x.y", False, line)) == set(parsed("x.y", False, line)) == names
