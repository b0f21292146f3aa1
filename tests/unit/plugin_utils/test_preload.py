# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controlling process does once for all of its workers."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.executor import module_common
from ansible.module_utils import basic
from ansible_collections.slipway.server.plugins.plugin_utils import preload


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_is_loaded_is_not_searched_for_garbage_again() -> None:
    preload.collect_rarely()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == preload.RARELY


def test_garbage_is_still_collected() -> None:
    preload.collect_rarely()
    assert gc.isenabled()


def test_what_is_parsed_here_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_common, "compile", compile, raising=False)
    preload.sources()
    before = preload.parsed.cache_info()
    source = Path(str(basic.__file__)).read_bytes()
    assert isinstance(module_common.compile(source, "basic.py", "exec", ast.PyCF_ONLY_AST), ast.Module)
    assert preload.parsed.cache_info().misses == before.misses
    assert preload.parsed.cache_info().hits > before.hits


def test_every_import_is_found_and_those_below_are_optional() -> None:
    source = (
        "import ansible.module_utils.a\n"
        "def f():\n    from ansible.module_utils.b import c\n"
        "try:\n    import ansible.module_utils.d\nexcept ImportError:\n    pass\n"
        "x = {'no': 'import'}\n"
    )
    found = [module_common.ModuleDepFinder("m", tree) for tree in (preload.parsed(source), ast.parse(source))]
    assert found[0].submodules == found[1].submodules
    assert found[0].optional_imports == found[1].optional_imports
    assert len(found[0].submodules) == 3
    assert len(found[0].optional_imports) == 2


def test_what_is_to_run_is_compiled_as_ever() -> None:
    space: dict[str, int] = {}
    exec(preload._compile("x = 1", "x.py", "exec"), space)
    assert space["x"] == 1
