# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing reports on the controller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ansible_collections.slipway.server.plugins.module_utils.host.files import atomic_write, make_directories, read_text


def write(texts: Mapping[Path, str], check_mode: bool) -> bool:
    """Write what is new or different; whether anything is. Raises OSError or ValueError."""
    changed = [path for path, text in texts.items() if read_text(path) != text]
    for path in changed if not check_mode else ():
        make_directories(path.parent)
        atomic_write(path, texts[path])
    return bool(changed)
