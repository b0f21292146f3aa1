# SPDX-License-Identifier: GPL-3.0-or-later
"""Run as `python -m tests.lint`: ansible-lint as it is, but for how it copies a task.

It copies every task anew for every rule, down to each string with its place in the file, which takes a third of its time.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

from ansiblelint import __main__, utils


def copied(node: Any) -> Any:
    """A copy of what YAML gives: mappings and lists are new ones of the same kind, what cannot change is shared."""
    if not isinstance(node, (dict, list)):
        return node
    new = copy.copy(node)
    for place, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        new[place] = copied(value)
    return new


def sanitized(task: dict[str, Any]) -> Any:
    """A copy without the linter's own keys, as ansible-lint makes it."""
    return utils._remove_task_internal_keys(copied(task))


if __name__ == "__main__":
    utils._sanitize_task = sanitized
    sys.exit(__main__.main(sys.argv))
